"""Fits heads to features, and measures by cross-validation how good they are and when to answer `unknown`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from bssl_tf_deploy.errors import RuntimeUnavailableError, UsageError
from bssl_tf_deploy.heads import FORMAT, MAX_KEPT_BYTES, UNKNOWN, About, Head, HeldOut, Kind, below, logits_of
from bssl_tf_deploy.tasks.classification import softmax
from bssl_tf_deploy.vectors import unit

# With fewer, nothing that is measured means anything.
MIN_PHOTOS = 5
# A board fits as many in seconds.
MAX_PHOTOS = 500
_FOLDS = 5
# scikit-learn's C, on standardised features; `bssl-tf evaluate` chooses from 0.01, 0.1 and 1.
_STRENGTH = 0.1
_ITERATIONS = 1000
_Fitted = tuple[np.ndarray, np.ndarray]


def fit(
    kind: Kind, model: str, labels: tuple[str, ...], features: np.ndarray, classes: np.ndarray, unknown_percent: float
) -> Head:
    """A head for features.

    Cross-validation gives logits of every photo from a head that was not fitted to it. From them come accuracy, the
    temperature, and the thresholds of `unknown`: the largest that leave `unknown_percent` of the right answers below
    them. A head of prototypes has two thresholds, which share it.

    Args:
        kind: see `heads.About`.
        model: SHA-256 of the model that the features come from.
        labels: C names.
        features: float32 [N, D], in any order.
        classes: int [N], 0 to C - 1.
        unknown_percent: 0 to 100; with 0, all right answers stay as they are.

    Raises:
        RuntimeUnavailableError: scikit-learn, which a linear head needs, is not installed.
        UsageError: fewer than two classes, fewer than `MIN_PHOTOS` of one, or a label that is not one.
    """
    counts = np.bincount(classes, minlength=len(labels))
    _check(labels, counts)
    order = np.argsort(classes, kind="stable")
    features, classes = np.ascontiguousarray(features[order], np.float32), classes[order]
    fitter: Callable[[np.ndarray, np.ndarray, int], _Fitted] = {"linear": _linear, "prototypes": _prototypes}[kind]
    held = np.empty((len(features), len(labels)), np.float32)
    folds = _folds(counts)
    for fold in range(_FOLDS):
        out = folds == fold
        held[out] = logits_of(kind, *fitter(features[~out], classes[~out], len(labels)), features[out])
    temperature = _temperature(held, classes)
    right = held.argmax(axis=1) == classes
    thresholds = _thresholds(kind, held[right], temperature, unknown_percent)
    unknown = below(held, temperature, *thresholds)
    measured = HeldOut(_FOLDS, *(_counts(classes[chosen], len(labels)) for chosen in (right, unknown)))
    about = About(
        format=FORMAT,
        kind=kind,
        model=model,
        labels=labels,
        photos=tuple(counts.tolist()),
        temperature=temperature,
        confidence=thresholds[0],
        similarity=thresholds[1],
        unknown_percent=unknown_percent,
        held_out=measured,
        arrays={},
    )
    return Head(about, *fitter(features, classes, len(labels)), features)


def with_class(head: Head, label: str, features: np.ndarray) -> Head:
    """A head fitted again with one more class, from the features that it kept and new ones [N, D].

    Raises:
        UsageError: it has this class; or see `fit`.
    """
    about = head.about
    if label in about.labels:
        raise UsageError(f"the head has the class {label} already", "Take it away with `forget` first, or name another")
    labels = (*about.labels, label)
    kept, classes = head.kept, head.kept_labels
    most = most_photos(len(labels), head.kept.shape[1])
    chosen = np.concatenate([np.flatnonzero(classes == one)[spread(count, most)] for one, count in _numbered(about)])
    features = np.concatenate([kept[chosen], features[spread(len(features), most)]])
    classes = np.concatenate([classes[chosen], np.full(len(features) - len(chosen), len(about.labels))])
    return fit(about.kind, about.model, labels, features, classes, about.unknown_percent)


def without_class(head: Head, label: str) -> Head:
    """A head fitted again without one class, from the features that it kept.

    Raises:
        UsageError: it does not have this class; or see `fit`.
    """
    about = head.about
    if label not in about.labels:
        raise UsageError(f"the head has no class {label}, only {', '.join(about.labels)}", "Name one of these")
    gone = about.labels.index(label)
    left = head.kept_labels != gone
    classes = head.kept_labels[left]
    labels = tuple(one for one in about.labels if one != label)
    return fit(about.kind, about.model, labels, head.kept[left], classes - (classes > gone), about.unknown_percent)


def most_photos(classes: int, dimensions: int) -> int:
    """How many photos of each class a head may keep."""
    return min(MAX_PHOTOS, MAX_KEPT_BYTES // (4 * classes * dimensions))


def spread(count: int, most: int) -> np.ndarray:
    """Which of `count` things to take if there are more than `most`: evenly spread, as neighbours are alike."""
    return np.arange(count) if count <= most else np.linspace(0, count - 1, most).round().astype(int)


def _numbered(about: About) -> list[tuple[int, int]]:
    return list(enumerate(about.photos))


def _check(labels: tuple[str, ...], counts: np.ndarray) -> None:
    if UNKNOWN in labels:
        raise UsageError(
            f"`{UNKNOWN}` is the answer for what looks like none of the classes, and cannot be one of them",
            "Give the folder another name, such as `other`",
        )
    if len(labels) < 2:
        raise UsageError(
            f"there is one class only, {', '.join(labels)}; a head needs two or more",
            "Put photos of something else into a second folder",
        )
    few = [f"{label} ({count})" for label, count in zip(labels, counts, strict=True) if count < MIN_PHOTOS]
    if few:
        raise UsageError(
            f"too few photos could be read of {', '.join(few)}", f"Give at least {MIN_PHOTOS} of each class"
        )


def _folds(counts: np.ndarray) -> np.ndarray:
    """The fold of each photo, in the order of classes. Neighbours, which often show the same moment, stay together."""
    return np.concatenate([np.arange(count) * _FOLDS // count for count in counts])


def _counts(classes: np.ndarray, number: int) -> tuple[int, ...]:
    return tuple(np.bincount(classes, minlength=number).tolist())


def _linear(features: np.ndarray, classes: np.ndarray, number: int) -> _Fitted:
    """Multinomial logistic regression on standardised features, folded into weights [D, C] and bias [C]."""
    model, mean, std = logistic_regression(features, classes)
    weights, bias = np.asarray(model.coef_.T), np.asarray(model.intercept_)
    if number == 2:
        # scikit-learn has one logit for two classes, that of the second against the first.
        weights, bias = weights * [-0.5, 0.5], bias * [-0.5, 0.5]
    weights = weights / std[:, np.newaxis]
    return weights.astype(np.float32), (bias - mean @ weights).astype(np.float32)


def logistic_regression(features: np.ndarray, classes: np.ndarray) -> tuple[Any, np.ndarray, np.ndarray]:
    """scikit-learn's model, and the mean and standard deviation [D] that it wants features standardised with."""
    try:
        from sklearn.linear_model import LogisticRegression
    except ImportError as error:
        raise RuntimeUnavailableError(
            f"a linear head is fitted by scikit-learn, which cannot be loaded ({error})",
            "Run `pip install 'bssl-tf-deploy[learn]'`, or learn with --method prototypes",
        ) from error
    exact = features.astype(np.float64)
    mean, std = exact.mean(axis=0), exact.std(axis=0)
    std[std < 1e-6 * np.abs(mean) + 1e-12] = 1  # what never changes
    # Balanced, because a class that was just added has few photos.
    model = LogisticRegression(C=_STRENGTH, class_weight="balanced", max_iter=_ITERATIONS)
    return model.fit((exact - mean) / std, classes), mean, std


