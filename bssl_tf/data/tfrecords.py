"""The lengths of the records in a TFRecord file, which a stranger may have made. No TensorFlow, which believes them."""

from __future__ import annotations

import os
from pathlib import Path

from bssl_tf.files import open_regular

MAX_RECORD_BYTES, MAX_FILE_BYTES = 1 << 26, 1 << 40
# A length and its checksum before each record, another checksum after it.
_LENGTH_BYTES, HEADER_BYTES, FRAME_BYTES = 8, 12, 16


def largest_record(path: Path) -> int:
    """Bytes of the largest record of a file, after a look at the length of each; 1 for none.

    Raises:
        ValueError: a length is zero, or larger than the file or than a record may be.
        OSError: the file cannot be read.
    """
    largest = 1
    with open_regular(path, MAX_FILE_BYTES) as file:
        size, place = os.fstat(file.fileno()).st_size, 0
        while place < size:
            file.seek(place)
            length = int.from_bytes(file.read(_LENGTH_BYTES), "little")
            place += FRAME_BYTES + length
            # Holes of a file read as records of length zero, without end.
            if not 0 < length <= MAX_RECORD_BYTES or place > size:
                raise ValueError(f"{path.name} has a record of {length:,} bytes")
            largest = max(largest, length)
    return largest
