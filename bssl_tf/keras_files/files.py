"""The files that Keras models come in, as a stranger may have made them: regular, bounded, and with their own content.

A pipe would be waited on for ever; a small archive, or a compressed data set, may unpack to more than any disk holds;
and HDF5 may point at other files, or send its own library into a loop.
"""

from __future__ import annotations

import contextlib
import functools
import math
import os
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import h5py  # type: ignore[import-untyped]

from bssl_tf.errors import ConversionError
from bssl_tf.files import open_regular, require_regular
from bssl_tf_deploy.files import HEAD_BYTES, standing_in
from bssl_tf_deploy.system_errors import next_step

# Before the name of one of larq-zoo's networks, in the place of a path.
ZOO_PREFIX = "larq_zoo:"
MODEL_HINT = "Give a Keras 2 model: a run folder, FILE.h5, FILE.keras, a SavedModel folder, or larq_zoo:NAME"
# The largest of Keras' own applications has 0.5 GB.
MAX_FILE_BYTES = 1 << 33
_MAX_MEMBERS = 1000
_MAX_FOLDER_ENTRIES = 10_000
# Numbers in a piece of a data set that h5py may choose itself where a weight is smaller.
_MAX_CHUNK = 2**20
_AGAIN = "Save the model again, with save or save_weights"
_REHEARSAL = Path(__file__).with_name("hdf5_rehearsal.py")
# A rehearsal ends by its own limit, in time of the processor, long before; this is for a disk that does not answer.
_REHEARSAL_S = 600


def require_there(path: Path) -> None:
    """Raises `ConversionError` where there is nothing at `path`."""
    if not path.exists():
        raise ConversionError(f"there is no model at {path}", MODEL_HINT)


def require_fetched(path: Path) -> None:
    """Raises `ConversionError` for what is not a regular file, is too large, or stands in place of another.

    The last is such as a Git LFS pointer.
    """
    try:
        with open_regular(path, MAX_FILE_BYTES) as file:
            instead = standing_in(file.read(HEAD_BYTES))
    except OSError as error:
        raise ConversionError(f"{path} cannot be read ({error.strerror})", next_step(error)) from error
    if instead is not None:
        raise ConversionError(f"{path} is {instead}", "Get the file itself, then run the same command again")


def require_folder(folder: Path) -> None:
    """Looks at everything in the folder of a SavedModel, before a library opens it by name.

    Raises:
        ConversionError: a file in it is refused by `require_fetched`, there are too many, or a folder is linked.
    """
    for number, path in enumerate(folder.rglob("*")):
        if number >= _MAX_FOLDER_ENTRIES:
            raise ConversionError(f"{folder} has more than {_MAX_FOLDER_ENTRIES} files", _AGAIN)
        if path.is_dir() and path.is_symlink():
            raise ConversionError(f"{path} points at another folder", "Copy the folder's own files there")
        if not path.is_dir():
            require_fetched(path)


@contextlib.contextmanager
def open_hdf5(path: Path, source: str) -> Iterator[h5py.File]:
    """An HDF5 file, to read.

    Args:
        path: the file.
        source: what it came from, for messages.

    Raises:
        ConversionError: HDF5's library never finishes reading it, or crashes; or see `require_whole`.
        OSError: it is damaged.
    """
    about = path.stat()
    if not _comes_to_an_end(path, about.st_ino, about.st_size, about.st_mtime_ns):
        raise ConversionError(f"{source} is damaged: HDF5's library never finishes reading it, or crashes", _AGAIN)
    with h5py.File(path, "r") as file:
        require_whole(file, source)
        yield file


@functools.lru_cache(maxsize=16)
def _comes_to_an_end(path: Path, *version: int) -> bool:
    """Whether another process can read all of the file; see `hdf5_rehearsal`."""
    # Isolated, so that no folder of a user's stands before those of the packages.
    words = [sys.executable, "-I", str(_REHEARSAL), str(path.resolve())]
    # numpy sets memory aside for a thread of each processor: on a large machine, more than the limit allows.
    alone = os.environ | {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}
    quiet = subprocess.DEVNULL
    try:
        done = subprocess.run(
            words, stdin=quiet, stdout=quiet, stderr=quiet, env=alone, check=False, timeout=_REHEARSAL_S
        )
    except subprocess.TimeoutExpired:
        return False
    # A signal, as of a limit or a crash, is a negative status. Errors in it are for whoever opens the file.
    return done.returncode >= 0


