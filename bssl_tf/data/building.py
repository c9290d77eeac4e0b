"""Decodes a stream of images into a cache entry, and decides sizes and held-out images."""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import os
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from bssl_tf.data.cache import (
    SPLITS,
    Entry,
    SplitWriter,
    open_or_build,
    require_space,
    unreadable_file,
    write_unreadable,
)
from bssl_tf.data.decoding import Decoded, UnreadableImageError, decode
from bssl_tf.data.image_set import DataSplits, SkippedFile
from bssl_tf.errors import DataError
from bssl_tf_deploy.pictures import stored_side

_HELD_OUT_SHARE = 6  # one image in six
# Bounds the decoded images that wait in memory.
_DECODED_AT_ONCE = 256


@dataclass(frozen=True)
class Item:
    """An image still to be decoded.

    Attributes:
        split: one of `cache.SPLITS`.
        path: for messages; relative to the data set's root.
        source: a file, the content of one, or what reads it, which may raise `UnreadableImageError`.
        label: None where the data set has no labels.
    """

    split: str
    path: str
    source: Path | bytes | Callable[[], bytes]
    label: int | None


@dataclass(frozen=True)
class Options:
    """How to load; the arguments of `load_data` that the sources share.

    Attributes:
        image_size: side of the network's input, pixels.
        channels: 1, 3, or None for what suits the data.
        cache_dir: where decoded images go.
        max_unreadable_share: more unreadable images than this share stop the run.
        limit: at most this many images in each split, or None.
        labels_needed: refuse classes that nothing can be learnt about; without it they may be anything.
        loading: "mapped", "streaming", or "auto": by size; see `data.streaming`.
        validation: also take a folder of validation images, where there is one beside that for testing.
        label_sets: of a listing, let each set of labels be a class; see `data.listing`.
    """

    image_size: int
    channels: int | None
    cache_dir: Path
    max_unreadable_share: float
    limit: int | None
    labels_needed: bool
    loading: Literal["auto", "mapped", "streaming"] = "auto"
    validation: bool = False
    label_sets: bool = False


def store_size(common_size: tuple[int, int] | None, image_size: int) -> int:
    """The side at which images are stored, pixels.

    Args:
        common_size: width and height that all images share; None where they differ.
        image_size: side of the network's input.

    Returns:
        The native side for square images up to twice the network's input; else `stored_side`.
    """
    if common_size and common_size[0] == common_size[1] and common_size[0] <= 2 * image_size:
        return common_size[0]
    return stored_side(image_size)


def held_out(keys: Sequence[str], labels: Sequence[int]) -> NDArray[np.bool_]:
    """Which images to keep for testing: one in six, of each class its share, bool [N].

    Shares that are not whole are rounded by the largest remainder, of equal ones the class that comes first. Of two or
    more images of a class at least one is held out, and at least one is not. Which ones is decided by the keys' hashes:
    the same keys give the same images, and a further one moves few others.

    Args:
        keys: what names each image, e.g. its relative path.
        labels: the class of each.
    """
    ranks = np.array([int.from_bytes(hashlib.sha256(os.fsencode(key)).digest()[:8], "big") for key in keys], np.uint64)
    _, classes, sizes = np.unique(np.asarray(labels, np.int64), return_inverse=True, return_counts=True)
    wanted = sizes // _HELD_OUT_SHARE
    remainders = np.argsort(-(sizes % _HELD_OUT_SHARE), kind="stable")
    total = (2 * len(keys) + _HELD_OUT_SHARE) // (2 * _HELD_OUT_SHARE)  # rounded, halves up
    wanted[remainders[: total - wanted.sum()]] += 1
    wanted = np.clip(wanted, np.minimum(sizes - 1, 1), sizes - 1)
    chosen = np.zeros(len(keys), bool)
    for label, count in enumerate(wanted):
        members = np.flatnonzero(classes == label)
        chosen[members[np.argsort(ranks[members], kind="stable")[:count]]] = True
    return chosen


@dataclass(frozen=True)
class Plan:
    """What to decode; made only when nothing usable is cached.

    Attributes:
        items: the images, in order.
        total: how many there are.
        size: the side at which they are stored, pixels.
        class_names: empty without labels.
        remarks: on images that are left out, and how many they are.
    """

    items: Iterable[Item]
    total: int
    size: int
    class_names: tuple[str, ...]
    remarks: Mapping[str, int] = field(default_factory=dict)


