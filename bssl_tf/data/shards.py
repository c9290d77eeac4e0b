"""A folder of shards, or a single one: large files with thousands of images in each.

ROOT/train-00000-of-00010.tar ...  ROOT/test-00000-of-00001.tar     splits are words of the files' names
ROOT/train/0000.tar ...  ROOT/val/0000.tar                          or of folders
ROOT/images-0000.tar ...                                            else one image in six of each class is held out

Kinds of shards: `bssl_tf.data.shard_files`. Classes have names where `classes.json` holds a list of them, as that of
`bssl-tf pack` does, or TensorFlow Datasets left its `label.labels.txt`; else they are called by their numbers.
"""

from __future__ import annotations

import functools
import json
import logging
import os
import re
from array import array
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from bssl_tf.data.building import Item, Options, Plan, cached_splits, held_out, store_size
from bssl_tf.data.cache import Split, cache_key
from bssl_tf.data.catalogue import Catalogue, Names, Part, catalogue_folder, kept_catalogue
from bssl_tf.data.encoded import encoded_images
from bssl_tf.data.image_set import DataSplits
from bssl_tf.data.layout import TEST_NAMES, TRAIN_NAMES, split_word
from bssl_tf.data.shard_files import FORMATS, ShardFormat, format_of, is_compressed
from bssl_tf.data.streaming import common_size, is_streamed, limited, streamed_splits
from bssl_tf.errors import DataError, MissingDataError
from bssl_tf.files import read_regular
from bssl_tf_deploy.folders import SYSTEM_NAMES, is_image

CLASSES_FILE = "classes.json"
# Where `bssl-tf pack` has not finished.
PLAN_FILE = "packing.json"
_TFDS_CLASSES = "label.labels.txt"
_MAX_CLASSES_BYTES = 1 << 26
_NO_LABEL = -1
_log = logging.getLogger(__name__)


def is_shard(path: Path) -> bool:
    """Whether `path` is a file that is named like a shard, compressed or not."""
    return (format_of(path.name) is not None or is_compressed(path.name)) and path.is_file()


def has_shards(path: Path) -> bool:
    """Whether `path` is a shard, or a folder with shards and no images in it."""
    if not path.is_dir():
        return is_shard(path)
    try:
        return bool(_shards_in(path))
    except OSError:  # Whoever lists the folder reports it.
        return False


def load_shards(path: Path, options: Options) -> DataSplits:
    """Loads the images of the shards in a folder, or of one shard.

    Raises:
        DataError: a shard is damaged or compressed, kinds are mixed, labels have no class, or too few images.
        StorageError: the cache cannot be written.
    """
    if path.is_file():
        root, shards = path.parent, [path.name]
    else:
        root, shards = path, _shards_in(path)
        if (path / PLAN_FILE).exists():
            raise DataError(
                f"{path} is not complete, because `bssl-tf pack` was stopped", "Run it again: it continues there"
            )
    by_split: dict[str, list[str]] = {}
    for shard in shards:
        by_split.setdefault(_split_of(shard), []).append(shard)
    return load_catalogued(str(path), root, by_split, _class_names(root), options)


def load_catalogued(
    name: str, root: Path, shards: dict[str, list[str]], class_names: tuple[str, ...] | None, options: Options
) -> DataSplits:
    """Loads the images of these shards.

    Args:
        name: of the data set, for messages.
        root: the folder that they lie in.
        shards: paths relative to it, by the name of the split.
        class_names: empty where they are not known; None where what looks like a label is none.
        options: see there.

    Raises:
        DataError, StorageError: see `load_shards`.
    """
    files = [
        [shard, stat.st_size, stat.st_mtime_ns]
        for paths in shards.values()
        for shard, stat in ((shard, _stat(root / shard)) for shard in paths)
    ]
    kept = catalogue_folder(options.cache_dir, "shards", str(root.resolve()), files, class_names)
    catalogue = kept_catalogue(kept, name, lambda: _catalogue(name, root, shards, class_names))
    channels = options.channels or 3
    if is_streamed(catalogue.images, options, channels):
        return streamed_splits(name, root, catalogue, options, channels)
    key = cache_key("shards", files, class_names, options.image_size, channels, options.limit)

    def plan() -> Plan:
        parts = {split: limited(part, options.limit) for split, part in catalogue.parts.items()}
        common = common_size(encoded_images(root, catalogue, part) for part in parts.values())
        total = sum(map(len, parts.values()))
        size = store_size(common, options.image_size)
        return Plan(_items(root, catalogue, parts), total, size, catalogue.class_names, catalogue.remarks)

    return cached_splits(name, key, channels, plan, options)


