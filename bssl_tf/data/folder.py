"""A folder of image files, with or without class folders; `bssl_tf.data.layout` knows the layouts.

The list of a folder that is streamed is kept. It is made again when a folder below has changed, which is when a file
came, went or got another name; so a million files need not be looked at whenever a run starts.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np

from bssl_tf.data.building import Item, Options, Plan, cached_splits, check_counts, store_size
from bssl_tf.data.cache import SPLITS, Split, cache_key
from bssl_tf.data.catalogue import Catalogue, Names, Part, catalogue_folder, kept_catalogue, opened_catalogue
from bssl_tf.data.decoding import header_size
from bssl_tf.data.image_set import DataSplits, spread_indices
from bssl_tf.data.layout import LAYOUT_HINT, Listing, find_splits
from bssl_tf.data.streaming import is_streamed, streamed_splits
from bssl_tf.errors import DataError, MissingDataError

_COMPARED_FILES = 1000
# File systems' clocks tick, and may not be this machine's.
_CLOCK_NS = 2_000_000_000
_UNKNOWN = -1


def load_folder(root: Path, options: Options) -> DataSplits:
    """Loads the images below `root`.

    Raises:
        MissingDataError: there is no such folder.
        DataError: no images, too few, too many unreadable, or folders that contradict each other.
        StorageError: the cache cannot be written.
    """
    name = str(root)
    check_folder(root)
    channels = options.channels or 3
    kept = catalogue_folder(
        options.cache_dir,
        *("folder", str(root.resolve()), options.labels_needed),
        *(["validation"] if options.validation else []),
    )
    known = opened_catalogue(kept, name) if options.loading != "mapped" else None
    if known is not None and _is_current(known, root) and is_streamed(known.images, options, channels):
        return streamed_splits(name, root, known, options, channels)
    changed: dict[Path, int] = {}
    began = time.time_ns()
    try:
        splits = find_splits(root, labels_needed=options.labels_needed, validation=options.validation, changed=changed)
    except OSError as error:
        raise DataError(f"{name} cannot be listed ({error})", "Check its permissions") from error
    if is_streamed(sum(len(listing.files) for listing in splits.values()), options, channels):
        # A time of change that is this recent may be that of a change after the list was made.
        watched = {
            os.fsencode(folder.relative_to(root)).hex(): time_ns if time_ns < began - _CLOCK_NS else _UNKNOWN
            for folder, time_ns in changed.items()
        }
        known = kept_catalogue(
            kept, name, lambda: _catalogue(root, splits, watched), lambda found: _is_current(found, root)
        )
        del splits
        return streamed_splits(name, root, known, options, channels)
    if options.limit is not None:
        limit = options.limit
        splits = {
            split: listing.take(spread_indices(len(listing.files), limit).tolist()) for split, listing in splits.items()
        }
    train = splits["train"]
    counts = np.bincount(train.labels or [0] * len(train.files), minlength=max(len(train.class_names), 1))
    check_counts(name, counts, train.class_names, options)

    files = [file for listing in splits.values() for file in listing.files]
    stats = [file_state(root / file) for file in files]
    contents = [[split, listing.files, listing.labels] for split, listing in splits.items()]
    key = cache_key("folder", contents, stats, train.class_names, options.image_size, channels)

    def plan() -> Plan:
        size = store_size(common_size(root, files), options.image_size)
        return Plan(_items(root, splits), len(files), size, train.class_names)

    return cached_splits(name, key, channels, plan, options)


def check_folder(root: Path) -> None:
    """Raises `MissingDataError` where `root` does not exist, and `DataError` where it is not a folder."""
    if not root.exists():
        raise MissingDataError(f"{root} does not exist", "Check the path, or use `embedded` or tfds:NAME")
    if not root.is_dir():
        raise DataError(f"{root} is not a folder", LAYOUT_HINT)


def _catalogue(root: Path, splits: dict[str, Listing], watched: dict[str, int]) -> Catalogue:
    parts: dict[Split, Part] = {}
    first = 0
    for split in SPLITS:
        if (listing := splits.get(split)) is None or not listing.files:
            continue
        places = np.zeros((len(listing.files), 3), np.int64)
        places[:, 0] = np.arange(first, first + len(places))
        places[:, 2] = [file_state(root / file)[0] for file in listing.files]
        parts[split] = Part(places, None if listing.labels is None else np.array(listing.labels, np.int64))
        first += len(places)
    names = Names.of(file for split in parts for file in splits[split].files)
    return Catalogue("image_files", names, parts, splits["train"].class_names, watched=watched)


def _is_current(catalogue: Catalogue, root: Path) -> bool:
    """Whether no file came or went since, and none of 1,000 files has another size."""
    try:
        for folder, time_ns in catalogue.watched.items():
            if (root / os.fsdecode(bytes.fromhex(folder))).stat().st_mtime_ns != time_ns:
                return False
    except OSError:
        return False
    for part in catalogue.parts.values():
        for place in spread_indices(len(part), _COMPARED_FILES).tolist():
            file, _, size = part.places[place].tolist()
            if file_state(root / catalogue.names[file])[0] != size:
                return False
    return True


def file_state(file: Path) -> tuple[int, int]:
    """Bytes and time of change; a link that leads nowhere counts as empty, and is unreadable later on."""
    try:
        stat = file.stat()
    except OSError:
        return 0, 0
    return stat.st_size, stat.st_mtime_ns


def common_size(root: Path, files: Iterable[str]) -> tuple[int, int] | None:
    """Width and height of all readable images, or None where two differ or none is readable."""
    common: tuple[int, int] | None = None
    for file in files:
        size = header_size(root / file)
        if size is not None and common is not None and size != common:
            return None
        common = common or size
    return common


def _items(root: Path, splits: dict[str, Listing]) -> Iterator[Item]:
    for split, listing in splits.items():
        labels = listing.labels or [None] * len(listing.files)
        for file, label in zip(listing.files, labels, strict=True):
            yield Item(split, file, root / file, label)
