"""The teacher's classifier from few labels, next to the closed form of what is iterated, and to scikit-learn."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.linear_model import LogisticRegression

from bssl_tf.backend import tf
from bssl_tf.errors import DataError
from bssl_tf.evaluation import label_spreading
from bssl_tf.evaluation.label_spreading import comparable, fit_to_few_labels


def unit(vectors: np.ndarray) -> np.ndarray:
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


def arcs(images: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Two arcs on a sphere, one above the other: [N, 3] and the arc of each."""
    rng = np.random.default_rng(seed)
    arc = np.arange(images) % 2
    angle = rng.uniform(0, np.pi, images)
    points = np.stack([np.cos(angle), np.sin(angle), 0.8 * arc - 0.4], axis=1) + rng.normal(0, 0.02, (images, 3))
    return unit(points), arc


def closed_form(features: np.ndarray, known: np.ndarray, classes: int) -> np.ndarray:
    """(1 - alpha) (I - alpha D^-1/2 W D^-1/2)^-1 Y, neighbour by neighbour."""
    count = len(features)
    similar = features.astype(np.float64) @ features.astype(np.float64).T
    weights = np.zeros((count, count))
    for image in range(count):
        others = [other for other in np.argsort(-similar[image], kind="stable") if other != image]
        for other in others[: label_spreading._NEIGHBOURS]:
            weights[image, other] = max(similar[image, other], 0) ** 3
    weights = np.maximum(weights, weights.T)
    degree = weights.sum(axis=1)
    normalised = weights / np.sqrt(np.outer(degree, degree))
    start = np.zeros((count, classes))
    start[np.arange(len(known)), known] = 1
    shares = (1 - label_spreading._ALPHA) * np.linalg.solve(np.eye(count) - label_spreading._ALPHA * normalised, start)
    shares /= shares.sum(axis=1, keepdims=True)
    shares *= np.bincount(known) / shares.sum(axis=0)
    return shares / shares.sum(axis=1, keepdims=True)


@pytest.mark.parametrize("seed", range(3))
def test_labels_spread_as_the_closed_form_says(seed: int) -> None:
    features, arc = arcs(120, seed)
    np.testing.assert_allclose(label_spreading._spread(features, arc[:6]), closed_form(features, arc[:6], 2), atol=2e-3)


def test_few_labels_reach_along_neighbours() -> None:
    # A labelled image at one end of each arc: its plane alone would say "left" and "right".
    features, arc = arcs(400, 0)
    order = np.argsort(features[:, 0])
    labelled = np.array([order[arc[order] == 0][0], order[arc[order] == 1][-1]])
    alone = fit_to_few_labels(features[labelled], np.array([0, 1]), None, 2)
    spread = fit_to_few_labels(features[labelled], np.array([0, 1]), features, 2)
    right = [float(np.mean((features @ weights + bias).argmax(axis=1) == arc)) for weights, bias in (alone, spread)]
    assert right[0] < 0.85 < 0.97 < right[1], right


def test_without_other_images_it_is_a_logistic_regression() -> None:
    rng = np.random.default_rng(0)
    features, labels = unit(rng.normal(size=(60, 8))), rng.integers(0, 3, 60)
    labels[labels == 1] = 3  # class 1 has no image
    weights, bias = fit_to_few_labels(features, labels, None, 4)
    expected = LogisticRegression(C=label_spreading._STRENGTH, max_iter=500).fit(features.astype(np.float64), labels)
    np.testing.assert_allclose(weights[:, [0, 2, 3]], expected.coef_.T, atol=1e-5)
    assert not weights[:, 1].any() and bias[1] < -1e3
    assert fit_to_few_labels(features, labels, features[:0], 4)[0].tolist() == weights.tolist()


def test_images_that_no_label_reaches_count_nothing() -> None:
    rng = np.random.default_rng(0)
    near = unit(np.abs(rng.normal(size=(30, 4))) * [1, 1, 0, 0] + 1e-6)
    far = unit(np.abs(rng.normal(size=(40, 4))) * [0, 0, 1, 1])
    labels = (near[:, 0] > near[:, 1]).astype(np.int64)
    shares = label_spreading._spread(np.concatenate([near, far]), labels)
    assert np.isfinite(shares).all() and np.allclose(shares.sum(axis=1), 1)
    with_far, without = (fit_to_few_labels(near, labels, others, 2)[0] for others in (far, None))
    np.testing.assert_allclose(with_far, without, atol=0.05)


def test_one_class_is_not_enough() -> None:
    with pytest.raises(DataError, match="at least two classes"):
        fit_to_few_labels(np.eye(3, dtype=np.float32), np.zeros(3, np.int64), np.eye(3, dtype=np.float32), 2)


@settings(deadline=None, max_examples=30)
@given(st.lists(st.floats(-1e6, 1e6, width=32), min_size=2, max_size=8).filter(lambda v: any(abs(x) > 1e-3 for x in v)))
def test_comparable_features_have_length_one_and_keep_signs(numbers: list[float]) -> None:
    given_ = np.array([numbers], np.float32)
    found = comparable(tf.constant(given_)).numpy()
    roots = np.sign(given_) * np.sqrt(np.abs(given_))
    np.testing.assert_allclose(found, roots / np.linalg.norm(roots), rtol=1e-4, atol=1e-6)
