"""Reads PyTorch checkpoints without PyTorch, and without running the code that a pickle can hold (`torch_pickle`).

A checkpoint is a pickle that says how tensors lie in storages, and the storages' bytes: in a zip archive (PyTorch 1.6
and later) or one after the other in one file (the legacy format).
"""

from __future__ import annotations

import io
import math
import struct
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from bssl_tf.errors import NetworkError
from bssl_tf.files import open_regular
from bssl_tf_converters.checkpoints.torch_pickle import BFLOAT16, Storage, Tensor, TorchPickle
from bssl_tf_deploy.files import HEAD_BYTES, standing_in
from bssl_tf_deploy.system_errors import next_step

# Far above what any checkpoint needs, far below what takes long.
_MAX_FILE_BYTES = 1 << 36
_MAX_PICKLE_BYTES = 1 << 24
_MAX_DEPTH = 32
_MAX_ITEMS = 200_000

_LEGACY_MAGIC = 0x1950A86A20F9469CFC6C
_LEGACY_PROTOCOL = 1001
# What garbled bytes raise on their way through pickletools, zipfile, numpy and the code below.
_READER_ERRORS = (
    *(ValueError, IndexError, KeyError, TypeError, AttributeError, OverflowError, MemoryError, RecursionError),
    *(OSError, EOFError, NotImplementedError, RuntimeError, struct.error, zipfile.BadZipFile),
)


def read_torch_checkpoint(path: Path) -> dict[str, np.ndarray]:
    """Reads all tensors of a checkpoint that `torch.save` wrote, in either format.

    Tensors are named by their way through the nested dicts and lists, joined by `/`: `state_dict/module.conv1.weight`,
    or `conv1.weight` where the checkpoint is itself the state dict. All that is not a tensor is left out.

    Args:
        path: a file of any name, such as `.pth`, `.pt` or `.pth.tar`.

    Returns:
        Read-only arrays with the tensors' shapes and dtypes, little-endian; bfloat16, which numpy lacks, becomes
        float32 with the same values.

    Raises:
        NetworkError: the file cannot be read, is cut or garbled, contradicts itself, is big-endian or too deeply
            nested, is of another format, or holds no tensor.
    """
    pickle = TorchPickle()
    try:
        with open_regular(path, _MAX_FILE_BYTES) as file:
            start = file.read(HEAD_BYTES)
            file.seek(0)
            if (instead := standing_in(start)) is not None:
                raise NetworkError(f"{path} is {instead}", "Get the checkpoint itself, then run the same command again")
            read = _read_zip if start.startswith(b"PK\x03\x04") else _read_legacy
            content, fetch = read(file, pickle)
            arrays = _arrays(content, fetch)
        if not arrays:
            found = f", only objects such as {next(iter(pickle.foreign))[:80]!r}" if pickle.foreign else ""
            raise ValueError(f"it holds no tensors{found}")
        return arrays
    except _READER_ERRORS as error:
        if isinstance(error, OSError) and error.filename:
            raise NetworkError(f"{path} cannot be read ({error.strerror})", next_step(error)) from error
        raise NetworkError(
            f"{path} cannot be read as a PyTorch checkpoint ({_cause(error)})",
            "Get the file again, or save it with torch.save(model.state_dict(), FILE)",
        ) from error


def _cause(error: Exception) -> str:
    speaks = isinstance(error, (ValueError, NotImplementedError, zipfile.BadZipFile))
    return str(error)[:200] if speaks and str(error) else "it is garbled"


Fetch = Callable[[Storage], bytes]


def _read_zip(file: BinaryIO, pickle: TorchPickle) -> tuple[Any, Fetch]:
    archive = zipfile.ZipFile(file)
    entries = {entry.filename: entry for entry in archive.infolist()}
    # torch.save compresses nothing, so an entry can be no larger than the file: no zip bombs.
    size = file.seek(0, io.SEEK_END)
    if any(e.compress_type != zipfile.ZIP_STORED or e.file_size != e.compress_size for e in entries.values()):
        raise ValueError("its zip archive is compressed, which torch.save does not do")
    if len(entries) != len(archive.infolist()) or sum(entry.file_size for entry in entries.values()) > size:
        raise ValueError("its zip archive claims to be larger than the file, or repeats a name")
    pickles = [name for name in entries if name == "data.pkl" or name.endswith("/data.pkl")]
    if len(pickles) != 1:
        raise ValueError(f"its zip archive holds {len(pickles)} files data.pkl, not one")
    folder = pickles[0].removesuffix("data.pkl")
    order = entries.get(f"{folder}byteorder")
    if order is not None and archive.read(order) != b"little":
        raise ValueError("its numbers are not little-endian")
    if entries[pickles[0]].file_size > _MAX_PICKLE_BYTES:
        raise ValueError(f"its pickle is larger than {_MAX_PICKLE_BYTES >> 20} MiB")

    def fetch(storage: Storage) -> bytes:
        entry = entries.get(f"{folder}data/{storage.key}")
        if entry is None or entry.file_size != storage.byte_count:
            raise ValueError(f"storage {storage.key[:100]!r} is missing or of the wrong size")
        return archive.read(entry)

    return pickle.run(io.BytesIO(archive.read(pickles[0]))), fetch


