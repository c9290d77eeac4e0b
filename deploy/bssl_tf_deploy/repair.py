"""Picture files with damage that costs no pixels: broken side information, a missing last marker.

Imported only where an image could not be decoded as it is.
"""

from __future__ import annotations

import io
import random
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import IO

from PIL import Image

from bssl_tf_deploy.image_formats import open_image

SIDE_DAMAGED = "damaged side information was ignored"
END_MISSING = "the end of the file is missing, after the last pixel"

_PNG = b"\x89PNG\r\n\x1a\n"
# What decides about pixels; a colour profile does not, as nothing here applies one.
_PNG_KEPT = (b"IHDR", b"PLTE", b"tRNS", b"IDAT", b"IEND")
_PNG_KEPT_IF_WHOLE = (b"sBIT", b"eXIf")
_SOI, _EOI = b"\xff\xd8", b"\xff\xd9"
_APP0, _APP1, _APP14, _COMMENT = 0xE0, 0xE1, 0xEE, 0xFE
_SOS, _DRI = 0xDA, 0xDD
_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
# Markers without a length: TEM, RST0 to RST7, SOI.
_BARE = frozenset((0x01, *range(0xD0, 0xD9)))
_REPLACED = 8  # bytes
_MOST_BITS = 16
_STRIP = 256  # rows compared at once
# Looks like pixels to a decoder, and holds no marker.
_NOISE = bytes(random.Random(0).choices(range(1, 255), k=1024))


def repaired(content: bytes) -> Iterator[tuple[bytes, tuple[str, ...]]]:
    """Files with the same pixels that a decoder may accept where it refused `content`, and what was wrong.

    Empty where nothing can be done. A file that lacks pixels is never completed.
    """
    if content.startswith(_PNG):
        bare = _bare_png(content)
        if bare != content:
            yield bare, (SIDE_DAMAGED,)
    elif content.startswith(_SOI):
        # With the orientation, in Exif, if that can be had.
        bare = _bare_jpeg(content, {_APP0, _APP1, _APP14})
        if bare != content:
            yield bare, (SIDE_DAMAGED,)
        ended = bare.removesuffix(b"\xff")
        if not ended.endswith(_EOI) and _has_all_pixels(_bare_jpeg(ended, {_APP0, _APP14})):
            yield content.removesuffix(b"\xff") + _EOI, (END_MISSING,)
            yield ended + _EOI, (SIDE_DAMAGED, END_MISSING)


def significant_bits(file: IO[bytes]) -> int | None:
    """The bits in use, 1 to 16, by the first number of a PNG's sBIT chunk; None without one, or where it is another."""
    file.seek(0)
    if file.read(len(_PNG)) != _PNG:
        return None
    while len(head := file.read(8)) == 8:
        length, kind = struct.unpack(">I4s", head)
        if kind == b"sBIT" and length:
            bits = file.read(1)
            return bits[0] if bits and 1 <= bits[0] <= _MOST_BITS else None
        if kind == b"IDAT":
            return None
        file.seek(length + 4, io.SEEK_CUR)
    return None


def _bare_png(content: bytes) -> bytes:
    """Without what does not decide about pixels or orientation, and without whatever of that is damaged."""
    kept, place = [_PNG], len(_PNG)
    while place + 12 <= len(content):
        length, kind = struct.unpack_from(">I4s", content, place)
        end = place + 12 + length
        checksum = content[end - 4 : end]
        is_whole = zlib.crc32(content[place + 4 : end - 4]).to_bytes(4, "big") == checksum
        if kind in _PNG_KEPT or (kind in _PNG_KEPT_IF_WHOLE and is_whole):
            kept.append(content[place:end])
        place = end
    # What is cut off stays, for the decoder to judge.
    return b"".join([*kept, content[place:]])


@dataclass(frozen=True)
class _Segment:
    """A marker of a JPEG file, what belongs to it, and where that is."""

    marker: int
    content: bytes
    start: int
    end: int


def _segments(content: bytes) -> Iterator[_Segment]:
    """The segments with a length, in order, through all scans; stops where there is no sense."""
    place = 2
    while (place := content.find(b"\xff", place)) >= 0 and place + 4 <= len(content):
        marker = content[place + 1]
        if marker == 0xFF:
            place += 1
        elif marker == 0 or marker in _BARE:
            place += 2
        elif marker == _EOI[1]:
            return
        else:
            end = place + 2 + int.from_bytes(content[place + 2 : place + 4], "big")
            yield _Segment(marker, content[place + 4 : end], place, end)
            place = end


def _bare_jpeg(content: bytes, kept: set[int]) -> bytes:
    """Without comments and application segments other than `kept`; of APP1 only Exif is kept."""
    parts, place = [], 0
    for segment in _segments(content):
        if segment.marker == _SOS:
            break
        is_side = _APP0 <= segment.marker <= 0xEF or segment.marker == _COMMENT
        is_other_app1 = segment.marker == _APP1 and not segment.content.startswith(b"Exif\0")
        if is_side and (segment.marker not in kept or is_other_app1):
            parts.append(content[place : segment.start])
            place = segment.end
    return b"".join([*parts, content[place:]])


def _has_all_pixels(content: bytes) -> bool:
    """Whether a JPEG file without its last marker holds all its pixels.

    A decoder makes pixels up where data are missing: of nothing, if the file is just ended, and of noise, if noise
    comes before the end. Where both look alike, nothing was missing. But where the file ends in one byte over and over,
    and noise in its place makes no difference, these were no pixels: a download that was never filled.
    """
    left: dict[int, list[int]] = {}
    start, restarts = 0, False
    for segment in _segments(content):
        if segment.marker in _FRAMES and len(segment.content) >= 6:
            left = {identity: [16] * 64 for identity in segment.content[6::3]}
        elif segment.marker == _DRI:
            restarts = any(segment.content)
        elif segment.marker == _SOS and segment.content:
            count = segment.content[0]
            first, last, bits = segment.content[1 + 2 * count : 4 + 2 * count]
            for identity in segment.content[1 : 1 + 2 * count : 2]:
                left[identity][first : last + 1] = [bits & 15] * (last + 1 - first)
            start = segment.end
    # Later scans of a progressive picture bring what is missing here.
    if not start or any(any(bits) for bits in left.values()):
        return False
    ended = _pixels(content)
    tails = [_NOISE]
    if restarts:
        marks = [place for n in range(8) if (place := content.rfind(bytes((0xFF, 0xD0 + n)), start)) >= 0]
        following = (content[max(marks) + 1] - 0xD0 + 1) % 8 if marks else 0
        tails.append(bytes((0xFF, 0xD0 + following)) + _NOISE)
    if not all(_alike(ended, _pixels(content + tail)) for tail in tails):
        return False
    if len(set(content[-_REPLACED:])) > 1:
        return True
    shortened = content[: max(start, len(content) - _REPLACED)].removesuffix(b"\xff")
    return not _alike(ended, _pixels(shortened + _NOISE))


def _pixels(content: bytes) -> Image.Image:
    image = open_image(io.BytesIO(content + _EOI))
    image.load()
    return image


def _alike(one: Image.Image, other: Image.Image) -> bool:
    for top in range(0, one.height, _STRIP):
        strip = (0, top, one.width, min(top + _STRIP, one.height))
        if one.crop(strip).tobytes() != other.crop(strip).tobytes():
            return False
    return True
