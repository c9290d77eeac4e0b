"""The networks that are timed, and what is expected of them. Loads no TensorFlow."""

from __future__ import annotations

import difflib
from dataclasses import dataclass

from bssl_tf.errors import NetworkError

BINARY, FLOAT32, INT8 = "binary", "float32", "int8"
KINDS = (BINARY, FLOAT32, INT8)


@dataclass(frozen=True)
class Network:
    """A network of the benchmark.

    Attributes:
        name: as on the command line and in the records.
        source: `stack`, `zoo` (larq-zoo), `reactnet` (this repository's) or `keras` (tf_keras.applications).
        shape: of one image, (height, width, channels).
        layers: binary convolutions of a stack.
        goal: how many times faster than LCE our runtime is to be; None without a goal.
        kinds: the models that are made of it.
        beside: networks whose float32 model is timed in the same rounds.
        beats: those of `beside` that our runtime is to beat.
    """

    name: str
    source: str
    shape: tuple[int, int, int] = (224, 224, 3)
    layers: int = 0
    goal: float | None = 4.0
    kinds: tuple[str, ...] = KINDS
    beside: tuple[str, ...] = ()
    beats: tuple[str, ...] = ()


MOBILENET = "MobileNetV2"

_ALL = (
    *(
        Network(f"stack-{channels}x{size}", "stack", (size, size, channels), layers=6, goal=7.0)
        for channels, size in ((64, 56), (128, 28), (256, 14), (512, 7))
    ),
    Network("QuickNetSmall", "zoo", beside=(MOBILENET,)),
    Network("QuickNet", "zoo", goal=6.0, beside=(MOBILENET,), beats=(MOBILENET,)),
    Network("QuickNetLarge", "zoo", beside=(MOBILENET,)),
    Network("BiRealNet", "zoo"),
    Network("RealToBinaryNet", "zoo"),
    Network("BinaryDenseNet28", "zoo"),
    Network("MeliusNet22", "zoo"),
    Network("XNORNet", "zoo"),
    Network("BinaryAlexNet", "zoo"),
    Network("ReActNet-A", "reactnet"),
    Network(MOBILENET, "keras", goal=None, kinds=(FLOAT32, INT8)),
    # For the tests: converted in a second, timed in less.
    Network("tiny", "stack", (8, 8, 32), layers=2, goal=None),
)
NETWORKS = {network.name: network for network in _ALL}
DEFAULT = tuple(name for name in NETWORKS if name != "tiny")


def network(name: str) -> Network:
    """The network called `name`. Raises `NetworkError` for an unknown one."""
    found = NETWORKS.get(name)
    if found is None:
        near = difflib.get_close_matches(name, NETWORKS, n=1)
        hint = f"Did you mean {near[0]}? " if near else ""
        raise NetworkError(f"the benchmark has no network {name!r}", f"{hint}Choose among {', '.join(NETWORKS)}")
    return found
