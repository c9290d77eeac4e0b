"""Damage that costs no pixels costs no picture; damage that does is refused. Host and device read alike."""

from __future__ import annotations

import io
import os
import struct
import subprocess
import sys
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from bssl_tf.data.decoding import decode, header_size
from bssl_tf.data.load import load_data
from bssl_tf_deploy.manifest import Preprocessing
from bssl_tf_deploy.pictures import UnreadableImageError, open_picture, stored_side
from bssl_tf_deploy.preprocess import load_pixels
from bssl_tf_deploy.repair import END_MISSING, SIDE_DAMAGED
from tests.data.logged import logged

RGB = np.random.default_rng(0).integers(0, 256, (48, 40, 3), np.uint8)
SMOOTH = np.asarray(Image.fromarray(RGB[:6, :5]).resize((160, 120), Image.Resampling.BICUBIC))


def encoded(pixels: np.ndarray, kind: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, kind, **options)
    return buffer.getvalue()


def chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def with_chunk(png: bytes, added: bytes, *, last: bool = False) -> bytes:
    """`added` behind IHDR, or before IEND."""
    place = len(png) - 12 if last else 33
    return png[:place] + added + png[place:]


def segment(marker: int, content: bytes) -> bytes:
    return bytes((0xFF, marker)) + struct.pack(">H", len(content) + 2) + content


def pixels_of(content: bytes) -> np.ndarray:
    return np.asarray(open_picture(content, 3, stored=32).image)


LARGE = zlib.compress(bytes(2 << 20))  # more than Pillow unpacks of any text
BROKEN_CHUNKS = {
    "eXIf": chunk(b"eXIf", b"\0\x08\0\x02\x01\x12\0\x03" + bytes(20)),
    "eXIf cut": chunk(b"eXIf", b"II*\0\x08\0\0\0\xff\xff"),
    "iCCP too large": chunk(b"iCCP", b"display\0\0" + LARGE),
    "iCCP not packed": chunk(b"iCCP", b"display\0\0nothing"),
    "zTXt too large": chunk(b"zTXt", b"Comment\0\0" + LARGE),
    "zTXt of another method": chunk(b"zTXt", b"Comment\0\x07abc"),
    "iTXt": chunk(b"iTXt", b"a\0\x01\x09"),
    "tEXt with a bad sum": chunk(b"tEXt", b"a\0bcd")[:-4] + b"\0\0\0\0",
    "gAMA cut": chunk(b"gAMA", b"\1"),
    "pHYs cut": chunk(b"pHYs", b"\1"),
    "cHRM cut": chunk(b"cHRM", b"\1\2\3"),
    "sRGB empty": chunk(b"sRGB", b""),
    "acTL cut": chunk(b"acTL", b"\1\2"),
    "fcTL cut": chunk(b"fcTL", b"\1\2"),
    "tIME with a bad sum": chunk(b"tIME", bytes(7))[:-4] + b"\1\2\3\4",
}


@pytest.mark.parametrize("last", [False, True])
@pytest.mark.parametrize("name", BROKEN_CHUNKS)
def test_a_png_with_a_broken_side_chunk_has_its_pixels(tmp_path: Path, name: str, last: bool) -> None:
    content = with_chunk(encoded(RGB, "PNG"), BROKEN_CHUNKS[name], last=last)
    np.testing.assert_array_equal(pixels_of(content), RGB)
    (tmp_path / "a.png").write_bytes(content)
    assert header_size(tmp_path / "a.png") == (40, 48)


@given(
    st.binary(max_size=40), st.sampled_from([b"eXIf", b"iCCP", b"zTXt", b"tEXt", b"iTXt", b"pHYs", b"acTL", b"fcTL"])
)
@settings(max_examples=60, deadline=None)
def test_whatever_stands_in_a_side_chunk_the_pixels_are_read(content: bytes, kind: bytes) -> None:
    plain = encoded(RGB[:8, :8], "PNG")
    if kind == b"eXIf":
        content = b"\0" + content  # no Exif, so that it cannot turn the picture
    np.testing.assert_array_equal(pixels_of(with_chunk(plain, chunk(kind, content))), RGB[:8, :8])


