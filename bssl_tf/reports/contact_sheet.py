"""One page with many small images and a line below each: what `similar` and `select` found."""

from __future__ import annotations

import io
import shlex
import time
from collections.abc import Sequence
from pathlib import Path

from bssl_tf import __version__
from bssl_tf.reports.document import Column, Document, Grid, Picture, Section, Table
from bssl_tf.reports.page import as_html
from bssl_tf_deploy.pictures import UnreadableImageError, open_picture

# Each with the line below it; None for one that is not to be opened.
Images = Sequence[tuple[Path | None, str]]
_A_ROW = 6
_SIDE = 128  # pixels
MOST = 600


def contact_sheet(title: str, about: str, parts: Sequence[tuple[str, str, Images]], command: Sequence[str]) -> str:
    """The page, as HTML that works offline.

    Args:
        title: of the page.
        about: a sentence below it.
        parts: of each its title, its caption, and its images with the line below each, of which `MOST` are shown at
            most; None for an image that is not to be opened, of which the line alone is shown.
        command: the words that make it again.
    """
    blocks, missing = list[Grid | Table](), list[str]()
    for heading, caption, images in parts:
        pictures, unopened = list[Picture](), list[str]()
        for path, label in images[:MOST]:
            if path is None:
                unopened.append(label)
                continue
            try:
                pictures.append(Picture(_thumbnail(path), path.name, label))
            except UnreadableImageError as error:
                missing.append(f"{path}: {error}")
        if len(images) > MOST:
            missing.append(f"Only the first {MOST} of {len(images)} images are shown.")
        rows = tuple(tuple(pictures[start : start + _A_ROW]) for start in range(0, len(pictures), _A_ROW))
        columns = tuple(str(place) for place in range(1, min(_A_ROW, len(pictures)) + 1))
        if pictures or not unopened:
            blocks.append(Grid(heading, caption, columns, rows))
        if unopened:
            name = f"{heading}, not opened" if pictures else heading
            blocks.append(Table("unopened", name, (Column("image"),), tuple((label,) for label in unopened)))
    section = Section(title, about, tuple(blocks), tuple(missing))
    made = f"Made {time.strftime('%Y-%m-%d %H:%M UTC', time.gmtime())} by bssl-tf {__version__}."
    return as_html(Document(title, shlex.join(command), made, (section,)))


def _thumbnail(path: Path) -> bytes:
    image = open_picture(path, 3, stored=_SIDE).image
    image.thumbnail((_SIDE, _SIDE))
    file = io.BytesIO()
    image.save(file, format="PNG", optimize=True)
    return file.getvalue()
