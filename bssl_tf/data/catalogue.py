"""Where each image of a large data set lies: made once, kept in the cache, mapped into memory ever after.

    CACHE/KEY.catalogue/index.json           what the other files hold, with their checksums; written last
    CACHE/KEY.catalogue/names.npy            uint8, the names of the files that hold images, one after the other
    CACHE/KEY.catalogue/ends.npy             int64 [F], where each name ends
    CACHE/KEY.catalogue/SPLIT_places.npy     int64 [N, 3]: which file, at which byte an image begins, bytes
    CACHE/KEY.catalogue/SPLIT_labels.npy     int64 [N], where there are labels

A million images are 24 MB of places and as much of names again, so a process that holds them stays small. In a folder
of images each is a file of its own; in shards a file holds thousands.
"""

from __future__ import annotations

import hashlib
import logging
import os
import shutil
from array import array
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel

from bssl_tf.data.cache import SPLITS, Split, cache_key
from bssl_tf.errors import RunFolderError, StorageError
from bssl_tf.files import held_lock, new_folder, read_json, write_json
from bssl_tf_deploy.text import printable

# Raise it when the layout changes, or what is catalogued.
FORMAT: Literal[1] = 1
# How files hold images: each is one; many lie in one, as they are; or a library has to take them out.
Kind = Literal["image_files", "spans", "array_record"]
_INDEX = "index.json"
_log = logging.getLogger(__name__)


class Names:
    """The names of files, kept as the bytes they are; a sequence of `str`."""

    def __init__(self, joined: NDArray[np.uint8], ends: NDArray[np.int64]) -> None:
        self._joined, self._ends = joined, ends

    @classmethod
    def of(cls, names: Iterable[str]) -> Names:
        """Those of `names`, each read once."""
        joined, ends = bytearray(), array("q")
        for name in names:
            joined += os.fsencode(name)
            ends.append(len(joined))
        return cls(np.frombuffer(joined, np.uint8), np.array(ends, np.int64))

    def __len__(self) -> int:
        return len(self._ends)

    def __getitem__(self, number: int) -> str:
        start = int(self._ends[number - 1]) if number else 0
        return os.fsdecode(self._joined[start : int(self._ends[number])].tobytes())

    def arrays(self) -> dict[str, NDArray]:
        """What `__init__` takes, by the names of files."""
        return {"names": self._joined, "ends": self._ends}


@dataclass(frozen=True, eq=False)
class Part:
    """The images of one split.

    Attributes:
        places: int64 [N, 3]: number of the file, first byte of the image in it, and its bytes.
        labels: int64 [N], or None.
    """

    places: NDArray[np.int64]
    labels: NDArray[np.int64] | None

    def __len__(self) -> int:
        return len(self.places)


@dataclass(frozen=True, eq=False)
class Catalogue:
    """Where the images of a data set lie.

    Attributes:
        kind: how files hold images, see `Kind`; an image of ArrayRecord is placed by its number, not by a byte.
        names: of the files, relative to the data set's folder.
        parts: by split.
        class_names: empty without labels.
        remarks: on images that are left out, and how many they are.
        watched: folders whose times of change, in ns, show whether files came or went: by the bytes, in hex, of the
            path relative to the data set's folder.
        folder: where it is kept; None before it is.
    """

    kind: Kind
    names: Names
    parts: dict[Split, Part]
    class_names: tuple[str, ...] = ()
    remarks: dict[str, int] = field(default_factory=dict)
    watched: dict[str, int] = field(default_factory=dict)
    folder: Path | None = None

    @property
    def images(self) -> int:
        """How many there are, in all splits."""
        return sum(map(len, self.parts.values()))


class _Index(BaseModel, strict=True, extra="forbid"):
    """The content of index.json; `sha256` is that of each other file, by its name without `.npy`."""

    format: Literal[1]
    kind: Kind
    splits: list[Split]
    class_names: list[str]
    remarks: dict[str, int]
    watched: dict[str, int]
    sha256: dict[str, str]