def _read_legacy(file: BinaryIO, pickle: TorchPickle) -> tuple[Any, Fetch]:
    stream = io.BytesIO(file.read(_MAX_PICKLE_BYTES))
    if not stream.getbuffer().nbytes:
        raise ValueError("it is empty")
    if pickle.run(stream) != _LEGACY_MAGIC or pickle.run(stream) != _LEGACY_PROTOCOL:
        raise ValueError("it does not start like a file of torch.save")
    system = pickle.run(stream)
    if not isinstance(system, dict) or system.get("little_endian") is not True:
        raise ValueError("its numbers are not little-endian")
    content = pickle.run(stream)
    keys = pickle.run(stream)
    size = file.seek(0, io.SEEK_END)
    places: dict[str, int] = {}
    position = stream.tell()
    for key in keys:
        storage = pickle.storage(key)
        file.seek(position)
        if file.read(8) != struct.pack("<q", storage.count) or key in places:
            raise ValueError(f"storage {key[:100]!r} is truncated, present twice, or of the wrong size")
        places[key] = position + 8
        position += 8 + storage.byte_count
    if position > size:
        raise ValueError(f"it is truncated: {position - size} bytes are missing")

    def fetch(storage: Storage) -> bytes:
        file.seek(places[storage.key])
        return file.read(storage.byte_count)

    return content, fetch


def _arrays(content: Any, fetch: Fetch) -> dict[str, np.ndarray]:
    arrays: dict[str, np.ndarray] = {}
    storages: dict[str, np.ndarray] = {}
    for name, tensor in _named_tensors(content):
        key = tensor.storage.key
        if key not in storages:
            storages[key] = _numbers(tensor.storage, fetch(tensor.storage))
        if name in arrays:
            raise ValueError(f"two tensors are called {name[:100]!r}")
        arrays[name] = _view(storages[key], tensor)
    return arrays


def _named_tensors(content: Any) -> Iterator[tuple[str, Tensor]]:
    """All tensors in nested dicts, lists and tuples, with the keys and indices that lead there."""
    pending: list[tuple[tuple[str, ...], Any]] = [((), content)]
    seen = 0
    while pending:
        way, item = pending.pop()
        if isinstance(item, Tensor):
            yield "/".join(way) or "tensor", item
            continue
        if not isinstance(item, (dict, list, tuple)):
            continue
        # A container may hold itself, or another one many times over.
        seen += len(item)
        if len(way) >= _MAX_DEPTH or seen > _MAX_ITEMS:
            raise ValueError("it is nested too deeply, or holds itself")
        pairs = list(item.items()) if isinstance(item, dict) else list(enumerate(item))
        pending.extend(((*way, str(key)), value) for key, value in reversed(pairs))


def _numbers(storage: Storage, content: bytes) -> np.ndarray:
    if storage.dtype != BFLOAT16:
        return np.frombuffer(content, storage.dtype)
    # A bfloat16 is the upper half of a float32.
    wide = (np.frombuffer(content, "<u2").astype("<u4") << 16).view("<f4")
    wide.flags.writeable = False
    return wide


def _view(numbers: np.ndarray, tensor: Tensor) -> np.ndarray:
    """The tensor's numbers in place: `numpy.ndarray` checks too that it stays inside the buffer."""
    last = tensor.offset + sum((n - 1) * stride for n, stride in zip(tensor.shape, tensor.strides, strict=True))
    total = math.prod(tensor.shape)
    # With overlapping strides a few bytes could stand for a tensor of any size.
    if total > len(numbers) or (total and last >= len(numbers)):
        raise ValueError(f"a tensor of shape {list(tensor.shape)} is larger than its storage")
    if not total:
        return np.empty(tensor.shape, numbers.dtype)
    item = numbers.dtype.itemsize
    strides = tuple(stride * item if n > 1 else 0 for n, stride in zip(tensor.shape, tensor.strides, strict=True))
    return np.ndarray(tensor.shape, numbers.dtype, numbers, tensor.offset * item, strides)
