"""Which files of a folder of images are which: training and test folders, class folders, and what is left out.

ROOT/train/CLASS/...  ROOT/test/CLASS/...     for other names of both see `TRAIN_NAMES` and `TEST_NAMES`
ROOT/CLASS/...                                one in six of each class is held out for testing
ROOT/...                                      images in ROOT itself: no labels, folders below mean nothing

Names of splits are known in any case and with "set", "data" or "images" behind them: Train, testing, val_set. What a
system or a NAS keeps beside photos is skipped at every depth. Whatever is left out is reported with its count.
"""

from __future__ import annotations

import itertools
import logging
import os
import re
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path, PurePath

import numpy as np

from bssl_tf.data.building import held_out
from bssl_tf.data.class_names import described, images_text, lookalikes
from bssl_tf.errors import DataError
from bssl_tf_deploy.folders import IMAGE_SUFFIXES, SYSTEM_NAMES
from bssl_tf_deploy.folders import is_image as _is_image

TRAIN_NAMES = ("train", "training")
# The first that has class folders is used; for fine-tuning, the second is for validation.
TEST_NAMES = ("test", "testing", "val", "valid", "validation", "dev", "development", "eval", "evaluation")
LAYOUT_HINT = "Give a folder with images, or with one sub-folder of images for each class"
# What lies beside photos and is none; files of other kinds might be meant.
_BESIDE_IMAGES = frozenset(
    f".{name}"
    for name in (
        *("aae", "csv", "db", "htm", "html", "ini", "json", "log"),
        *("md", "pdf", "tsv", "txt", "xml", "xmp", "yaml", "yml"),
    )
)
_SPLIT_NAME = re.compile(r"(?P<word>[a-z]+?)[-_ .]?(set|data|images|imgs)?")
_MOST_NAMED = 3
_log = logging.getLogger(__name__)


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

    def counts(self) -> dict[str, int]:
        """Images of each class, by its name."""
        found = Counter(self.labels)
        return {name: found[label] for label, name in enumerate(self.class_names)}

    def take(self, indices: list[int]) -> Listing:
        """The files at `indices`, in that order."""
        labels = None if self.labels is None else tuple(self.labels[index] for index in indices)
        return Listing(tuple(self.files[index] for index in indices), labels, self.class_names)


def image_count(root: Path) -> int:
    """Images in and below an existing folder, whichever of them are used. Opens none. Raises `OSError`."""
    tree = _Tree(root)
    folders, files = tree.entries(root)
    return sum(map(_is_image, files)) + sum(_is_image(file) for one in folders for file in tree.files_below(one))


def find_splits(
    root: Path, *, labels_needed: bool, validation: bool = False, changed: dict[Path, int] | None = None
) -> dict[str, Listing]:
    """The files to train on and, where there are labels, to test on: by "train" and "test".

    Args:
        root: an existing folder.
        labels_needed: without it a single class folder is just a folder, such as DCIM on a camera's card.
        changed: takes every folder that was listed, and when it had last changed before that, in ns.
        validation: where there are folders for both testing and validation, also the latter, as "validation".

    Raises:
        DataError: no images, two training folders, test folders without one, or a test folder with classes that the
            training folder lacks.
        OSError: a folder cannot be listed.
    """
    tree = _Tree(root, {} if changed is None else changed)
    try:
        return _find_splits(tree, labels_needed, validation)
    finally:
        tree.report_system_files()


def _find_splits(tree: _Tree, labels_needed: bool, validation: bool) -> dict[str, Listing]:
    root = tree.root
    train_root = _train_folder(tree)
    train = _list(root if train_root is None else train_root, tree)
    if not train.files:
        place = train_root or root
        raise DataError(f"{place} holds no images (known endings: {' '.join(sorted(IMAGE_SUFFIXES))})", LAYOUT_HINT)
    if len(train.class_names) == 1 and not labels_needed:
        train = Listing(train.files, None, ())
    found: dict[Path, Listing] = {}
    if train_root is not None:
        if train.labels is not None:
            found = dict(itertools.islice(_test_folders(tree), 2 if validation else 1))
        _report_unused(tree, {train_root, *found})
    if train.labels is None:
        return {"train": train}
    if labels_needed:
        _report_lookalikes(root if train_root is None else train_root, train)
    if found:
        aligned = [_aligned(place, listing, train_root, train) for place, listing in found.items()]
        return {"train": train} | dict(zip(("test", "validation"), aligned, strict=False))
    kept = held_out(train.files, train.labels)
    splits = {"train": train.take(np.flatnonzero(~kept).tolist())}
    if kept.any():
        splits["test"] = train.take(np.flatnonzero(kept).tolist())
        _log.info("%s: %d of %d images are held out for testing", root, kept.sum(), len(kept))
    return splits


