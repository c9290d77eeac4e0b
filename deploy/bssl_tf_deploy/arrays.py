"""Arrays out of `.npz` files of strangers, of which no more is unpacked than was allowed."""

from __future__ import annotations

import io
import math
import tokenize
import zipfile
import zlib

import numpy as np

_KINDS = "biuf"


def read_npz(content: bytes, limit: int, *, text: bool = False) -> dict[str, np.ndarray]:
    """The arrays of an `.npz` file, by name.

    Sizes are looked at before anything is unpacked, and what an archive states of its sizes bounds what is read of it.

    Args:
        content: of the file.
        limit: bytes that all arrays together may have.
        text: whether it may hold arrays of text too.

    Raises:
        ValueError: it is not such a file, is damaged, holds other things than arrays of numbers, or too much of them.
    """
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            entries = archive.infolist()
            if len({entry.filename for entry in entries}) != len(entries):
                raise ValueError("it holds two arrays of one name")
            if sum(entry.file_size for entry in entries) > limit:
                raise ValueError(f"it unpacks to more than {limit:,} bytes")
            kinds = _KINDS + "U" * text
            return {entry.filename.removesuffix(".npy"): _array(archive, entry, kinds) for entry in entries}
    # NotImplementedError: another compression; RuntimeError: a password; EOFError, zlib.error: damage.
    except (zipfile.BadZipFile, NotImplementedError, RuntimeError, EOFError, zlib.error, OSError) as error:
        raise ValueError(f"it is not a valid archive ({error})") from error


def _array(archive: zipfile.ZipFile, entry: zipfile.ZipInfo, kinds: str) -> np.ndarray:
    if entry.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise ValueError(f"{entry.filename} is packed in a way that numpy does not use")
    with archive.open(entry) as packed:
        # Reads no more than the archive's directory states, whatever there is.
        file = io.BytesIO(packed.read(entry.file_size))
    version = np.lib.format.read_magic(file)  # type: ignore[no-untyped-call]
    if version != (1, 0):
        raise ValueError(f"{entry.filename} is of npy version {version}")
    try:
        shape, fortran_order, dtype = np.lib.format.read_array_header_1_0(file)  # type: ignore[no-untyped-call]
    # numpy reads the header as Python's source text, by two parsers whose errors it lets through.
    except (tokenize.TokenError, SyntaxError, TypeError, RecursionError, MemoryError) as error:
        raise ValueError(f"the header of {entry.filename} cannot be read ({error})") from error
    if dtype.kind not in kinds:
        raise ValueError(f"{entry.filename} is {dtype}, not {'numbers or text' if 'U' in kinds else 'numbers'}")
    numbers = file.getbuffer()[file.tell() :]
    if any(side < 0 for side in shape) or math.prod(shape) * dtype.itemsize != len(numbers):
        raise ValueError(f"{entry.filename} does not have the bytes of {dtype} {list(shape)}")
    array: np.ndarray = np.frombuffer(numbers, dtype).reshape(shape, order="F" if fortran_order else "C")
    return array
