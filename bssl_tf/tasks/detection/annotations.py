"""What readers of annotations share: images with their objects as a file states them, and faults that were found."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Literal, NamedTuple

from bssl_tf.data.building import Item

Split = Literal["train", "validation", "test", ""]
Box = tuple[float, float, float, float]
# An annotated image has some tens of objects; of more than this an evaluation would make nothing.
MAX_OBJECTS = 10_000
MAX_NAME = 200
# By how much, as a share of the picture, a box may reach past the border before it counts as a fault: rounding.
_ROUNDING = 1e-3


class Object(NamedTuple):
    """One object.

    Attributes:
        name: of its class.
        box: left, top, right, bottom as shares of the picture, 0 to 1, the second ones larger.
        ignored: it counts neither as hit nor as miss: `difficult` of Pascal VOC, a crowd of COCO.
    """

    name: str
    box: Box
    ignored: bool


@dataclass(frozen=True)
class Annotated:
    """An image and what is on it.

    Attributes:
        path: for messages, unlike that of any other image; relative to the data set's root where it is a file.
        split: empty where the data set has none.
        ratio: width / height that the annotation states, or None.
        objects: maybe none.
    """

    path: str
    split: Split
    ratio: float | None
    objects: tuple[Object, ...]


@dataclass(frozen=True)
class Fault:
    """Something in an annotation that cannot be meant.

    Attributes:
        path: the image, or the file of the annotation.
        kind: a few words that all of its kind share.
        detail: what exactly, or empty.
    """

    path: str
    kind: str
    detail: str


@dataclass
class Faults:
    """Counts and keeps faults while annotations are read.

    Attributes:
        found: in the order of reading.
        lost_images: images that are left out, as nobody knows what is on them.
        lost_boxes: boxes that are left out.
        boxes: all boxes that were read, with those.
    """

    found: list[Fault] = field(default_factory=list)
    lost_images: int = 0
    lost_boxes: int = 0
    boxes: int = 0

    def note(self, path: str, kind: str, detail: str = "") -> None:
        """Something that costs nothing."""
        self.found.append(Fault(path, kind, detail[:300]))

    def lose_image(self, path: str, kind: str, detail: str = "") -> None:
        """The image is left out."""
        self.lost_images += 1
        self.note(path, kind, detail)

    def lose_box(self, path: str, kind: str, detail: str = "") -> Object | None:
        """The box is left out: None, for a reader that would return an object."""
        self.lost_boxes += 1
        self.note(path, kind, detail)
        return None

    def counts(self) -> dict[str, int]:
        """Faults of each kind, most first."""
        return dict(Counter(fault.kind for fault in self.found).most_common())

    def object(self, path: str, name: object, box: Sequence[float], ignored: bool) -> Object | None:
        """The object with its box cut at the picture's border; None, and a fault, where it makes no sense.

        Args:
            path: of the image.
            name: of the class.
            box: left, top, right, bottom as shares of the picture.
            ignored: see `Object`.
        """
        self.boxes += 1
        if not isinstance(name, str) or not name.strip() or len(name) > MAX_NAME:
            return self.lose_box(path, "object without the name of a class")
        if not all(map(math.isfinite, box)):
            return self.lose_box(path, "box that is not four numbers")
        words = " ".join(f"{side:.6g}" for side in box)
        left, top, right, bottom = (min(max(float(side), 0.0), 1.0) for side in box)
        if box[2] <= box[0] or box[3] <= box[1]:
            return self.lose_box(path, "box without area", words)
        if right <= left or bottom <= top:
            return self.lose_box(path, "box outside the picture", words)
        if min(box) < -_ROUNDING or max(box) > 1 + _ROUNDING:
            self.note(path, "box past the border (cut)", words)
        return Object(name.strip(), (left, top, right, bottom), ignored)


@dataclass(frozen=True)
class Annotations:
    """What a reader returns.

    Attributes:
        images: in order.
        class_names: those that the data set declares, in its order; None where it declares none.
        items: the images to decode, given their paths; in the order of the paths.
        stamp: changes with the images' content: what names the cache beside their paths.
    """

    images: tuple[Annotated, ...]
    class_names: tuple[str, ...] | None
    items: Callable[[Sequence[str]], Iterator[Item]]
    stamp: object


def items_of_files(root: Path) -> Callable[[Sequence[str]], Iterator[Item]]:
    """`Annotations.items` of images that are files below `root`."""
    return lambda paths: (Item("train", path, root / path, None) for path in paths)


def stamp_of_files(root: Path, images: Sequence[Annotated]) -> list[tuple[int, int]]:
    """Size and time of change of each image."""
    stats = []
    for image in images:
        try:
            found = (root / image.path).stat()
            stats.append((found.st_size, found.st_mtime_ns))
        except OSError:
            stats.append((0, 0))
    return stats


def number(value: object) -> float:
    """A finite number of JSON or the text of one; NaN for anything else."""
    if isinstance(value, bool) or not isinstance(value, (int, float, str)) or len(str(value)) > MAX_NAME:
        return math.nan
    try:
        found = float(value)
    except (ValueError, OverflowError):
        return math.nan
    return found if math.isfinite(found) else math.nan


def within(path: str) -> str | None:
    """A path that a file gives, with forward slashes; None where it leads out of the data set's folder."""
    plain = PurePosixPath(path.replace("\\", "/"))
    if plain.is_absolute() or ".." in plain.parts or "\0" in path or not plain.parts or ":" in plain.parts[0]:
        return None
    return plain.as_posix()
