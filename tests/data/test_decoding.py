from __future__ import annotations

import contextlib
import io
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from bssl_tf.data.decoding import UnreadableImageError, decode, header_size, to_channels

RGB = np.random.default_rng(0).integers(0, 256, (16, 16, 3), np.uint8)


def encoded(picture: Image.Image, kind: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, kind, **options)
    return buffer.getvalue()


def png_header(width: int, height: int) -> bytes:
    """A PNG that claims to be large and holds next to nothing."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(b"\0" * 100)) + chunk(b"IEND", b"")


@pytest.mark.parametrize("kind", ["PNG", "BMP", "TIFF", "PPM", "WEBP"])
def test_lossless_formats_come_out_exactly(kind: str) -> None:
    options = {"lossless": True} if kind == "WEBP" else {}
    pixels, ratio, _, _ = decode(encoded(Image.fromarray(RGB), kind, **options), 16, 3)
    np.testing.assert_array_equal(pixels, RGB)
    assert ratio == 1


def test_jpeg_comes_out_nearly() -> None:
    smooth = np.stack([np.mgrid[0:16, 0:16][0] * 8 + 50] * 3, axis=-1).astype(np.uint8)
    pixels, _, _, _ = decode(encoded(Image.fromarray(smooth), "JPEG", quality=95), 16, 3)
    assert np.abs(pixels.astype(int) - smooth).max() <= 4  # what quality 95 may lose on a ramp


def test_a_large_jpeg_is_read_at_reduced_size() -> None:
    smooth = np.asarray(Image.fromarray(RGB).resize((1200, 900), Image.Resampling.BICUBIC))
    pixels, ratio, size, _ = decode(encoded(Image.fromarray(smooth), "JPEG", quality=95), 24, 3)
    assert size == (1200, 900)
    expected = np.asarray(Image.fromarray(smooth).resize((24, 24), Image.Resampling.BICUBIC))
    assert ratio == pytest.approx(4 / 3, rel=0.01)
    assert np.abs(pixels.astype(int) - expected).mean() < 3


def test_grey_is_luma_and_grey_files_are_repeated() -> None:
    grey, _, _, _ = decode(encoded(Image.fromarray(RGB), "PNG"), 16, 1)
    assert np.abs(grey[..., 0] - RGB @ [0.299, 0.587, 0.114]).max() <= 0.51
    again, _, _, _ = decode(encoded(Image.fromarray(grey[..., 0]), "PNG"), 16, 3)
    np.testing.assert_array_equal(again, np.repeat(grey, 3, axis=-1))


@pytest.mark.parametrize("mode", ["1", "L", "P", "CMYK", "YCbCr", "LAB", "RGB"])
def test_colour_modes_come_out_as_pillow_converts_them(mode: str) -> None:
    picture = Image.new("LAB", (16, 16), (128, 130, 140)) if mode == "LAB" else Image.fromarray(RGB).convert(mode)
    for channels in (1, 3):
        pixels, _, _, _ = decode(encoded(picture, "TIFF"), 16, channels)
        assert pixels.shape == (16, 16, channels)
        if mode != "YCbCr" and channels == 3:  # TIFF stores that one as JPEG does, with loss
            np.testing.assert_array_equal(pixels, np.asarray(picture.convert("RGB")))


def test_a_palette_is_looked_up_before_it_turns_grey() -> None:
    picture = Image.new("P", (16, 16), 1)
    picture.putpalette([0, 0, 0, 255, 255, 255])
    for kind in ("PNG", "GIF"):
        assert np.all(decode(encoded(picture, kind), 16, 1)[0] == 255)


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_sixteen_bits_keep_their_high_ones(kind: str) -> None:
    values = np.linspace(0, 65535, 256).astype(np.uint16).reshape(16, 16)
    for channels in (1, 3):
        pixels, _, _, _ = decode(encoded(Image.fromarray(values), kind), 16, channels)
        np.testing.assert_array_equal(pixels[..., 0], np.arange(256).reshape(16, 16))


def test_transparent_pixels_are_white() -> None:
    for mode, colour in (("RGBA", (10, 20, 30, 0)), ("LA", (10, 0))):
        for channels in (1, 3):
            picture = Image.new(mode, (16, 16), colour)
            assert np.all(decode(encoded(picture, "PNG"), 16, channels)[0] == 255)
    half = decode(encoded(Image.new("RGBA", (16, 16), (0, 0, 0, 128)), "PNG"), 16, 3)[0]
    assert np.all(half == 127)
    keyed = Image.new("P", (16, 16), 1)
    keyed.putpalette([0, 0, 0, 9, 9, 9])
    assert np.all(decode(encoded(keyed, "GIF", transparency=1), 16, 3)[0] == 255)


def test_exif_turns_the_picture_upright() -> None:
    picture = Image.fromarray(RGB).resize((20, 10), Image.Resampling.NEAREST)
    exif = Image.Exif()
    exif[0x0112] = 6  # shown turned by 90 degrees clockwise
    pixels, ratio, size, _ = decode(encoded(picture, "PNG", exif=exif), 16, 3)
    assert size == (10, 20)
    expected = picture.transpose(Image.Transpose.ROTATE_270)
    assert ratio == 0.5
    np.testing.assert_array_equal(pixels, np.asarray(expected.resize((16, 16), Image.Resampling.BICUBIC)))


@pytest.mark.parametrize("kind", ["GIF", "PNG", "WEBP"])
def test_of_an_animation_the_first_frame_is_taken(kind: str) -> None:
    frames = [Image.new("RGB", (16, 16), colour) for colour in ("white", "black", "red")]
    content = encoded(frames[0], kind, save_all=True, append_images=frames[1:])
    assert decode(content, 16, 3)[0].min() >= 254


def test_the_aspect_ratio_is_width_over_height() -> None:
    pixels, ratio, _, _ = decode(encoded(Image.new("RGB", (60, 20)), "PNG"), 16, 3)
    assert ratio == 3
    assert pixels.shape == (16, 16, 3)


WHOLE = encoded(Image.fromarray(RGB), "JPEG")


@pytest.mark.parametrize(
    ("content", "cause"),
    [
        (b"", "the file is empty"),
        (b"This is a text that was renamed.", "not an image that Pillow knows"),
        (WHOLE[: len(WHOLE) // 2], "(?i)truncated"),
        (encoded(Image.fromarray(RGB), "PNG")[:-300], "truncated"),
        (png_header(60_000, 60_000), "DecompressionBombError"),
        # One row more than 178,956,970 pixels, which Pillow takes for a bomb.
        (png_header(10_000, 17_896), "DecompressionBombError"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n", "a Git LFS pointer"),
        (b"\n<!DOCTYPE HTML>\n<html><body>404 Not Found</body></html>", "a web page"),
        (encoded(Image.new("F", (4, 4)), "TIFF"), "no known range"),
        (encoded(Image.fromarray(np.full((4, 4), 70_000, np.int32)), "TIFF"), "no known range"),
    ],
)
def test_what_cannot_be_read_says_why(tmp_path: Path, content: bytes, cause: str) -> None:
    file = tmp_path / "picture.jpg"
    file.write_bytes(content)
    for source in (content, file):
        with pytest.raises(UnreadableImageError, match=cause) as caught:
            decode(source, 16, 3)
        assert "\n" not in str(caught.value)


def test_a_missing_file_says_so(tmp_path: Path) -> None:
    with pytest.raises(UnreadableImageError, match="No such file"):
        decode(tmp_path / "nowhere.png", 16, 3)
    assert header_size(tmp_path / "nowhere.png") is None


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_random_damage_raises_nothing_else() -> None:
    random = np.random.default_rng(3)
    for kind in ("JPEG", "PNG", "GIF", "TIFF", "WEBP", "BMP"):
        content = np.frombuffer(encoded(Image.fromarray(RGB), kind), np.uint8)
        for _ in range(60):
            damaged = content.copy()
            damaged[random.integers(0, len(content), 5)] = random.integers(0, 256, 5)
            with contextlib.suppress(UnreadableImageError):
                assert decode(damaged.tobytes(), 16, 3)[0].shape == (16, 16, 3)


def test_channels_are_converted_as_pillow_does() -> None:
    np.testing.assert_array_equal(
        to_channels(RGB[np.newaxis], 1)[0, ..., 0], np.asarray(Image.fromarray(RGB).convert("L"))
    )
    grey = RGB[np.newaxis, ..., :1]
    assert to_channels(grey, 3).shape == (1, 16, 16, 3)
    assert to_channels(grey, 1) is grey
