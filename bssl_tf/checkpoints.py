"""Named tensors in one file, without pickle: safetensors, written atomically, checked in full before use."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from bssl_tf.errors import RunFolderError
from bssl_tf.files import require_regular, write_bytes

_MAX_BYTES = 1 << 36


def write_tensors(path: Path, tensors: Mapping[str, np.ndarray], metadata: Mapping[str, str]) -> None:
    """Writes `tensors` and `metadata` to `path`, atomically.

    Raises:
        StorageError: the file cannot be written; what stood there before still does.
    """
    # Not ascontiguousarray, which turns a scalar into a vector.
    contiguous = {name: np.asarray(tensor, order="C") for name, tensor in tensors.items()}
    write_bytes(path, save(contiguous, metadata=dict(metadata)))


def read_tensors(path: Path) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    """Reads all tensors and the metadata of `path`.

    Raises:
        RunFolderError: the file is missing, truncated or not a safetensors file.
    """
    try:
        require_regular(path, _MAX_BYTES)
        with safe_open(path, framework="numpy") as file:
            metadata = dict(file.metadata() or {})
            return {name: file.get_tensor(name) for name in file.keys()}, metadata  # noqa: SIM118
    except FileNotFoundError as error:
        raise RunFolderError(f"{path} is missing", "Check the path, or train again") from error
    except (SafetensorError, OSError, ValueError, TypeError, KeyError) as error:
        raise RunFolderError(
            f"{path} is not a complete safetensors file ({error})", "Restore it or train again"
        ) from error


def match_tensors(path: Path, tensors: Mapping[str, np.ndarray], expected: Mapping[str, np.ndarray]) -> None:
    """Checks that `tensors`, read from `path`, have exactly the names, shapes and dtypes of `expected`.

    Raises:
        RunFolderError: names the first difference.
    """
    for name in sorted(expected.keys() | tensors.keys()):
        if name not in tensors:
            cause = f"tensor {name!r} is missing"
        elif name not in expected:
            cause = f"tensor {name!r} is unknown"
        elif tensors[name].shape != expected[name].shape or tensors[name].dtype != expected[name].dtype:
            found, wanted = tensors[name], expected[name]
            cause = f"tensor {name!r} is {found.dtype}{list(found.shape)}, not {wanted.dtype}{list(wanted.shape)}"
        else:
            continue
        raise RunFolderError(f"{path} does not fit this network: {cause}", "Use the file that belongs to the network")
