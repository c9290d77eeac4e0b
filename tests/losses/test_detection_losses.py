"""The losses of detection against loops that follow the papers."""

from __future__ import annotations

import math

import numpy as np
import pytest

from bssl_tf.backend import tf
from bssl_tf.losses.generalised_iou import overlaps
from bssl_tf.losses.quality_focal import quality_focal


def plain_overlaps(one: list[float], other: list[float]) -> tuple[float, float]:
    """Rezatofighi et al., algorithm 1, line by line."""
    area = (one[2] - one[0]) * (one[3] - one[1])
    of_other = (other[2] - other[0]) * (other[3] - other[1])
    x1, x2 = max(one[0], other[0]), min(one[2], other[2])
    y1, y2 = max(one[1], other[1]), min(one[3], other[3])
    shared = (x2 - x1) * (y2 - y1) if x2 > x1 and y2 > y1 else 0.0
    around = (max(one[2], other[2]) - min(one[0], other[0])) * (max(one[3], other[3]) - min(one[1], other[1]))
    union = area + of_other - shared
    return shared / union, shared / union - (around - union) / around


def random_boxes(seed: int, count: int) -> np.ndarray:
    corners = np.random.default_rng(seed).uniform(0, 50, (count, 2, 2))
    return np.concatenate([corners.min(axis=1), corners.max(axis=1)], axis=1).astype(np.float32)


def test_overlaps_are_those_of_the_algorithm() -> None:
    boxes, others = random_boxes(0, 100), random_boxes(1, 100)
    expected = [plain_overlaps(list(map(float, a)), list(map(float, b))) for a, b in zip(boxes, others, strict=True)]
    found = overlaps(tf.constant(boxes), tf.constant(others))
    # Float32 next to float64; some boxes are thin.
    np.testing.assert_allclose(np.stack(found, axis=1), expected, atol=1e-4)


def test_boxes_apart_are_pulled_together_and_boxes_without_area_give_numbers() -> None:
    boxes = tf.Variable([[0.0, 0.0, 1.0, 1.0], [3.0, 3.0, 3.0, 3.0]])
    with tf.GradientTape() as tape:
        loss = tf.reduce_sum(1 - overlaps(boxes, tf.constant([[9.0, 0.0, 10.0, 1.0], [3.0, 3.0, 3.0, 3.0]]))[1])
    gradient = tape.gradient(loss, boxes).numpy()
    assert np.isfinite(gradient).all() and gradient[0, 2] < 0


def test_quality_focal_loss_is_that_of_the_paper() -> None:
    random = np.random.default_rng(0)
    logits, quality = random.normal(0, 3, 200).astype(np.float32), random.uniform(0, 1, 200).astype(np.float32)
    expected = []
    for logit, q in zip(logits.astype(float), quality.astype(float), strict=True):
        score = 1 / (1 + math.exp(-logit))
        expected.append(-(abs(q - score) ** 2) * ((1 - q) * math.log(1 - score) + q * math.log(score)))
    # Float32 next to float64.
    np.testing.assert_allclose(quality_focal(tf.constant(logits), tf.constant(quality)), expected, rtol=1e-3, atol=1e-6)
    other = quality_focal(tf.constant(logits), tf.constant(quality), beta=1.0).numpy()
    assert (other >= np.array(expected, np.float32) - 1e-6).all()


@pytest.mark.parametrize("beta", [1.0, 2.0, 3.0])
def test_quality_focal_loss_has_a_gradient_everywhere(beta: float) -> None:
    logits = tf.Variable([-1000.0, 0.0, 1000.0, 0.0])
    with tf.GradientTape() as tape:
        loss = tf.reduce_sum(quality_focal(logits, tf.constant([0.0, 0.5, 0.2, 1.0]), beta))
    gradient = tape.gradient(loss, logits).numpy()
    # Where it is right already, up to the entropy's own slope, which is zero at the target too.
    assert np.isfinite(gradient).all() and gradient[0] == 0 and gradient[1] == pytest.approx(0, abs=1e-6)
    assert gradient[2] > 0 and gradient[3] < 0
