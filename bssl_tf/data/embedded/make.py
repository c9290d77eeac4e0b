"""Makes `fashion_mnist.npz` from the four original files of Fashion-MNIST, the same bytes every time.

    python -m bssl_tf.data.embedded.make SOURCE_DIR [TARGET_FILE]

SOURCE_DIR holds the files as Debian's package dataset-fashion-mnist installs them (/usr/share/datasets/fashion-mnist).
Chosen are the first 1,000 training images and the first 200 test images of each class, kept in the original order.
"""

from __future__ import annotations

import gzip
import io
import struct
import sys
import zipfile
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from bssl_tf.data.embedded import CLASS_NAMES, FILE
from bssl_tf.errors import DataError
from bssl_tf_deploy.files import write_bytes

# Split: prefix of the original files, images taken of each class.
_SPLITS = {"train": ("train", 1000), "test": ("t10k", 200)}
_UNSIGNED_BYTE = 0x08
_ZIP_EPOCH = (1980, 1, 1, 0, 0, 0)


def read_idx(path: Path) -> NDArray[np.uint8]:
    """Reads a gzipped IDX file of unsigned bytes: big-endian magic 00 00 08 RANK, the sizes, then the bytes.

    Raises:
        DataError: the file is missing, not gzip, or not such an IDX file.
    """
    try:
        content = gzip.decompress(path.read_bytes())
        zeros, kind, rank = struct.unpack_from(">HBB", content)
        shape = struct.unpack_from(f">{rank}I", content, 4)
        if (zeros, kind) != (0, _UNSIGNED_BYTE):
            raise ValueError("not an IDX file of unsigned bytes")
        return np.frombuffer(content, np.uint8, offset=4 + 4 * rank).reshape(shape)
    except (OSError, EOFError, ValueError, struct.error) as error:
        raise DataError(
            f"cannot read {path} ({error})", "Install Debian's package dataset-fashion-mnist and name its folder"
        ) from error


def first_of_each_class(labels: NDArray[np.uint8], count: int) -> NDArray[np.int64]:
    """Positions (int64, rising) of the first `count` items of each class in `labels` (uint8 [N])."""
    chosen = [np.flatnonzero(labels == label)[:count] for label in range(len(CLASS_NAMES))]
    return np.sort(np.concatenate(chosen))


def make(source: Path) -> bytes:
    """The content of the .npz file. Raises `DataError` where the source cannot be read."""
    buffer = io.BytesIO()
    # Not np.savez_compressed: it stamps the members with the time of day.
    with zipfile.ZipFile(buffer, "w") as archive:
        for split, (prefix, count) in _SPLITS.items():
            labels = read_idx(source / f"{prefix}-labels-idx1-ubyte.gz")
            chosen = first_of_each_class(labels, count)
            images = read_idx(source / f"{prefix}-images-idx3-ubyte.gz")[chosen]
            for name, array in ((f"{split}_images", images), (f"{split}_labels", labels[chosen])):
                member = io.BytesIO()
                np.lib.format.write_array(member, np.ascontiguousarray(array), version=(1, 0))  # type: ignore[no-untyped-call]
                entry = zipfile.ZipInfo(f"{name}.npy", _ZIP_EPOCH)
                archive.writestr(entry, member.getvalue(), zipfile.ZIP_DEFLATED, compresslevel=9)
    return buffer.getvalue()


def main(arguments: list[str]) -> int:
    """Writes the file; returns the exit status."""
    if len(arguments) not in (1, 2):
        print("usage: python -m bssl_tf.data.embedded.make SOURCE_DIR [TARGET_FILE]", file=sys.stderr)
        return 2
    try:
        write_bytes(Path(arguments[1]) if len(arguments) == 2 else FILE, make(Path(arguments[0])))
    except DataError as error:
        print(error, file=sys.stderr)
        return error.exit_status
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
