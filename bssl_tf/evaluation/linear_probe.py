"""A linear classifier on frozen features, and where it is kept for export."""

from __future__ import annotations

import shlex
import warnings
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
from pydantic import Field
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import train_test_split
from sklearn.preprocessing import StandardScaler

from bssl_tf.checkpoints import match_tensors, read_tensors, write_tensors
from bssl_tf.errors import DataError, RunFolderError
from bssl_tf.evaluation.records import Solution, read_strictly
from bssl_tf.files import write_json
from bssl_tf.settings import DataConfig

# Strengths of regularisation to choose from, scikit-learn's C, on standardised features.
_CHOICES = (0.01, 0.1, 1.0)
# Raw pixels, the slowest of the demo's subjects, take some 300.
MAX_ITERATIONS = 2000


@dataclass(frozen=True)
class LinearProbe:
    """logits = features @ weights + bias.

    Attributes:
        weights: float32 [D, K].
        bias: float32 [K].
        class_names: K names.
        top1: accuracy on the test images, percent.
        data: the data set it was fitted on.
    """

    weights: np.ndarray
    bias: np.ndarray
    class_names: tuple[str, ...]
    top1: float
    data: DataConfig


def fit_linear_probe(
    train_features: np.ndarray, train_labels: np.ndarray, classes: int, *, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """The classifier that `solve_linear_probe` finds: weights float32 [D, K] and bias float32 [K]."""
    weights, bias, _ = solve_linear_probe(train_features, train_labels, classes, seed=seed)
    return weights, bias


def solve_linear_probe(
    train_features: np.ndarray, train_labels: np.ndarray, classes: int, *, seed: int, limit: int = MAX_ITERATIONS
) -> tuple[np.ndarray, np.ndarray, Solution]:
    """Fits multinomial logistic regression, its regularisation chosen on a held-out sixth of the training features.

    Features are standardised first and the standardisation folded into the result. The problem is convex, and L-BFGS
    runs until no component of the gradient is above 1e-4, in float64, so that another machine finds the same classifier
    but for rounding; each fit starts from the one before. `Solution` has how near the optimum it came. The papers use
    SGD with a hand-set schedule instead.

    Args:
        train_features: [N, D] float.
        train_labels: [N] integers below `classes`.
        classes: K; classes without an image get the lowest logit.
        seed: chooses the held-out images.
        limit: iterations of L-BFGS at most, per fit.

    Returns:
        weights float32 [D, K], bias float32 [K], and how far the solver came.

    Raises:
        DataError: fewer than two classes have images.
    """
    present = np.unique(train_labels)
    if len(present) < 2:
        raise DataError("a linear probe needs images of at least two classes", "Add labelled images of another class")
    # In float32 the solver ends where rounding stops it, at another place on another processor.
    features = np.asarray(train_features, np.float64)
    scaler = StandardScaler().fit(features)
    x = scaler.transform(features)
    counts = np.bincount(train_labels, minlength=classes)
    stratified = train_labels if counts[present].min() >= 2 and len(x) >= 6 * len(present) else None
    x_fit, x_held, y_fit, y_held = train_test_split(
        x, train_labels, test_size=1 / 6, random_state=seed, stratify=stratified
    )
    model = LogisticRegression(C=_CHOICES[0], max_iter=limit, warm_start=True)
    if len(np.unique(y_fit)) == len(present):
        tried = [(_fit(model.set_params(C=c), x_fit, y_fit).score(x_held, y_held), -c) for c in _CHOICES]
        model.set_params(C=-max(tried)[1])
    _fit(model, x, train_labels)
    solution = Solution(model.C, int(model.n_iter_.max()), limit, _largest_gradient(model, x, train_labels))

    return *for_raw_features(*class_scores(model), scaler, present, classes), solution


def label_scores(features: np.ndarray, has: np.ndarray, test_features: np.ndarray, *, seed: int) -> np.ndarray:
    """Scores of a logistic regression for each label, float64 [M, K]; see `solve_linear_probe`.

    Args:
        features: float [N, D], of the training images.
        has: bool [N, K].
        test_features: float [M, D].
        seed: chooses the images that regularisation is chosen on.
    """
    scores = np.zeros((len(test_features), has.shape[1]))
    for place in np.flatnonzero(has.any(axis=0) & ~has.all(axis=0)):
        weights, bias, _ = solve_linear_probe(features, has[:, place].astype(np.int64), 2, seed=seed)
        logits = test_features @ weights + bias
        scores[:, place] = logits[:, 1] - logits[:, 0]
    return scores


def for_raw_features(
    kernel: np.ndarray, offset: np.ndarray, scaler: StandardScaler, present: np.ndarray, classes: int
) -> tuple[np.ndarray, np.ndarray]:
    """A classifier of standardised features as one of the features themselves, for all classes.

    Args:
        kernel: [D, P] float, for standardised features and the P classes in `present`.
        offset: [P] float.
        scaler: what standardised them.
        present: [P] integers below `classes`.
        classes: K; those not in `present` get the lowest logit.

    Returns:
        weights float32 [D, K] and bias float32 [K].
    """
    scaled = kernel / scaler.scale_[:, np.newaxis]
    return among_all(scaled, offset - scaler.mean_ @ scaled, present, classes)


def class_scores(model: LogisticRegression) -> tuple[np.ndarray, np.ndarray]:
    """The fitted model's kernel [D, P] and offset [P], one of each for every one of P classes, two as well."""
    kernel, offset = model.coef_, model.intercept_
    if len(model.classes_) == 2:  # scikit-learn gives one row for two classes: the log odds of the second
        kernel = np.concatenate([-kernel, kernel]) / 2
        offset = np.concatenate([-offset, offset]) / 2
    return kernel.T, offset


def among_all(
    kernel: np.ndarray, offset: np.ndarray, present: np.ndarray, classes: int
) -> tuple[np.ndarray, np.ndarray]:
    """A classifier of the P classes in `present` as one of all K: weights float32 [D, K] and bias float32 [K]."""
    weights, bias = np.zeros((len(kernel), classes)), np.full(classes, -1e4)
    weights[:, present], bias[present] = kernel, offset
    return weights.astype(np.float32), bias.astype(np.float32)


def _fit(model: LogisticRegression, x: np.ndarray, y: np.ndarray) -> LogisticRegression:
    with warnings.catch_warnings():
        # `Solution` has it, with the numbers.
        warnings.simplefilter("ignore", ConvergenceWarning)
        return model.fit(x, y)


def _largest_gradient(model: LogisticRegression, x: np.ndarray, y: np.ndarray) -> float:
    """Of what scikit-learn minimises: the mean cross-entropy and |weights|^2 / (2 C N)."""
    residuals = (model.predict_proba(x) - (y[:, np.newaxis] == model.classes_)) / len(x)
    if len(model.coef_) == 1:  # two classes, of which the second alone has weights
        residuals = residuals[:, 1:]
    of_weights = residuals.T @ x + model.coef_ / (model.C * len(x))
    return float(max(np.abs(of_weights).max(), np.abs(residuals.sum(axis=0)).max()))


def top1(weights: np.ndarray, bias: np.ndarray, features: np.ndarray, labels: np.ndarray) -> float:
    """Accuracy in percent of logits = features @ weights + bias."""
    return 100.0 * float(np.mean(np.argmax(features @ weights + bias, axis=1) == labels))


@dataclass(frozen=True)
class _Description:
    """What probe.json holds; see `LinearProbe`."""

    class_names: tuple[str, ...]
    top1: Annotated[float, Field(ge=0, le=100)]
    data: DataConfig


def save_probe(folder: Path, probe: LinearProbe) -> None:
    """Saves weights and what belongs to them. Raises `StorageError`."""
    write_tensors(folder / "probe.safetensors", {"weights": probe.weights, "bias": probe.bias}, {})
    write_json(folder / "probe.json", asdict(_Description(probe.class_names, probe.top1, probe.data)))


def load_probe(folder: Path) -> LinearProbe:
    """Loads what `save_probe` saved.

    Raises:
        RunFolderError: there is no probe yet, or it is corrupt.
    """
    if not (folder / "probe.json").exists():
        raise RunFolderError(
            f"{folder.parent} has no linear probe yet",
            f"Fit one with `bssl-tf evaluate {shlex.quote(str(folder.parent))}`; add "
            "--data FOLDER with labelled images if the run's own have no labels",
        )
    path = folder / "probe.safetensors"
    again = f"Fit it again with `bssl-tf evaluate {shlex.quote(str(folder.parent))}`"
    description = read_strictly(folder / "probe.json", _Description, again)
    tensors, _ = read_tensors(path)
    names, accuracy, data = description.class_names, description.top1, description.data
    width = tensors["weights"].shape[0] if "weights" in tensors and tensors["weights"].ndim == 2 else 0
    expected = {"weights": np.zeros((width, len(names)), np.float32), "bias": np.zeros(len(names), np.float32)}
    match_tensors(path, tensors, expected)
    return LinearProbe(tensors["weights"], tensors["bias"], names, accuracy, data)
