"""Decoded images on disk: built once under a temporary name, renamed when whole, then mapped into memory.

    CACHE/KEY/index.json                    what the other files hold, with their fingerprints; written last
    CACHE/KEY/SPLIT_images.npy              uint8 [N, S, S, C]
    CACHE/KEY/SPLIT_aspect_ratios.npy       float32 [N]
    CACHE/KEY/SPLIT_sizes.npy               int32 [N, 2], of the originals; not in older entries
    CACHE/KEY/SPLIT_labels.npy              int64 [N], where there are labels
    CACHE/KEY.unreadable.tsv                files that were skipped, and why

The key is a hash over everything the content depends on, so an entry is never stale, only unused. Disks lose bits:
index.json has a checksum of its own and the fingerprint of each split, which is compared when a process opens the
entry; a damaged one is built again. That reads the whole file once, from end to end, at the speed of the disk. Training
compares the same fingerprint with its run folder and reads every image again and again anyway, so that it costs nothing
more; a block-wise check at each access would cost a little in every step.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import logging
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel

from bssl_tf.data.image_set import DataSplits, ImageSet, SkippedFile
from bssl_tf.errors import RunFolderError, StorageError
from bssl_tf.files import held_lock, new_folder, read_json, write_bytes, write_json
from bssl_tf_deploy.text import printable

# Part of every key: raise it when decoding or the layout changes.
FORMAT: Literal[3] = 3
Split = Literal["train", "test", "validation"]
SPLITS: tuple[Split, ...] = ("train", "test", "validation")
_INDEX = "index.json"
# What stands there is not what was written, or nothing does; other errors of the system would come again.
_DAMAGE = (errno.ENOENT, errno.EFBIG, errno.EINVAL, errno.EISDIR, errno.ENOTDIR)
_log = logging.getLogger(__name__)


def cache_key(*parts: object) -> str:
    """SHA-256, in hex, over the parts' JSON and the format."""
    return hashlib.sha256(json.dumps([FORMAT, *parts]).encode()).hexdigest()


class _Skipped(BaseModel, strict=True, extra="forbid"):
    path: str
    cause: str


class _Index(BaseModel, strict=True, extra="forbid"):
    """The content of index.json; what each is, `Entry` says.

    `sizes`: bytes of the other files by name. `fingerprints`: of the splits, see `_checksum`; none in older entries.
    """

    format: Literal[3]
    splits: list[Split]
    class_names: list[str]
    skipped: list[_Skipped]
    remarks: dict[str, int]
    sizes: dict[str, int]
    fingerprints: dict[str, str] = {}


@dataclass(frozen=True)
class Entry:
    """What a builder hands back.

    Attributes:
        splits: which of `SPLITS` were written.
        class_names: empty without labels.
        skipped: unreadable files.
        remarks: on how others were read, and the number of images of which each is true.
    """

    splits: tuple[Split, ...]
    class_names: tuple[str, ...]
    skipped: tuple[SkippedFile, ...]
    remarks: Mapping[str, int]


class SplitWriter:
    """Appends images of one split to the entry that is being built; a context manager.

    Plain writes, not a writable memory map: on a full disk a write raises an error, a map kills the process.
    """

    def __init__(self, folder: Path, split: str, size: int, channels: int) -> None:
        self._folder, self._split, self._shape = folder, split, (size, size, channels)
        self._aspect_ratios: list[float] = []
        self._sizes: list[tuple[int, int]] = []
        self._labels: list[int] = []
        self._file = (folder / f"{split}_images.npy").open("wb")
        self._write_header()

    def _write_header(self) -> None:
        # numpy pads the header so that the first size can grow in place.
        header = {"descr": "|u1", "fortran_order": False, "shape": (len(self._aspect_ratios), *self._shape)}
        np.lib.format.write_array_header_1_0(self._file, header)  # type: ignore[no-untyped-call]

    def append(self, image: NDArray[np.uint8], aspect_ratio: float, pixels: tuple[int, int], label: int | None) -> None:
        """Adds an image: uint8 [S, S, C], the original's width / height, and both in pixels, and its label or None."""
        self._file.write(np.ascontiguousarray(image).data)
        self._aspect_ratios.append(aspect_ratio)
        self._sizes.append(pixels)
        if label is not None:
            self._labels.append(label)

    def __enter__(self) -> SplitWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        with self._file:
            if error is None:
                self._file.seek(0)
                self._write_header()
                self._file.flush()
                os.fsync(self._file.fileno())
        if error is None:
            np.save(self._folder / f"{self._split}_aspect_ratios.npy", np.array(self._aspect_ratios, np.float32))
            np.save(self._folder / f"{self._split}_sizes.npy", np.array(self._sizes, np.int32).reshape(-1, 2))
            if self._labels:
                np.save(self._folder / f"{self._split}_labels.npy", np.array(self._labels, np.int64))


