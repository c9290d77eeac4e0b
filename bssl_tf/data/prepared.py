"""Opens the folder of a prepared TFDS data set, as a stranger may have made it.

TFDS imports whatever module `features.json` names, opens files by the names that `dataset_info.json` gives them, and
takes the memory that a number in them or the length of a record asks for. So all of these are looked at first.
"""

from __future__ import annotations

import contextlib
import errno
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

# First, because it sets up TensorFlow; tensorflow_datasets imports it too.
import bssl_tf.backend  # noqa: F401
from bssl_tf.data import tfrecords
from bssl_tf.data.tfrecords import FRAME_BYTES, MAX_FILE_BYTES, MAX_RECORD_BYTES
from bssl_tf.errors import BsslError, DataError, MemoryShortageError, first_line
from bssl_tf.files import read_regular, require_regular
from bssl_tf_deploy.system_errors import system_error
from bssl_tf_deploy.text import printable

try:
    import tensorflow_datasets as tfds
except ImportError as import_error:
    raise DataError(
        f"tensorflow_datasets cannot be loaded ({import_error})", "Install bssl-tf again in a fresh environment"
    ) from import_error

__all__ = ["damage", "largest_record", "open_prepared", "tfds"]
MAX_TEXT_BYTES = 1 << 22
_MAX_FILES, _MAX_SPLITS, _MAX_CLASSES, _MAX_DEPTH = 100_000, 1000, 1 << 20, 50
# What stands there is not what was prepared, or nothing does; other errors of the system would come again.
_DAMAGE = (errno.ENOENT, errno.EFBIG, errno.EINVAL, errno.EISDIR, errno.ENOTDIR)
_TYPES = ("pythonClassName", "python_class_name", "type")
_CLASSES = ("numClasses", "num_classes")


def open_prepared(folder: Path) -> Any:
    """TFDS's builder of what is prepared in `folder`, which reads it.

    Raises:
        DataError: it is damaged, has other things than files, names code or files elsewhere, or claims what it lacks.
    """
    with damage(folder):
        examples = _require_files(folder) // FRAME_BYTES
        about = json.loads(read_regular(folder / "dataset_info.json", MAX_TEXT_BYTES))
        splits = about.get("splits", ())
        if len(splits) > _MAX_SPLITS:
            raise ValueError(f"it has {len(splits)} splits")
        if sum(int(count) for split in splits for count in split.get("shardLengths", ())) > examples:
            raise ValueError("its files are too small for the number of examples")
        known = {
            f"{value.__module__}.{value.__name__}"
            for value in vars(tfds.features).values()
            if isinstance(value, type) and issubclass(value, tfds.features.FeatureConnector)
        }
        _require_known(json.loads(read_regular(folder / "features.json", MAX_TEXT_BYTES)), known, folder)
        builder = tfds.builder_from_directory(str(folder))
        for split in builder.info.splits.values():
            if any(Path(file).parent != folder for file in split.filepaths):
                raise ValueError("it names files of other folders")
    return builder


def largest_record(builder: Any, split: str) -> int:
    """Bytes of the largest record of a split, at most, after a look at the length of each.

    Raises:
        ValueError: a length is zero, or larger than the file or than a record may be.
        OSError: a file cannot be read.
    """
    if builder.info.file_format not in (None, tfds.core.FileFormat.TFRECORD):
        return MAX_RECORD_BYTES
    return max(map(tfrecords.largest_record, map(Path, builder.info.splits[split].filepaths)), default=1)


@contextlib.contextmanager
def damage(folder: Path) -> Iterator[None]:
    """Turns what TFDS raises on damaged files into a `DataError`."""
    try:
        yield
    except BsslError:
        raise
    except Exception as error:  # From TensorFlow's reader, protobuf's and json's parsers, and TFDS's own checks.
        known = system_error(error)
        if isinstance(known, MemoryShortageError):
            raise known from error
        if known is not None and getattr(error, "errno", None) not in _DAMAGE:
            raise DataError(f"the prepared data set {folder} cannot be read ({known.what})", known.next_step) from error
        raise DataError(
            f"the prepared data set {folder} is damaged ({type(error).__name__}: {first_line(error)})",
            "Delete that folder and prepare or copy the data set again",
        ) from error


def _require_files(folder: Path) -> int:
    """Looks at everything in `folder` that TFDS could open; how many bytes there are."""
    total = 0
    for number, path in enumerate(folder.iterdir()):
        if number >= _MAX_FILES:
            raise ValueError(f"it has more than {_MAX_FILES} files")
        if not path.is_dir():
            require_regular(path, MAX_TEXT_BYTES if path.suffix in (".json", ".txt") else MAX_FILE_BYTES)
            total += path.stat().st_size
    return total


def _require_known(item: Any, known: set[str], folder: Path, depth: int = 0) -> None:
    """Raises `DataError` for a class that is not TFDS's own: its module would be imported, whichever it is."""
    if depth > _MAX_DEPTH:
        raise ValueError(f"its features are nested more than {_MAX_DEPTH} deep")
    if isinstance(item, list):
        for one in item:
            _require_known(one, known, folder, depth + 1)
    if not isinstance(item, dict):
        return
    for key, value in item.items():
        if key in _TYPES and isinstance(value, str) and value not in known:
            raise DataError(
                f"features.json in {folder} names {printable(value)[:80]}, which is not a feature of this version of "
                "TFDS, and no other code is run",
                "Prepare the data set with TFDS's own features, or copy its images into a folder",
            )
        if key in _CLASSES and int(value) > _MAX_CLASSES:
            raise ValueError(f"it has {int(value):,} classes")
        # A description of older versions, as text in the new one.
        nested = key == "json" and isinstance(value, str)
        _require_known(json.loads(value) if nested else value, known, folder, depth + 1)
