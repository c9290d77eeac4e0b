"""A classifier on features of few labelled images and many others.

Labels are spread from image to image along nearest neighbours (Zhou et al., Learning with Local and Global Consistency,
NeurIPS 2003), and a logistic regression is fitted to all images, each as far as its label is certain.

Features are compared after their square root has been taken and their length set to 1: a few large features would
otherwise decide how far apart two images are (Perronnin et al., Improving the Fisher Kernel, ECCV 2010, section 3.2).
"""

from __future__ import annotations

import warnings

import numpy as np
from numpy.typing import NDArray
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import kneighbors_graph
from sklearn.semi_supervised import LabelSpreading

from bssl_tf.backend import tf
from bssl_tf.errors import DataError
from bssl_tf.evaluation.linear_probe import among_all, class_scores

# scikit-learn's C, on features of length 1. A sixth of a hundred images cannot tell which strength is best; this one
# was as good as a chosen one, or better, with 100, 250, 500 and 1,000 labels.
_STRENGTH = 30.0
_NEIGHBOURS = 20
# How much of its label an image takes from its neighbours in each round.
_ALPHA = 0.9
_ROUNDS = 100
_LIMIT = 500


def comparable(features: tf.Tensor) -> tf.Tensor:
    """Features [B, D] as vectors of length 1, float32 [B, D]: the square root of each number, with its sign."""
    features = tf.cast(features, tf.float32)
    return tf.math.l2_normalize(tf.sign(features) * tf.sqrt(tf.abs(features)), axis=-1)


def fit_to_few_labels(
    features: NDArray[np.float32], labels: NDArray[np.int64], others: NDArray[np.float32] | None, classes: int
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """A linear classifier of `comparable` features.

    Args:
        features: [N, D], of the labelled images.
        labels: [N] integers below `classes`.
        others: [M, D], of images without labels; None for none.
        classes: K; classes without an image get the lowest logit.

    Returns:
        weights [D, K] and bias [K].

    Raises:
        DataError: fewer than two classes have images.
    """
    present, known = np.unique(labels, return_inverse=True)
    if len(present) < 2:
        raise DataError("a teacher's classifier needs images of at least two classes", "Label images of another class")
    certainty = np.ones(len(known))
    if others is not None and len(others):
        shares = _spread(np.concatenate([features, others]), known)
        features = np.concatenate([features, others])
        known = np.concatenate([known, shares.argmax(axis=1)[len(known) :]])
        # None where all classes are as likely, 1 where one alone is.
        entropy = -np.sum(shares * np.log(np.maximum(shares, 1e-12)), axis=1) / np.log(len(present))
        certainty = np.concatenate([certainty, np.clip(1 - entropy[len(certainty) :], 0, 1)])
    model = LogisticRegression(C=_STRENGTH, max_iter=_LIMIT)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        model.fit(np.asarray(features, np.float64), known, sample_weight=certainty)
    return among_all(*class_scores(model), present, classes)


def _spread(features: NDArray[np.float32], known: NDArray[np.int64]) -> NDArray[np.float64]:
    """Shares of the P classes in each image, [N + M, P], of which the first N have the label in `known`."""
    labels = np.full(len(features), -1)
    labels[: len(known)] = known
    graph = kneighbors_graph(features, min(_NEIGHBOURS, len(features) - 1), mode="distance", metric="cosine")
    # Close neighbours count more.
    graph.data = np.maximum(1 - graph.data, 0) ** 3
    graph = graph.maximum(graph.T)
    model = LabelSpreading(kernel=lambda *_: graph, alpha=_ALPHA, max_iter=_ROUNDS, tol=1e-4)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        # An image that no label reaches.
        warnings.filterwarnings("ignore", "invalid value encountered")
        model.fit(features, labels)
    shares = np.nan_to_num(model.label_distributions_)
    # In all, classes keep the sizes that they have among the labelled images: a class whose images have many neighbours
    # would swallow others (Zhu et al., ICML 2003, section 4).
    shares *= np.bincount(known) / np.maximum(shares.sum(axis=0), 1e-12)
    total = shares.sum(axis=1, keepdims=True)
    return np.where(total > 0, shares / np.maximum(total, 1e-300), 1 / shares.shape[1])
