"""Annotations of COCO: one JSON file for each split.

ROOT/annotations/instances_train2017.json    and ROOT/train2017/ or ROOT/images/train2017/ or ROOT/images/
ROOT/train/_annotations.coco.json            images next to it
FILE.json                                    alone; images below its folder
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from bssl_tf.data.decoding import header_size
from bssl_tf.errors import DataError
from bssl_tf.files import parse_json, read_regular
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
from bssl_tf_deploy.system_errors import next_step

# Twice that of COCO 2017.
_MAX_BYTES = 1 << 30
_WORDS: dict[str, Split] = {"train": "train", "val": "validation", "valid": "validation", "test": "test"}
_HINT = "Give a JSON object with the lists images, annotations and categories"


def coco_files(root: Path) -> list[Path]:
    """The files of annotations of a folder, or of a file that is one; none where it is not COCO.

    Raises:
        OSError: the folder cannot be listed.
    """
    if root.is_file():
        return [root] if root.suffix.lower() == ".json" else []
    files = sorted((root / "annotations").glob("instances_*.json")) or sorted((root / "annotations").glob("*.json"))
    return files or sorted(root.glob("*/_annotations.coco.json")) or sorted(root.glob("*.json"))


def read_coco(root: Path, faults: Faults) -> Annotations:
    """Reads all of `coco_files`; what makes no sense in them is a fault.

    Raises:
        DataError: a file is not of this form, or names images that are not there.
    """
    base = root.parent if root.is_file() else root
    files = coco_files(root)
    images: dict[str, Annotated] = {}
    names: dict[str, None] = {}
    for file in files:
        content = _content(file)
        if "annotations" not in content and len(files) > 1:
            faults.note(file.relative_to(base).as_posix(), "file without annotations (not used)")
            continue
        split: Split = _split(file) if len(files) > 1 else ""
        classes = _classes(file, content)
        names.update(dict.fromkeys(classes.values()))
        for image in _images(base, file, content, classes, split, faults):
            if image.path in images:
                faults.note(image.path, "image in two splits", f"{images[image.path].split} and {split}")
            images[image.path] = image
    found = tuple(images.values())
    return Annotations(found, tuple(names), items_of_files(base), stamp_of_files(base, found))


def _content(file: Path) -> dict[str, Any]:
    try:
        content = parse_json(read_regular(file, _MAX_BYTES).decode("utf-8-sig"))
    except OSError as error:
        raise DataError(f"{file} cannot be read ({error.strerror})", next_step(error)) from error
    except (ValueError, RecursionError) as error:
        raise DataError(f"{file} is not valid JSON ({error})", _HINT) from error
    if not isinstance(content, dict) or not isinstance(content.get("images"), list):
        raise DataError(f"{file} is not of COCO's form: it has no list images", _HINT)
    for key in ("annotations", "categories"):
        if not isinstance(content.get(key, []), list):
            raise DataError(f"{file} is not of COCO's form: {key} is not a list", _HINT)
    return content


def _split(file: Path) -> Split:
    """What the words of a file's name, or of its folder's, say."""
    for name in (file.stem, file.parent.name):
        for word in re.findall("[a-z]+", name.lower()):
            if word in _WORDS:
                return _WORDS[word]
    return "train"


def _classes(file: Path, content: Mapping[str, Any]) -> dict[int, str]:
    classes = {}
    for entry in content.get("categories", []):
        if isinstance(entry, dict) and isinstance(entry.get("id"), int) and isinstance(entry.get("name"), str):
            classes[entry["id"]] = entry["name"].strip()
    if not classes:
        raise DataError(f"{file} names no categories", _HINT)
    return classes


def _images(
    base: Path, file: Path, content: Mapping[str, Any], classes: dict[int, str], split: Split, faults: Faults
) -> list[Annotated]:
    where = file.relative_to(base).as_posix()
    of_image: dict[Any, list[dict[str, Any]]] = {}
    for entry in content.get("annotations", []):
        if isinstance(entry, dict) and isinstance(entry.get("image_id"), (int, str)):
            of_image.setdefault(entry["image_id"], []).append(entry)
        else:
            faults.boxes += 1
            faults.lose_box(where, "annotation of no image")
    folder: str | None = None
    images = []
    for entry in content["images"]:
        name = (
            within(entry["file_name"]) if isinstance(entry, dict) and isinstance(entry.get("file_name"), str) else None
        )
        if name is None:
            faults.lose_image(where, "image without a name in this folder")
            continue
        if folder is None or not (base / folder / name).is_file():
            folder = _folder(base, file, name) or folder or ""
        path = (Path(folder) / name).as_posix()
        key = entry.get("id")
        entries = of_image.pop(key, []) if isinstance(key, (int, str)) else []
        if not (base / path).is_file():
            faults.lose_image(path, "annotation without an image")
            continue
        width, height = number(entry.get("width")), number(entry.get("height"))
        if not (0 < width < math.inf and 0 < height < math.inf):
            width, height = header_size(base / path) or (math.nan, math.nan)
        if not width > 0 or len(entries) > MAX_OBJECTS:
            faults.lose_image(
                path, "annotation that cannot be read", f"{len(entries):,} objects, size {width} x {height}"
            )
            continue
        objects = [found for one in entries if (found := _object(path, one, classes, width, height, faults))]
        images.append(Annotated(path, split, width / height, tuple(objects)))
    for key, entries in of_image.items():
        for _ in entries:
            faults.boxes += 1
            faults.lose_box(where, "annotation of no image", f"image_id {str(key)[:60]}")
    return images


def _object(
    path: str, entry: dict[str, Any], classes: dict[int, str], width: float, height: float, faults: Faults
) -> Object | None:
    kind, sides = entry.get("category_id"), entry.get("bbox")
    if not isinstance(kind, int) or kind not in classes:
        faults.boxes += 1
        return faults.lose_box(path, "unknown class", f"category_id {str(kind)[:60]}")
    values = [number(side) for side in sides] if isinstance(sides, list) and len(sides) == 4 else [math.nan] * 4
    left, top, wide, high = values
    box = (left / width, top / height, (left + wide) / width, (top + high) / height)
    return faults.object(path, classes[kind], box, entry.get("iscrowd") in (1, True))


def _folder(base: Path, file: Path, name: str) -> str | None:
    """Where the images of a file of annotations lie, relative to `base`; None where this one is nowhere."""
    stem = re.sub("^(instances|annotations)_", "", file.stem)
    beside = file.parent.relative_to(base).as_posix()
    word = re.match("[a-z]*", stem.lower())
    places = [
        beside,
        stem,
        f"images/{stem}",
        "images",
        f"images/{word[0]}" if word else "",
        word[0] if word else "",
        "",
    ]
    return next((place for place in places if (base / place / name).is_file()), None)