def _prototypes(features: np.ndarray, classes: np.ndarray, number: int) -> _Fitted:
    """The direction of each class mean as weights [D, C]; no bias."""
    rows = unit(features)
    means = np.stack([rows[classes == one].mean(axis=0) for one in range(number)])
    return np.ascontiguousarray(unit(means).T), np.zeros(number, np.float32)


def _temperature(logits: np.ndarray, classes: np.ndarray) -> float:
    """The temperature that gives softmax(logits / T) the highest likelihood.

    Targets are not 0 and 1 but (0 + 1) / (n + C) and (n + 1) / (n + C) for a class of n photos, by which a temperature
    is found also where all answers are right. Sources: Guo et al., ICML 2017, section 4.2; for the targets, of two
    classes there, J. Platt: Probabilistic Outputs for Support Vector Machines, 1999, section 2.2.
    """
    number = logits.shape[1]
    logits = logits.astype(np.float64)
    counts = np.bincount(classes, minlength=number)
    targets = np.ones_like(logits)
    targets[np.arange(len(classes)), classes] += counts[classes]
    targets /= (counts + number)[classes, np.newaxis]
    low, high = np.log(1e-4), np.log(1e4)
    # The likelihood is concave in 1 / T, so that its derivative has one zero.
    for _ in range(60):
        middle = (low + high) / 2
        if np.sum((softmax(logits, float(np.exp(-middle))) - targets) * logits) < 0:
            low = middle
        else:
            high = middle
    # Rounded, so that the last bits of another machine's arithmetic give the same head.
    return float(f"{np.exp(-(low + high) / 2):.6g}")


def _thresholds(kind: Kind, right: np.ndarray, temperature: float, percent: float) -> tuple[float, float | None]:
    """Of the logits of right answers [N, C], the confidence and the similarity that leave `percent` of them below."""
    if not len(right):
        return 0.0, None if kind == "linear" else -1.0
    share = percent / 100 if kind == "linear" else percent / 200
    confidence = _lowest(softmax(right, temperature).max(axis=1), share)
    return confidence, None if kind == "linear" else _lowest(right.max(axis=1), share)


def _lowest(values: np.ndarray, share: float) -> float:
    """The largest threshold that leaves no more than a share of the values below it, a little lower for rounding."""
    found = float(np.sort(values)[int(share * len(values))])
    return round(found - 1e-6, 6)
