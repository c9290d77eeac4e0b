from __future__ import annotations

import numpy as np
import pytest

from bssl_tf.backend import keras, tf
from bssl_tf.data.views import epoch_order
from bssl_tf.errors import ConfigError, DataError
from bssl_tf.evaluation import sgd_probe
from bssl_tf.evaluation.linear_probe import fit_linear_probe, top1
from bssl_tf.evaluation.sgd_probe import fit_sgd_probe, rate_factor
from bssl_tf.seeding import named_seed

tf.config.experimental.enable_op_determinism()


def samples(rng: np.random.Generator, count: int, classes: int, spread: float) -> tuple[np.ndarray, np.ndarray]:
    y = rng.integers(0, classes, count)
    centres = np.random.default_rng(3).standard_normal((classes, 6))
    return (centres[y] + spread * rng.standard_normal((count, 6))).astype(np.float32), y


@pytest.fixture
def one_rate(monkeypatch: pytest.MonkeyPatch) -> None:
    """For tests in which the choice is not the point, and which it would slow down."""
    monkeypatch.setattr(sgd_probe, "RATES", (0.1,))


def slow_sgd(x: np.ndarray, y: np.ndarray, rate: float, epochs: int, batch: int, seed: int) -> np.ndarray:
    """Logits of all samples after plain SGD, in numpy and double precision."""
    x = (x.astype(np.float64) - x.mean(axis=0)) / x.std(axis=0)
    x = np.hstack([x, np.ones((len(x), 1))])
    truth = np.eye(y.max() + 1)[y]
    weights = velocity = np.zeros((x.shape[1], truth.shape[1]))
    for epoch in range(epochs):
        order = epoch_order(len(x), seed, epoch)
        current = rate * (1.0 if epoch < 0.6 * epochs else 0.1 if epoch < 0.8 * epochs else 0.01)
        for start in range(0, len(x) - batch + 1, batch):
            chosen = order[start : start + batch]
            odds = np.exp(x[chosen] @ weights)
            gradient = x[chosen].T @ (odds / odds.sum(axis=1, keepdims=True) - truth[chosen]) / batch
            velocity = 0.9 * velocity - current * gradient
            weights = weights + velocity
    return x @ weights


def test_the_learning_rate_drops_at_60_and_80_of_100_epochs() -> None:
    assert [rate_factor(epoch, 100) for epoch in range(100)] == pytest.approx([1.0] * 60 + [0.1] * 20 + [0.01] * 20)
    assert [rate_factor(epoch, 5) for epoch in range(5)] == pytest.approx([1, 1, 1, 0.1, 0.01])


@pytest.mark.parametrize(("count", "batch"), [(600, 256), (90, 90)])
def test_it_takes_the_steps_of_a_plain_loop(
    count: int, batch: int, rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sgd_probe, "RATES", (0.3,))
    x, y = samples(rng, count, 3, 1.0)
    weights, bias = fit_sgd_probe(x, y, 3, seed=4, epochs=10)
    expected = slow_sgd(x, y, 0.3, 10, batch, named_seed(4, "order"))
    np.testing.assert_allclose(x @ weights + bias, expected, atol=1e-3)  # float32, 20 steps


def test_it_comes_close_to_the_probe_that_is_solved(rng: np.random.Generator) -> None:
    (x, y), (x_test, y_test) = samples(rng, 3000, 5, 1.0), samples(rng, 2000, 5, 1.0)
    by_sgd = top1(*fit_sgd_probe(x, y, 5, seed=0), x_test, y_test)
    solved = top1(*fit_linear_probe(x, y, 5, seed=0), x_test, y_test)
    assert 40 < solved < 95
    assert by_sgd == pytest.approx(solved, abs=1)


@pytest.mark.parametrize("rates", [(1e-6, 0.1), (0.1, 1e-6)])
def test_the_learning_rate_is_the_one_that_does_better_on_held_out_images(
    rates: tuple[float, float], rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where two features share a large noise, the first step's direction is a poor one, and so is a tiny rate's."""
    y = rng.integers(0, 2, 400)
    noise = 5 * rng.standard_normal(400)
    x = np.stack([noise + y, noise + 0.1 * rng.standard_normal(400)], axis=1)
    monkeypatch.setattr(sgd_probe, "RATES", rates)
    chosen = fit_sgd_probe(x, y, 2, seed=0, epochs=30)
    monkeypatch.setattr(sgd_probe, "RATES", (0.1,))
    good = fit_sgd_probe(x, y, 2, seed=0, epochs=30)
    np.testing.assert_array_equal(chosen[0], good[0])


def test_scale_and_shift_of_the_features_do_not_matter(one_rate: None, rng: np.random.Generator) -> None:
    x, y = samples(rng, 500, 3, 1.0)
    scale, shift = np.array([0.125, 1, 4, 16, 2, 0.5], np.float32), np.float32(8)
    plain, moved = fit_sgd_probe(x, y, 3, seed=0, epochs=10), fit_sgd_probe(x * scale + shift, y, 3, seed=0, epochs=10)
    np.testing.assert_allclose((x * scale + shift) @ moved[0] + moved[1], x @ plain[0] + plain[1], atol=1e-2)


def test_a_seed_fixes_the_weights_whatever_the_state_of_the_libraries(
    rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sgd_probe, "RATES", (0.01, 0.1))
    x, y = samples(rng, 400, 3, 1.0)
    keras.utils.set_random_seed(1)
    first = fit_sgd_probe(x, y, 3, seed=0, epochs=5)
    keras.utils.set_random_seed(2)
    again, other = (fit_sgd_probe(x, y, 3, seed=seed, epochs=5) for seed in (0, 1))
    np.testing.assert_array_equal(first[0], again[0])
    np.testing.assert_array_equal(first[1], again[1])
    assert np.any(first[0] != other[0])


def test_classes_without_images_are_never_told(one_rate: None, rng: np.random.Generator) -> None:
    x, y = samples(rng, 300, 2, 0.3)
    weights, bias = fit_sgd_probe(x, np.array([1, 3])[y], 5, seed=0, epochs=20)
    assert weights.shape == (6, 5) and weights.dtype == bias.dtype == np.float32
    assert top1(weights, bias, x, np.array([1, 3])[y]) > 95
    logits = x @ weights + bias
    assert logits[:, [0, 2, 4]].max() < logits[:, [1, 3]].min()


def test_one_image_a_class_is_enough() -> None:
    x = np.array([[0.0, 1.0], [1.0, 1.0]])  # a constant feature, too
    assert top1(*fit_sgd_probe(x, np.array([0, 1]), 2, seed=0), x, np.array([0, 1])) == 100


def test_what_cannot_be_fitted_is_one_clear_line() -> None:
    with pytest.raises(DataError, match="at least two classes"):
        fit_sgd_probe(np.zeros((5, 2)), np.zeros(5, np.int64), 3, seed=0)
    with pytest.raises(DataError, match="at least two classes"):
        fit_sgd_probe(np.zeros((0, 2)), np.zeros(0, np.int64), 3, seed=0)
    with pytest.raises(ConfigError, match="0 epochs"):
        fit_sgd_probe(np.eye(2), np.array([0, 1]), 2, seed=0, epochs=0)
