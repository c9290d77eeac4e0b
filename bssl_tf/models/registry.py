"""Names of networks and what builds them. README.md next to this file says how to add one.

A network of another package is registered by an entry point of the group `bssl_tf.networks` that names its builder,
`(image_size, channels, **sizes)`:

    [project.entry-points."bssl_tf.networks"]
    mine = "my_package.mine:network"

Nothing here loads TensorFlow until a network is built.
"""

from __future__ import annotations

import difflib
import importlib
import inspect
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from bssl_tf.entry_points import offered
from bssl_tf.errors import BsslError, ConfigError, NetworkError, first_line

if TYPE_CHECKING:
    from bssl_tf.backend import keras

GROUP = "bssl_tf.networks"

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


def names() -> list[str]:
    """What a network can be called: of this package first. None is loaded."""
    return list(dict.fromkeys((*BACKBONES, *of_packages())))


def of_packages() -> list[str]:
    """The names that other packages provide."""
    return [found.name for found in offered(GROUP)]


def build_backbone(name: str, image_size: int, channels: int, arguments: dict[str, Any]) -> keras.Model:
    """Builds the network `name` with fresh weights from Keras's seeded initialisers.

    Args:
        name: one of `names`.
        image_size: height and width in pixels.
        channels: image channels, 1 or 3.
        arguments: what the builder takes beside, such as `width`.

    Raises:
        NetworkError: unknown name or unknown argument, or another package's network cannot be loaded or built.
        ConfigError: an argument is out of range.
        MemoryShortageError: its weights do not fit into the memory.
    """
    check_backbone(name)
    if name not in BACKBONES:
        return call_builder(_loaded(name), name, image_size, channels, arguments)
    builder = getattr(importlib.import_module(f"bssl_tf.models.{BACKBONES[name]}"), name)
    return call_builder(builder, name, image_size, channels, arguments)


def call_builder(
    builder: Callable[..., Any], name: str, image_size: int, channels: int, arguments: dict[str, Any]
) -> keras.Model:
    """What a builder makes, which may be another package's or a user's code.

    Raises:
        NetworkError: it does not take these arguments, fails, or makes something else than a network that gives one
            vector of features for each image.
        ConfigError: an argument is out of range.
        MemoryShortageError: its weights do not fit into the memory.
    """
    # Names are checked without TensorFlow.
    from bssl_tf.memory import bounded_variables
    from bssl_tf.models.features import require_features

    for argument, value in arguments.items():
        most = _MOST.get(argument, _MOST_OF_ANY)
        if isinstance(value, int) and value > most:
            raise ConfigError(f"{argument} is {value}, but {most} is the most", f"Choose a smaller {argument}")
    try:
        inspect.signature(builder).bind(image_size, channels, **arguments)
    except TypeError as error:
        raise NetworkError(
            f"{name} does not take these arguments ({error})",
            "See the network's docstring; a builder takes (image_size, channels) and sizes such as width",
        ) from error
    try:
        with bounded_variables(name, "width or depth"):
            made = builder(image_size, channels, **arguments)
    except BsslError:
        raise
    except Exception as error:  # whatever another's code raises
        cause = f"{type(error).__name__}: {first_line(error)}"
        raise NetworkError(
            f"{name} cannot be built for {image_size} px and {channels} channels ({cause})",
            "Correct it, or choose another size; --debug before the command shows where",
        ) from error
    return require_features(made, name, (image_size, image_size, channels))


def check_backbone(name: str) -> None:
    """Raises `NetworkError`, with the nearest known name, unless `name` is one of `names`. Loads no TensorFlow."""
    if name in BACKBONES:
        return
    known = names()
    if name not in known:
        near = difflib.get_close_matches(name, known, n=1)
        hint = f"Did you mean {near[0]}? " if near else ""
        raise NetworkError(
            f"no network is called {name!r}",
            f"{hint}Choose one of {', '.join(sorted(known))}, or install the package that provides it",
        )


def _loaded(name: str) -> Callable[..., Any]:
    entry = next(found for found in offered(GROUP) if found.name == name)
    try:
        builder = entry.load()
    except Exception as error:  # whatever a package of somebody else raises
        raise NetworkError(
            f"network {name} cannot be loaded from {entry.value} ({first_line(error)})", "Install its package again"
        ) from error
    if not callable(builder):
        raise NetworkError(
            f"{entry.value} is not a function that builds a network", "Name a builder in the entry point"
        )
    built: Callable[..., Any] = builder
    return built