def open_or_build(
    cache_dir: Path,
    key: str,
    name: str,
    build: Callable[[Path], Entry],
) -> DataSplits:
    """The cached splits under `key`, built first where they are missing, damaged, or of before there were checks.

    Args:
        cache_dir: made where it is missing.
        key: from `cache_key`.
        name: of the data set, for messages.
        build: writes an entry's splits to the empty folder it is given; calls `require_space` first.

    Raises:
        StorageError: the cache cannot be written.
    """
    folder = cache_dir / key
    try:
        # First without the lock, so that a cache that may only be read serves too.
        opened = _open(folder, name, report=False)
        if opened is None:
            cache_dir.mkdir(parents=True, exist_ok=True)
            # Without locks two processes may build the same entry; the temporary names keep them apart.
            with held_lock(cache_dir / f"{key}.lock", wait=True) as alone:
                opened = _open(folder, name)
                if opened is None:
                    if alone:
                        for left_over in cache_dir.glob(f".{key}.*.tmp"):
                            shutil.rmtree(left_over, ignore_errors=True)
                    _log.info("decoding %s into %s", name, folder)
                    _build(folder, build)
                    opened = _open(folder, name)
    except OSError as error:
        raise _unusable(cache_dir, error.strerror or str(error)) from error
    if opened is None:
        raise _unusable(cache_dir, "the entry vanished after it was written")
    splits, remarks = opened
    for remark, count in remarks.items():
        _log.warning("%s: %s: %s", name, "1 image" if count == 1 else f"{count} images", remark)
    if len(splits.skipped_files) == 1:
        [file] = splits.skipped_files
        _log.warning("1 file was skipped as unreadable: %s (%s)", printable(file.path), printable(file.cause))
    elif splits.skipped_files:
        listed = unreadable_file(cache_dir, key)
        _log.warning("%d files were skipped as unreadable: see %s", len(splits.skipped_files), listed)
    return splits


def unreadable_file(cache_dir: Path, key: str) -> Path:
    """Where the files that were skipped are listed."""
    return cache_dir / f"{key}.unreadable.tsv"


def write_unreadable(cache_dir: Path, key: str, skipped: tuple[SkippedFile, ...]) -> Path:
    """Writes path and cause, tab between, a line for each file; returns where. Raises `StorageError`."""
    # A file name may hold any byte but a slash: a line break in it must not make a second line.
    rows = (f"{file.path.translate(_ESCAPES)}\t{file.cause.translate(_ESCAPES)}\n" for file in skipped)
    path = unreadable_file(cache_dir, key)
    write_bytes(path, ("path\tcause\n" + "".join(rows)).encode("utf-8", "surrogateescape"))
    return path


_ESCAPES = str.maketrans({"\t": "\\t", "\n": "\\n", "\r": "\\r"})


