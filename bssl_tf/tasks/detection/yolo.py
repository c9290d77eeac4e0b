"""Annotations of YOLO: a text file for each image, and data.yaml with the names of classes and the folders of splits.

    ROOT/data.yaml                 path, train, val, test (folders or lists of images), names
    ROOT/images/SPLIT/NAME.jpg     or ROOT/SPLIT/images/NAME.jpg
    ROOT/labels/SPLIT/NAME.txt     a line for each object: class, middle x, middle y, width, height, as shares; or
                                   class and the corners of a polygon

An image without a file, or with an empty one, has no objects, as YOLO has it.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator, Mapping
from pathlib import Path, PurePosixPath
from typing import Any

from bssl_tf.errors import DataError, first_line
from bssl_tf.files import read_regular
from bssl_tf.tasks.detection.annotations import (
    MAX_OBJECTS,
    Annotated,
    Annotations,
    Faults,
    Object,
    Split,
    items_of_files,
    number,
    stamp_of_files,
    within,
)
from bssl_tf_deploy.folders import is_image
from bssl_tf_deploy.system_errors import next_step

_MAX_YAML_BYTES, _MAX_LABEL_BYTES, _MAX_LIST_BYTES = 1 << 18, 1 << 23, 1 << 28
_MAX_CLASSES = 100_000
_SPLITS: tuple[tuple[str, Split], ...] = (
    ("train", "train"),
    ("val", "validation"),
    ("valid", "validation"),
    ("test", "test"),
)
_HINT = "Give data.yaml with names (a list), and train, val and test (folders below its own)"


def yolo_file(root: Path) -> Path | None:
    """The data.yaml of a folder, or the file that is one; None where it is not YOLO's."""
    if root.is_file():
        return root if root.suffix.lower() in (".yaml", ".yml") else None
    return next((root / name for name in ("data.yaml", "data.yml") if (root / name).is_file()), None)


def read_yolo(file: Path, faults: Faults) -> Annotations:
    """Reads what a data.yaml names; what makes no sense in the labels is a fault.

    Raises:
        DataError: the file is not of this form, or names no images of its own folder.
    """
    root, content = file.parent, _content(file)
    names = _names(file, content.get("names"))
    images: dict[str, Annotated] = {}
    try:
        for key, split in _SPLITS:
            for path in _listed(root, content, key, faults):
                if path in images:
                    faults.note(path, "image in two splits", f"{images[path].split} and {split}")
                elif (image := _image(root, path, split, names, faults)) is not None:
                    images[path] = image
    except OSError as error:
        raise DataError(f"{root} cannot be read ({error.strerror})", next_step(error)) from error
    if not images:
        raise DataError(f"{file} names no images below {root}", _HINT)
    found = tuple(images.values())
    return Annotations(found, tuple(names.values()), items_of_files(root), stamp_of_files(root, found))


def _content(file: Path) -> Mapping[str, Any]:
    try:
        import yaml
    except ImportError as error:
        raise DataError(f"{file} needs the package PyYAML", "Install bssl-tf[detection]") from error
    try:
        text = read_regular(file, _MAX_YAML_BYTES).decode("utf-8-sig")
        # All scalars stay text: a class called `no` is not false. No merges, which could make it huge.
        content = yaml.load(text, yaml.BaseLoader)
    except OSError as error:
        raise DataError(f"{file} cannot be read ({error.strerror})", next_step(error)) from error
    except (ValueError, RecursionError, yaml.YAMLError) as error:
        raise DataError(f"{file} is not valid YAML ({first_line(error)})", _HINT) from error
    if not isinstance(content, dict):
        raise DataError(f"{file} is not of YOLO's form", _HINT)
    return content


