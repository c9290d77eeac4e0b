from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bssl_tf.errors import BsslError, ConfigError, DataError
from bssl_tf.evaluation import few_shot
from bssl_tf.evaluation.few_shot import class_ranks
from bssl_tf.seeding import named_seed


def few_shot_svm(*data: np.ndarray, seed: int, **how: Any) -> dict[int, tuple[float, ...]]:
    """Accuracies alone."""
    found = few_shot.few_shot_svm(*data, seed=seed, **how)
    return {shots: predictions.accuracies for shots, predictions in found.items()}


def clusters(rng: np.random.Generator, classes: int, each: int, spread: float) -> tuple[np.ndarray, np.ndarray]:
    y = rng.permutation(np.repeat(np.arange(classes), each))
    return 3.0 * np.eye(classes)[y] + spread * rng.standard_normal((len(y), classes)), y


def slow_svm(x: np.ndarray, y: np.ndarray, x_test: np.ndarray, y_test: np.ndarray) -> float:
    """One squared-hinge problem after another, by gradient descent; the bias is a weight of a constant feature."""
    x, x_test = (np.hstack([features, np.ones((len(features), 1))]) for features in (x, x_test))
    weights = []
    for label in np.unique(y):
        w, sign = np.zeros(x.shape[1]), np.where(y == label, 1.0, -1.0)
        for _ in range(3000):
            missing = np.maximum(0.0, 1.0 - sign * (x @ w))
            w -= 0.5 / (1 + 2 * np.square(x).sum()) * (w - 2 * (missing * sign) @ x)
        weights.append(w)
    return 100 * float(np.mean(np.unique(y)[np.argmax(x_test @ np.array(weights).T, axis=1)] == y_test))


@given(st.lists(st.integers(0, 4), max_size=60), st.integers(0, 2**31 - 1))
def test_the_ranks_of_a_class_count_its_images_once_each(labels: list[int], seed: int) -> None:
    ranks = class_ranks(np.array(labels, np.int64), seed)
    for label in set(labels):
        of_class = [int(rank) for rank, other in zip(ranks, labels, strict=True) if other == label]
        assert sorted(of_class) == list(range(labels.count(label)))
        for shots in (1, 3, 8):
            assert sum(rank < shots for rank in of_class) == min(shots, labels.count(label))


def test_every_image_has_the_same_chance_to_be_drawn() -> None:
    labels = np.array([0, 1] * 5)
    drawn = np.mean([class_ranks(labels, seed) < 2 for seed in range(2000)], axis=0)
    np.testing.assert_allclose(drawn, 0.4, atol=0.05)  # more than four standard deviations
    together = np.mean([np.all(class_ranks(labels, seed)[[0, 2]] < 2) for seed in range(2000)])
    assert together == pytest.approx(0.1, abs=0.03)


def test_clear_classes_are_told_apart_from_one_image_on(rng: np.random.Generator) -> None:
    (x, y), (x_test, y_test) = clusters(rng, 5, 40, 0.05), clusters(rng, 5, 20, 0.05)
    assert few_shot_svm(x, y, x_test, y_test, shots=(1, 4, 16), draws=2, seed=0) == {
        1: (100.0, 100.0),
        4: (100.0, 100.0),
        16: (100.0, 100.0),
    }


def test_labels_without_meaning_give_chance(rng: np.random.Generator) -> None:
    x, x_test = rng.standard_normal((600, 16)), rng.standard_normal((2000, 16))
    y, y_test = np.arange(600) % 4, np.arange(2000) % 4
    result = few_shot_svm(x, y, x_test, y_test, shots=(1, 64), draws=4, seed=0)
    for accuracies in result.values():
        assert np.mean(accuracies) == pytest.approx(25, abs=3)  # a draw's standard deviation is one point


