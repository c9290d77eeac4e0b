"""Named tensors in one file, without pickle: safetensors, written atomically, checked in full before use.

The file's own metadata has a SHA-256 over names, types, shapes, bytes and the rest of the metadata, since disks and
copies do lose bits. It is taken once for each file, between steps, at a gigabyte a second: less than the write takes.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from safetensors import safe_open
from safetensors.numpy import save

from bssl_tf.errors import RunFolderError
from bssl_tf.files import atomic_writer, open_regular
from bssl_tf_deploy.files import CHECKSUM
from bssl_tf_deploy.system_errors import next_step

_MAX_BYTES = 1 << 36
# A hundred bytes a tensor; the library takes twenty times as much to read it.
_MAX_HEADER_BYTES = 1 << 24
# Bytes, of safetensors: of the header's length, and what the header is padded to.
_LENGTH = _ALIGNMENT = 8
_log = logging.getLogger(__name__)


def write_tensors(path: Path, tensors: Mapping[str, np.ndarray], metadata: Mapping[str, str]) -> None:
    """Writes `tensors` and `metadata` to `path`, atomically; the same content gives the same bytes.

    Raises:
        StorageError: the file cannot be written; what stood there before still does.
    """
    # Not ascontiguousarray, which turns a scalar into a vector.
    contiguous = {name: np.asarray(tensor, order="C") for name, tensor in tensors.items()}
    content = memoryview(save(contiguous, metadata=dict(metadata) | {CHECKSUM: _sha256(contiguous, metadata)}))
    # The library writes metadata in an order of chance. The header is JSON, and its offsets count from its own end.
    end = _LENGTH + int.from_bytes(content[:_LENGTH], "little")
    header = json.loads(bytes(content[_LENGTH:end]))
    header["__metadata__"] = dict(sorted(header["__metadata__"].items()))
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % _ALIGNMENT)
    with atomic_writer(path) as file:
        file.write(len(text).to_bytes(_LENGTH, "little") + text)
        file.write(content[end:])


def read_tensors(path: Path) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    """Reads all tensors and the metadata of `path`.

    Raises:
        RunFolderError: the file is missing, truncated, not a safetensors file, or not what was written.
    """
    try:
        _require_short_header(path)
        with safe_open(path, framework="numpy") as file:
            metadata = dict(file.metadata() or {})
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            written = metadata.pop(CHECKSUM, None)
    except FileNotFoundError as error:
        raise RunFolderError(f"{path} is missing", "Check the path, or train again") from error
    except MemoryError:
        raise
    # The library has its own errors, and numpy's for what numpy lacks, such as types of eight bits.
    except Exception as error:
        if isinstance(error, OSError) and error.filename:
            raise RunFolderError(f"{path} cannot be read ({error.strerror})", next_step(error)) from error
        raise RunFolderError(
            f"{path} is not a complete safetensors file ({error})", "Restore it or train again"
        ) from error
    if written != _sha256(tensors, metadata):
        raise RunFolderError(
            f"{path} is damaged (its content is not what was written)",
            "Restore it, or run the command that wrote it again, with --resume for a run that still has checkpoints",
        )
    return tensors, metadata


def _require_short_header(path: Path) -> None:
    """Raises `ValueError` or `OSError` where the library would end the process, for lack of memory, over a header."""
    with open_regular(path, _MAX_BYTES) as file:
        length = int.from_bytes(file.read(_LENGTH), "little")
    if length > _MAX_HEADER_BYTES:
        raise ValueError(f"its header has {length:,} bytes")


def _sha256(tensors: Mapping[str, np.ndarray], metadata: Mapping[str, str]) -> str:
    about = [[name, tensors[name].dtype.str, tensors[name].shape] for name in sorted(tensors)]
    digest = hashlib.sha256(json.dumps([about, sorted(metadata.items())]).encode())
    for name in sorted(tensors):
        digest.update(np.ascontiguousarray(tensors[name]).reshape(-1).view(np.uint8).data)
    return digest.hexdigest()


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
