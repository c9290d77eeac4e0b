"""Greedy k-center: far from each other, uncertain first, never the same twice."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bssl_tf.evaluation.selection import NEAR_PIXELS, Points, Selection, margins
from bssl_tf.evaluation.selection import select as select_points


def select(points: np.ndarray, count: int, *, labelled: np.ndarray | None = None, **options: Any) -> Selection:
    """With pixels that are as far apart as features."""
    known = None if labelled is None else Points(labelled, labelled)
    return select_points(Points(points, points), count, labelled=known, **options)


def radius(points: np.ndarray, chosen: np.ndarray) -> float:
    """How far the image that is farthest from all chosen ones is."""
    return float(np.linalg.norm(points[:, None] - points[chosen][None], axis=2).min(axis=1).max())


@settings(max_examples=30)
@given(st.integers(0, 10**6), st.integers(1, 4))
def test_at_most_twice_as_far_as_the_best_choice(seed: int, count: int) -> None:
    points = np.random.default_rng(seed).normal(0, 1, (9, 3))
    found = select(points, count, seed=seed).chosen
    if len(found) == count:  # else the rest are near-duplicates
        best = min(radius(points, np.array(some)) for some in itertools.combinations(range(9), count))
        assert radius(points, found) <= 2 * best + 1e-12


def test_it_takes_the_farthest_again_and_again() -> None:
    points = np.array([[0.0], [1.0], [4.0], [10.0]])
    found = select(points, 4, seed=0)
    slow = [int(found.chosen[0])]
    while len(slow) < 4:
        slow.append(max(range(4), key=lambda one: min(abs(points[one, 0] - points[other, 0]) for other in slow)))
    assert found.chosen.tolist() == slow
    assert np.isinf(found.distances[0]) and np.all(np.diff(found.distances[1:]) <= 0)


@pytest.mark.parametrize("count", [5, 12, 40])
def test_near_duplicates_are_never_both_chosen(rng: np.random.Generator, count: int) -> None:
    groups = rng.normal(0, 1, (12, 8))
    points = np.repeat(groups, 4, axis=0) + rng.normal(0, 0.005, (48, 8))
    found = select(points, count, seed=1)
    assert len(found.chosen) == min(count, 12)
    assert len({place // 4 for place in found.chosen}) == len(found.chosen)
    assert np.all(found.distances > NEAR_PIXELS)


def test_near_duplicates_are_near_in_pixels_and_in_features(rng: np.random.Generator) -> None:
    points = rng.normal(0, 1, (30, 8))
    same = np.zeros((30, 8))
    same[0] = 100  # so that there is a spread; its median is that of the others
    same[1:] += rng.normal(0, 1, 8)
    # Photos from one tripod differ in features, those of one thing in pixels.
    assert len(select_points(Points(points, points * 0), 30, seed=0).chosen) == 30
    assert len(select_points(Points(points * 0, points), 30, seed=0).chosen) == 30
    assert len(select_points(Points(same, same), 30, seed=0).chosen) == 2


def test_what_is_labelled_is_not_asked_for_again(rng: np.random.Generator) -> None:
    points = rng.normal(0, 1, (20, 4))
    found = select(points, 20, seed=0, labelled=points[:15] + 1e-6)
    assert set(found.chosen) <= set(range(15, 20)) and len(found.chosen) == 5
    first = np.linalg.norm(points[15:, None] - points[None, :15], axis=2).min(axis=1).argmax()
    assert found.chosen[0] == 15 + first


def test_what_a_classifier_is_unsure_of_comes_first() -> None:
    angles = np.linspace(0, 2 * np.pi, 40, endpoint=False)
    points = np.stack([np.cos(angles), np.sin(angles)], axis=1)
    unsure = np.arange(40) % 5 == 0
    margin = np.where(unsure, 0.0, 0.99)
    found = select(points, 8, seed=3, margin=margin)
    assert set(found.chosen) == set(np.flatnonzero(unsure))
    # Of others too, when those are used up: nothing is left out for good.
    assert set(select(points, 40, seed=3, margin=np.where(unsure, 0.0, 1.0)).chosen) > set(np.flatnonzero(unsure))
    assert len(select(points, 40, seed=3, margin=np.ones(40)).chosen) == len(select(points, 40, seed=3).chosen)


def test_the_seed_decides(rng: np.random.Generator) -> None:
    points = rng.normal(0, 1, (50, 4))
    assert np.array_equal(select(points, 9, seed=4).chosen, select(points, 9, seed=4).chosen)
    assert len({select(points, 1, seed=seed).chosen[0] for seed in range(10)}) > 1


def test_images_that_are_all_the_same_give_one() -> None:
    assert len(select(np.ones((5, 3)), 5, seed=0).chosen) == 1
    assert len(select(np.ones((1, 3)), 5, seed=0).chosen) == 1


def test_margins() -> None:
    scores = np.array([[0.5, 0.3, 0.2], [0.2, 0.4, 0.4], [0.0, 0.0, 1.0]])
    np.testing.assert_allclose(margins(scores), [0.2, 0.0, 1.0])
    np.testing.assert_allclose(margins(np.ones((2, 1))), 1)