def _stat(path: Path) -> os.stat_result:
    try:
        return path.stat()
    except OSError as error:
        raise MissingDataError(f"{path} cannot be opened ({error.strerror or error})", "Put the shard back") from error


def _shards_in(root: Path) -> list[str]:
    """Shards in `root` and in the folders of splits in it, sorted; none where images or other folders are beside them.

    Beside those a shard is what the images were unpacked from.
    """
    found: list[str] = []
    folders: list[str] = []
    with os.scandir(root) as scanned:
        for entry in scanned:
            if entry.name.startswith(".") or entry.name.casefold() in SYSTEM_NAMES:
                continue
            if entry.is_dir():
                folders.append(entry.name)
            elif is_image(entry.name):
                return []
            elif _is_named(entry.name):
                found.append(entry.name)
    for folder in folders:
        within = [] if not _split_of(folder) else _shards_in(root / folder)
        if not within:
            return []
        found += [f"{folder}/{name}" for name in within]
    return sorted(found)


def _is_named(name: str) -> bool:
    return not name.startswith(".") and (format_of(name) is not None or is_compressed(name))


def _split_of(shard: str) -> str:
    """The name of the split that a shard belongs to, as its own name or its folder's says; empty where neither does."""
    words = re.split(r"[^a-z]+", shard.casefold())
    return next((word for word in map(split_word, words) if word in (*TRAIN_NAMES, *TEST_NAMES)), "")


def _class_names(root: Path) -> tuple[str, ...]:
    try:
        if (file := root / CLASSES_FILE).exists():
            names = json.loads(read_regular(file, _MAX_CLASSES_BYTES))
            if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
                raise ValueError("it is not a list of names")
            return tuple(names)
        if (file := root / _TFDS_CLASSES).exists():
            return tuple(read_regular(file, _MAX_CLASSES_BYTES).decode("utf-8").splitlines())
    except (OSError, ValueError) as error:
        raise DataError(
            f"{file} cannot be read ({error})", "Repair it, or remove it to call classes by number"
        ) from error
    return ()


def _catalogue(name: str, root: Path, shards: dict[str, list[str]], class_names: tuple[str, ...] | None) -> Catalogue:
    all_shards = [shard for paths in shards.values() for shard in paths]
    formats = {shard: _format(root / shard) for shard in all_shards}
    suffixes = sorted({form.suffix for form in formats.values()})
    if len(suffixes) > 1:
        raise DataError(
            f"{name} has shards of several kinds ({', '.join(suffixes)})", "Keep those of one kind in a folder"
        )
    kind = formats[all_shards[0]].kind
    remarks: dict[str, int] = {}
    found: dict[str, Part] = {}
    with tqdm(total=len(all_shards), desc=name, unit="shard", disable=None) as progress:
        _log.info("%s: looking where the images are in %d shards", name, len(all_shards))
        first = 0
        for split, paths in shards.items():
            found[split] = _part(root, paths, formats, first, remarks, progress)
            first += len(paths)
    if class_names is None:
        found = {split: Part(part.places, None) for split, part in found.items()}
    parts = _chosen(name, found, all_shards, remarks)
    train = parts["train"]
    if any(part.labels is None for part in parts.values()):
        return Catalogue(kind, Names.of(all_shards), {"train": Part(train.places, None)}, (), remarks)
    parts, class_names = _numbered(name, parts, class_names or ())
    return Catalogue(kind, Names.of(all_shards), parts, class_names, remarks)


