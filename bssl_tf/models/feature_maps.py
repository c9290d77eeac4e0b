"""The maps of a backbone by stride, before they are pooled into features: what a detector or a segmenter builds on.

`registry.FEATURE_LAYERS` names, for each network, the layers whose outputs may serve. Nothing is added to the network:
the maps are tensors that it computes anyway, so that its weights and its pooled features stay what they are. In other
networks, all layers may.
"""

from __future__ import annotations

import math
import re
from typing import Any

from bssl_tf.backend import keras, tf
from bssl_tf.errors import NetworkError
from bssl_tf.models.registry import FEATURE_LAYERS


def feature_maps(model: keras.Model) -> dict[int, tf.Tensor]:
    """The last map of each stride on the way to the pooled features.

    Args:
        model: from `build_backbone`, or a copy of such a network (`binarize`, `float_twin`, `copy_of`), which keeps its
            name and those of its layers.

    Returns:
        Stride -> Keras tensor [B, H, W, C] float32, finest first. A map of stride s is the image's height / s high, for
        heights that are multiples of 32; else rounded up, or one less in a QuickNet. Not all of `xnor_net`'s pools pad,
        so that its maps have up to two rows less. Which strides there are depends on the network and on the image size,
        as stems differ. The mean over the coarsest map is the pooled features, but for `xnor_net`, whose features come
        from wide layers that span the whole map.

        Of a network that is not registered, strides are rounded to powers of two, and a model among its layers counts
        as one layer: of the maps within, only the last is found.

    Raises:
        NetworkError: the network has no maps.
    """
    pattern = FEATURE_LAYERS.get(model.name)
    if pattern is not None:
        strides = _strides(model)
        # Layers come in the order of the network: the last of a stride stays. Each was first called to build it.
        maps = {
            strides[layer.name]: layer.get_output_at(0) for layer in model.layers if re.fullmatch(pattern, layer.name)
        }
        if maps:
            return dict(sorted(maps.items()))
    maps = _maps_by_size(model)
    if not maps:
        raise NetworkError(
            f"no layer of {model.name!r} gives a map [H, W, C], so it has no feature maps",
            "End its trunk with GlobalAveragePooling2D or Flatten, so that the map before it is a layer's output",
        )
    return dict(sorted(maps.items()))


def _maps_by_size(model: keras.Model) -> dict[int, tf.Tensor]:
    """The last map of each stride, as the sizes of images and maps show it."""
    height = model.inputs[0].shape[1]
    maps: dict[int, tf.Tensor] = {}
    for layer in model.layers:
        if isinstance(layer, keras.layers.InputLayer):
            continue
        output = layer.get_output_at(0)
        if isinstance(output, (list, tuple)) or len(output.shape) != 4 or not height or not output.shape[1]:
            continue
        # A map is smaller than the image over its stride where convolutions do not pad, and larger where sizes are odd.
        maps[2 ** max(0, round(math.log2(height / output.shape[1])))] = output
    return maps


def _strides(model: keras.Model) -> dict[str, int]:
    """By how much each layer's output is coarser than the image, by the layer's name."""
    total: dict[str, int] = {}
    for layer in model.layers:
        before = [total[source.name] for source in _inbound(layer.inbound_nodes[0])]
        own = getattr(layer, "strides", 1)
        total[layer.name] = max(before, default=1) * (own if isinstance(own, int) else own[0])
    return total


def _inbound(node: Any) -> list[Any]:
    """The layers that feed a node: Keras gives one alone as it is, several as a list."""
    layers = node.inbound_layers
    return list(layers) if isinstance(layers, (list, tuple)) else [layers]
