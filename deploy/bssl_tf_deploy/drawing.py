"""Answers drawn into pictures: a frame around each object, and files of such pictures in a folder."""

from __future__ import annotations

import itertools
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from PIL import Image, ImageDraw, ImageFont

from bssl_tf_deploy.errors import ImageError, StorageError
from bssl_tf_deploy.files import atomic_writer, storage_errors
from bssl_tf_deploy.pictures import UnreadableImageError, open_picture, picture_of
from bssl_tf_deploy.sources import Item
from bssl_tf_deploy.tasks.task import Task
from bssl_tf_deploy.text import printable

# Okabe and Ito's colours, which colour-blind people tell apart; and whether letters on them are black.
_COLOURS = (
    ("#e69f00", True),
    ("#56b4e9", True),
    ("#009e73", False),
    ("#f0e442", True),
    ("#0072b2", False),
    ("#d55e00", False),
    ("#cc79a7", True),
)
# Of the shorter side.
_LINE, _LETTER = 1 / 250, 1 / 28
# So large that no picture is decoded smaller.
_WHOLE = 1 << 16
_QUALITY = 92


def draw_boxes(picture: Image.Image, boxes: Sequence[tuple[Sequence[float], str, str]]) -> None:
    """Draws frames into a picture, the first one on top.

    Args:
        picture: mode RGB; is changed.
        boxes: for each its left, top, right and bottom, pixels; the words above it; and what decides its colour.
    """
    canvas, short = ImageDraw.Draw(picture), min(picture.size)
    line, font = max(2, round(short * _LINE)), ImageFont.load_default(max(11, round(short * _LETTER)))
    for (left, top, right, bottom), words, kind in reversed(boxes):
        colour, dark = _COLOURS[zlib.crc32(kind.encode("utf-8", "replace")) % len(_COLOURS)]
        canvas.rectangle((left, top, max(left, right - 1), max(top, bottom - 1)), outline=colour, width=line)
        text = printable(words)
        try:
            _, _, wide, high = canvas.textbbox((0, 0), text, font=font)
        except UnicodeError:  # A font of bitmaps has Latin letters alone.
            text = text.encode("ascii", "backslashreplace").decode()
            _, _, wide, high = canvas.textbbox((0, 0), text, font=font)
        # Above the frame, or within it where there is no room; and never past the right border.
        x = max(0.0, min(left, picture.width - wide - 2 * line))
        y = top - high - line if top >= high + line else top
        canvas.rectangle((x, y, x + wide + 2 * line, y + high + line), fill=colour)
        canvas.text((x + line, y), text, fill="black" if dark else "white", font=font)


class Annotations:
    """Writes pictures with their answers drawn in, as JPEG files named after the images; nothing is overwritten.

    Args:
        folder: where to; made if it is not there.
        task: of the bundle, one that draws.
        more: whether the folder may have files already, as that of a run that is continued.

    Raises:
        StorageError: the folder has files, or cannot be made.
    """

    def __init__(self, folder: Path, task: Task, *, more: bool) -> None:
        self._folder, self._task = folder, task
        with storage_errors(folder):
            folder.mkdir(parents=True, exist_ok=True)
            if not more and any(folder.iterdir()):
                raise StorageError(f"{folder} is not empty", "Choose a new folder for --annotate, or empty this one")

    def add(self, item: Item, answer: Any) -> None:
        """Writes the picture of an item that was answered.

        Raises:
            ImageError: it cannot be read any more.
            StorageError: the file cannot be written.
        """
        image = item.image
        try:
            if isinstance(image, (Path, bytes)):
                picture = open_picture(image, 3, stored=_WHOLE).image
            else:
                assert not isinstance(image, ImageError)
                picture = picture_of(image if isinstance(image, Image.Image) else Image.fromarray(image), 3).image
        except UnreadableImageError as error:
            raise ImageError(f"{item.name} cannot be read: {error}", "Check the file, or omit it") from error
        # What a program holds is not changed.
        drawn = picture.copy()
        self._task.draw(drawn, answer)
        stem = Path(item.name).stem if item.frame is None else f"{Path(item.name).stem or 'frame'}-{item.frame:06d}"
        # Folders may have images of the same name.
        names = itertools.chain([stem], (f"{stem}-{number}" for number in itertools.count(2)))
        path = next(path for name in names if not (path := self._folder / f"{name}.jpg").exists())
        with atomic_writer(path) as file:
            drawn.save(file, "JPEG", quality=_QUALITY)
