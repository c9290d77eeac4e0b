"""A folder of image files, with or without class folders.

ROOT/train/CLASS/...  ROOT/test/CLASS/...     (or val, validation)
ROOT/CLASS/...                                one in six of each class is held out for testing
ROOT/...                                      images in ROOT itself: no labels, folders below mean nothing
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePath

import numpy as np

from bssl_tf.data.building import Item, Options, Plan, cached_splits, check_counts, held_out, store_size
from bssl_tf.data.cache import cache_key
from bssl_tf.data.decoding import IMAGE_SUFFIXES, header_size
from bssl_tf.data.image_set import DataSplits, spread_indices
from bssl_tf.errors import DataError

_TRAIN_FOLDER = "train"
_TEST_FOLDERS = ("test", "val", "validation")
# What lies beside photos and is none; files of other kinds might be meant.
_BESIDE_IMAGES = frozenset(
    f".{name}"
    for name in (
        *("aae", "csv", "db", "htm", "html", "ini", "json", "log"),
        *("md", "pdf", "tsv", "txt", "xml", "xmp", "yaml", "yml"),
    )
)
_TOLD_ENDINGS = 3
_LAYOUT_HINT = "Give a folder with images, or with one sub-folder of images for each class"


@dataclass(frozen=True)
class Listing:
    """The images below one root.

    Attributes:
        files: paths relative to the data set's root, sorted.
        labels: the class of each, or None.
        class_names: empty without labels.
    """

    files: tuple[str, ...]
    labels: tuple[int, ...] | None
    class_names: tuple[str, ...]

    def take(self, indices: list[int]) -> Listing:
        """The files at `indices`, in that order."""
        labels = None if self.labels is None else tuple(self.labels[index] for index in indices)
        return Listing(tuple(self.files[index] for index in indices), labels, self.class_names)


def load_folder(root: Path, options: Options) -> DataSplits:
    """Loads the images below `root`; see the module's docstring for the layouts.

    Raises:
        DataError: no such folder, no images, too few, too many unreadable, or folders that contradict each other.
        StorageError: the cache cannot be written.
    """
    name = str(root)
    if not root.exists():
        raise DataError(f"{name} does not exist", "Check the path, or use `embedded` or tfds:NAME")
    if not root.is_dir():
        raise DataError(f"{name} is not a folder", _LAYOUT_HINT)
    try:
        splits = find_splits(root, options)
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


def find_splits(root: Path, options: Options) -> dict[str, Listing]:
    """The files to train on and, where there are labels, to test on.

    Raises:
        DataError: no images, or a test folder with classes that the training folder lacks.
        OSError: a folder cannot be listed.
    """
    train_root = _train_folder(root)
    if train_root is None:
        train, test = _list(root, root, options), None
    else:
        train, test = _list(train_root, root, options), _find_test(root, options)
    if not train.files:
        place = root if train_root is None else train_root
        raise DataError(f"{place} holds no images (known endings: {' '.join(sorted(IMAGE_SUFFIXES))})", _LAYOUT_HINT)
    if len(train.class_names) == 1 and not options.labels_needed:
        # Such as DCIM on a camera's card: a folder, not a class, and no reason to hold anything out.
        train = Listing(train.files, None, ())
    if train.labels is None:
        return {"train": train}
    if test is not None:
        unknown = sorted(set(test.class_names) - set(train.class_names))
        if unknown:
            raise DataError(
                f"the test folder of {root} has classes that its training folder lacks: {', '.join(unknown)}",
                "Name the class folders alike in both",
            )
        labels = [train.class_names.index(test.class_names[label]) for label in test.labels or ()]
        return {"train": train, "test": Listing(test.files, tuple(labels), train.class_names)}
    kept = held_out(train.files, train.labels)
    splits = {"train": train.take(np.flatnonzero(~kept).tolist())}
    if kept.any():
        splits["test"] = train.take(np.flatnonzero(kept).tolist())
        options.report(f"{root}: {int(kept.sum())} of {len(kept)} images are held out for testing")
    return splits


def _train_folder(root: Path) -> Path | None:
    """ROOT/train where it is a split, None where `train` is just one class (or folder) among others."""
    train = root / _TRAIN_FOLDER
    if not train.is_dir():
        return None
    others = [folder for folder in _folders(root) if folder != train]
    if any(folder.name in _TEST_FOLDERS for folder in others) or _folders(train):
        return train
    return None if any(map(_is_image, (file for folder in others for file in _files_below(folder, root)))) else train


def _find_test(root: Path, options: Options) -> Listing | None:
    """The first of the test folders that has labels."""
    for name in _TEST_FOLDERS:
        if (root / name).is_dir():
            listing = _list(root / name, root, options)
            if listing.labels is not None:
                return listing
            options.report(f"{root / name} has no class folders and is not used")
    return None


def _list(place: Path, root: Path, options: Options) -> Listing:
    """The images below `place`, by class where all of them lie in sub-folders."""
    loose, others = _sorted_out(file.name for file in _files(place))
    by_class: dict[str, list[str]] = {}
    for folder in _folders(place):
        by_class[folder.name], left_out = _sorted_out(_files_below(folder, place))
        others += left_out
    if others:
        options.report(f"{place}: {_told(others)}")
    for empty in [name for name, files in by_class.items() if not files]:
        options.report(f"{place / empty} holds no images and is ignored")
        del by_class[empty]
    prefix = "" if place == root else f"{place.name}/"
    if loose or not by_class:
        if loose and by_class:
            options.report(
                f"{place} has images beside its sub-folders, so the sub-folders are not taken for classes and the "
                "images have no labels"
            )
        paths = loose + [path for files in by_class.values() for path in files]
        return Listing(tuple(prefix + path for path in sorted(paths)), None, ())
    class_names = tuple(sorted(by_class))
    pairs = [(prefix + path, label) for label, name in enumerate(class_names) for path in by_class[name]]
    return Listing(tuple(path for path, _ in pairs), tuple(label for _, label in pairs), class_names)


def _sorted_out(files: Iterable[str]) -> tuple[list[str], Counter[str]]:
    """The images among `files`, sorted, and how many others have which ending, in lower case."""
    images, others = [], Counter[str]()
    for file in files:
        if _is_image(file):
            images.append(file)
        elif (ending := PurePath(file).suffix.lower()) not in _BESIDE_IMAGES:
            others[ending or "none"] += 1
    return sorted(images), others


def _told(others: Counter[str]) -> str:
    total = others.total()
    what = "1 file with another ending is" if total == 1 else f"{total} files with other endings are"
    endings = ", ".join(f"{ending}: {count}" for ending, count in others.most_common(_TOLD_ENDINGS))
    return f"{what} left out ({endings}{', ...' if len(others) > _TOLD_ENDINGS else ''})"


def _files_below(folder: Path, root: Path) -> Iterator[str]:
    """Paths of the files in and below `folder`, relative to `root`, with forward slashes.

    Links to folders are followed, but no folder is entered twice, so that loops end.
    """
    seen = {_identity(root)}
    waiting = [folder]
    while waiting:
        current = waiting.pop()
        if _identity(current) in seen:
            continue
        seen.add(_identity(current))
        waiting.extend(reversed(_folders(current)))
        yield from (file.relative_to(root).as_posix() for file in _files(current))


def _identity(folder: Path) -> tuple[int, int]:
    stat = folder.stat()
    return stat.st_dev, stat.st_ino


def _folders(place: Path) -> list[Path]:
    return sorted(path for path in place.iterdir() if not path.name.startswith(".") and path.is_dir())


def _files(place: Path) -> list[Path]:
    """Files that are not hidden, and links that lead nowhere; no pipes or devices, on which reading would hang."""
    visible = (path for path in place.iterdir() if not path.name.startswith("."))
    return sorted(path for path in visible if path.is_file() or (path.is_symlink() and not path.exists()))


def _is_image(file: str) -> bool:
    return PurePath(file).suffix.lower() in IMAGE_SUFFIXES


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