def test_a_broken_side_chunk_is_told_and_a_sound_one_still_counts() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    picture = open_picture(with_chunk(encoded(RGB, "PNG", exif=exif), BROKEN_CHUNKS["zTXt too large"]), 3, stored=32)
    assert picture.remarks == (SIDE_DAMAGED,)
    np.testing.assert_array_equal(np.asarray(picture.image), np.rot90(RGB, -1))
    assert open_picture(encoded(RGB, "PNG"), 3, stored=32).remarks == ()


def test_a_damaged_png_that_lacks_pixels_is_refused() -> None:
    content = with_chunk(encoded(RGB, "PNG"), BROKEN_CHUNKS["zTXt too large"])
    transparent = chunk(b"tRNS", b"\0\1\0\1\0\1")[:-4] + b"\0\0\0\0"
    for bad in (content[:-500], encoded(RGB, "PNG")[:-500], with_chunk(encoded(RGB, "PNG"), transparent)):
        with pytest.raises(UnreadableImageError):
            open_picture(bad, 3, stored=32)


def jpegs() -> dict[str, bytes]:
    flat = np.full((64, 64, 3), 200, np.uint8)
    tail = np.concatenate([SMOOTH, np.full((80, 160, 3), 255, np.uint8)])
    options: dict[str, dict[str, Any]] = {
        "baseline": {},
        "full colour": {"subsampling": 0},
        "progressive": {"progressive": True},
        "restarts": {"restart_marker_rows": 1},
        "restart blocks": {"restart_marker_blocks": 3, "progressive": True},
    }
    made = {
        f"{kind} {name}": encoded(pixels, "JPEG", quality=90, **more)
        for kind, more in options.items()
        for name, pixels in (("smooth", SMOOTH), ("noise", RGB), ("flat", flat), ("white tail", tail))
    }
    return made | {"grey": encoded(RGB[..., 0], "JPEG"), "cmyk": cmyk()}


def cmyk() -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(RGB).convert("CMYK").save(buffer, "JPEG")
    return buffer.getvalue()


@pytest.mark.parametrize("missing", [1, 2])
@pytest.mark.parametrize("name", jpegs())
def test_a_jpeg_without_its_last_marker_has_its_pixels(name: str, missing: int) -> None:
    whole = jpegs()[name]
    picture = open_picture(whole[:-missing], 3, stored=32)
    assert picture.remarks == (END_MISSING,)
    np.testing.assert_array_equal(np.asarray(picture.image), pixels_of(whole))


@pytest.mark.parametrize("name", jpegs())
def test_a_jpeg_that_lacks_pixels_is_refused(name: str) -> None:
    """Cut anywhere: either all pixels are as in the whole file, or there is no picture."""
    whole = jpegs()[name]
    expected = pixels_of(whole)
    start = whole.index(b"\xff\xda") + 20
    places = {*np.linspace(start, len(whole) - 3, 12, dtype=int).tolist(), *range(len(whole) - 12, len(whole) - 2)}
    # Where a scan or an interval between restart markers ends, a decoder feels at home.
    places |= {place for place in range(start, len(whole) - 2) if whole[place] == 0xFF and whole[place + 1] != 0}
    for place in sorted(places)[:120]:
        try:
            picture = open_picture(whole[:place], 3, stored=32)
        except UnreadableImageError:
            continue
        np.testing.assert_array_equal(np.asarray(picture.image), expected)


