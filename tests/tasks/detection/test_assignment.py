"""Which cell learns which box, against loops over boxes and cells."""

from __future__ import annotations

import numpy as np
import pytest

from bssl_tf.backend import tf
from bssl_tf.tasks.detection.assignment import assign, cells


def plain(boxes: np.ndarray, strides: list[int], height: int, width: int) -> list[int]:
    """The rule as its docstring has it, for one image."""
    middles = [
        (s, (x + 0.5) * s, (y + 0.5) * s) for s in strides for y in range(height // s) for x in range(width // s)
    ]
    learners: dict[int, list[tuple[float, int]]] = {}
    for number, (left, top, right, bottom) in enumerate(boxes.astype(float)):
        longest = max(right - left, bottom - top)
        level = next((s for s in strides[:-1] if longest <= 16 * s), strides[-1])
        distance = {
            cell: max(abs(x - (left + right) / 2), abs(y - (top + bottom) / 2))
            for cell, (s, x, y) in enumerate(middles)
            if s == level
        }
        inside = [
            cell
            for cell, away in distance.items()
            if away < 1.5 * level and left < middles[cell][1] < right and top < middles[cell][2] < bottom
        ]
        for cell in inside or [min(distance, key=lambda cell: distance[cell])]:
            learners.setdefault(cell, []).append(((right - left) * (bottom - top), number))
    return [min(learners[cell])[1] if cell in learners else -1 for cell in range(len(middles))]


def random_boxes(seed: int, count: int, height: int, width: int) -> np.ndarray:
    random = np.random.default_rng(seed)
    sizes = np.exp(random.uniform(np.log(1.5), np.log(height), (count, 2)))
    middles = random.uniform(0, 1, (count, 2)) * [width, height]
    return np.concatenate([middles - sizes / 2, middles + sizes / 2], axis=1).astype(np.float32)


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("strides", [[8, 16, 32], [8, 16], [32]])
def test_cells_learn_the_boxes_of_the_rule(seed: int, strides: list[int]) -> None:
    height, width = 128, 192
    boxes = np.stack([random_boxes(seed, 9, height, width), random_boxes(100 + seed, 9, height, width)])
    valid = np.ones((2, 9), bool)
    valid[1, 6:] = False
    found = assign(tf.constant(boxes), tf.constant(valid), *cells(strides, height, width)).numpy()
    assert found[0].tolist() == plain(boxes[0], strides, height, width)
    assert found[1].tolist() == plain(boxes[1, :6], strides, height, width)
    assert (found >= 0).any()


def test_the_smallest_box_is_learnt_by_a_cell() -> None:
    boxes = tf.constant([[[9.0, 9.0, 10.0, 10.0], [0.0, 0.0, 32.0, 32.0]]])
    found = assign(boxes, tf.constant([[True, True]]), *cells([8], 32, 32)).numpy()[0].reshape(4, 4)
    assert found[1, 1] == 0 and found[2, 2] == 1 and found[0, 0] == -1


def test_what_only_fills_up_is_not_learnt() -> None:
    found = assign(tf.zeros((2, 1, 4)), tf.zeros((2, 1), tf.bool), *cells([8, 16], 32, 64)).numpy()
    assert found.shape == (2, 4 * 8 + 2 * 4) and (found == -1).all()
