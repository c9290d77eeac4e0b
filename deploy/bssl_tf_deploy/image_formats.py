"""Which of Pillow's readers open a photo: those of `folders.IMAGE_SUFFIXES`, whatever the file is called.

Pillow goes by the content and has readers that start programs (EPS: Ghostscript), which a stranger's photo could be.
"""

from __future__ import annotations

from typing import IO

from PIL import Image, ImageFile, UnidentifiedImageError

# Of the first, Pillow has the readers at hand; for the others it loads all that it has.
_COMMON = ("JPEG", "PNG", "BMP", "DIB", "GIF", "PPM")
_OTHERS = ("WEBP", "TIFF", "MPO", "JPEG2000", "AVIF", "PCX", "QOI", "TGA")


def open_image(file: IO[bytes]) -> ImageFile.ImageFile:
    """`Image.open` for photos.

    Raises:
        UnidentifiedImageError: it is of another format.
        Exception: whatever else `Image.open` raises.
    """
    try:
        return Image.open(file, formats=_COMMON)
    except UnidentifiedImageError:
        Image.init()
        file.seek(0)
        return Image.open(file, formats=[name for name in _OTHERS if name in Image.OPEN])
