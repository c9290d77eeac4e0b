"""A folder of image files, with or without class folders; `bssl_tf.data.layout` knows the layouts."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from bssl_tf.data.building import Item, Options, Plan, cached_splits, check_counts, store_size
from bssl_tf.data.cache import cache_key
from bssl_tf.data.decoding import header_size
from bssl_tf.data.image_set import DataSplits, spread_indices
from bssl_tf.data.layout import LAYOUT_HINT, Listing, find_splits
from bssl_tf.errors import DataError, MissingDataError


def load_folder(root: Path, options: Options) -> DataSplits:
    """Loads the images below `root`.

    Raises:
        MissingDataError: there is no such folder.
        DataError: no images, too few, too many unreadable, or folders that contradict each other.
        StorageError: the cache cannot be written.
    """
    name = str(root)
    check_folder(root)
    try:
        splits = find_splits(root, labels_needed=options.labels_needed)
    except OSError as error:
        raise DataError(f"{name} cannot be listed ({error})", "Check its permissions") from error
    if options.limit is not None:
        limit = options.limit
        splits = {
            split: listing.take(spread_indices(len(listing.files), limit).tolist()) for split, listing in splits.items()
        }
    train = splits["train"]
    counts = np.bincount(train.labels or [0] * len(train.files), minlength=max(len(train.class_names), 1))
    check_counts(name, counts, train.class_names, options)

    channels = options.channels or 3
    stats = [_stat(root / file) for listing in splits.values() for file in listing.files]
    contents = [[split, listing.files, listing.labels] for split, listing in splits.items()]
    key = cache_key("folder", contents, stats, train.class_names, options.image_size, channels)

    def plan() -> Plan:
        size = store_size(_common_size(root, splits), options.image_size)
        total = sum(len(listing.files) for listing in splits.values())
        return Plan(_items(root, splits), total, size, train.class_names)

    return cached_splits(name, key, channels, plan, options)


def check_folder(root: Path) -> None:
    """Raises `MissingDataError` where `root` does not exist, and `DataError` where it is not a folder."""
    if not root.exists():
        raise MissingDataError(f"{root} does not exist", "Check the path, or use `embedded` or tfds:NAME")
    if not root.is_dir():
        raise DataError(f"{root} is not a folder", LAYOUT_HINT)


def _stat(file: Path) -> tuple[int, int]:
    """Bytes and time of change; a link that leads nowhere counts as empty, and is unreadable later on."""
    try:
        stat = file.stat()
    except OSError:
        return 0, 0
    return stat.st_size, stat.st_mtime_ns


def _common_size(root: Path, splits: dict[str, Listing]) -> tuple[int, int] | None:
    """Width and height of all readable images, or None where two differ or none is readable."""
    common: tuple[int, int] | None = None
    for listing in splits.values():
        for file in listing.files:
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
