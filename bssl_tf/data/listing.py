"""Images that a file lists with their labels, any number of labels for each image.

    CSV, with a header                     JSON lines
    file,labels,split                      {"file": "a.jpg", "labels": ["cat", "indoors"], "split": "train"}
    a.jpg,cat;indoors,train                {"file": "b/c.png", "labels": []}

Files are relative to the listing's folder. `split` is optional: `train`, `test` or `validation`, or a synonym that
folders may have; without it, one image in six is held out for testing, of each label its share.

An `ImageSet` has one label per image. So its classes are here the sets of labels that occur, as JSON; `label_sets`
turns them back. Where every image has exactly one label, the classes are those labels, unless sets are asked for.
"""

from __future__ import annotations

import csv
import io
import json
import logging
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bssl_tf.data.building import Item, Options, Plan, cached_splits, check_counts, held_out, store_size
from bssl_tf.data.cache import cache_key
from bssl_tf.data.folder import common_size, file_state
from bssl_tf.data.image_set import DataSplits, ImageSet, spread_indices
from bssl_tf.data.layout import TEST_NAMES, TRAIN_NAMES, split_word
from bssl_tf.errors import DataError
from bssl_tf.files import read_regular

SUFFIXES = (".csv", ".jsonl")
# A listing of ten million images.
_MAX_BYTES = 1 << 30
_SEPARATOR = ";"
_VALIDATION_NAMES = TEST_NAMES[2:]
_HINT = 'Write CSV with a header file,labels (labels with ; between them), or JSON lines {"file": ..., "labels": [...]}'
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class _Row:
    file: str
    labels: tuple[str, ...]
    split: str


def is_listing(spec: str) -> bool:
    """Whether `spec` names a file of this kind, by its ending."""
    return Path(spec).suffix.lower() in SUFFIXES


def load_listing(path: Path, options: Options) -> DataSplits:
    """Loads the images that `path` lists.

    Without `options.label_sets`, images of which each has one label are a labelled set, others have no labels.

    Raises:
        DataError: a line is wrong, a file is named twice or lies elsewhere, there are too few images, or too many are
            unreadable.
        StorageError: the cache cannot be written.
    """
    rows = _rows(path)
    single = not options.label_sets and all(len(row.labels) == 1 for row in rows)
    sets = sorted({row.labels for row in rows})
    names: tuple[str, ...] = ()
    if single:
        names = tuple(labels[0] for labels in sets)
    elif options.label_sets:
        names = tuple(json.dumps(labels, ensure_ascii=False) for labels in sets)
    else:
        _log.warning("%s: not every image has exactly one label, so they are taken as images without labels", path)
    place = {labels: number for number, labels in enumerate(sets)}
    splits = _splits(path, rows, options)
    if not names:
        # As of a folder without class folders, nothing is held out.
        splits = {"train": [row for part in splits.values() for row in part]}
    if options.limit is not None:
        splits = {
            split: [part[index] for index in spread_indices(len(part), options.limit)] for split, part in splits.items()
        }
    counts = np.bincount([place[row.labels] for row in splits["train"]], minlength=len(sets))
    # A set of labels may be missing among the training images, a class may not.
    check_counts(str(path), counts, names if single else (), options)
    root, channels = path.parent, options.channels or 3
    files = [row.file for part in splits.values() for row in part]
    contents = [[split, [[row.file, row.labels] for row in part]] for split, part in splits.items()]
    state = [file_state(root / file) for file in files]
    key = cache_key("listing", contents, state, names, options.image_size, channels)

    def items() -> Iterator[Item]:
        for split, part in splits.items():
            for row in part:
                yield Item(split, row.file, root / row.file, place[row.labels] if names else None)

    def plan() -> Plan:
        size = store_size(common_size(root, files), options.image_size)
        return Plan(items(), len(files), size, names)

    return cached_splits(str(path), key, channels, plan, options)


def label_sets(images: ImageSet) -> tuple[tuple[str, ...], NDArray[np.bool_]]:
    """Of images loaded with `label_sets`: K labels, and for each class which of them it means, bool [S, K]."""
    sets = [json.loads(name) for name in images.class_names]
    names = sorted({label for one in sets for label in one})
    return tuple(names), np.array([[name in one for name in names] for one in sets], bool).reshape(
        len(sets), len(names)
    )


def labels_of_images(images: ImageSet) -> tuple[tuple[str, ...], NDArray[np.bool_]]:
    """Likewise, and for each image which of them it has, bool [N, K]."""
    names, sets = label_sets(images)
    return names, sets[images.require_labels()]


