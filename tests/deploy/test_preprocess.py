"""An image file becomes the same numbers on the device as on the host."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from bssl_tf.data.load import load_data
from bssl_tf.data.preprocessing import evaluation_views, fit_preprocessing
from bssl_tf_deploy.errors import ImageError
from bssl_tf_deploy.manifest import Preprocessing
from bssl_tf_deploy.preprocess import load_image, load_pixels, normalise, whole_pixels

RGB = Preprocessing(16, 16, 3, (0.48, 0.45, 0.4), (0.23, 0.22, 0.225))
GREY = Preprocessing(16, 16, 1, (0.3,), (0.35,))


def save(path: Path, pixels: np.ndarray, mode: str | None = None, **options: object) -> Path:
    image = Image.fromarray(pixels, mode)
    image.save(path, **options)  # type: ignore[arg-type]
    return path


def expected(pixels: np.ndarray, p: Preprocessing) -> np.ndarray:
    """The formula, in float64."""
    return (pixels / 255 - np.array(p.mean)) / np.array(p.std)


@pytest.fixture
def square(rng: np.random.Generator) -> np.ndarray:
    return rng.integers(0, 256, (16, 16, 3), dtype=np.uint8)


def test_a_picture_of_the_right_size_is_only_normalised(tmp_path: Path, square: np.ndarray) -> None:
    loaded = load_image(save(tmp_path / "a.png", square), RGB)
    assert loaded.shape == (1, 16, 16, 3)
    assert loaded.dtype == np.float32
    np.testing.assert_allclose(loaded[0], expected(square, RGB), atol=1e-6)


@given(
    st.lists(st.floats(-2, 2, width=32), min_size=3, max_size=3),
    st.lists(st.floats(2**-8, 4, width=32), min_size=3, max_size=3),
)
def test_pixels_come_back_whole_from_normalised_images(mean: list[float], std: list[float]) -> None:
    pixels = np.repeat(np.arange(256, dtype=np.uint8)[:, np.newaxis], 3, axis=1)
    np.testing.assert_array_equal(whole_pixels(normalise(pixels, mean, std), mean, std), pixels)


def test_numbers_between_and_beyond_pixels_become_the_nearest() -> None:
    images = np.array([[-1.0], [0.4 / 255], [0.6 / 255], [7.0]], np.float32)
    assert whole_pixels(images, (0.0,), (1.0,)).tolist() == [[0], [0], [1], [255]]


def test_pixels_are_what_is_normalised(tmp_path: Path, rng: np.random.Generator) -> None:
    file = save(tmp_path / "a.png", rng.integers(0, 256, (20, 31, 3), dtype=np.uint8))
    pixels = load_pixels(file, RGB)
    assert pixels.shape == (1, 16, 16, 3) and pixels.dtype == np.uint8
    np.testing.assert_array_equal(load_image(file, RGB), normalise(pixels, RGB.mean, RGB.std))


def test_grey_from_rgb_is_luma(tmp_path: Path, square: np.ndarray) -> None:
    loaded = load_image(save(tmp_path / "a.png", square), GREY)
    luma = square @ np.array([0.299, 0.587, 0.114])
    # Rounded to whole grey levels.
    np.testing.assert_allclose(loaded[0, ..., 0] * 0.35 + 0.3, luma / 255, atol=0.51 / 255)


def test_the_central_square_is_taken(tmp_path: Path, square: np.ndarray) -> None:
    for axis in (0, 1):
        wide = np.concatenate([np.zeros_like(square), square, np.full_like(square, 255)], axis=axis)
        np.testing.assert_allclose(load_image(save(tmp_path / "a.png", wide), RGB)[0], expected(square, RGB), atol=1e-6)


def test_an_even_picture_stays_even_at_any_size(tmp_path: Path) -> None:
    for shape in ((9, 31, 3), (100, 57, 3), (1, 1, 3)):
        loaded = load_image(save(tmp_path / "a.png", np.full(shape, 77, np.uint8)), RGB)
        np.testing.assert_allclose(loaded[0], np.broadcast_to(expected(np.full(3, 77), RGB), (16, 16, 3)), atol=1e-6)


def test_halving_is_antialiased(tmp_path: Path) -> None:
    """A chessboard of single pixels becomes grey, not black or white."""
    board = (np.indices((32, 32)).sum(axis=0) % 2 * 255).astype(np.uint8)
    inner = load_image(save(tmp_path / "a.png", board), GREY)[0, 2:-2, 2:-2] * 0.35 + 0.3
    np.testing.assert_allclose(inner, 0.5, atol=0.01)


def test_exif_turns_the_picture(tmp_path: Path, square: np.ndarray) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned a quarter clockwise
    loaded = load_image(save(tmp_path / "a.png", square, exif=exif), RGB)
    np.testing.assert_allclose(loaded[0], expected(np.rot90(square, -1), RGB), atol=1e-6)


def test_transparent_is_white(tmp_path: Path, square: np.ndarray) -> None:
    alpha = np.concatenate([square, np.full((16, 16, 1), 255, np.uint8)], axis=2)
    alpha[:8, :, 3] = 0
    loaded = load_image(save(tmp_path / "a.png", alpha), RGB)[0]
    np.testing.assert_allclose(loaded[:8], np.broadcast_to(expected(np.full(3, 255), RGB), (8, 16, 3)), atol=1e-6)
    np.testing.assert_allclose(loaded[8:], expected(square[8:], RGB), atol=1e-6)


def test_sixteen_bit_grey_keeps_its_range(tmp_path: Path, square: np.ndarray) -> None:
    grey = square[..., 0]
    loaded = load_image(save(tmp_path / "a.png", grey.astype(np.uint16) * 257), GREY)
    np.testing.assert_allclose(loaded[0], expected(grey[..., np.newaxis], GREY), atol=1e-6)


@pytest.mark.parametrize("kind", ["P", "1", "CMYK", "LA"])
def test_other_modes_are_read(tmp_path: Path, square: np.ndarray, kind: str) -> None:
    path = tmp_path / ("a.jpg" if kind == "CMYK" else "a.png")
    Image.fromarray(square).convert(kind).save(path)
    assert load_image(path, RGB).shape == (1, 16, 16, 3)


def test_the_embedded_test_images_as_files_are_what_the_host_evaluates(tmp_path: Path) -> None:
    """Native size: equal to the last bit."""
    images = load_data("embedded", image_size=28).test
    assert images is not None
    host = fit_preprocessing(images, 28)
    device = Preprocessing(28, 28, 1, host.mean, host.std)
    for index in range(0, 50, 10):
        file = save(tmp_path / f"{index}.png", images.images[index, ..., 0])
        np.testing.assert_array_equal(load_image(file, device), evaluation_views(images, host, [index]))


@pytest.mark.parametrize(("mode", "suffix"), [("RGB", "png"), ("RGBA", "png"), ("L", "jpg"), ("P", "png")])
def test_a_folder_of_native_size_files_is_what_the_host_evaluates(
    tmp_path: Path, rng: np.random.Generator, mode: str, suffix: str
) -> None:
    for number in range(4):
        for name in ("a", "b"):
            (tmp_path / "data" / name).mkdir(parents=True, exist_ok=True)
            shape = (24, 24, 4) if mode == "RGBA" else (24, 24, 3)
            image = Image.fromarray(rng.integers(0, 256, shape, dtype=np.uint8)).convert(mode)
            image.save(tmp_path / "data" / name / f"{number}.{suffix}")
    images = load_data(str(tmp_path / "data"), image_size=24, channels=3, cache_dir=tmp_path / "cache").train
    host = fit_preprocessing(images, 24)
    device = Preprocessing(24, 24, 3, host.mean, host.std)
    views = evaluation_views(images, host, np.arange(len(images)))
    files = [load_image(file, device)[0] for file in sorted((tmp_path / "data").rglob(f"*.{suffix}"))]
    for view in views:
        assert any(np.array_equal(view, file) for file in files)


def test_what_cannot_be_read_is_named_with_its_cause(tmp_path: Path, square: np.ndarray) -> None:
    whole = io.BytesIO()
    Image.fromarray(np.tile(square, (20, 20, 1))).save(whole, "JPEG")
    cases = {
        "empty.png": (b"", "the file is empty"),
        "text.png": (b"hello", "not an image that Pillow knows"),
        "cut.jpg": (whole.getvalue()[:2000], "truncated"),
    }
    for name, (content, cause) in cases.items():
        (tmp_path / name).write_bytes(content)
        with pytest.raises(ImageError, match=f"{name} cannot be read: .*{cause}") as caught:
            load_image(tmp_path / name, RGB)
        assert "\n" not in str(caught.value)
    with pytest.raises(ImageError, match=r"missing\.png cannot be read: No such file"):
        load_image(tmp_path / "missing.png", RGB)
    with pytest.raises(ImageError, match=rf"is a folder\. Name the files in it: {tmp_path}/\*\.jpg\."):
        load_image(tmp_path, RGB)


def test_how_a_picture_was_read_is_told_with_its_name(
    tmp_path: Path, square: np.ndarray, caplog: pytest.LogCaptureFixture
) -> None:
    file = save(tmp_path / "a.jpg", square)
    expected = load_pixels(file, RGB)
    assert not caplog.records
    file.write_bytes(file.read_bytes()[:-2])
    np.testing.assert_array_equal(load_pixels(file, RGB), expected)
    assert [record.getMessage() for record in caplog.records] == [
        f"{file}: the end of the file is missing, after the last pixel"
    ]


def test_a_decompression_bomb_is_refused(tmp_path: Path, square: np.ndarray, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    with pytest.raises(ImageError, match="DecompressionBomb"):
        load_image(save(tmp_path / "a.png", square), RGB)
