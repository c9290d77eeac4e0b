"""Boxes follow their pixels through every view."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bssl_tf.tasks.detection.augmentation import (
    NUMBERS_PER_VIEW,
    BoxAugmentation,
    augmented,
    framed,
    random_view,
    render,
    seen,
)
from bssl_tf.tasks.detection.boxes import Objects
from bssl_tf_deploy.boxes import FILL
from bssl_tf_deploy.tasks.task import View

PLAIN = BoxAugmentation(brightness=0, contrast=0, saturation=0)
STORED = 64
seeds = st.integers(0, 2**32 - 1)
ratios = st.sampled_from([0.5, 0.8, 1.0, 4 / 3, 2.5])
sizes = st.sampled_from([(96, 64), (64, 96), (64, 64)])


def marked(random: np.random.Generator) -> tuple[np.ndarray, Objects]:
    """A black picture with a bright rectangle, and its box."""
    left, top = random.integers(0, 40, 2)
    wide, high = random.integers(12, 24, 2)
    pixels = np.zeros((STORED, STORED, 3), np.uint8)
    pixels[top : top + high, left : left + wide] = 255
    box = np.array([[left, top, left + wide, top + high]], np.float32) / STORED
    return pixels, Objects(box, np.array([0]), np.zeros(1, bool))


@given(seeds, ratios, sizes)
@settings(max_examples=150)
def test_a_box_is_where_its_pixels_are(seed: int, ratio: float, size: tuple[int, int]) -> None:
    width, height = size
    random = np.random.default_rng(seed)
    pixels, objects = marked(random)
    numbers = random.random(NUMBERS_PER_VIEW, np.float32)
    view, found = augmented(pixels, ratio, objects, numbers, PLAIN, width, height)
    assert view.shape == (height, width, 3)
    # Brighter than the grey around the picture.
    rows, columns = np.nonzero(view[..., 0] > (255 + FILL) // 2)
    if not len(found):
        # At most the blurred rim of what lies just outside.
        assert len(rows) <= 2 * max(width, height)
        return
    left, top, right, bottom = found.boxes[0] * [width, height, width, height]
    if right - left < 3 or bottom - top < 3:
        return
    # The rim is blurred over the pixels of the stored picture, which may be several of the view's.
    blur = 1.5 + max(width, height) / STORED * 3
    place = [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
    np.testing.assert_allclose(place, [left, top, right, bottom], atol=blur)


@given(seeds, ratios, sizes)
@settings(max_examples=150)
def test_views_lie_within_the_picture_or_around_it(seed: int, ratio: float, size: tuple[int, int]) -> None:
    numbers = np.random.default_rng(seed).random(NUMBERS_PER_VIEW, np.float32)
    view = random_view(ratio, numbers, PLAIN, *size)
    for low, high in ((view.left, view.right), (view.top, view.bottom)):
        assert high > low
        inside, around = low >= -1e-6 and high <= 1 + 1e-6, low <= 1e-6 and high >= 1 - 1e-6
        assert inside or around
    # True shapes are kept but for the stretch.
    shape = (view.right - view.left) * ratio / (view.bottom - view.top) / (size[0] / size[1])
    assert 1 / 1.2 - 1e-3 <= shape <= 1.2 + 1e-3


@given(seeds)
@settings(max_examples=100)
def test_objects_keep_their_classes_and_lie_in_the_view(seed: int) -> None:
    random = np.random.default_rng(seed)
    corners = random.uniform(0, 0.7, (6, 2))
    boxes = np.concatenate([corners, corners + random.uniform(0.05, 0.3, (6, 2))], axis=1).astype(np.float32)
    objects = Objects(boxes, np.arange(6), random.random(6) < 0.3)
    view = random_view(1.0, random.random(NUMBERS_PER_VIEW, np.float32), PLAIN, 64, 64)
    flip = bool(random.random() < 0.5)
    found = seen(objects, view, flip=flip, min_visible=0.3)
    assert (found.boxes >= 0).all() and (found.boxes <= 1).all()
    assert (found.boxes[:, 2:] > found.boxes[:, :2]).all() or not len(found)
    there = {int(kind): place for place, kind in enumerate(found.classes)}
    for kind, (left, top, right, bottom) in enumerate(boxes.astype(float)):
        wide = min(right, view.right) - max(left, view.left)
        high = min(bottom, view.bottom) - max(top, view.top)
        share = max(wide, 0) * max(high, 0) / ((right - left) * (bottom - top))
        if share < 1e-4:
            assert kind not in there or share > 0
            continue
        assert kind in there
        if abs(share - 0.3) > 1e-4:
            assert found.ignored[there[kind]] == (objects.ignored[kind] or share < 0.3)


def test_flipping_twice_is_nothing() -> None:
    pixels, objects = marked(np.random.default_rng(0))
    once = seen(objects, View(), flip=True, min_visible=0.3)
    twice = seen(once, View(), flip=True, min_visible=0.3)
    np.testing.assert_allclose(twice.boxes, objects.boxes, atol=1e-6)
    assert np.array_equal(render(pixels, View(), STORED, STORED, flip=True)[:, ::-1], pixels)


@pytest.mark.parametrize("ratio", [0.5, 1.0, 2.0])
def test_without_a_crop_a_view_is_what_is_evaluated(ratio: float) -> None:
    pixels, objects = marked(np.random.default_rng(1))
    numbers = np.array([0.99, *[0.5] * 4, 0.99, 0.5, 0.5, 0.5], np.float32)
    view, found = augmented(pixels, ratio, objects, numbers, PLAIN, 96, 64)
    expected, place = framed(pixels, ratio, 96, 64)
    assert np.array_equal(view, expected)
    # Whole pixels of the frame against shares.
    of_frame = seen(objects, place, flip=False, min_visible=0.3)
    np.testing.assert_allclose(found.boxes, of_frame.boxes, atol=0.5 / 64)


@pytest.mark.parametrize("channels", [1, 3])
def test_colours_change_within_their_limits(channels: int) -> None:
    random = np.random.default_rng(0)
    pixels = random.integers(60, 160, (STORED, STORED, channels), np.uint8)
    objects = Objects(np.zeros((0, 4), np.float32), np.zeros(0, np.int64), np.zeros(0, bool))
    whole = BoxAugmentation(crop_probability=0, flip_probability=0, brightness=0.2, contrast=0, saturation=0)
    for number, factor in ((0.0, 0.8), (0.5, 1.0)):
        numbers = np.full(NUMBERS_PER_VIEW, number, np.float32)
        view, _ = augmented(pixels, 1.0, objects, numbers, whole, STORED, STORED)
        assert np.abs(view - np.rint(pixels.astype(float) * factor)).max() <= 1
    again = [
        augmented(pixels, 1.0, objects, np.full(9, 0.3, np.float32), BoxAugmentation(), 32, 64)[0] for _ in range(2)
    ]
    assert np.array_equal(again[0], again[1])
