"""Weighted k-nearest neighbours on frozen features."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from sklearn.neighbors import NearestNeighbors

from bssl_tf.evaluation.predictions import Predictions

_VOTES_AT_ONCE = 1000


def knn_top1(
    train_features: np.ndarray,
    train_labels: np.ndarray,
    test_features: np.ndarray,
    test_labels: np.ndarray,
    ks: Sequence[int],
) -> tuple[float, ...]:
    """Top-1 accuracy in percent, 0 to 100, for each k; see `knn_predictions`. `test_labels` are integers [M]."""
    found = knn_predictions(train_features, train_labels, test_features, test_labels, ks)
    return tuple(one.accuracies[0] for one in found)


def knn_predictions(
    train_features: np.ndarray,
    train_labels: np.ndarray,
    test_features: np.ndarray,
    test_labels: np.ndarray,
    ks: Sequence[int],
) -> tuple[Predictions, ...]:
    """What k nearest neighbours under cosine similarity take each image for, for each k.

    Each neighbour votes with weight exp(similarity / 0.07) (Wu et al., CVPR 2018, section 3.4, as in MoCo and BSSL).

    Args:
        train_features: [N, D] float.
        train_labels: [N] integer.
        test_features: [M, D] float.
        test_labels: [M] integer.
        ks: numbers of neighbours, at most N are used; 20 and 200 in the papers.

    Returns:
        One for each k; `confidence` is the winner's share of the votes.
    """
    count = min(max(ks), len(train_features))
    distances, neighbours = (
        NearestNeighbors(n_neighbors=count, metric="cosine").fit(train_features).kneighbors(test_features)
    )
    # Less the nearest one's distance, which scales all votes alike: exp(1 / 0.07) is large enough as it is.
    votes = np.exp((distances[:, :1] - distances) / 0.07)
    labels = train_labels[neighbours]
    classes = np.arange(int(train_labels.max()) + 1)
    found = []
    for k in ks:
        parts = []
        for start in range(0, len(labels), _VOTES_AT_ONCE):
            part = slice(start, start + _VOTES_AT_ONCE)
            of_class = labels[part, :k, np.newaxis] == classes
            parts.append(np.einsum("mk,mkc->mc", votes[part, :k], of_class))
        shares = np.concatenate(parts)
        found.append(Predictions.of_scores(shares / shares.sum(axis=1, keepdims=True), test_labels))
    return tuple(found)