@contextlib.contextmanager
def require_space(folder: Path, needed_bytes: int) -> Iterator[None]:
    """Refuses to begin what the disk cannot hold, and names the bytes should it run full in between.

    Raises:
        StorageError: fewer than `needed_bytes` are free, or the block ran out of them.
    """
    free = shutil.disk_usage(folder).free
    if free < needed_bytes:
        raise _unusable(folder.parent, f"{needed_bytes} bytes are needed there and {free} are free")
    try:
        yield
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        raise _unusable(folder.parent, f"{error.strerror}; {needed_bytes} bytes are needed there") from error


def _unusable(cache_dir: Path, cause: str) -> StorageError:
    return StorageError(
        f"cannot use the cache {cache_dir}: {cause}",
        "Free space or fix the permissions there, or name another folder with the environment variable BSSL_TF_CACHE",
    )


def _build(folder: Path, build: Callable[[Path], Entry]) -> None:
    temporary = new_folder(folder.parent, f".{folder.name}.", ".tmp")
    try:
        entry = build(temporary)
        names = entry.class_names
        index = _Index(
            format=FORMAT,
            splits=list(entry.splits),
            class_names=list(names),
            skipped=[_Skipped(path=file.path, cause=file.cause) for file in entry.skipped],
            remarks=dict(entry.remarks),
            sizes={file.name: file.stat().st_size for file in sorted(temporary.iterdir())},
            fingerprints={split: _checksum(_open_split(temporary, split, split, names)) for split in entry.splits},
        )
        # Not pydantic's own JSON, which has no way to write a file name that is not UTF-8.
        write_json(temporary / _INDEX, index.model_dump())
        if folder.exists():
            shutil.rmtree(folder)
        temporary.rename(folder)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _open(folder: Path, name: str, *, report: bool = True) -> tuple[DataSplits, Mapping[str, int]] | None:
    """The entry and its remarks; None where it is missing or damaged, which is logged."""
    try:
        folder.stat()
    except FileNotFoundError:
        return None
    try:
        index = _Index.model_validate(read_json(folder / _INDEX))
        if any((folder / file).stat().st_size != size for file, size in index.sizes.items()):
            raise ValueError("a file has another size")
        if not index.fingerprints:
            raise ValueError("it was written by a version without checksums")
        class_names = tuple(index.class_names)
        sets = {split: _open_split(folder, split, f"{name} ({split})", class_names) for split in index.splits}
        for split, images in sets.items():
            if _checksum(images) != index.fingerprints.get(split):
                raise ValueError(f"the {split} images are not what was written")
        skipped = tuple(SkippedFile(file.path, file.cause) for file in index.skipped)
        return DataSplits(name, sets["train"], sets.get("test"), skipped, sets.get("validation")), index.remarks
    # numpy raises whatever it likes for a damaged header.
    except Exception as error:
        system = error if isinstance(error, OSError) else error.__cause__
        if isinstance(system, OSError) and system.errno not in _DAMAGE:
            raise system from error
        if report:
            cause = error.what if isinstance(error, RunFolderError) else str(error)
            _log.warning("the cached images of %s are not used: %s: %s", name, folder, printable(cause)[:200])
        return None


def _open_split(folder: Path, split: str, name: str, class_names: tuple[str, ...]) -> ImageSet:
    aspect_ratios = np.load(folder / f"{split}_aspect_ratios.npy", allow_pickle=False)
    # An empty file cannot be mapped.
    images = np.load(folder / f"{split}_images.npy", mmap_mode="r" if len(aspect_ratios) else None, allow_pickle=False)
    labels = np.load(folder / f"{split}_labels.npy", allow_pickle=False) if class_names else None
    file = folder / f"{split}_sizes.npy"
    sizes = np.load(file, allow_pickle=False) if file.exists() else None
    return ImageSet(name, images, aspect_ratios, labels, class_names, sizes)


def _checksum(images: ImageSet) -> str:
    """The fingerprint, and what it does not cover."""
    if images.sizes is None:
        return images.fingerprint()
    return hashlib.sha256(images.fingerprint().encode() + images.sizes.astype("<i4").tobytes()).hexdigest()
