"""Few-shot linear support vector machines on frozen features: what the features are worth with very few labels."""

from __future__ import annotations

import warnings
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from sklearn.preprocessing import StandardScaler
from sklearn.svm import LinearSVC

from bssl_tf.errors import ConfigError, DataError
from bssl_tf.evaluation.predictions import Predictions
from bssl_tf.seeding import named_seed

SHOTS = (1, 2, 4, 8, 16, 32, 64, 96)
DRAWS = 5
# On standardised features divided by the root of their number. One value, because one image a class leaves nothing to
# choose with; a tenth and ten times as much cost some points at many shots and hardly matter at few.
_C = 1.0
# Accuracy no longer changes below this, and 96 shots of 200 classes are solved in seconds.
_TOLERANCE = 1e-2


def few_shot_svm(
    train_x: np.ndarray,
    train_y: np.ndarray,
    test_x: np.ndarray,
    test_y: np.ndarray,
    *,
    shots: Sequence[int] = SHOTS,
    draws: int = DRAWS,
    seed: int,
) -> dict[int, Predictions]:
    """What one-vs-rest linear SVMs (squared hinge), fitted to a few training images of each class, take images for.

    The low-shot protocol of PCL (Li et al., ICLR 2021, arXiv 2005.04966), which BSSL (arXiv 2110.08851) follows.
    Features are standardised rather than scaled to length one: those of an untrained network share one large mean,
    beside which little is left of a vector of length one, and the control would look worse than it is. Mean and
    deviation are those of all training features: that needs no labels, and the few drawn images would give poor ones.

    Args:
        train_x: [N, D] float.
        train_y: [N] integer.
        test_x: [M, D] float.
        test_y: [M] integer.
        shots: images of each class, one accuracy for each. A class with fewer gives what it has; a number that no
            class reaches is missing from the result.
        draws: independent draws of the images. Within one draw fewer shots are a part of more shots.
        seed: chooses the images.

    Returns:
        shots -> the answers of each draw.

    Raises:
        ConfigError: `draws` or one of `shots` is not positive.
        DataError: fewer than two classes have training images, there is no test image, or no class has enough images
            for any of `shots`.
    """
    if draws < 1 or not shots or min(shots) < 1:
        raise ConfigError(f"few-shot evaluation with {draws} draws of {list(shots)} shots", "Give positive numbers")
    classes, counts = np.unique(train_y, return_counts=True)
    if len(classes) < 2:
        raise DataError("a few-shot SVM needs images of at least two classes", "Add labelled images of another class")
    if not len(test_y):
        raise DataError("there are no test images to measure few-shot accuracy on", "Add labelled images")
    possible = sorted({count for count in shots if count <= counts.max()})
    if not possible:
        raise DataError(
            f"no class has the {min(shots)} training images that few-shot evaluation needs",
            f"Choose {counts.max()} shots or fewer, or add labelled images",
        )
    scaler = StandardScaler().fit(train_x)
    # After it a vector is about one long, so that the best C is about the same for every number of features.
    x, x_test = (scaler.transform(features) / np.sqrt(features.shape[1]) for features in (train_x, test_x))

    predicted: dict[int, list[np.ndarray]] = {count: [] for count in possible}
    for draw in range(draws):
        draw_seed = named_seed(seed, "few shot", draw)
        ranks = class_ranks(train_y, draw_seed)
        for count in possible:
            chosen = ranks < count
            model = _fitted(x[chosen], train_y[chosen], draw_seed)
            predicted[count].append(model.predict(x_test))
    return {count: Predictions(np.stack(draws_of), test_y) for count, draws_of in predicted.items()}


def class_ranks(labels: np.ndarray, seed: int) -> NDArray[np.int64]:
    """Each image's place in a random order of its class.

    Images with a rank below k are k of each class, drawn without replacement; those of a smaller k are among them.

    Args:
        labels: [N] integer.
        seed: 0 or more; chooses the order.

    Returns:
        int64 [N], 0 for the first image of a class.
    """
    # Ranks of raw Philox words: unlike Generator.permutation, these are the same in every version of numpy.
    order = np.argsort(np.random.Philox(key=seed).random_raw(len(labels)), kind="stable")
    by_class = order[np.argsort(labels[order], kind="stable")]
    begins = np.searchsorted(labels[by_class], labels[by_class])
    ranks = np.empty(len(labels), np.int64)
    ranks[by_class] = np.arange(len(labels)) - begins
    return ranks


def _fitted(x: np.ndarray, y: np.ndarray, seed: int) -> LinearSVC:
    with warnings.catch_warnings():
        # One image a class looks like regression to scikit-learn, and a machine that is stopped early is still one.
        warnings.simplefilter("ignore", UserWarning)
        # The dual problem is the faster one to solve here, with more images than features, too.
        return LinearSVC(C=_C, tol=_TOLERANCE, dual=True, random_state=seed).fit(x, y)
