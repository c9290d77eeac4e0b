"""`golden.npz` of a bundle: inputs of the network and what it made of them at export, by name.

`input/NAME` is [G, ...] of the type in the manifest, `output/NAME` float32 [G, ...], for G images.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from bssl_tf_deploy.arrays import read_npz
from bssl_tf_deploy.errors import BundleError
from bssl_tf_deploy.manifest import Manifest, TensorSignature

GOLDEN = "golden.npz"
# Over the median magnitude of the golden outputs. Rounding stays below 3e-5 of it, a flipped sign mostly moves them by
# more than 0.01 (measured: bssl_tf_converters.lce.parity).
GOLDEN_TOLERANCE = 1e-3
# Another machine rounds in another way, and a value within rounding of zero may change its sign there. That hits
# single images; a wrong kernel hits all.
ONE_MAY_DIFFER_IN = 4
# Below it float32 loses digits, and processors that flush such numbers to zero give zeros.
_SMALLEST = float(np.finfo(np.float32).tiny) / GOLDEN_TOLERANCE
_MAX_BYTES = 2**28
_AGAIN = "Export it again or copy it again"
_WEIGHTS = "Check the network's weights and export it again"
Tensors = tuple[np.ndarray, ...]


def typical_magnitude(golden: np.ndarray) -> float:
    """The median magnitude of outputs that are not 0, in their units: what tolerances are shares of; 0 where all are 0.

    Zeros do not count, because a ReLU makes any share of them: with nearly half the median of all is next to nothing.
    Nor does what is not finite, with which all would be within tolerance.
    """
    sizes = np.abs(golden[(golden != 0) & np.isfinite(golden)])
    return float(np.median(sizes)) if sizes.size else 0.0


def hides_faults(outputs: Sequence[np.ndarray]) -> str:
    """Why a network that is wrong may have these outputs as well, a clause about "outputs"; empty if it may not.

    Args:
        outputs: finite, each [N, ...].
    """
    count = len(outputs[0])
    # A network that is broken may give the same for all images, or one number everywhere.
    varied = count == 1 or any(np.any(array != array[:1]) for array in outputs)
    if not varied or all(np.all(array == array.flat[0]) for array in outputs if array.size > 1):
        return "are equal"
    if any(0 < typical_magnitude(array) < _SMALLEST for array in outputs):
        return "are too small to show a fault"
    # A network whose kernels are zeros gives one answer for every image: would the best such answer pass the check?
    off = np.zeros(count, bool)
    for array in outputs:
        away = np.abs(array - np.median(array.astype(np.float64), axis=0)).reshape(count, -1).max(axis=1)
        off |= away > GOLDEN_TOLERANCE * typical_magnitude(array)
    if count > 1 and np.count_nonzero(off) <= count // ONE_MAY_DIFFER_IN:
        return "of all images are equal but for rounding"
    return ""


def encode_golden(manifest: Manifest, inputs: Sequence[np.ndarray], outputs: Sequence[np.ndarray]) -> bytes:
    """The content of `golden.npz`.

    Args:
        manifest: of the bundle.
        inputs: for each input of the manifest [G, ...], of its type.
        outputs: for each output of the manifest float32 [G, ...].

    Raises:
        BundleError: see `decode_golden`.
    """
    _check(manifest, inputs, outputs, GOLDEN)
    arrays = {f"input/{about.name}": array for about, array in zip(manifest.inputs, inputs, strict=True)}
    arrays |= {f"output/{about.name}": array for about, array in zip(manifest.outputs, outputs, strict=True)}
    file = io.BytesIO()
    np.savez(file, **arrays)
    return file.getvalue()


def decode_golden(path: Path, content: bytes, manifest: Manifest) -> tuple[Tensors, Tensors]:
    """Golden inputs and outputs, in the order of the manifest.

    Args:
        path: for messages.
        content: what `encode_golden` made.
        manifest: of the bundle.

    Raises:
        BundleError: an array is missing or does not fit the manifest; a number is not finite; or the outputs are so
            small or so alike that they could not tell a right network from a wrong one.
    """
    try:
        arrays = read_npz(content, _MAX_BYTES)
        inputs = tuple(arrays[f"input/{about.name}"] for about in manifest.inputs)
        outputs = tuple(arrays[f"output/{about.name}"] for about in manifest.outputs)
    except (ValueError, KeyError) as error:
        raise BundleError(f"{path} does not hold the golden inputs and outputs ({error})", _AGAIN) from error
    _check(manifest, inputs, outputs, str(path))
    return inputs, outputs


def _check(manifest: Manifest, inputs: Sequence[np.ndarray], outputs: Sequence[np.ndarray], path: str) -> None:
    count = len(inputs[0]) if inputs and inputs[0].ndim else 0
    # What interpreters give as int8 is compared as what it stands for.
    wanted = [(about, about.dtype) for about in manifest.inputs] + [(about, "float32") for about in manifest.outputs]
    for array, (about, dtype) in zip((*inputs, *outputs), wanted, strict=True):
        _check_fits(array, about, dtype, count, path)
    if reason := hides_faults(outputs):
        raise BundleError(f"{path}: the golden outputs {reason}", _WEIGHTS)


def _check_fits(array: np.ndarray, about: TensorSignature, dtype: str, count: int, path: str) -> None:
    shape = (count, *about.shape[1:])
    if not count or array.dtype != dtype or array.shape != shape:
        raise BundleError(
            f"{path} does not fit the manifest: {about.name} is {array.dtype} {list(array.shape)} instead of {dtype} "
            f"{list(shape) if count else [1, *about.shape[1:]]}",
            _AGAIN,
        )
    if not np.all(np.isfinite(array)):
        raise BundleError(
            f"{path}: {about.name} holds numbers that are not finite",
            _WEIGHTS,
        )
