from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from sklearn.datasets import load_digits

from bssl_tf.errors import DataError, RunFolderError
from bssl_tf.evaluation.knn import knn_top1
from bssl_tf.evaluation.linear_probe import LinearProbe, fit_linear_probe, load_probe, save_probe, top1
from bssl_tf.files import read_json, write_json
from bssl_tf.settings import DataConfig


def slow_knn(x: np.ndarray, y: np.ndarray, x_test: np.ndarray, y_test: np.ndarray, k: int) -> float:
    right = 0
    for row, label in zip(x_test.astype(np.float64), y_test, strict=True):
        similarity = [float(row @ other / np.linalg.norm(row) / np.linalg.norm(other)) for other in x]
        nearest = sorted(range(len(x)), key=lambda i: -similarity[i])[:k]
        votes: dict[int, float] = {}
        for i in nearest:
            votes[int(y[i])] = votes.get(int(y[i]), 0.0) + float(np.exp(similarity[i] / 0.07))
        right += max(sorted(votes), key=lambda c: votes[c]) == label
    return 100 * right / len(y_test)


@pytest.mark.parametrize("k", [1, 5, 20, 1000])
def test_knn_matches_loops(k: int, rng: np.random.Generator) -> None:
    x, x_test = rng.standard_normal((60, 5)), rng.standard_normal((40, 5))
    y, y_test = rng.integers(0, 4, 60), rng.integers(0, 4, 40)
    expected = tuple(slow_knn(x, y, x_test, y_test, number) for number in (3, k))
    assert knn_top1(x, y, x_test, y_test, (3, k)) == pytest.approx(expected)


def test_knn_ignores_the_length_of_features(rng: np.random.Generator) -> None:
    x, y = rng.standard_normal((60, 5)), rng.integers(0, 4, 60)
    scale = rng.uniform(0.1, 10, (60, 1))
    assert knn_top1(x, y, x * scale[::-1], y, (5,)) == knn_top1(x * scale, y, x, y, (5,))


def test_linear_probe_on_real_digits() -> None:
    """Handwritten digits are linearly separable to 95 % and more; a wrong fold of the scaler would not be."""
    x, y = load_digits(return_X_y=True)
    weights, bias = fit_linear_probe(x[:1200], y[:1200], 10, seed=0)
    assert weights.shape == (64, 10) and bias.shape == (10,)
    assert weights.dtype == bias.dtype == np.float32
    assert top1(weights, bias, x[:1200], y[:1200]) > 97
    assert top1(weights, bias, x[1200:], y[1200:]) > 90


def test_linear_probe_does_not_care_for_scale_and_shift() -> None:
    x, y = load_digits(return_X_y=True)
    x = x[:, x.std(axis=0) > 0.5]
    plain = fit_linear_probe(x[:600], y[:600], 10, seed=0)
    moved = fit_linear_probe(x[:600] * 7 - 3, y[:600], 10, seed=0)
    agree = np.argmax(x[600:] @ plain[0] + plain[1], 1) == np.argmax((x[600:] * 7 - 3) @ moved[0] + moved[1], 1)
    assert agree.mean() > 0.99  # L-BFGS stops within a tolerance, so a sample on the border may differ


def test_linear_probe_of_two_classes_and_of_classes_without_images(rng: np.random.Generator) -> None:
    x = np.concatenate([rng.normal(-1, 1, (80, 3)), rng.normal(1, 1, (80, 3))])
    y = np.repeat([1, 3], 80)
    weights, bias = fit_linear_probe(x, y, 5, seed=0)
    predicted = np.argmax(x @ weights + bias, axis=1)
    assert set(predicted) <= {1, 3}
    assert (predicted == y).mean() > 0.85


def test_linear_probe_of_one_class_is_one_clear_line() -> None:
    with pytest.raises(DataError, match="at least two classes"):
        fit_linear_probe(np.zeros((5, 2)), np.zeros(5, np.int64), 3, seed=0)


def test_linear_probe_with_two_images_a_class() -> None:
    x = np.array([[0.0], [0.1], [1.0], [1.1]])
    weights, bias = fit_linear_probe(x, np.array([0, 0, 1, 1]), 2, seed=0)
    assert top1(weights, bias, x, np.array([0, 0, 1, 1])) == 100


def test_a_saved_probe_is_the_same_again_and_a_damaged_one_is_refused(tmp_path: Path) -> None:
    probe = LinearProbe(
        np.ones((3, 2), np.float32), np.zeros(2, np.float32), ("cat", "dog"), 87.5, DataConfig("embedded")
    )
    folder = tmp_path / "run" / "probe"
    with pytest.raises(RunFolderError, match="Fit one with `bssl-tf evaluate"):
        load_probe(folder)
    save_probe(folder, probe)
    again = load_probe(folder)
    np.testing.assert_array_equal(again.weights, probe.weights)
    assert (again.class_names, again.top1, again.data) == (("cat", "dog"), 87.5, DataConfig("embedded"))

    write_json(folder / "probe.json", read_json(folder / "probe.json") | {"class_names": ["cat", "dog", "cow"]})
    with pytest.raises(RunFolderError, match="does not fit this network"):
        load_probe(folder)
    (folder / "probe.json").write_text("{}")
    with pytest.raises(RunFolderError, match="is damaged"):
        load_probe(folder)
