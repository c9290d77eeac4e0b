"""Vectors of images in a file of either kind: `.npz`, as on a device (`bssl_tf_deploy.vectors`), or `.parquet`.

Parquet, for data frames, has the columns `image` and `vector` (a list of D float32) or `bits` (binary), and the rest as
JSON under `bssl_tf` in the metadata of its schema.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from bssl_tf.errors import RuntimeUnavailableError, StorageError, first_line
from bssl_tf.files import atomic_writer
from bssl_tf_deploy.files import read_regular
from bssl_tf_deploy.strict import expect
from bssl_tf_deploy.system_errors import next_step
from bssl_tf_deploy.vectors import AGAIN, MAX_BYTES, NPZ, Vectors, check_output, checked, read_vectors, write_vectors

PARQUET = ".parquet"
SUFFIXES = (NPZ, PARQUET)
_KEY = b"bssl_tf"
# Linux allows no longer paths.
_MAX_NAME_BYTES = 4096
_ROWS_AT_ONCE = 4096


def check_vector_output(path: Path, *, overwrite: bool) -> None:
    """Before all the work, not after.

    Raises:
        UsageError: its name does not end in one of `SUFFIXES`.
        StorageError: it exists, and is not to be replaced.
        RuntimeUnavailableError: it needs a package that is not installed.
    """
    check_output(path, overwrite=overwrite, suffixes=SUFFIXES)
    if path.suffix == PARQUET:
        _parquet("written")


def write_vector_file(path: Path, vectors: Vectors) -> None:
    """Writes a file of the kind that its name ends in, atomically. Raises as `check_vector_output` does."""
    (_write_parquet if path.suffix == PARQUET else write_vectors)(path, vectors)


def read_vector_file(path: Path) -> Vectors:
    """Reads what `write_vector_file` wrote.

    Raises:
        StorageError: the file is missing, damaged, or something else.
        RuntimeUnavailableError: it needs a package that is not installed.
    """
    return _read_parquet(path) if path.suffix == PARQUET else read_vectors(path)


def _parquet(done: str) -> ModuleType:
    try:
        import pyarrow.parquet
    except ImportError as error:
        raise RuntimeUnavailableError(
            f"Parquet files cannot be {done} ({error})", "Run `pip install 'bssl-tf[parquet]'`, or use .npz"
        ) from error
    found: ModuleType = pyarrow
    return found


def _write_parquet(path: Path, vectors: Vectors) -> None:
    """One row per image. Names that are not UTF-8 get escapes, as the format holds nothing else."""
    arrow = _parquet("written")
    about = dataclasses.asdict(vectors.about)
    if vectors.thresholds is None:
        flat = arrow.array(vectors.values.reshape(-1))
        column = {"vector": arrow.FixedSizeListArray.from_arrays(flat, vectors.about.dimensions)}
    else:
        about["thresholds"] = vectors.thresholds.tolist()
        column = {"bits": arrow.array([row.tobytes() for row in vectors.values], arrow.binary(vectors.values.shape[1]))}
    names = [name.encode("utf-8", "backslashreplace").decode() for name in vectors.images]
    table = arrow.table({"image": arrow.array(names, arrow.string()), **column}).replace_schema_metadata(
        {_KEY: json.dumps(about)}
    )
    with atomic_writer(path) as file:
        arrow.parquet.write_table(table, file)


def _read_parquet(path: Path) -> Vectors:
    arrow = _parquet("read")
    try:
        content = read_regular(path, MAX_BYTES)
    except OSError as error:
        raise StorageError(
            f"{path} cannot be read ({error.strerror or type(error).__name__})", next_step(error)
        ) from error
    try:
        return _vectors(arrow, arrow.parquet.ParquetFile(arrow.BufferReader(content)))
    # pyarrow raises whatever it likes for a damaged file.
    except Exception as error:
        raise StorageError(f"{path} does not hold vectors of images ({first_line(error)})", AGAIN) from error


def _vectors(arrow: Any, file: Any) -> Vectors:
    """The content of an open file. Raises whatever pyarrow does, `ValueError` or `StrictError`."""
    schema, count = file.schema_arrow, file.metadata.num_rows
    about = json.loads((schema.metadata or {}).get(_KEY, b"null"))
    expect(isinstance(about, dict), "bssl_tf in its metadata", "an object")
    packed = "thresholds" in about
    thresholds = np.asarray(about.pop("thresholds"), np.float32) if packed else None
    expect(schema.names == ["image", "bits" if packed else "vector"], "the list of its columns", "right")
    width = about.get("dimensions")
    expect(type(width) is int and width > 0, "about.dimensions", "above zero")
    width = -(-width // 8) if packed else width
    kinds = [field.type for field in schema]
    expect(kinds[0] == arrow.string(), "image", "text")
    right = arrow.types.is_fixed_size_list(kinds[1]) and (kinds[1].value_type, kinds[1].list_size) == (
        arrow.float32(),
        width,
    )
    expect(kinds[1] == arrow.binary(width) if packed else right, "vector", "of the right type")
    groups = [file.metadata.row_group(place).total_byte_size for place in range(file.metadata.num_row_groups)]
    largest = max(sum(groups), count * width * (1 if packed else 4))
    expect(largest <= MAX_BYTES, "its size when unpacked", f"at most {MAX_BYTES:,} bytes")
    names, rows = list[str](), list[np.ndarray]()
    for batch in file.iter_batches(_ROWS_AT_ONCE, use_threads=False):
        expect(all(not column.null_count for column in batch.columns), "it", "complete")
        names += _names(batch.column(0).to_pylist())
        # The numbers of a list, or the bytes of each row.
        cells = batch.column(1) if packed else batch.column(1).flatten()
        expect(not cells.null_count, "vectors", "complete")
        flat = np.frombuffer(b"".join(cells.to_pylist()), np.uint8) if packed else cells.to_numpy()
        rows.append(flat.reshape(len(batch), width))
    values = np.concatenate(rows) if rows else np.zeros((0, width), np.uint8 if packed else np.float32)
    return checked(about, names, values, thresholds)


def _names(names: Sequence[str]) -> Sequence[str]:
    expect(max(map(len, names), default=0) <= _MAX_NAME_BYTES, "a name", f"at most {_MAX_NAME_BYTES} long")
    return names
