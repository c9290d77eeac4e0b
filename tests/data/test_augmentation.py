from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from bssl_tf.backend import tf
from bssl_tf.data.augmentation import (
    LITE,
    MAX_CROP_RATIO,
    MIN_CROP_RATIO,
    MOCO_V2,
    NUMBERS_PER_VIEW,
    Augmentation,
    augment,
    crop_boxes,
)
from bssl_tf.errors import ConfigError

tf.config.experimental.enable_op_determinism()

# Nothing but the crop of the whole picture.
PLAIN = Augmentation(
    min_area=1.0,
    max_area=1.0,
    brightness=0.0,
    contrast=0.0,
    saturation=0.0,
    hue=0.0,
    jitter_probability=1.0,
    grey_probability=0.0,
    blur_probability=0.0,
    min_blur_sigma=0.1,
    max_blur_sigma=2.0,
    flip_probability=0.0,
)


def pictures(count: int = 16, size: int = 20, channels: int = 3, seed: int = 0) -> NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(0, 256, (count, size, size, channels), np.uint8)


def drawn(count: int, seed: int = 1) -> NDArray[np.float32]:
    return np.random.default_rng(seed).random((count, NUMBERS_PER_VIEW), np.float32)


def views(
    images: NDArray[np.uint8], augmentation: Augmentation, size: int | None = None, seed: int = 1, ratio: float = 1
) -> Any:
    ratios, numbers = tf.fill([len(images)], tf.constant(ratio, tf.float32)), tf.constant(drawn(len(images), seed))
    return augment(tf.constant(images), ratios, numbers, augmentation, size or images.shape[1]).numpy()


@pytest.mark.parametrize("size", [8, 20, 33])
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("ratio", [0.8, 1.0, 1.25])
def test_without_strength_the_whole_picture_is_plainly_resized(size: int, channels: int, ratio: float) -> None:
    images = pictures(channels=channels)
    expected = tf.image.resize(tf.cast(images, tf.float32) / 255, [size, size], "bilinear", antialias=False)
    # float32 positions of up to 33 pixels: a ten-thousandth of the contrast between neighbours.
    np.testing.assert_allclose(views(images, PLAIN, size, ratio=ratio), expected, atol=1e-4)


def test_a_certain_flip_mirrors_the_picture() -> None:
    images = pictures()
    flipped = views(images, replace(PLAIN, flip_probability=1.0))
    np.testing.assert_allclose(flipped, images[:, :, ::-1] / 255, atol=1e-4)


def test_half_of_the_pictures_are_flipped() -> None:
    images = pictures(2000, 8, 1)
    flipped = views(images, replace(PLAIN, flip_probability=0.5))
    share = np.mean(np.abs(flipped - images[:, :, ::-1] / 255).max(axis=(1, 2, 3)) < 1e-3)
    # Four standard deviations of a fair coin over 2,000 throws.
    assert abs(share - 0.5) < 4 * 0.5 / np.sqrt(2000)


def test_certain_greyscale_leaves_the_luma_in_all_channels() -> None:
    images = pictures()
    grey = views(images, replace(PLAIN, grey_probability=1.0))
    luma = (images / 255) @ [0.299, 0.587, 0.114]
    np.testing.assert_allclose(grey, np.repeat(luma[..., None], 3, axis=-1), atol=1e-4)


@pytest.mark.parametrize("channels", [1, 3])
def test_brightness_scales_within_its_limits(channels: int) -> None:
    images = np.full((500, 8, 8, channels), 100, np.uint8)
    factors = views(images, replace(PLAIN, brightness=0.4))[:, 0, 0, 0] / (100 / 255)
    assert 0.6 - 1e-4 <= factors.min() < 0.65
    assert 1.35 < factors.max() <= 1.4 + 1e-4


