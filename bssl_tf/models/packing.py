"""Binary kernels in a file as one bit a weight and one scale a channel, which is all that a binary network uses.

A kernel [..., C] under `kernel_quantizer` acts as sign(w) * mean |w| per output channel. What is kept of it:

    NAME/signs    uint8   [ceil(n / 8)], a bit for each of n weights in C order, 1 for w >= 0, high bit first
    NAME/scales   float32 [C]
    NAME/shape    int32   [rank]

Unpacked it is sign * scale: the same network, and a start for further training. Source of the scale: XNOR-Net
(arXiv 1603.05279), section 3.1.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np

from bssl_tf.errors import RunFolderError

_PARTS = ("signs", "scales", "shape")
_MAX_WEIGHTS = 2**28


def pack(tensors: Mapping[str, np.ndarray], kernels: Iterable[str]) -> dict[str, np.ndarray]:
    """`tensors` with those named in `kernels` packed; all others as they are.

    Args:
        tensors: weights by name, kernels float32 [..., C].
        kernels: names of the binary ones.
    """
    chosen = set(kernels)
    packed = {name: tensor for name, tensor in tensors.items() if name not in chosen}
    for name in chosen:
        kernel = np.asarray(tensors[name], np.float32)
        packed[f"{name}/signs"] = np.packbits(kernel.reshape(-1) >= 0)
        packed[f"{name}/scales"] = (
            np.abs(kernel).mean(axis=tuple(range(kernel.ndim - 1)), dtype=np.float64).astype("f4")
        )
        packed[f"{name}/shape"] = np.asarray(kernel.shape, np.int32)
    return packed


def unpack(tensors: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The reverse of `pack`: kernels of +scale and -scale.

    Raises:
        RunFolderError: a packed kernel is not whole.
    """
    names = {name.rpartition("/")[0] for name in tensors if name.endswith("/signs")}
    parts = {f"{name}/{part}" for name in names for part in _PARTS}
    plain = {name: tensor for name, tensor in tensors.items() if name not in parts}
    for name in sorted(names):
        try:
            signs, scales, shape = (tensors[f"{name}/{part}"] for part in _PARTS)
            plain[name] = _unpacked(signs, scales, shape)
        except (KeyError, ValueError, TypeError) as error:
            raise RunFolderError(f"packed kernel {name!r} is damaged ({error})", "Restore the file") from error
    return plain


def _unpacked(signs: np.ndarray, scales: np.ndarray, shape: np.ndarray) -> np.ndarray:
    if signs.dtype != np.uint8 or scales.dtype != np.float32 or shape.dtype != np.int32:
        raise ValueError("wrong dtypes")
    sizes = tuple(int(size) for size in shape.reshape(-1))
    if not sizes or min(sizes) < 1 or max(sizes) > _MAX_WEIGHTS:
        raise ValueError(f"shape {list(sizes)}")
    count = 1
    for size in sizes:
        count *= size
        if count > _MAX_WEIGHTS:
            raise ValueError(f"shape {list(sizes)}")
    if signs.shape != (-(-count // 8),) or scales.shape != sizes[-1:]:
        raise ValueError(f"{signs.shape} signs and {scales.shape} scales for shape {list(sizes)}")
    bits = np.unpackbits(signs, count=count).reshape(sizes)
    return np.where(bits == 1, scales, -scales).astype(np.float32)