def _aligned(place: Path, found: Listing, train_root: Path | None, train: Listing) -> Listing:
    """Images of a test folder, with the labels that their classes have in `train`."""
    unknown = sorted(set(found.class_names) - set(train.class_names))
    if unknown:
        counts = found.counts()
        raise DataError(
            f"{place} has classes that {train_root} lacks: "
            + ", ".join(described(name, counts[name], train.class_names) for name in unknown),
            "Give the class folders the same names in both",
        )
    labels = [train.class_names.index(found.class_names[label]) for label in found.labels or ()]
    return Listing(found.files, tuple(labels), train.class_names)


def split_word(name: str) -> str:
    """The word of a split's name: "train" of Train_set. Of any other name, what cannot be one."""
    found = _SPLIT_NAME.fullmatch(name.casefold())
    return found["word"] if found else ""


def _train_folder(tree: _Tree) -> Path | None:
    """The training folder, None where ROOT has none or its `train` is just one class (or folder) among others."""
    folders, _ = tree.entries(tree.root)
    trains = [folder for folder in folders if split_word(folder.name) in TRAIN_NAMES]
    tests = [folder for folder in folders if split_word(folder.name) in TEST_NAMES]
    others = [folder for folder in folders if folder not in trains]
    if not trains:
        if tests == folders and len(tests) > 1 and not any(map(_is_image, tree.names(tree.root))):
            names = " and ".join(folder.name for folder in tests)
            raise DataError(
                f"{tree.root} has {names}, but no folder of training images",
                f"Call that folder {TRAIN_NAMES[0]}, or name one of these folders itself",
            )
        return None
    is_split = (
        len(trains) > 1
        or bool(tests)
        or bool(tree.entries(trains[0])[0])
        or not any(map(_is_image, (file for folder in others for file in tree.files_below(folder))))
    )
    if is_split and len(trains) > 1:
        names = " and ".join(folder.name for folder in trains)
        raise DataError(f"{tree.root} has {names}, both for training", "Put their images into one folder")
    return trains[0] if is_split else None


def _test_folders(tree: _Tree) -> Iterator[tuple[Path, Listing]]:
    """The test folders that have labels, the best-named first."""
    folders, _ = tree.entries(tree.root)
    tests = [folder for folder in folders if split_word(folder.name) in TEST_NAMES]
    for folder in sorted(tests, key=lambda folder: TEST_NAMES.index(split_word(folder.name))):
        listing = _list(folder, tree)
        if listing.labels is not None:
            yield folder, listing
        elif listing.files:
            _log.warning("%s has no class folders and cannot be used for testing", folder)


def _report_unused(tree: _Tree, used: set[Path]) -> None:
    """One line on images that lie beside the split folders in use."""
    folders, _ = tree.entries(tree.root)
    counts = {folder.name: sum(map(_is_image, tree.files_below(folder))) for folder in folders if folder not in used}
    if loose := sum(map(_is_image, tree.names(tree.root))):
        counts["beside the folders"] = loose
    if left := {name: count for name, count in counts.items() if count}:
        parts = ", ".join(f"{name} ({images_text(count)})" for name, count in left.items())
        _log.warning("%s: not used: %s", tree.root, parts)


def _report_lookalikes(place: Path, listing: Listing) -> None:
    """A line for each two classes that are probably one, misspelt."""
    counts = listing.counts()
    for fewer, more in lookalikes(counts):
        _log.warning(
            "%s: %s (%s) and %s (%s) are two classes; if they are one, put their images into one folder",
            *(place, fewer, images_text(counts[fewer]), more, images_text(counts[more])),
        )


def _list(place: Path, tree: _Tree) -> Listing:
    """The images below `place`, by class where all of them lie in sub-folders."""
    folders, _ = tree.entries(place)
    prefix = "" if place == tree.root else f"{place.name}/"
    loose, others = _sorted_out(prefix + name for name in tree.names(place))
    by_class: dict[str, list[str]] = {}
    for folder in folders:
        by_class[folder.name], left_out = _sorted_out(tree.files_below(folder))
        others += left_out
    if others:
        _log.warning("%s: %s", place, _left_out(others))
    for empty in [name for name, files in by_class.items() if not files]:
        _log.info("%s holds no images and is ignored", place / empty)
        del by_class[empty]
    if loose or not by_class:
        if loose and by_class:
            _log.warning(
                "%s has images beside its sub-folders, so the sub-folders are not treated as classes and the images "
                "have no labels",
                place,
            )
        return Listing(tuple(sorted(loose + [path for files in by_class.values() for path in files])), None, ())
    class_names = tuple(sorted(by_class))
    pairs = [(path, label) for label, name in enumerate(class_names) for path in by_class[name]]
    return Listing(tuple(path for path, _ in pairs), tuple(label for _, label in pairs), class_names)