def catalogue_folder(cache_dir: Path, *parts: object) -> Path:
    """Where the catalogue is kept that depends on `parts`."""
    return cache_dir / f"{cache_key('catalogue', FORMAT, *parts)}.catalogue"


def opened_catalogue(folder: Path, name: str) -> Catalogue | None:
    """The catalogue kept in `folder`; None where it is missing or damaged, which is logged.

    Args:
        folder: see `catalogue_folder`.
        name: of the data set, for messages.
    """
    if not folder.exists():
        return None
    try:
        index = _Index.model_validate(read_json(folder / _INDEX))
        arrays = {key: np.load(folder / f"{key}.npy", mmap_mode="r", allow_pickle=False) for key in index.sha256}
        for key, values in arrays.items():
            if _sha256(values) != index.sha256[key]:
                raise ValueError(f"{key} is not what was written")
        parts = {
            split: Part(arrays[f"{split}_places"], arrays[f"{split}_labels"] if index.class_names else None)
            for split in index.splits
        }
        names = Names(arrays["names"], arrays["ends"])
    # numpy raises whatever it likes for a damaged header.
    except Exception as error:
        cause = error.what if isinstance(error, RunFolderError) else str(error)
        _log.warning("the list of the images of %s is made again: %s: %s", name, folder, printable(cause)[:200])
        return None
    return Catalogue(
        index.kind, names, parts, tuple(index.class_names), dict(index.remarks), dict(index.watched), folder
    )


def kept_catalogue(
    folder: Path,
    name: str,
    make: Callable[[], Catalogue],
    is_current: Callable[[Catalogue], bool] = lambda catalogue: True,
) -> Catalogue:
    """The catalogue in `folder`; where there is none that `is_current`, what `make` gives, which is kept there.

    Raises:
        StorageError: the cache cannot be written.
    """
    # First without the lock, so that a cache that may only be read serves too.
    opened = opened_catalogue(folder, name)
    if opened is not None and is_current(opened):
        return opened
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with held_lock(folder.with_suffix(".lock"), wait=True):
            # Another process may have made it meanwhile.
            opened = opened_catalogue(folder, name)
            if opened is not None and is_current(opened):
                return opened
            _keep(folder, make())
    except OSError as error:
        raise StorageError(
            f"cannot use the cache {folder.parent}: {error.strerror or error}",
            "Free space or fix the permissions there, or name another folder with the environment variable "
            "BSSL_TF_CACHE",
        ) from error
    opened = opened_catalogue(folder, name)
    if opened is None:
        raise StorageError(f"{folder} vanished after it was written", "Run the same command again")
    return opened


def _keep(folder: Path, catalogue: Catalogue) -> None:
    arrays = catalogue.names.arrays()
    for split, part in catalogue.parts.items():
        arrays[f"{split}_places"] = part.places
        if part.labels is not None:
            arrays[f"{split}_labels"] = part.labels
    temporary = new_folder(folder.parent, f".{folder.name}.", ".tmp")
    try:
        for name, values in arrays.items():
            with (temporary / f"{name}.npy").open("wb") as file:
                np.save(file, values, allow_pickle=False)
                file.flush()
                os.fsync(file.fileno())
        index = _Index(
            format=FORMAT,
            kind=catalogue.kind,
            splits=[split for split in SPLITS if split in catalogue.parts],
            class_names=list(catalogue.class_names),
            remarks=catalogue.remarks,
            watched=catalogue.watched,
            sha256={name: _sha256(values) for name, values in arrays.items()},
        )
        # Not pydantic's own JSON, which has no way to write a file name that is not UTF-8.
        write_json(temporary / _INDEX, index.model_dump())
        if folder.exists():
            shutil.rmtree(folder)
        temporary.rename(folder)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _sha256(values: NDArray) -> str:
    return hashlib.sha256(np.ascontiguousarray(values).data).hexdigest()
