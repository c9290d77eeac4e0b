"""Weighted k-nearest neighbours on frozen features."""

from __future__ import annotations

import numpy as np
from sklearn.neighbors import KNeighborsClassifier


def knn_top1(
    train_features: np.ndarray, train_labels: np.ndarray, test_features: np.ndarray, test_labels: np.ndarray, k: int
) -> float:
    """Top-1 accuracy of k-nearest neighbours under cosine similarity.

    Each neighbour votes with weight exp(similarity / 0.07) (Wu et al., CVPR 2018, section 3.4, as in MoCo and BSSL).

    Args:
        train_features: [N, D] float.
        train_labels: [N] integer.
        test_features: [M, D] float.
        test_labels: [M] integer.
        k: neighbours, at most N are used.

    Returns:
        Percent, 0 to 100.
    """
    classifier = KNeighborsClassifier(
        min(k, len(train_features)), metric="cosine", weights=lambda distance: np.exp((1.0 - distance) / 0.07)
    )
    classifier.fit(train_features, train_labels)
    return 100.0 * float(classifier.score(test_features, test_labels))
