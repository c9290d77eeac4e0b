"""Opens photos of every format that we know, in one way for training on the host and for running on the device.

Imported only where an image is opened: nothing else on a device needs Pillow.
"""

from __future__ import annotations

import contextlib
import io
import os
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from bssl_tf_deploy.files import open_regular, standing_in
from bssl_tf_deploy.image_formats import open_image
from bssl_tf_deploy.repair import SIDE_DAMAGED, repaired, significant_bits

# Pillow refuses pictures of more than twice MAX_IMAGE_PIXELS, 178,956,970 pixels, and warns of smaller ones and of odd
# Exif, in words that help none of our users. For the process, because warnings cannot be caught in one thread alone.
warnings.filterwarnings("ignore", module=r"PIL\.")
_MAX_FILE_BYTES = 1 << 30
_SIXTEEN_BIT_MAX = 65535
# Of sensors and converters; a picture may use less than the largest value, but hardly half of it all over.
_BITS = (8, 10, 12, 14)
# How PNG keeps 16-bit colours, and the least high byte of more than 14 bits.
_WIDE_COLOURS = ("RGB;16B", "RGBA;16B")
_WIDE_GREY_WITH_ALPHA = "LA;16B"
_DARK = 1 << (14 - 8)
_ORIENTATION = 0x0112
# From Exif's number to what turns the picture upright.
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
# They swap width and height.
_SIDEWAYS = tuple(_TURNS[number] for number in (5, 6, 7, 8))


class UnreadableImageError(Exception):
    """The file cannot be decoded; the message is the cause, on one line. Callers turn it into an error of their own."""


@dataclass(frozen=True, eq=False)
class Picture:
    """A decoded picture.

    Attributes:
        image: upright, mode L or RGB.
        size: width and height, upright, before it was decoded smaller, pixels.
        remarks: what a user should know of how it was read, such as "12 bits in 16 were scaled to 8".
    """

    image: Image.Image
    size: tuple[int, int]
    remarks: tuple[str, ...] = ()


def stored_side(image_size: int) -> int:
    """The side, in pixels, at which the host stores pictures of any size for a network whose input has `image_size`.

    8/7 of it, so that a crop of three quarters of the area still has a pixel for each of the network's.
    """
    return max(image_size, round(image_size * 8 / 7))


def open_picture(source: Path | bytes, channels: int, *, stored: int) -> Picture:
    """The first frame in 8 bits, turned upright as EXIF states, alpha laid over white, 16 bits scaled to 8.

    16-bit grey, with alpha or without, and 16-bit colours of a PNG, are divided by the largest value of the bits in
    use, which are those of the file's sBIT chunk, or else the fewest of 8, 10, 12, 14 and 16 that hold its
    largest value. Damage that costs no pixels is repaired.

    A JPEG file much larger than needed is decoded at a half, a quarter or an eighth of its size, such that both sides
    keep twice `stored`.

    Args:
        source: a file, or the content of one.
        channels: 1 (grey, ITU-R 601 luma) or 3 (RGB).
        stored: the side at which the host stores it, pixels: see `stored_side`.

    Raises:
        UnreadableImageError: missing, not a regular file, empty, truncated, unknown, or more pixels than Pillow allows.
    """
    mode = "L" if channels == 1 else "RGB"
    with _named_causes(source), _opened(source) as file:
        try:
            return _decoded(file, mode, stored)
        except Image.DecompressionBombError:
            raise
        except Exception:
            for content, remarks in _repaired(file):
                with contextlib.suppress(Exception):
                    picture = _decoded(io.BytesIO(content), mode, stored)
                    return Picture(picture.image, picture.size, tuple(dict.fromkeys((*remarks, *picture.remarks))))
            raise


def picture_of(image: Image.Image, channels: int) -> Picture:
    """What `open_picture` makes of a file with the same pixels, of a picture that a program holds: the frame it shows.

    Args:
        image: of any mode that a file may have. Its Exif, if it still has some, turns it upright; it is not changed.
        channels: 1 (grey, ITU-R 601 luma) or 3 (RGB).

    Raises:
        UnreadableImageError: its pixels cannot be read, or have no known range.
    """
    try:
        return _in_mode(image, "L" if channels == 1 else "RGB")
    except Exception as error:  # It may be a damaged file that was not read yet.
        raise UnreadableImageError(" ".join(f"{type(error).__name__}: {error}".split())) from error


def picture_size(source: Path) -> tuple[int, int]:
    """Width and height as the file's header states, in pixels.

    Raises:
        UnreadableImageError: see `open_picture`.
    """
    with _named_causes(source), _opened(source) as file:
        try:
            with open_image(file) as image:
                return image.size
        except Image.DecompressionBombError:
            raise
        except Exception:
            for content, _ in _repaired(file):
                with contextlib.suppress(Exception), open_image(io.BytesIO(content)) as image:
                    return image.size
            raise


@contextlib.contextmanager
def _opened(source: Path | bytes) -> Iterator[IO[bytes]]:
    if isinstance(source, bytes):
        yield io.BytesIO(source)
    else:
        with open_regular(source, _MAX_FILE_BYTES) as file:
            yield file


def _repaired(file: IO[bytes]) -> Iterator[tuple[bytes, tuple[str, ...]]]:
    file.seek(0)
    with contextlib.suppress(Exception):  # What it parses was refused before.
        yield from repaired(file.read())


def _decoded(file: IO[bytes], mode: str, stored: int) -> Picture:
    with open_image(file) as image:
        whole = image.size
        image.draft(None, (2 * stored, 2 * stored))
        return _in_mode(image, mode, file, None if image.size == whole else whole)


