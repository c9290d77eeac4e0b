"""The one resize of pictures on a device, whose pixels depend on no version of Pillow."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from PIL import Image


def resized(image: Image.Image, width: int, height: int, box: tuple[float, float, float, float]) -> Image.Image:
    """A part of a picture at another size: Pillow's BILINEAR, whose filter widens where it shrinks.

    First along rows, then along columns, each in a call of its own: in one call, Pillow 13 takes tall pictures the
    other way round, and versions before it do not, which changes pixels by one. deploy/android does this in Java.

    Args:
        image: mode L or RGB.
        width, height: of what is made, pixels.
        box: left, top, right and bottom of the part, pixels.
    """
    from PIL.Image import Resampling

    left, top, right, bottom = box
    rows = image.resize((width, image.height), Resampling.BILINEAR, box=(left, 0, right, image.height))
    return rows.resize((width, height), Resampling.BILINEAR, box=(0, top, width, bottom))