@dataclass
class _Tree:
    """The folder of a data set, less what a system keeps in it.

    Attributes:
        root: the folder.
        changed: when each folder that was listed had last changed, in ns.
    """

    root: Path
    changed: dict[Path, int] = field(default_factory=dict)
    _listed: dict[Path, tuple[list[Path], list[str]]] = field(default_factory=dict)
    _system: Counter[str] = field(default_factory=Counter)

    def entries(self, place: Path) -> tuple[list[Path], list[str]]:
        """Folders in `place`, and names of files in it; sorted.

        Neither what is hidden nor what is the system's. Links that lead nowhere count as files; no pipes or devices, on
        which reading would hang.
        """
        if place in self._listed:
            return self._listed[place]
        folders: list[Path] = []
        files: list[str] = []
        # Before it is listed: what changes meanwhile shows.
        self.changed[place] = place.stat().st_mtime_ns
        with os.scandir(place) as scanned:
            for entry in scanned:
                path = place / entry.name
                link = entry.is_symlink()
                is_folder = path.is_dir() if link else entry.is_dir()
                if entry.name.startswith(".") or entry.name.casefold() in SYSTEM_NAMES:
                    self._skip(entry, is_folder)
                elif is_folder:
                    folders.append(path)
                elif (path.is_file() or not path.exists()) if link else entry.is_file():
                    files.append(entry.name)
        self._listed[place] = sorted(folders), sorted(files)
        return self._listed[place]

    def names(self, place: Path) -> list[str]:
        """The names of the files in `place`."""
        return self.entries(place)[1]

    def files_below(self, folder: Path) -> Iterator[str]:
        """Paths of the files in and below `folder`, relative to the root, with forward slashes.

        Links to folders are followed, but no folder is entered twice, so that loops end.
        """
        parents = [place for place in folder.parents if place.is_relative_to(self.root)]
        seen = {_identity(place) for place in parents}
        waiting = [folder]
        while waiting:
            current = waiting.pop()
            if _identity(current) in seen:
                continue
            seen.add(_identity(current))
            folders, files = self.entries(current)
            waiting.extend(reversed(folders))
            prefix = current.relative_to(self.root).as_posix()
            yield from (f"{prefix}/{name}" for name in files)

    def _skip(self, entry: os.DirEntry[str], is_folder: bool) -> None:
        known = entry.name.casefold() in SYSTEM_NAMES
        if is_folder:
            below = [name for _, _, names in os.walk(entry.path) for name in names]
            # What is hidden is usually no picture; of that only pictures are worth a word.
            count = len(below) if known else sum(map(_is_image, below))
        else:
            count = int(known or _is_image(entry.name))
        label = entry.name if is_folder or known else "._*" if entry.name.startswith("._") else ".*"
        if count:
            self._system[label] += count

    def report_system_files(self) -> None:
        """One line on what was skipped because it is hidden or the system's."""
        if self._system:
            parts = ", ".join(f"{name} ({_files(count)})" for name, count in sorted(self._system.items()))
            _log.info("%s: hidden and system files are skipped: %s", self.root, parts)


def _sorted_out(files: Iterable[str]) -> tuple[list[str], Counter[str]]:
    """The images among `files`, sorted, and how many others have which ending, in lower case."""
    images, others = [], Counter[str]()
    for file in files:
        if _is_image(file):
            images.append(file)
        elif (ending := PurePath(file).suffix.lower()) not in _BESIDE_IMAGES:
            others[ending or "none"] += 1
    return sorted(images), others


def _left_out(others: Counter[str]) -> str:
    total = others.total()
    what = "1 file with another ending is" if total == 1 else f"{total} files with other endings are"
    endings = ", ".join(f"{ending}: {count}" for ending, count in others.most_common(_MOST_NAMED))
    return f"{what} left out ({endings}{', ...' if len(others) > _MOST_NAMED else ''})"


def _files(count: int) -> str:
    return "1 file" if count == 1 else f"{count} files"


def _identity(folder: Path) -> tuple[int, int]:
    stat = folder.stat()
    return stat.st_dev, stat.st_ino