def cached_splits(name: str, key: str, channels: int, plan: Callable[[], Plan], options: Options) -> DataSplits:
    """The splits from the cache, decoded first where need be.

    Args:
        name: of the data set, for messages.
        key: of the cache entry; covers whatever decides the plan's outcome.
        channels: 1 or 3.
        plan: says what to decode.
        options: see there.

    Raises:
        DataError: too many images are unreadable, too few are left, or a class has none.
        StorageError: the cache cannot be written.
    """

    def build(folder: Path) -> Entry:
        return _build_entry(folder, name, key, channels, plan(), options)

    splits = open_or_build(options.cache_dir, key, name, build)
    total = sum(map(len, (splits.train, splits.test or (), splits.validation or (), splits.skipped_files)))
    # Again, because the entry may have been built under a more lenient setting.
    _refuse_unreadable(name, splits.skipped_files, total, unreadable_file(options.cache_dir, key), options)
    return splits


def _build_entry(folder: Path, name: str, key: str, channels: int, plan: Plan, options: Options) -> Entry:
    skipped: list[SkippedFile] = []
    remarks = Counter(plan.remarks)
    counts: dict[str, NDArray[np.int64]] = {}
    writers: dict[str, SplitWriter] = {}

    def attempt(item: Item) -> Decoded | str:
        try:
            source = item.source() if callable(item.source) else item.source
            return decode(source, plan.size, channels)
        except UnreadableImageError as error:
            return str(error)

    workers = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    with contextlib.ExitStack() as stack:
        stack.enter_context(require_space(folder, plan.total * plan.size**2 * channels))
        # Pillow gives up the interpreter's lock while it decodes.
        pool = stack.enter_context(ThreadPoolExecutor(workers))
        progress = stack.enter_context(tqdm(total=plan.total, desc=name, unit="image", disable=None))
        stream = iter(plan.items)
        while chunk := list(itertools.islice(stream, _DECODED_AT_ONCE)):
            for item, result in zip(chunk, pool.map(attempt, chunk), strict=True):
                if item.split not in writers:
                    writers[item.split] = stack.enter_context(SplitWriter(folder, item.split, plan.size, channels))
                    counts[item.split] = np.zeros(max(len(plan.class_names), 1), np.int64)
                if isinstance(result, str):
                    skipped.append(SkippedFile(item.path, result))
                    continue
                writers[item.split].append(result.pixels, result.ratio, result.size, item.label)
                remarks.update(result.remarks)
                counts[item.split][item.label or 0] += 1
            progress.update(len(chunk))

    if skipped:
        listed = write_unreadable(options.cache_dir, key, tuple(skipped))
        _refuse_unreadable(name, skipped, plan.total, listed, options)
    check_counts(name, counts.get("train", np.zeros(1, np.int64)), plan.class_names, options)
    for split in ("test", "validation"):
        if split in counts and not counts[split].any():
            raise DataError(
                f"no {split} image of {name} can be read", f"Repair the files, or remove the {split} folder"
            )
    return Entry(tuple(split for split in SPLITS if split in writers), plan.class_names, tuple(skipped), dict(remarks))


def _refuse_unreadable(name: str, skipped: Sequence[SkippedFile], total: int, listed: Path, options: Options) -> None:
    if len(skipped) > options.max_unreadable_share * total:
        raise DataError(
            f"{len(skipped)} of {total} images of {name} cannot be read (first: {skipped[0].path}: "
            f"{skipped[0].cause}), more than the {options.max_unreadable_share:.1%} that are tolerated; all are "
            f"listed in {listed}",
            "Repair or remove those files, or raise --max-unreadable-share",
        )


def check_counts(name: str, counts: NDArray[np.int64], class_names: tuple[str, ...], options: Options) -> None:
    """Refuses a training set that nothing can be learnt from.

    Args:
        name: of the data set, for messages.
        counts: int64 [number of classes], or [1] without labels: the training images of each.
        class_names: empty without labels.
        options: where labels are not needed, or only a part was asked for, a class may be missing.

    Raises:
        DataError: fewer than two images, only one class, or a class without images.
    """
    if counts.sum() < 2:
        raise DataError(f"{name} has {counts.sum()} training images, and at least 2 are needed", "Add images")
    if not options.labels_needed:
        return
    if len(class_names) == 1:
        raise DataError(
            f"{name} has only one class ({class_names[0]})",
            "Add a sub-folder for each further class, or name that sub-folder itself to use its images without labels",
        )
    if class_names and options.limit is None and not counts.all():
        missing = ", ".join(class_names[label] for label in np.flatnonzero(counts == 0))
        raise DataError(f"{name} has no readable training image of: {missing}", "Add images, or remove those classes")
