"""Names of networks and what builds them. README.md beside this file says how to add one."""

from __future__ import annotations

import difflib
from collections.abc import Callable
from typing import Any

from bssl_tf.backend import keras
from bssl_tf.errors import NetworkError
from bssl_tf.models.binary_resnet import binary_resnet
from bssl_tf.models.bireal_net import bireal_net18
from bssl_tf.models.efficientnet_lite0 import efficientnet_lite0
from bssl_tf.models.float_resnet import float_resnet
from bssl_tf.models.quicknet import quicknet, quicknet_large, quicknet_small, quicknet_tiny
from bssl_tf.models.reactnet import reactnet_a
from bssl_tf.models.resnet import resnet18, resnet34, resnet50
from bssl_tf.models.xnor_net import xnor_net

BACKBONES: dict[str, Callable[..., keras.Model]] = {
    "binary_resnet": binary_resnet,
    "bireal_net18": bireal_net18,
    "efficientnet_lite0": efficientnet_lite0,
    "float_resnet": float_resnet,
    "quicknet": quicknet,
    "quicknet_large": quicknet_large,
    "quicknet_small": quicknet_small,
    "quicknet_tiny": quicknet_tiny,
    "reactnet_a": reactnet_a,
    "resnet18": resnet18,
    "resnet34": resnet34,
    "resnet50": resnet50,
    "xnor_net": xnor_net,
}

# The layers, as a regular expression of their names, that end a block of the trunk: see `models.feature_maps`.
FEATURE_LAYERS: dict[str, str] = {
    "binary_resnet": r"stage\d+_block\d+_add",
    "bireal_net18": r"stage\d+_block\d+_add",
    "efficientnet_lite0": r"stage\d+_block\d+_(add|project_norm)|top_relu",
    "float_resnet": r"stage\d+_block\d+_relu2",
    # With the ReLU that the next section sees, as in the pooled features.
    "quicknet": r"section\d+_transition_relu|features_relu",
    "quicknet_large": r"section\d+_transition_relu|features_relu",
    "quicknet_small": r"section\d+_transition_relu|features_relu",
    "quicknet_tiny": r"section\d+_transition_relu|features_relu",
    "reactnet_a": r"block\d+_channel_shift_out",
    "resnet18": r"stage\d+_block\d+_relu2",
    "resnet34": r"stage\d+_block\d+_relu2",
    "resnet50": r"stage\d+_block\d+_relu3",
    # What comes after has lost its place in the picture: the first wide layer spans the whole map.
    "xnor_net": r"stem_pool|conv\d+_conv|conv5_pool",
}


def build_backbone(name: str, image_size: int, channels: int, arguments: dict[str, Any]) -> keras.Model:
    """Builds the network `name` with fresh weights from Keras's seeded initialisers.

    Args:
        name: a key of `BACKBONES`.
        image_size: height and width in pixels.
        channels: image channels, 1 or 3.
        arguments: what the builder takes beside, such as `width`.

    Raises:
        NetworkError: unknown name or unknown argument.
        ConfigError: an argument is out of range.
    """
    builder = BACKBONES.get(name)
    if builder is None:
        near = difflib.get_close_matches(name, BACKBONES, n=1)
        hint = f"Did you mean {near[0]}? " if near else ""
        raise NetworkError(f"no network is called {name!r}", f"{hint}Choose one of {', '.join(sorted(BACKBONES))}")
    try:
        return builder(image_size, channels, **arguments)
    except TypeError as error:
        raise NetworkError(f"{name} does not take these arguments ({error})", "See the network's docstring") from error