def test_a_download_that_was_never_filled_is_refused() -> None:
    whole = encoded(SMOOTH, "JPEG")
    for place in (len(whole) // 2, len(whole) - 40):
        with pytest.raises(UnreadableImageError):
            open_picture(whole[:place] + bytes(len(whole) - place), 3, stored=32)


BROKEN_SEGMENTS = {
    "MPF": segment(0xE2, b"MPF\0II*\0\x08\0\0\0\xff\xff" + bytes(8)),
    "profile": segment(0xE2, b"ICC_PROFILE\0\1"),
    "Exif": segment(0xE1, b"Exif\0\0II*\0\x08\0\0\0\x14\0\x12\1\3\0\1\0\0\0\6\0\0\0"),
    "other Exif": segment(0xE1, b"Exif\0\0nothing at all"),
    "XMP": segment(0xE1, b"http://ns.adobe.com/xap/1.0/\0<x:xmpmeta \xff\xd9"),
    "Photoshop": segment(0xED, b"Photoshop 3.0\x008BIM\x04\x04\0\0\xff\xff\xff\xff"),
    "comment": segment(0xFE, b"\xff\xd9\xff\xda"),
    "unknown": segment(0xEB, b""),
}


@pytest.mark.parametrize("ended", [True, False])
@pytest.mark.parametrize("name", BROKEN_SEGMENTS)
def test_a_jpeg_with_a_broken_side_segment_has_its_pixels(name: str, ended: bool) -> None:
    whole = encoded(SMOOTH, "JPEG")
    content = whole[:2] + BROKEN_SEGMENTS[name] + whole[2:]
    image = open_picture(content if ended else content[:-2], 3, stored=64).image
    expected = Image.open(io.BytesIO(whole))
    # Some readers find the orientation in what is left of Exif.
    turned = [expected, expected.transpose(Image.Transpose.ROTATE_270)]
    assert any(np.array_equal(np.asarray(image), np.asarray(one)) for one in turned)


@pytest.mark.parametrize("bits", [8, 10, 12, 14, 16])
@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_grey_of_fewer_bits_in_sixteen_uses_all_of_eight(bits: int, kind: str) -> None:
    values = np.round(np.linspace(0, 2**bits - 1, 256)).astype(np.uint16).reshape(16, 16)
    picture = open_picture(encoded(values, kind), 1, stored=16)
    np.testing.assert_array_equal(np.asarray(picture.image), np.arange(256).reshape(16, 16))
    assert picture.remarks == (() if bits == 16 else (f"{bits} bits in 16 were scaled to 8",))


def wide_png(values: np.ndarray) -> bytes:
    """What Pillow does not write in 16 bits: grey with alpha, colours without and with it, uint16 [H, W, 2, 3 or 4]."""
    height, width, channels = values.shape
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in values)
    header = struct.pack(">IIBBBBB", width, height, 16, {2: 4, 3: 2, 4: 6}[channels], 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


@pytest.mark.parametrize("bits", [8, 10, 12, 14, 16])
def test_colours_of_fewer_bits_in_sixteen_use_all_of_eight(bits: int) -> None:
    values = np.round(np.linspace(0, 2**bits - 1, 768)).astype(np.uint16).reshape(16, 16, 3)
    picture = open_picture(wide_png(values), 3, stored=16)
    # Of full 16 bits Pillow takes the high byte.
    expected = values >> 8 if bits == 16 else np.round(values / (2**bits - 1) * 255)
    np.testing.assert_array_equal(np.asarray(picture.image), expected)
    assert picture.remarks == (() if bits == 16 else (f"{bits} bits in 16 were scaled to 8",))
    # Writers make an opaque picture of all 16 bits, or of those in use.
    for alpha in (2**bits - 1, 2**16 - 1):
        opaque = np.concatenate([values, np.full((16, 16, 1), alpha, np.uint16)], axis=2)
        np.testing.assert_array_equal(np.asarray(open_picture(wide_png(opaque), 3, stored=16).image), expected)


@pytest.mark.parametrize("bits", [8, 10, 12, 14, 16])
@pytest.mark.parametrize("mode", ["L", "RGB"])
def test_grey_with_alpha_is_read_like_grey_alone(bits: int, mode: str) -> None:
    """That is to the nearest, where Pillow would take the high byte."""
    values = np.round(np.linspace(0, 2**bits - 1, 600)).astype(np.uint16).reshape(20, 30)
    channels = len(mode)
    expected = open_picture(encoded(values, "PNG"), channels, stored=16)
    exif = Image.Exif()
    exif[0x0112] = 6
    side = chunk(b"eXIf", exif.tobytes().removeprefix(b"Exif\0\0"))
    for alpha in (2**bits - 1, 2**16 - 1):
        opaque = wide_png(np.stack([values, np.full_like(values, alpha)], axis=-1))
        picture = open_picture(opaque, channels, stored=16)
        np.testing.assert_array_equal(np.asarray(picture.image), np.asarray(expected.image))
        assert picture.remarks == expected.remarks and picture.image.mode == mode
        turned = np.asarray(open_picture(with_chunk(opaque, side), channels, stored=16).image)
        np.testing.assert_array_equal(turned, np.rot90(np.asarray(expected.image), -1))
    clear = wide_png(np.stack([values, np.zeros_like(values)], axis=-1))
    assert (np.asarray(open_picture(clear, channels, stored=16).image) == 255).all()


def test_wide_colours_are_turned_upright() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    values = np.round(np.linspace(0, 4095, 36)).astype(np.uint16).reshape(4, 3, 3)
    turned = with_chunk(wide_png(values), chunk(b"eXIf", exif.tobytes().removeprefix(b"Exif\0\0")))
    expected = np.rot90(np.round(values / 4095 * 255), -1)
    np.testing.assert_array_equal(np.asarray(open_picture(turned, 3, stored=16).image), expected)


def test_the_bits_that_a_png_declares_decide() -> None:
    values = np.array([[0, 100], [500, 1000]], np.uint16)
    declared = with_chunk(encoded(values, "PNG"), chunk(b"sBIT", b"\x0c"))
    assert np.asarray(open_picture(declared, 1, stored=2).image).tolist() == [[0, 6], [31, 62]]
    whole = with_chunk(encoded(values, "PNG"), chunk(b"sBIT", b"\x10"))
    picture = open_picture(whole, 1, stored=2)
    assert np.asarray(picture.image).tolist() == [[0, 0], [2, 4]] and picture.remarks == ()
    # More than the samples have, or none, is an error of the writer and decides nothing.
    for bits in (0, 17, 64, 255):
        picture = open_picture(with_chunk(encoded(values, "PNG"), chunk(b"sBIT", bytes([bits]))), 1, stored=2)
        assert np.asarray(picture.image).tolist() == [[0, 25], [125, 249]]
        assert picture.remarks == ("10 bits in 16 were scaled to 8",)
    # The standard's way: samples are scaled to 16 bits, and the chunk states how many there were.
    scaled = with_chunk(encoded(values * 65, "PNG"), chunk(b"sBIT", b"\x0c"))
    assert np.asarray(open_picture(scaled, 1, stored=2).image).tolist() == [[0, 25], [126, 253]]


@pytest.mark.parametrize("size", [(9000, 11000), (12000, 9000)])
def test_a_large_jpeg_is_read_reduced(tmp_path: Path, size: tuple[int, int]) -> None:
    """99 and 108 megapixels, more than where Pillow begins to warn."""
    Image.new("L", size, 77).save(tmp_path / "large.jpg", quality=30)
    picture = open_picture(tmp_path / "large.jpg", 1, stored=stored_side(224))
    assert picture.image.size == (-(-size[0] // 8), -(-size[1] // 8)) and picture.image.getextrema() == (77, 77)
    assert picture.remarks == ()


def test_the_limit_is_where_pillow_refuses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
    assert open_picture(encoded(RGB[:40], "PNG"), 3, stored=32).image.size == (40, 40)
    with pytest.raises(UnreadableImageError, match="DecompressionBomb"):
        open_picture(encoded(np.zeros((41, 50, 3), np.uint8), "PNG"), 3, stored=32)


@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
@pytest.mark.parametrize("image_size", [16, 28, 64])
def test_host_and_device_decode_to_the_same_pixels(kind: str, image_size: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """A photo larger than the network's input, as the last thing that both share before they resize."""
    pixels = np.asarray(Image.fromarray(SMOOTH).resize((1000, 700), Image.Resampling.BICUBIC))
    content = encoded(pixels, kind)
    seen = []
    convert = Image.Image.resize

    def resize(image: Image.Image, *arguments: object, **options: object) -> Image.Image:
        seen.append(np.asarray(image))
        return convert(image, *arguments, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(Image.Image, "resize", resize)
    decode(content, stored_side(image_size), 3)
    load_pixels_of(content, image_size)
    # The device resizes rows, then columns.
    host, device, _ = seen
    np.testing.assert_array_equal(host, device)
    assert (host.shape[0] < 700) == (kind == "JPEG")


def load_pixels_of(content: bytes, size: int) -> None:
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "photo")
        file.write_bytes(content)
        load_pixels(file, Preprocessing(size, size, 3, (0.5,) * 3, (0.5,) * 3))


def test_what_was_repaired_is_counted_once_and_again_from_the_cache(tmp_path: Path) -> None:
    photos = tmp_path / "photos"
    photos.mkdir()
    for index in range(6):
        Image.fromarray(np.roll(RGB, index, axis=0)).save(photos / f"{index}.png")
    broken = with_chunk(encoded(RGB, "PNG"), BROKEN_CHUNKS["zTXt too large"])
    (photos / "a.png").write_bytes(broken)
    (photos / "b.png").write_bytes(broken)
    (photos / "c.jpg").write_bytes(encoded(RGB, "JPEG")[:-2])
    for _ in range(2):
        lines: list[str] = []
        with logged(lines):
            data = load_data(str(photos), image_size=28, cache_dir=tmp_path / "cache")
        assert len(data.train) == 9 and not data.skipped_files
        assert f"{photos}: 2 images: {SIDE_DAMAGED}" in lines and f"{photos}: 1 image: {END_MISSING}" in lines


ODD_EXIF = segment(0xE1, b"Exif\0\0II*\0\x08\0\0\0\x14\0\x12\1\3\0\1\0\0\0\6\0\0\0")
PROGRAM = """
import sys
from pathlib import Path
from typing import Any
from bssl_tf_deploy.pictures import open_picture
for name in sys.argv[1:]:
    open_picture(Path(name), 3, stored=32)
"""


def test_no_warning_of_a_library_reaches_the_user(tmp_path: Path) -> None:
    whole = encoded(RGB, "JPEG")
    (tmp_path / "exif.jpg").write_bytes(whole[:2] + ODD_EXIF + whole[2:])
    Image.new("L", (10_000, 9_000)).save(tmp_path / "large.jpg")
    files = [str(tmp_path / name) for name in ("exif.jpg", "large.jpg")]
    done = subprocess.run([sys.executable, "-c", PROGRAM, *files], capture_output=True, text=True, check=True)
    assert done.stdout == done.stderr == ""


@pytest.mark.parametrize("kind", ["pipe", "device", "folder", "missing", "empty"])
def test_what_is_not_a_regular_file_is_refused_at_once(tmp_path: Path, kind: str) -> None:
    path = Path("/dev/zero") if kind == "device" else tmp_path / "a.png"
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "folder":
        path.mkdir()
    elif kind == "empty":
        path.touch()
    words = {"pipe": "Not a regular", "device": "Not a regular", "folder": "Is a dir", "missing": "No such"}
    with pytest.raises(UnreadableImageError, match=words.get(kind, "the file is empty")):
        open_picture(path, 3, stored=32)
    assert header_size(path) is None


def test_a_photo_that_is_a_program_is_not_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """PostScript, for which Pillow starts Ghostscript, whatever the file is called."""
    marker, program = tmp_path / "ran", tmp_path / "bin" / "gs"
    program.parent.mkdir()
    program.write_text(f"#!/bin/sh\ntouch {marker}\necho 10\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}:{os.environ['PATH']}")
    monkeypatch.setattr("PIL.EpsImagePlugin.gs_binary", None)
    photo = tmp_path / "photo.jpg"
    photo.write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\n%%EndComments\nshowpage\n%%EOF\n")
    with pytest.raises(UnreadableImageError, match="not an image that Pillow knows"):
        open_picture(photo, 3, stored=8)
    assert header_size(photo) is None and not marker.exists()


# By ending: what Pillow calls the format.
FORMATS = {"bmp": "BMP", "dib": "DIB", "gif": "GIF", "jp2": "JPEG2000", "jpg": "JPEG", "pcx": "PCX", "png": "PNG"}
FORMATS |= {"ppm": "PPM", "tga": "TGA", "tif": "TIFF", "webp": "WEBP", "avif": "AVIF", "mpo": "MPO", "qoi": "QOI"}


@pytest.mark.parametrize("ending", FORMATS)
def test_photos_of_every_known_format_are_read(tmp_path: Path, ending: str) -> None:
    Image.init()
    if FORMATS[ending] not in Image.SAVE:
        pytest.skip(f"this Pillow does not write {FORMATS[ending]}")
    more = {"append_images": [Image.fromarray(SMOOTH)]} if ending == "mpo" else {}
    Image.fromarray(SMOOTH).save(tmp_path / f"photo.{ending}", FORMATS[ending], **more)
    (tmp_path / f"photo.{ending}").rename(tmp_path / "photo.jpg")
    read = np.asarray(open_picture(tmp_path / "photo.jpg", 3, stored=160).image, int)
    assert np.abs(read - SMOOTH).mean() < 12 and header_size(tmp_path / "photo.jpg") == (160, 120)
