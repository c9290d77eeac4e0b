"""The networks that are timed, and what is expected of them. Loads no TensorFlow."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import dataclass, field

from bssl_tf.errors import NetworkError

# Binary with float ends, and with all that is not binary in int8.
BINARY, BINARY_INT8 = "binary", "binary_int8"
FLOAT32, INT8 = "float32", "int8"
KINDS = (BINARY, BINARY_INT8, FLOAT32, INT8)


@dataclass(frozen=True)
class Published:
    """Top-1 accuracy on ImageNet in percent, as others published it.

    Attributes:
        top1: by kind of model.
        source: where it stands.
    """

    top1: Mapping[str, float]
    source: str


@dataclass(frozen=True)
class Goals:
    """How many times as fast as others our runtime is to be.

    Attributes:
        lce: than LCE, with one thread, which is all that LCE uses here; None without a goal.
        int8: binary with int8 ends, than the same network in int8; None without a goal.
        mobilenet: binary with int8 ends, than MobileNetV2 in int8; None without a goal.
    """

    lce: float | None = None
    int8: float | None = None
    mobilenet: float | None = None


@dataclass(frozen=True)
class Network:
    """A network of the benchmark.

    Attributes:
        name: as on the command line and in the records.
        source: `stack`, `zoo` (larq-zoo), `reactnet` (this repository's) or `opponent` (to be picked instead).
        shape: of one image, (height, width, channels).
        layers: binary convolutions of a stack.
        has_stem: whether a stack begins with a float convolution, 1x1.
        goals: what is expected of it.
        kinds: the models that are made of it.
        beside: networks whose stock models are timed in the same rounds.
        published: its accuracy; None for one that nobody trained.
    """

    name: str
    source: str
    shape: tuple[int, int, int] = (224, 224, 3)
    layers: int = 0
    has_stem: bool = False
    goals: Goals = field(default_factory=Goals)
    kinds: tuple[str, ...] = KINDS
    beside: tuple[str, ...] = ()
    published: Published | None = None


MOBILENET, MOBILENET_V3, EFFICIENTNET = OPPONENTS = ("MobileNetV2", "MobileNetV3Small", "EfficientNet-Lite0")
STOCK = (FLOAT32, INT8)
_ZOO = "documentation of larq-zoo 2.4"
_ZOO_GOALS = Goals(lce=7.0, int8=2.5)


def _zoo(name: str, top1: float, goals: Goals = _ZOO_GOALS, beside: tuple[str, ...] = ()) -> Network:
    return Network(name, "zoo", goals=goals, beside=beside, published=Published({BINARY: top1}, _ZOO))


def _opponent(name: str, float32: float, int8: float, source: str) -> Network:
    return Network(name, "opponent", kinds=STOCK, published=Published({FLOAT32: float32, INT8: int8}, source))


_ALL = (
    *(
        # Nothing in them could be int8 that is not.
        Network(
            f"stack-{channels}x{size}",
            "stack",
            (size, size, channels),
            layers=6,
            goals=Goals(lce=7.0),
            kinds=(BINARY, *STOCK),
        )
        for channels, size in ((64, 56), (128, 28), (256, 14), (512, 7))
    ),
    _zoo("QuickNetSmall", 59.4, beside=OPPONENTS),
    _zoo("QuickNet", 63.3, Goals(lce=6.0, mobilenet=1.5), beside=OPPONENTS),
    _zoo("QuickNetLarge", 66.9, beside=OPPONENTS),
    _zoo("BiRealNet", 57.5),
    _zoo("RealToBinaryNet", 65.0),
    _zoo("BinaryDenseNet28", 60.9),
    _zoo("MeliusNet22", 62.4),
    _zoo("XNORNet", 45.0),
    _zoo("BinaryAlexNet", 36.3),
    Network(
        "ReActNet-A",
        "reactnet",
        goals=_ZOO_GOALS,
        published=Published({BINARY: 69.4}, "Liu et al., ECCV 2020, table 1"),
    ),
    _opponent(MOBILENET, 71.8, 70.8, "TensorFlow models (float32), OpenVINO 2019 R2's documentation (int8)"),
    _opponent(MOBILENET_V3, 67.5, 64.9, "TensorFlow models"),
    _opponent(EFFICIENTNET, 75.1, 74.4, "TensorFlow's EfficientNet-Lite"),
    # For the tests: converted in a second, timed in less.
    Network("tiny", "stack", (8, 8, 32), layers=2, has_stem=True),
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
