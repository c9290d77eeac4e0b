"""The maps of a backbone by stride, before they are pooled into features: what a detector or a segmenter builds on.

`registry.FEATURE_LAYERS` names, for each network, the layers whose outputs may serve. Nothing is added to the network:
the maps are tensors that it computes anyway, so that its weights and its pooled features stay what they are.
"""

from __future__ import annotations

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

    Raises:
        NetworkError: the model's name is not that of a registered network, or it has none of its layers.
    """
    pattern = FEATURE_LAYERS.get(model.name)
    if pattern is None:
        raise NetworkError(
            f"{model.name!r} is not a registered network, so its feature maps are not known",
            "Build it with build_backbone, or add its layers to FEATURE_LAYERS in bssl_tf/models/registry.py",
        )
    strides = _strides(model)
    # Layers come in the order of the network, so that the last of a stride stays. Each was first called to build it.
    maps = {strides[layer.name]: layer.get_output_at(0) for layer in model.layers if re.fullmatch(pattern, layer.name)}
    if not maps:
        raise NetworkError(
            f"no layer of {model.name!r} is called {pattern}, so its feature maps are not known",
            "Correct FEATURE_LAYERS in bssl_tf/models/registry.py",
        )
    return dict(sorted(maps.items()))


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
