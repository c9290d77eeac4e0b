"""Annotations of Pascal VOC: one XML file for each image.

    ROOT/Annotations/NAME.xml
    ROOT/JPEGImages/NAME.jpg
    ROOT/ImageSets/Main/{train,val,trainval,test}.txt     names, one a line; may be missing

Boxes are taken as edges, counted from 0, as labelling tools and TFDS take them; those of the challenge itself count
pixels from 1, and would be one pixel larger at the left and at the top.
"""

from __future__ import annotations

import functools
from pathlib import Path
from xml.etree import ElementTree
from xml.parsers import expat

from bssl_tf.data.decoding import header_size
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

# Ten thousand objects.
_MAX_BYTES, _MAX_LIST_BYTES = 1 << 23, 1 << 26
_MAX_DEPTH = 20
_SIDES = ("xmin", "ymin", "xmax", "ymax")


def is_voc(root: Path) -> bool:
    """Whether `root` has the folders of Pascal VOC."""
    return (root / "Annotations").is_dir() and (root / "JPEGImages").is_dir()


def read_voc(root: Path, faults: Faults) -> Annotations:
    """Reads the annotations below `root`; what cannot be read is a fault.

    Raises:
        DataError: a folder or a list of names cannot be read, or names no image.
    """
    try:
        pictures = {file.stem: file.name for file in sorted((root / "JPEGImages").iterdir()) if is_image(file.name)}
        documents = {file.stem for file in (root / "Annotations").iterdir() if file.suffix.lower() == ".xml"}
        split_of = _splits(root / "ImageSets" / "Main", faults)
    except OSError as error:
        raise DataError(f"{root} cannot be read ({error.strerror})", "Check its permissions") from error
    images = []
    for name in sorted(split_of if split_of is not None else pictures.keys() | documents):
        path = f"JPEGImages/{pictures.get(name, name)}"
        if name not in pictures:
            faults.lose_image(f"Annotations/{name}.xml", "annotation without an image")
        elif name not in documents:
            faults.lose_image(path, "image without annotation")
        elif image := _image(root, path, name, split_of[name] if split_of is not None else "", faults):
            images.append(image)
    found = tuple(images)
    return Annotations(found, None, items_of_files(root), stamp_of_files(root, found))


def parse_xml(content: bytes) -> ElementTree.Element:
    """The root of a document without declarations of its own, which could make it huge or fetch other files.

    Raises:
        ValueError: it has some, is too deep, or is not XML.
    """
    parser, builder = expat.ParserCreate(), ElementTree.TreeBuilder()
    depth = 0

    def start(name: str, attributes: dict[str, str]) -> None:
        nonlocal depth
        depth += 1
        if depth > _MAX_DEPTH:
            raise ValueError(f"its elements are nested more than {_MAX_DEPTH} deep")
        builder.start(name, attributes)

    def end(name: str) -> None:
        nonlocal depth
        depth -= 1
        builder.end(name)

    def refuse(*_: object) -> None:
        raise ValueError("it declares a document type, which no annotation needs")

    parser.StartElementHandler, parser.EndElementHandler = start, end
    parser.CharacterDataHandler, parser.StartDoctypeDeclHandler = builder.data, refuse
    try:
        parser.Parse(content, True)
    except (expat.ExpatError, LookupError) as error:
        raise ValueError(first_line(error)) from error
    return builder.close()


def _image(root: Path, path: str, name: str, split: Split, faults: Faults) -> Annotated | None:
    try:
        document = parse_xml(read_regular(root / "Annotations" / f"{name}.xml", _MAX_BYTES))
    except OSError as error:
        faults.lose_image(path, "annotation that cannot be read", error.strerror or str(error))
        return None
    except ValueError as error:
        faults.lose_image(path, "annotation that cannot be read", str(error))
        return None
    width, height = (number(document.findtext(f"size/{side}")) for side in ("width", "height"))
    stated: float | None = None
    if width > 0 and height > 0:
        stated = width / height
    elif size := header_size(root / path):
        width, height = size
    else:
        faults.lose_image(path, "annotation without the size of its image")
        return None
    entries = document.findall("object")
    if len(entries) > MAX_OBJECTS:
        faults.lose_image(path, "annotation that cannot be read", f"it has {len(entries):,} objects")
        return None
    objects = []
    for entry in entries:
        left, top, right, bottom = (number(entry.findtext(f"bndbox/{side}")) for side in _SIDES)
        box = (left / width, top / height, right / width, bottom / height)
        ignored = (entry.findtext("difficult") or "").strip() == "1"
        found: Object | None = faults.object(path, entry.findtext("name"), box, ignored)
        if found is not None:
            objects.append(found)
    return Annotated(path, split, stated, tuple(objects))


def _splits(folder: Path, faults: Faults) -> dict[str, Split] | None:
    """The split of each name; None where there are no lists. `val` and `test` win over `train`, and `test` over all."""
    read = functools.partial(_names, folder, faults)
    lists: list[tuple[Split, list[str] | None]] = [("train", read("train"))]
    if lists[0][1] is None:
        lists = [("train", read("trainval"))]
    else:
        lists.append(("validation", read("val")))
    lists.append(("test", read("test")))
    split_of: dict[str, Split] = {}
    for split, names in lists:
        for name in names or ():
            if split_of.get(name, split) != split:
                faults.note(name, "image in two splits", f"{split_of[name]} and {split}, taken for {split}")
            split_of[name] = split
    if not split_of and any(names is not None for _, names in lists):
        raise DataError(f"the lists in {folder} name no image", "Fill them, or remove the folder ImageSets")
    return split_of or None


def _names(folder: Path, faults: Faults, split: str) -> list[str] | None:
    try:
        text = read_regular(folder / f"{split}.txt", _MAX_LIST_BYTES).decode("utf-8", "replace")
    except FileNotFoundError:
        return None
    names = []
    # A name may be followed by 1, 0 or -1, in the lists of one class.
    for line in text.split("\n"):
        name = line.strip()
        first, _, rest = name.rpartition(" ")
        if rest in ("1", "0", "-1") and first:
            name = first.strip()
        if name and within(name) != name:
            faults.note(f"ImageSets/Main/{split}.txt", "name of an image that leads elsewhere", name)
        elif name:
            names.append(name)
    return names