def _format(path: Path) -> ShardFormat:
    form = format_of(path.name)
    if form is None and is_compressed(path.name):
        raise DataError(f"{path} is compressed, so there is no random access to its images", "Unpack it first")
    if form is None:
        raise DataError(
            f"{path} is none of {', '.join(form.suffix for form in FORMATS.values())}",
            "Pack the images again with `bssl-tf pack`",
        )
    return form


def _part(
    root: Path,
    paths: Sequence[str],
    formats: dict[str, ShardFormat],
    first: int,
    remarks: dict[str, int],
    progress: Any,
) -> Part:
    """The images of a split; `first` is the number of its first shard."""
    places, labels = array("q"), array("q")
    for number, path in enumerate(paths, first):
        for start, size, label in formats[path].found(root / path):
            places.extend((number, start, size))
            labels.append(_NO_LABEL if label is None else label)
        progress.update()
    values = np.array(labels, np.int64)
    # TensorFlow Datasets has -1 for a label that is not known.
    missing = int((values < 0).sum())
    if 0 < missing < len(values):
        remark = "no label, so that labels of the others are not used"
        remarks[remark] = remarks.get(remark, 0) + missing
    return Part(np.array(places, np.int64).reshape(-1, 3), None if missing or not len(values) else values)


def _chosen(name: str, found: dict[str, Part], shards: Sequence[str], remarks: dict[str, int]) -> dict[Split, Part]:
    """What to train on and to test on."""
    train_name = next((split for split in (*TRAIN_NAMES, "") if split in found), None)
    if train_name is None or len(found[train_name]) < 2:
        count = 0 if train_name is None else len(found[train_name])
        raise DataError(
            f"{name} has {count} training images in {len(shards)} shards",
            "Name shards of training images so: train-00000.tar, with a .jpg or .png for each image",
        )
    train = found.pop(train_name)
    test_name = next((split for split in TEST_NAMES if split in found and found[split].labels is not None), None)
    parts: dict[Split, Part] = {"train": train}
    if train.labels is not None and test_name is not None:
        parts["test"] = found.pop(test_name)
    elif train.labels is not None:
        keys = [f"{shards[shard]}:{start}" for shard, start, _ in train.places.tolist()]
        kept = held_out(keys, train.labels.tolist())
        parts = {"train": Part(train.places[~kept], train.labels[~kept])}
        if kept.any():
            parts["test"] = Part(train.places[kept], train.labels[kept])
        _log.info("%s: %d of %d images are held out for testing", name, kept.sum(), len(kept))
    remarks |= {f"not used: split {split or 'without a name'}": len(part) for split, part in found.items() if len(part)}
    return parts


def _numbered(
    name: str, parts: dict[Split, Part], class_names: tuple[str, ...]
) -> tuple[dict[Split, Part], tuple[str, ...]]:
    """`parts` with labels that are places in the names of classes; where these are not known, numbers as they are."""
    labels = {split: np.asarray(part.labels) for split, part in parts.items()}
    known = np.arange(len(class_names)) if class_names else np.unique(labels["train"])
    names = class_names or tuple(str(number) for number in known.tolist())
    for split, values in labels.items():
        if len(unknown := np.setdiff1d(values, known)):
            listed = ", ".join(map(str, unknown[:5].tolist())) + (", ..." if len(unknown) > 5 else "")
            raise DataError(
                f"{name}: the {split} images have labels without a class: {listed}",
                f"Pack them again, or name all classes in {CLASSES_FILE}",
            )
    return {split: Part(part.places, np.searchsorted(known, labels[split])) for split, part in parts.items()}, names


def _items(root: Path, catalogue: Catalogue, parts: dict[Split, Part]) -> Iterator[Item]:
    for split, part in parts.items():
        encoded = encoded_images(root, catalogue, part)
        for index in range(len(part)):
            label = None if part.labels is None else int(part.labels[index])
            yield Item(split, encoded.describe(index), functools.partial(encoded.read, index), label)
