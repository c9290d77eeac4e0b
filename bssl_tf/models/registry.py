"""Names of networks and what builds them. README.md beside this file says how to add one."""

from __future__ import annotations

import difflib
import importlib
from typing import TYPE_CHECKING, Any

from bssl_tf.errors import ConfigError, NetworkError

if TYPE_CHECKING:
    from bssl_tf.backend import keras

# Name of the network and of the function that builds it -> its module here. A name is checked before any is loaded,
# which takes TensorFlow.
BACKBONES: dict[str, str] = {
    "binary_resnet": "binary_resnet",
    "bireal_net18": "bireal_net",
    "efficientnet_lite0": "efficientnet_lite0",
    "float_resnet": "float_resnet",
    "quicknet": "quicknet",
    "quicknet_large": "quicknet",
    "quicknet_small": "quicknet",
    "quicknet_tiny": "quicknet",
    "reactnet_a": "reactnet",
    "resnet18": "resnet",
    "resnet34": "resnet",
    "resnet50": "resnet",
    "xnor_net": "xnor_net",
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


# Beyond, shapes overflow; and a network of a thousand layers takes minutes to build.
_MOST = {"depth": 1000}
_MOST_OF_ANY = 2**31 - 1


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
        MemoryShortageError: its weights do not fit into the memory.
    """
    # Names are checked without TensorFlow.
    from bssl_tf.memory import bounded_variables

    check_backbone(name)
    for argument, value in arguments.items():
        most = _MOST.get(argument, _MOST_OF_ANY)
        if isinstance(value, int) and value > most:
            raise ConfigError(f"{argument} is {value}, but {most} is the most", f"Choose a smaller {argument}")
    builder = getattr(importlib.import_module(f"bssl_tf.models.{BACKBONES[name]}"), name)
    try:
        with bounded_variables(name, "width or depth"):
            model: keras.Model = builder(image_size, channels, **arguments)
    except TypeError as error:
        raise NetworkError(f"{name} does not take these arguments ({error})", "See the network's docstring") from error
    return model


def check_backbone(name: str) -> None:
    """Raises `NetworkError`, with the nearest known name, unless `name` is one of `BACKBONES`. Loads no TensorFlow."""
    if name not in BACKBONES:
        near = difflib.get_close_matches(name, BACKBONES, n=1)
        hint = f"Did you mean {near[0]}? " if near else ""
        raise NetworkError(f"no network is called {name!r}", f"{hint}Choose one of {', '.join(sorted(BACKBONES))}")
