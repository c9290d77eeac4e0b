"""Several labels per image: precision as scikit-learn has it, losses as numpy has them, comparisons by resampling."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import average_precision_score

from bssl_tf.backend import tf
from bssl_tf.evaluation.multilabel import NOT_SHOWN, PROBE_BETTER, TUNED_BETTER, compare
from bssl_tf.tasks.classification import LOGITS
from bssl_tf.tasks.multilabel import MultiLabel
from bssl_tf.tasks.precision import average_precisions, mean_average_precision
from bssl_tf_deploy.tasks.multilabel import sigmoid


def test_average_precision_is_scikit_learns_with_ties_and_weights(rng: np.random.Generator) -> None:
    for ties in (False, True):
        scores = rng.standard_normal((60, 4))
        scores = np.round(scores) if ties else scores
        has = rng.random((60, 4)) < (0.5, 0.1, 0.9, 0.3)
        has[:, 3] = False
        [found] = average_precisions(scores, has)
        expected = [100 * average_precision_score(has[:, k], scores[:, k]) for k in range(3)]
        np.testing.assert_allclose(found[:3], expected, rtol=1e-9)
        assert np.isnan(found[3]) and mean_average_precision(scores, has) == pytest.approx(np.mean(expected))
        counts = rng.integers(1, 4, (5, 60))
        for row, weights in zip(average_precisions(scores, has, counts), counts, strict=True):
            again = [100 * average_precision_score(has[:, k], scores[:, k], sample_weight=weights) for k in range(3)]
            np.testing.assert_allclose(row[:3], again, rtol=1e-9)


def test_the_loss_is_binary_cross_entropy(rng: np.random.Generator) -> None:
    logits, labels = rng.standard_normal((8, 3)), (rng.random((8, 3)) < 0.4).astype(np.float64)
    given = {LOGITS: tf.constant(logits, tf.float32)}, {"labels": tf.constant(labels, tf.float32)}
    chance = 1 / (1 + np.exp(-logits))
    entropy = -(labels * np.log(chance) + (1 - labels) * np.log(1 - chance))
    losses = MultiLabel().losses(*given)
    assert float(losses["loss"]) == pytest.approx(entropy.mean(), rel=1e-5)
    assert float(losses["train_labels"]) == pytest.approx(100 * np.mean((logits > 0) == (labels > 0)))
    weights = np.array([2.0, 1.0, 0.5])
    weighted = MultiLabel().losses(*given, tf.constant(weights, tf.float32))
    expected = np.where(labels > 0, weights * entropy, entropy).mean()
    assert float(weighted["loss"]) == pytest.approx(expected, rel=1e-5)


def test_the_same_answers_are_the_same_labels() -> None:
    one, other = np.array([[1.0, -1.0], [1.0, 2.0]]), np.array([[3.0, -0.1], [1.0, -2.0]])
    assert MultiLabel().same_answers({LOGITS: one}, {LOGITS: other}).tolist() == [True, False]
    np.testing.assert_allclose(sigmoid(np.array([-1000.0, 0.0, 1000.0])), [0, 0.5, 1])


def test_better_is_what_resampling_shows(rng: np.random.Generator) -> None:
    has = rng.random((200, 3)) < 0.3
    good, poor = has + 0.5 * rng.standard_normal((200, 3)), has + 3 * rng.standard_normal((200, 3))
    for probe, tuned, better in ((poor, good, TUNED_BETTER), (good, poor, PROBE_BETTER), (good, good, NOT_SHOWN)):
        found = compare(("a", "b", "c"), has, probe, tuned, seed=0)
        assert found["better"] == better
        points = found["fine_tuned"] - found["probe"]
        assert (
            found["interval"].low <= points <= found["interval"].high and f"{points:+.1f} points" in found["sentence"]
        )
        assert found["fine_tuned"] == pytest.approx(mean_average_precision(tuned, has))
        assert [one.images for one in found["labels"]] == has.sum(axis=0).tolist()