def test_accuracies_are_those_of_slow_machines_on_the_same_draws(rng: np.random.Generator) -> None:
    (x, y), (x_test, y_test) = clusters(rng, 4, 30, 2.0), clusters(rng, 4, 100, 2.0)
    x, x_test = x * [1, 20, 0.1, 3] + 5, x_test * [1, 20, 0.1, 3] + 5
    result = few_shot_svm(x, y, x_test, y_test, shots=(2, 8), draws=3, seed=7)
    a, b = ((features - x.mean(axis=0)) / x.std(axis=0) / 2 for features in (x, x_test))
    for shots, accuracies in result.items():
        for draw, accuracy in enumerate(accuracies):
            ranks = class_ranks(y, named_seed(7, "few shot", draw))
            chosen = [i for i in range(len(y)) if ranks[i] < shots]
            # The library stops within a tolerance, so a few samples on the border may differ.
            assert accuracy == pytest.approx(slow_svm(a[chosen], y[chosen], b, y_test), abs=1)


def test_scale_and_shift_of_the_features_do_not_matter(rng: np.random.Generator) -> None:
    (x, y), (x_test, y_test) = clusters(rng, 4, 30, 2.0), clusters(rng, 4, 100, 2.0)
    scale, shift = rng.uniform(0.01, 100, 4), rng.uniform(-100, 100, 4)
    plain = few_shot_svm(x, y, x_test, y_test, shots=(1, 8), draws=2, seed=0)
    moved = few_shot_svm(x * scale + shift, y, x_test * scale + shift, y_test, shots=(1, 8), draws=2, seed=0)
    for shots in plain:
        np.testing.assert_allclose(plain[shots], moved[shots], atol=0.5)  # rounding may move two of 400 samples


def test_a_seed_fixes_the_draws_and_the_draws_differ(rng: np.random.Generator) -> None:
    (x, y), (x_test, y_test) = clusters(rng, 4, 50, 2.0), clusters(rng, 4, 100, 2.0)
    first, again, other = (few_shot_svm(x, y, x_test, y_test, shots=(2,), draws=5, seed=seed) for seed in (0, 0, 1))
    assert first == again
    assert len(set(first[2])) > 1
    assert first != other


def test_more_draws_or_shots_leave_the_others_as_they_are(rng: np.random.Generator) -> None:
    (x, y), (x_test, y_test) = clusters(rng, 4, 50, 2.0), clusters(rng, 4, 100, 2.0)
    few = few_shot_svm(x, y, x_test, y_test, shots=(4,), draws=2, seed=0)
    more = few_shot_svm(x, y, x_test, y_test, shots=(8, 1, 4), draws=3, seed=0)
    assert list(more) == [1, 4, 8]
    assert more[4][:2] == few[4]


def test_a_small_class_gives_what_it_has_and_shots_that_no_class_has_are_left_out(rng: np.random.Generator) -> None:
    x, y = clusters(rng, 3, 10, 0.05)
    kept = (y != 2) | (class_ranks(y, 0) < 3)
    result = few_shot_svm(x[kept], y[kept], x, y, seed=0)
    assert result == dict.fromkeys((1, 2, 4, 8), (100.0,) * 5)


@pytest.mark.parametrize(
    ("train", "test", "arguments", "kind", "message"),
    [
        ([], [0], {}, DataError, "at least two classes"),
        ([1, 1, 1], [1], {}, DataError, "at least two classes"),
        ([0, 1], [], {}, DataError, "no test images"),
        ([0, 1, 1], [0], {"shots": (4, 3)}, DataError, "no class has the 3 training images"),
        ([0, 1], [0], {"shots": ()}, ConfigError, "positive"),
        ([0, 1], [0], {"shots": (0, 1)}, ConfigError, "positive"),
        ([0, 1], [0], {"draws": 0}, ConfigError, "positive"),
    ],
)
def test_what_cannot_be_measured_is_one_clear_line(
    train: list[int], test: list[int], arguments: dict[str, tuple[int, ...]], kind: type[BsslError], message: str
) -> None:
    x, x_test = np.ones((len(train), 2)), np.ones((len(test), 2))
    with pytest.raises(kind, match=message):
        few_shot_svm(x, np.array(train, np.int64), x_test, np.array(test, np.int64), seed=0, **arguments)