def _names(file: Path, names: Any) -> dict[int, str]:
    pairs: list[tuple[Any, Any]] = []
    if isinstance(names, list):
        pairs = list(enumerate(names))
    elif isinstance(names, dict):
        pairs = list(names.items())
    if not pairs or len(pairs) > _MAX_CLASSES or not all(isinstance(name, str) and name.strip() for _, name in pairs):
        raise DataError(f"{file} names no classes: names is not a list of text", _HINT)
    places = [number(place) for place, _ in pairs]
    if not all(0 <= place < _MAX_CLASSES and place == int(place) for place in places):
        raise DataError(f"{file} has names whose keys are not whole numbers", _HINT)
    return {
        int(place): pair[1].strip() for place, pair in sorted(zip(places, pairs, strict=True), key=lambda one: one[0])
    }


def _listed(root: Path, content: Mapping[str, Any], key: str, faults: Faults) -> Iterator[str]:
    """The images of a split, by paths relative to `root`."""
    values = content.get(key)
    for value in values if isinstance(values, list) else [values]:
        if not isinstance(value, str) or not value.strip():
            continue
        place = _place(root, content.get("path"), value.strip())
        if place is None:
            faults.note(key, "folder that is not below that of data.yaml (not used)", value)
        elif (root / place).is_dir():
            # Links are not followed: one of its own folders would never end.
            for folder, folders, files in os.walk(root / place):
                folders.sort()
                relative = Path(folder).relative_to(root)
                yield from ((relative / name).as_posix() for name in sorted(files) if is_image(name))
        else:
            text = read_regular(root / place, _MAX_LIST_BYTES).decode("utf-8", "replace")
            for line in filter(None, map(str.strip, text.split("\n"))):
                if (path := _place(root, content.get("path"), line)) is not None and (root / path).is_file():
                    yield path
                else:
                    faults.lose_image(line[:300], "name of an image that is not there")


def _place(root: Path, base: Any, value: str) -> str | None:
    """What `value` means below `root`; None where it is nowhere there. Exports often have `../` before it."""
    while value.startswith("../") or value.startswith("./"):
        value = value.partition("/")[2]
    bases = [base, ""] if isinstance(base, str) else [""]
    for one in bases:
        path = within((PurePosixPath(one) / value).as_posix())
        if path is not None and (root / path).exists():
            return path
    return None


def _image(root: Path, path: str, split: Split, names: dict[int, str], faults: Faults) -> Annotated | None:
    parts = list(PurePosixPath(path).parts)
    if "images" in parts[:-1]:
        parts[len(parts) - 2 - parts[-2::-1].index("images")] = "labels"
    file = (root / Path(*parts)).with_suffix(".txt")
    try:
        lines = read_regular(file, _MAX_LABEL_BYTES).decode("utf-8-sig").split("\n")
    except FileNotFoundError:
        lines = []
    except (OSError, UnicodeDecodeError) as error:
        faults.lose_image(path, "annotation that cannot be read", first_line(error))
        return None
    lines = [line for line in map(str.strip, lines) if line]
    if len(lines) > MAX_OBJECTS:
        faults.lose_image(path, "annotation that cannot be read", f"it has {len(lines):,} objects")
        return None
    objects = [found for line in lines if (found := _object(path, line, names, faults))]
    return Annotated(path, split, None, tuple(objects))


def _object(path: str, line: str, names: dict[int, str], faults: Faults) -> Object | None:
    kind, *values = map(number, line.split())
    if math.isfinite(kind) and (kind != int(kind) or int(kind) not in names):
        faults.boxes += 1
        return faults.lose_box(path, "unknown class", line)
    if not math.isfinite(kind) or len(values) < 4 or len(values) % 2:
        faults.boxes += 1
        return faults.lose_box(path, "box that is not four numbers", line)
    box: tuple[float, float, float, float]
    if len(values) == 4:
        x, y, width, height = values
        box = (x - width / 2, y - height / 2, x + width / 2, y + height / 2)
    else:
        box = (min(values[::2]), min(values[1::2]), max(values[::2]), max(values[1::2]))
        if not all(map(math.isfinite, values)):
            box = (math.nan,) * 4
    return faults.object(path, names[int(kind)], box, False)