@pytest.mark.parametrize("channels", [1, 3])
def test_contrast_keeps_the_mean_and_scales_the_deviation_within_its_limits(channels: int) -> None:
    images = (pictures(500, 8, channels) // 4 + 96).astype(np.uint8)  # no value near an end, so that none is clipped
    changed, original = views(images, replace(PLAIN, contrast=0.4)), images / 255
    weights = [0.299, 0.587, 0.114] if channels == 3 else [1.0]
    np.testing.assert_allclose((changed @ weights).mean(axis=(1, 2)), (original @ weights).mean(axis=(1, 2)), atol=1e-4)
    factors = changed.std(axis=(1, 2))[:, 0] / original.std(axis=(1, 2))[:, 0]
    assert 0.6 - 1e-3 <= factors.min() < 0.65
    assert 1.35 < factors.max() <= 1.4 + 1e-3


@pytest.mark.parametrize("channels", [1, 3])
def test_contrast_is_taken_about_the_mean_that_brightness_left(channels: int) -> None:
    images = (pictures(500, 8, channels) // 8 + 80).astype(np.uint8)  # clipped nowhere, even at 1.4 times 1.4
    weights = [0.299, 0.587, 0.114] if channels == 3 else [1.0]
    changed = views(images, replace(PLAIN, brightness=0.4, contrast=0.4)) @ weights
    original = (images / 255) @ weights
    brightness = changed.mean(axis=(1, 2)) / original.mean(axis=(1, 2))
    contrast = changed.std(axis=(1, 2)) / original.std(axis=(1, 2)) / brightness
    for factors in (brightness, contrast):
        assert 0.6 - 1e-3 <= factors.min() < 0.65
        assert 1.35 < factors.max() <= 1.4 + 1e-3
    assert abs(np.corrcoef(brightness, contrast)[0, 1]) < 0.2  # drawn apart: four standard deviations at 500


def test_hue_turns_chroma_by_up_to_its_limit_and_keeps_its_amount() -> None:
    images = (pictures(500, 8) // 4 + 96).astype(np.uint8)
    to_chroma = np.array([[0.595716, -0.274453, -0.321263], [0.211456, -0.522591, 0.311135]]).T @ [1, 1j]
    original, changed = (images / 255) @ to_chroma, views(images, replace(PLAIN, hue=0.1)) @ to_chroma
    strong = np.abs(original) > 0.02
    # The matrix and its inverse in float32, on chroma of a fiftieth and more.
    np.testing.assert_allclose(np.abs(changed)[strong], np.abs(original)[strong], rtol=2e-3)
    turns = np.angle(changed[strong] / original[strong]) / (2 * np.pi)
    assert -0.1 - 1e-3 <= turns.min() < -0.09
    assert 0.09 < turns.max() <= 0.1 + 1e-3


def test_saturation_and_hue_leave_luma_and_grey_alone() -> None:
    colour = replace(PLAIN, saturation=0.4, hue=0.1)
    images = (pictures() // 4 + 96).astype(np.uint8)
    luma = [0.299, 0.587, 0.114]
    changed = views(images, colour)
    assert np.abs(changed - images / 255).max() > 0.02
    np.testing.assert_allclose(changed @ luma, (images / 255) @ luma, atol=1e-4)
    grey = np.repeat(pictures(channels=1), 3, axis=-1)
    np.testing.assert_allclose(views(grey, colour), grey / 255, atol=1e-4)


def test_jitter_touches_its_share_of_the_pictures() -> None:
    images = np.full((2000, 8, 8, 3), 100, np.uint8)
    changed = views(images, replace(PLAIN, brightness=0.4, jitter_probability=0.6))
    share = np.mean(np.abs(changed - 100 / 255).max(axis=(1, 2, 3)) > 1e-4)
    # Four standard deviations, and the few whose factor is almost one.
    assert abs(share - 0.6) < 4 * np.sqrt(0.24 / 2000) + 0.002


@pytest.mark.parametrize(("size", "sigma"), [(28, 0.75), (84, 0.75), (224, 2.0), (448, 4.0)])
def test_the_widest_blur_scales_with_the_picture_but_never_vanishes(size: int, sigma: float) -> None:
    assert LITE.blur_range(size)[1] == sigma


def test_blur_spreads_a_point_as_a_gaussian() -> None:
    images = np.zeros((4, 21, 21, 1), np.uint8)
    images[:, 10, 10] = 255
    scale = 224 / 21  # strengths are given at 224 pixels; here sigma is to be 1.5 pixels
    blurred = views(
        images, replace(PLAIN, blur_probability=1.0, min_blur_sigma=1.5 * scale, max_blur_sigma=1.5 * scale)
    )
    line = np.exp(-(np.arange(-10, 11) ** 2) / (2 * 1.5**2))
    line /= line.sum()
    np.testing.assert_allclose(blurred[..., 0], np.broadcast_to(np.outer(line, line), (4, 21, 21)), atol=1e-4)


def test_blur_keeps_a_flat_picture_flat_to_its_border() -> None:
    images = np.full((4, 12, 12, 3), 90, np.uint8)
    np.testing.assert_allclose(views(images, replace(PLAIN, blur_probability=1.0)), 90 / 255, atol=1e-5)


@settings(deadline=None, max_examples=60)
@given(
    st.floats(0.05, 20),
    st.floats(0.01, 1),
    st.floats(0, 1),
    st.lists(st.floats(0, 1, width=32), min_size=4, max_size=4),
)
def test_crops_lie_inside_and_keep_their_shape_and_area(
    ratio: float, low: float, spread: float, random: list[float]
) -> None:
    limits = replace(LITE, min_area=low, max_area=low + (1 - low) * spread)
    area, shape, top, left = (tf.constant([number], tf.float32) for number in random)
    box = crop_boxes(tf.constant([ratio], tf.float32), area, shape, top, left, limits).numpy()[0]
    top, left, bottom, right = (float(edge) for edge in box)
    # Tolerances: a few float32 steps.
    assert -1e-6 <= top < bottom <= 1 + 1e-6
    assert -1e-6 <= left < right <= 1 + 1e-6
    shape = ratio * (right - left) / (bottom - top)
    assert MIN_CROP_RATIO * (1 - 1e-3) <= shape <= MAX_CROP_RATIO * (1 + 1e-3)
    area = (right - left) * (bottom - top)
    wanted = low + (limits.max_area - low) * random[0]
    fits = min(MAX_CROP_RATIO / ratio, ratio / MIN_CROP_RATIO, 1.0)  # the largest share that any allowed shape covers
    assert area == pytest.approx(min(wanted, fits), rel=1e-3)


@pytest.mark.parametrize("preset", [LITE, MOCO_V2])
@pytest.mark.parametrize("channels", [1, 3])
def test_the_numbers_decide_everything(preset: Augmentation, channels: int) -> None:
    images = pictures(32, channels=channels)
    first = views(images, preset, 16)
    compiled = tf.function(lambda batch, numbers: augment(batch, tf.ones(32), numbers, preset, 16))
    np.testing.assert_array_equal(first, views(images, preset, 16))
    np.testing.assert_array_equal(compiled(images, drawn(32)), compiled(images, drawn(32)))
    assert np.abs(first - views(images, preset, 16, seed=2)).max() > 0.1
    assert first.dtype == np.float32
    assert first.min() >= 0
    assert first.max() <= 1


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("count", [6, 20])
def test_a_view_does_not_depend_on_the_rest_of_the_batch(count: int, channels: int) -> None:
    """Bit for bit: six images are less than a vector of the processor, twenty are one and a part of one."""
    images, numbers = pictures(count, 15, channels), drawn(count)
    ratios = np.linspace(0.5, 2, count, dtype=np.float32)
    blurred = replace(MOCO_V2, blur_probability=0.9)
    compiled = tf.function(lambda x, ratio, number: augment(x, ratio, number, blurred, 13), reduce_retracing=True)
    whole = compiled(images, ratios, numbers).numpy()
    for part in (1, 2, count // 2):
        for first in range(0, count, part):
            rows = slice(first, first + part)
            found = compiled(images[rows], ratios[rows], numbers[rows])
            np.testing.assert_array_equal(found, whole[rows])


def test_pictures_of_a_batch_get_different_crops() -> None:
    images = np.repeat(pictures(1), 16, axis=0)
    assert len({view.tobytes() for view in views(images, LITE)}) == 16


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"brightness": 1.1}, "augmentation.brightness is 1.1"),
        ({"hue": 0.6}, "augmentation.hue is 0.6.*0.5"),
        ({"flip_probability": -0.1}, "augmentation.flip_probability"),
        ({"blur_probability": float("nan")}, "augmentation.blur_probability"),
        ({"min_area": 0.0}, "augmentation.min_area is 0.0"),
        ({"min_area": 0.9, "max_area": 0.5}, "augmentation.min_area is 0.9 and augmentation.max_area is 0.5"),
        ({"min_blur_sigma": 3.0}, "augmentation.min_blur_sigma is 3.0"),
        ({"max_blur_sigma": float("inf")}, "augmentation.max_blur_sigma"),
    ],
)
def test_strengths_out_of_range_are_refused(change: dict[str, float], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        replace(LITE, **change)