def rarest_labels(has: NDArray[np.bool_]) -> NDArray[np.int64]:
    """Of each image the label that the fewest images have, K where it has none: int64 [N], from bool [N, K]."""
    counts = np.where(has, has.sum(axis=0), len(has) + 1)
    return np.where(has.any(axis=1), counts.argmin(axis=1) if has.shape[1] else 0, has.shape[1]).astype(np.int64)


def _has(sets: Sequence[Sequence[str]], names: Sequence[str]) -> NDArray[np.bool_]:
    return np.array([[name in one for name in names] for one in sets], bool).reshape(len(sets), len(names))


def _splits(path: Path, rows: Sequence[_Row], options: Options) -> dict[str, list[_Row]]:
    by_name: dict[str, list[_Row]] = {}
    for row in rows:
        by_name.setdefault(row.split, []).append(row)
    if set(by_name) == {""}:
        names = sorted({label for row in rows for label in row.labels})
        rarest = rarest_labels(_has([row.labels for row in rows], names))
        kept = held_out([row.file for row in rows], rarest.tolist())
        parts = {"train": np.flatnonzero(~kept), "test": np.flatnonzero(kept)}
        _log.info("%s: %d of %d images are held out for testing", path, kept.sum(), len(rows))
        return {split: [rows[place] for place in places] for split, places in parts.items() if len(places)}
    if not by_name.get("train"):
        raise DataError(f"{path} lists no image of the split train", "Name some, or omit the column split")
    # Alone, images for validation are for testing, as of folders.
    tests = [split for split in ("test", "validation") if split in by_name]
    found = dict(zip(("test", "validation"), (by_name[split] for split in tests), strict=False))
    if "validation" in found and not options.validation:
        del found["validation"]
    return {"train": by_name["train"]} | found


def _rows(path: Path) -> list[_Row]:
    try:
        text = read_regular(path, _MAX_BYTES).decode("utf-8-sig")
    except (OSError, ValueError) as error:
        cause = error.strerror if isinstance(error, OSError) else "it is not text in UTF-8"
        raise DataError(f"{path} cannot be read ({cause})", "Check the path, and save it as UTF-8") from error
    read = _csv if path.suffix.lower() == ".csv" else _json_lines
    rows = [_row(path, number, *found) for number, found in read(path, text)]
    if not rows:
        raise DataError(f"{path} lists no images", _HINT)
    twice = [file for file, count in Counter(row.file for row in rows).items() if count > 1]
    if twice:
        raise DataError(f"{path} names {min(twice)} more than once", "Give each image one line, with all of its labels")
    if len({bool(row.split) for row in rows}) > 1:
        raise DataError(f"{path} names the split of some images only", "Name it for all of them, or for none")
    return rows


def _csv(path: Path, text: str) -> Iterator[tuple[int, tuple[Any, Any, Any]]]:
    try:
        reader = csv.DictReader(io.StringIO(text), strict=True)
        known = reader.fieldnames or ()
        if not {"file", "labels"} <= set(known):
            raise DataError(f"{path} has no columns file and labels in its first line", _HINT)
        for row in reader:
            labels = row["labels"]
            words = None if labels is None else [one for one in labels.split(_SEPARATOR) if one.strip()]
            yield reader.line_num, (row["file"], words, row.get("split"))
    except csv.Error as error:
        raise DataError(f"{path} is not CSV ({error})", _HINT) from error


def _json_lines(path: Path, text: str) -> Iterator[tuple[int, tuple[Any, Any, Any]]]:
    for number, line in enumerate(text.splitlines(), start=1):
        if not line.strip():
            continue
        try:
            found = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise DataError(f"line {number} of {path} is not JSON ({error})", _HINT) from error
        if not isinstance(found, dict):
            found = {}
        yield number, (found.get("file"), found.get("labels"), found.get("split"))


def _row(path: Path, number: int, file: Any, labels: Any, split: Any) -> _Row:
    where = f"line {number} of {path}"
    if not isinstance(file, str) or not file.strip():
        raise DataError(f"{where} names no file", _HINT)
    if not isinstance(labels, list) or not all(isinstance(one, str) and one.strip() for one in labels):
        raise DataError(f"{where} has no list of labels", _HINT)
    inside = PurePosixPath(file.strip().replace("\\", "/"))
    if inside.is_absolute() or ".." in inside.parts:
        raise DataError(f"{where} names {file}, which is not below the listing's folder", "Move one of them")
    word = split_word(split) if isinstance(split, str) else ""
    kinds = {"train": TRAIN_NAMES, "validation": _VALIDATION_NAMES, "test": TEST_NAMES[:2]}
    kind = next((kind for kind, words in kinds.items() if word in words), "")
    if split not in (None, "") and not kind:
        raise DataError(f"{where} has the split {split!r:.60}", "Write train, test or validation")
    return _Row(str(inside), tuple(sorted({one.strip() for one in labels})), kind)