def require_whole(file: h5py.File, path: str) -> None:
    """Raises `ConversionError` for links: Keras writes none, and one to a named pipe would be waited on for ever."""

    def elsewhere(name: bytes, link: h5py.h5l.LinkInfo) -> bool | None:
        return True if link.type in (h5py.h5l.TYPE_EXTERNAL, h5py.h5l.TYPE_SOFT) else None

    if file.id.links.visit(elsewhere, info=True):
        raise ConversionError(f"{path} points at other files or has links inside", _AGAIN)


def require_own_numbers(dataset: Any, file: h5py.File, path: str, where: str) -> None:
    """Raises `ConversionError` for a data set of other files, or not of numbers, or in pieces too large to unpack."""
    elsewhere = dataset.file.filename != file.filename or dataset.external or dataset.is_virtual
    if elsewhere or dataset.dtype.kind not in "fiub":
        raise ConversionError(f"{path} has no numbers of its own for {where}", _AGAIN)
    # A chunk is unpacked whole, however little of it belongs to the weight.
    if dataset.chunks and math.prod(dataset.chunks) > max(dataset.size, _MAX_CHUNK):
        raise ConversionError(f"{path} has chunks of {dataset.chunks} for {where}", _AGAIN)


def require_bounded(path: Path, source: str, largest: int) -> None:
    """Looks at a weights file that Keras opens by name.

    Args:
        path: HDF5.
        source: what it came from, for messages.
        largest: numbers that one weight may have.

    Raises:
        ConversionError: a data set is larger, or not one of numbers in this file.
    """
    with open_hdf5(path, source) as file:

        def look(name: str, item: Any) -> None:
            if not isinstance(item, h5py.Dataset):
                return
            where = "".join(letter if letter.isprintable() else "?" for letter in name[:60])
            if item.size is None or item.size > largest:
                raise ConversionError(f"{source} has more numbers for {where} than any weight of its model", _AGAIN)
            require_own_numbers(item, file, source, where)

        file.visititems(look)


def attribute(item: Any, name: str, limit: int) -> Any:
    """An attribute of HDF5, text as text; None where there is none.

    Raises:
        ValueError: it claims more than `limit` bytes.
    """
    if name not in item.attrs:
        return None
    about = item.attrs.get_id(name)
    if math.prod(about.shape or ()) * about.dtype.itemsize > limit:
        raise ValueError(f"{name} is too long")
    value = item.attrs[name]
    return value.decode("utf-8", errors="replace") if isinstance(value, bytes) else value


def open_archive(path: Path) -> zipfile.ZipFile:
    """A .keras file.

    Raises:
        ConversionError: it has too many parts.
        zipfile.BadZipFile: it is damaged.
    """
    require_regular(path, MAX_FILE_BYTES)
    archive = zipfile.ZipFile(path)
    if len(archive.infolist()) > _MAX_MEMBERS:
        archive.close()
        raise ConversionError(f"{path} has more than {_MAX_MEMBERS} parts", _AGAIN)
    return archive


def read_member(archive: zipfile.ZipFile, name: str, limit: int) -> bytes:
    """A part of an archive. Raises `ValueError` where it unpacks to more than `limit` bytes."""
    if archive.getinfo(name).file_size > limit:
        raise ValueError(f"{name} is too large")
    with archive.open(name) as member:
        return member.read(limit)


def unpack_member(archive: zipfile.ZipFile, name: str, folder: Path, limit: int) -> Path:
    """A part of an archive as a file in `folder`. Raises `ValueError` where it would have more than `limit` bytes."""
    if archive.getinfo(name).file_size > limit:
        raise ValueError(f"{name} is larger than the weights of its model")
    # Keras chooses the reader by this name.
    path = folder / "model.weights.h5"
    # zipfile reads no more than what is stated.
    with archive.open(name) as member, path.open("xb") as file:
        shutil.copyfileobj(member, file, 1 << 20)
    return path