def _in_mode(
    image: Image.Image, mode: str, file: IO[bytes] | None = None, whole: tuple[int, int] | None = None
) -> Picture:
    """`image` upright and in `mode`.

    Args:
        image: of any mode.
        mode: L or RGB.
        file: the one that it was opened from, if that can be read again.
        whole: its width and height where it is decoded smaller.
    """
    tiles = getattr(image, "tile", None)
    layout = tiles[0][3] if tiles else None
    # Exif may come after the pixels.
    image.load()
    turn, remarks = _turn(image)
    upright = image if turn is None else image.transpose(turn)
    width, height = whole or image.size
    size = (height, width) if turn in _SIDEWAYS else (width, height)
    if image.mode.startswith("I"):
        values = np.asarray(upright)
    elif layout == _WIDE_GREY_WITH_ALPHA and file is not None:
        values = _wide_grey_with_alpha(file)
    elif layout in _WIDE_COLOURS and (np.asarray(upright)[..., :3] < _DARK).all():
        if file is None:
            raise ValueError("Pillow drops the low bytes of its 16-bit colours, which are all that it uses")
        values = _wide_colours(file, upright)
    else:
        return Picture(_eight_bit(upright, mode), size, remarks)
    colours = values[..., :3] if values.ndim == 3 else values
    bits = _bits_in_use(colours, None if file is None else significant_bits(file))
    levels = _levels(colours, bits)
    if colours.shape != values.shape:
        # Opaque is all of 16 bits even where the colours use fewer, unless it uses as few.
        alpha = values[..., 3:]
        levels = np.concatenate([levels, _levels(alpha, bits if alpha.max() < 1 << bits else 16)], axis=-1)
    scaled = () if bits == 16 else (f"{bits} bits in 16 were scaled to 8",)
    return Picture(_eight_bit(Image.fromarray(levels), mode), size, (*remarks, *scaled))


def _bits_in_use(values: NDArray[np.integer], declared: int | None) -> int:
    if values.min() < 0 or values.max() > _SIXTEEN_BIT_MAX:
        raise ValueError("pixels beyond 16 bits have no known range")
    return next((n for n in ([declared] if declared else _BITS) if values.max() < 1 << n), 16)


def _levels(values: NDArray[np.integer], bits: int) -> NDArray[np.uint8]:
    """Values of `bits` bits to the nearest of 8 bits."""
    largest = (1 << bits) - 1
    levels = np.minimum((np.arange(_SIXTEEN_BIT_MAX + 1) * 255 + largest // 2) // largest, 255).astype(np.uint8)
    return levels[values]


def _wide_colours(file: IO[bytes], upright: Image.Image) -> NDArray[np.uint16]:
    """16-bit colours of a PNG, of which Pillow reads the high bytes alone: these, `upright`, with the low ones."""
    file.seek(0)
    with open_image(file) as low:
        # Read as if the other byte came first.
        low.tile = [(*low.tile[0][:3], str(low.tile[0][3]).replace("16B", "16L"))]  # type: ignore[list-item]
        low.load()
        turned = _upright(low)
    colours: NDArray[np.uint16] = np.asarray(upright).astype(np.uint16) << 8 | np.asarray(turned)
    return colours


def _wide_grey_with_alpha(file: IO[bytes]) -> NDArray[np.uint16]:
    """The pixels of a PNG of 16-bit grey with alpha, upright, as [H, W, 4]: Pillow has no mode for them."""
    file.seek(0)
    with open_image(file) as image:
        # Four bytes a pixel either way: two of grey, two of alpha, the high one first.
        image.tile = [(*image.tile[0][:3], "RGBA")]  # type: ignore[list-item]
        image.load()
        grey_high, grey_low, alpha_high, alpha_low = np.moveaxis(np.asarray(_upright(image)).astype(np.uint16), 2, 0)
    grey, alpha = grey_high << 8 | grey_low, alpha_high << 8 | alpha_low
    pixels: NDArray[np.uint16] = np.stack([grey, grey, grey, alpha], axis=-1)
    return pixels


def _upright(image: Image.Image) -> Image.Image:
    turn, _ = _turn(image)
    return image if turn is None else image.transpose(turn)


def _turn(image: Image.Image) -> tuple[Image.Transpose | None, tuple[str, ...]]:
    """What turns it upright, and remarks."""
    try:
        return _TURNS.get(image.getexif().get(_ORIENTATION, 1)), ()
    except Exception:  # Pillow's parser raises nearly anything on damaged Exif.
        return None, (SIDE_DAMAGED,)


def _eight_bit(image: Image.Image, mode: str) -> Image.Image:
    if image.mode == "F":
        raise ValueError("floating-point pixels have no known range")
    if image.has_transparency_data:
        coloured = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", coloured.size, "white"), coloured).convert(mode)
    # By way of RGB, because not every colour mode has a way to grey, and some have one of their own.
    return image.convert(mode) if image.mode in ("1", "L") else image.convert("RGB").convert(mode)


@contextlib.contextmanager
def _named_causes(source: Path | bytes) -> Iterator[None]:
    try:
        yield
    except Exception as error:  # Pillow's decoders raise nearly anything on a damaged file.
        raise UnreadableImageError(_cause(source, error)) from error


def _cause(source: Path | bytes, error: Exception) -> str:
    if isinstance(error, OSError) and error.errno is not None:
        return error.strerror or os.strerror(error.errno)
    try:
        head = source[:512] if isinstance(source, bytes) else _head(source)
    except OSError:
        head = b"?"
    if not head:
        return "the file is empty"
    if other := standing_in(head):
        return other
    if isinstance(error, UnidentifiedImageError):
        return "not an image that Pillow knows"
    return " ".join(f"{type(error).__name__}: {error}".split())


def _head(file: Path) -> bytes:
    with open_regular(file, _MAX_FILE_BYTES) as opened:
        return opened.read(512)
