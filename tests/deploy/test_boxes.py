"""Decoding and non-maximum suppression against loops that follow the definition, and boxes that find back home."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from bssl_tf_deploy.boxes import (
    FILL,
    MAX_CANDIDATES,
    Detections,
    candidates,
    inner_size,
    intersection_over_union,
    letterbox,
    on_picture,
    suppress,
)
from bssl_tf_deploy.tasks.task import View

Box = tuple[float, float, float, float]


def iou(one: Box, other: Box) -> float:
    """By counting lengths, as the definition has it."""
    width = min(one[2], other[2]) - max(one[0], other[0])
    height = min(one[3], other[3]) - max(one[1], other[1])
    shared = width * height if width > 0 and height > 0 else 0.0
    areas = [(box[2] - box[0]) * (box[3] - box[1]) for box in (one, other)]
    return shared / (sum(areas) - shared) if sum(areas) > shared else 0.0


def plain_candidates(outputs: dict[int, tuple[np.ndarray, np.ndarray]], least: float) -> list[tuple[float, Box, int]]:
    found = []
    for stride in sorted(outputs):
        logits, sides = outputs[stride]
        for y in range(logits.shape[0]):
            for x in range(logits.shape[1]):
                for kind in range(logits.shape[2]):
                    score = 1 / (1 + math.exp(-float(logits[y, x, kind])))
                    if score >= least:
                        left, top, right, bottom = (math.exp(float(side)) * stride for side in sides[y, x])
                        middle = ((x + 0.5) * stride, (y + 0.5) * stride)
                        box = (middle[0] - left, middle[1] - top, middle[0] + right, middle[1] + bottom)
                        found.append((score, box, kind))
    return sorted(found, key=lambda one: -one[0])


def plain_suppression(found: list[tuple[float, Box, int]], overlap: float, limit: int) -> list[tuple[float, Box, int]]:
    kept: list[tuple[float, Box, int]] = []
    for score, box, kind in found:
        if len(kept) < limit and all(kind != other or iou(box, better) <= overlap for _, better, other in kept):
            kept.append((score, box, kind))
    return kept


def random_outputs(seed: int, *, height: int = 64, width: int = 96, classes: int = 3) -> dict:
    random = np.random.default_rng(seed)
    return {
        stride: (
            random.normal(-1, 2, (height // stride, width // stride, classes)).astype(np.float32),
            random.normal(0.5, 0.7, (height // stride, width // stride, 4)).astype(np.float32),
        )
        for stride in (32, 8, 16)
    }


@pytest.mark.parametrize("seed", range(5))
def test_boxes_are_those_of_the_definition(seed: int) -> None:
    outputs = random_outputs(seed)
    found = candidates(outputs, 0.3)
    expected = plain_candidates(outputs, 0.3)
    assert 50 < len(expected) < MAX_CANDIDATES
    # Float32 next to float64: exponentials of numbers of a few digits.
    np.testing.assert_allclose(found.scores, [score for score, _, _ in expected], rtol=1e-5)
    np.testing.assert_allclose(found.boxes, [box for _, box, _ in expected], rtol=1e-4, atol=1e-3)
    assert found.classes.tolist() == [kind for _, _, kind in expected]
    kept, plain = suppress(found, 0.5, 40), plain_suppression(expected, 0.5, 40)
    assert 5 < len(plain) <= 40
    np.testing.assert_allclose(kept.boxes, [box for _, box, _ in plain], rtol=1e-4, atol=1e-3)
    assert kept.classes.tolist() == [kind for _, _, kind in plain]


def test_the_same_box_of_two_classes_is_two_boxes() -> None:
    boxes = np.array([[0, 0, 10, 10], [0, 0, 10, 10], [1, 0, 10, 10]], np.float32)
    found = Detections(boxes, np.array([0.9, 0.8, 0.7], np.float32), np.array([0, 1, 0]))
    assert suppress(found, 0.5, 10).scores.tolist() == pytest.approx([0.9, 0.8])


def test_an_overlap_of_exactly_the_share_is_kept() -> None:
    found = Detections(
        np.array([[0, 0, 2, 2], [0, 0, 2, 1]], np.float32), np.array([0.9, 0.8], np.float32), np.array([0, 0])
    )
    assert len(suppress(found, 0.5, 10)) == 2
    assert len(suppress(found, 0.49, 10)) == 1


def test_equal_scores_come_in_the_order_of_cells() -> None:
    outputs = {
        16: (np.zeros((1, 2, 1), np.float32), np.zeros((1, 2, 4), np.float32)),
        8: (np.zeros((2, 4, 1), np.float32), np.zeros((2, 4, 4), np.float32)),
    }
    middles = candidates(outputs, 0.1).boxes.reshape(-1, 2, 2).mean(axis=1)
    assert middles[0].tolist() == [4, 4] and middles[1].tolist() == [12, 4] and middles[-1].tolist() == [24, 8]


def test_outputs_without_sense_are_no_boxes() -> None:
    logits = np.array([[[np.nan], [np.inf], [-np.inf], [3.0]]], np.float32)
    sides = np.array([[[0] * 4, [0] * 4, [0] * 4, [np.nan, 0, 0, 0]]], np.float32)
    found = candidates({8: (logits, sides)}, 0.05)
    assert found.scores.tolist() == [1.0]
    huge = candidates({8: (logits[:, 1:2], np.full((1, 1, 4), 3e38, np.float32))}, 0.05)
    assert np.isfinite(huge.boxes).all()


def test_nothing_found_is_an_empty_answer() -> None:
    found = candidates({8: (np.full((2, 2, 3), -9, np.float32), np.zeros((2, 2, 4), np.float32))}, 0.05)
    kept = on_picture(suppress(found, 0.5, 10), View(), 16, 16)
    assert len(kept) == 0 and kept.boxes.shape == (0, 4)


def test_only_the_best_candidates_are_kept() -> None:
    random = np.random.default_rng(0)
    outputs = {8: (random.normal(0, 1, (40, 40, 2)).astype(np.float32), np.zeros((40, 40, 4), np.float32))}
    found = candidates(outputs, 0.05)
    assert len(found) == MAX_CANDIDATES
    assert found.scores.min() >= np.sort(1 / (1 + np.exp(-outputs[8][0].ravel())))[-MAX_CANDIDATES] - 1e-6


side = st.floats(0, 50, width=32)


@given(st.lists(st.tuples(side, side, side, side), min_size=1, max_size=5))
@settings(max_examples=60)
def test_overlaps_are_those_of_the_definition(corners: list[Box]) -> None:
    boxes = [(min(a, c), min(b, d), max(a, c), max(b, d)) for a, b, c, d in corners]
    found = intersection_over_union(np.array(boxes, np.float64), np.array(boxes, np.float64))
    expected = [[iou(one, other) for other in boxes] for one in boxes]
    # A share of two areas that are themselves products of differences.
    np.testing.assert_allclose(found, expected, atol=1e-5)


@given(
    st.integers(1, 400),
    st.integers(1, 400),
    st.sampled_from([(96, 160), (160, 96), (64, 64)]),
    st.integers(0, 2**32 - 1),
)
@settings(max_examples=60)
def test_a_box_on_the_letterbox_finds_its_place_on_the_picture(
    picture_width: int, picture_height: int, size: tuple[int, int], seed: int
) -> None:
    height, width = size
    image = Image.new("L", (picture_width, picture_height), 200)
    pixels, view = letterbox(image, width, height)
    assert pixels.shape == (height, width, 1)
    inside = pixels[..., 0] == 200
    rows, columns = np.flatnonzero(inside.any(axis=1)), np.flatnonzero(inside.any(axis=0))
    assert (pixels[..., 0][~inside] == FILL).all()
    # The picture's own place on the input is all of the picture.
    own = np.array([[columns[0], rows[0], columns[-1] + 1, rows[-1] + 1]], np.float32)
    back = on_picture(Detections(own, np.ones(1, np.float32), np.zeros(1, np.int64)), view, width, height)
    np.testing.assert_allclose(back.boxes, [[0, 0, 1, 1]], atol=1e-5)
    inner = inner_size(picture_width / picture_height, width, height)
    assert (len(columns), len(rows)) == inner and (inner[0] == width or inner[1] == height)


def test_a_box_in_the_frame_around_the_picture_is_dropped() -> None:
    _, view = letterbox(Image.new("RGB", (100, 50)), 64, 64)
    found = Detections(
        np.array([[0, 0, 64, 16], [0, 10, 64, 48]], np.float32), np.ones(2, np.float32), np.zeros(2, np.int64)
    )
    np.testing.assert_allclose(on_picture(found, view, 64, 64).boxes, [[0, 0, 1, 1]], atol=1e-6)


def test_a_picture_that_was_squashed_gets_its_shape_back() -> None:
    random = np.random.default_rng(0)
    wide = Image.fromarray(random.integers(0, 256, (8, 16, 3), np.uint8)).resize((128, 64), Image.Resampling.BICUBIC)
    squashed = wide.resize((64, 64), Image.Resampling.BICUBIC)
    of_wide, _ = letterbox(wide, 64, 64)
    of_squashed, _ = letterbox(squashed, 64, 64, ratio=2.0)
    # Two resamplings in place of one, of a picture without fine detail.
    assert np.abs(of_wide.astype(int) - of_squashed).max() <= 12
