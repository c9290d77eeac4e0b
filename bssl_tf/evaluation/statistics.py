"""How far accuracies can be trusted, and whether one network is better than another on the same images.

Pure functions of counts and arrays. Accuracies and their differences are in percent, 0 to 100; p-values are shares.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import stats

CONFIDENCE = 0.95
ALPHA = 0.05


@dataclass(frozen=True)
class Interval:
    """A confidence interval, both ends in percent."""

    low: float
    high: float

    def __contains__(self, value: float) -> bool:
        return self.low <= value <= self.high


def wilson_interval(correct: int, images: int, *, confidence: float = CONFIDENCE) -> Interval:
    """The score interval of a proportion, in percent (Wilson, JASA 22, 1927).

    Its coverage stays near `confidence` at shares near 0 and 1 and with few images, where the plain normal interval
    fails. It treats the test images as drawn at random; it knows nothing of another seed of training.

    Args:
        correct: right answers, 0 to `images`.
        images: test images, at least 1.
        confidence: above 0 and below 1.

    Raises:
        ValueError: a count is out of range; a mistake in the calling code.
    """
    if not 0 <= correct <= images or images < 1 or not 0 < confidence < 1:
        raise ValueError(f"{correct} of {images} images at confidence {confidence}")
    z = _quantile(confidence)
    share, extra = correct / images, z * z / images
    middle = (share + extra / 2) / (1 + extra)
    half = z / (1 + extra) * math.sqrt(share * (1 - share) / images + extra / (4 * images))
    # Rounding may not carry an end past what was measured.
    return Interval(100 * max(0.0, min(middle - half, share)), 100 * min(1.0, max(middle + half, share)))


def mean_half_width(values: Sequence[float], *, confidence: float = CONFIDENCE) -> float | None:
    """Half the width of Student's t interval of the mean; None for fewer than two values.

    Args:
        values: one accuracy a seed or a draw, in percent.
        confidence: above 0 and below 1.
    """
    n = len(values)
    if n < 2:
        return None
    return float(stats.t.ppf(0.5 + confidence / 2, n - 1) * np.std(values, ddof=1) / math.sqrt(n))


def accuracy_interval(draws: Sequence[float], images: int) -> Interval:
    """The 95 % interval of an accuracy: Wilson's for one measurement, Student's t over several draws.

    The second is over draws of the labelled images alone, all measured on the same test images.

    Args:
        draws: accuracy in percent, one for each draw; at least one.
        images: test images that each was measured on.
    """
    half = mean_half_width(draws)
    if half is None:
        return wilson_interval(round(draws[0] / 100 * images), images)
    mean = float(np.mean(draws))
    return Interval(max(0.0, mean - half), min(100.0, mean + half))


@dataclass(frozen=True)
class PairedDifference:
    """Two classifiers on the same images.

    Attributes:
        images: how many.
        first_only: images that only the first got right.
        second_only: images that only the second got right.
    """

    images: int
    first_only: int
    second_only: int

    @property
    def points(self) -> float:
        """How many percentage points the first is above the second."""
        return 100 * (self.first_only - self.second_only) / self.images

    @property
    def p_value(self) -> float:
        """McNemar's exact two-sided test: were neither better, each discordant image would be a fair coin's."""
        discordant = self.first_only + self.second_only
        if not discordant:
            return 1.0
        return float(stats.binomtest(self.first_only, discordant, 0.5).pvalue)

    def interval(self, *, confidence: float = CONFIDENCE) -> Interval:
        """Of `points`: Wald's with half an image added to each cell (Agresti and Min, Statistics in Medicine 24, 2005).

        The four cells are: both right, only the first, only the second, both wrong.
        """
        total = self.images + 2
        first, second = (self.first_only + 0.5) / total, (self.second_only + 0.5) / total
        difference = first - second
        half = _quantile(confidence) * math.sqrt(max(first + second - difference**2, 0.0) / total)
        return Interval(100 * max(-1.0, difference - half), 100 * min(1.0, difference + half))


def paired_difference(first: NDArray[np.bool_], second: NDArray[np.bool_]) -> PairedDifference:
    """Compares two classifiers.

    Args:
        first: bool [M], whether the first was right about each image; M at least 1.
        second: bool [M], the same images in the same order.

    Raises:
        ValueError: they are of different or of no images; a mistake in the calling code.
    """
    if first.shape != second.shape or first.ndim != 1 or not len(first):
        raise ValueError(f"paired comparison of {list(first.shape)} and {list(second.shape)}")
    return PairedDifference(len(first), int(np.sum(first & ~second)), int(np.sum(second & ~first)))


def holm(p_values: Sequence[float]) -> tuple[float, ...]:
    """P-values adjusted for being several (Holm, Scandinavian Journal of Statistics 6, 1979), in the order given.

    Those at most `ALPHA` may be called significant together, with at most that chance of a single error among them.
    """
    count = len(p_values)
    adjusted = [0.0] * count
    highest = 0.0
    for rank, place in enumerate(sorted(range(count), key=lambda one: p_values[one])):
        highest = max(highest, min(1.0, (count - rank) * p_values[place]))
        adjusted[place] = highest
    return tuple(adjusted)


def confusion_matrix(truth: NDArray[np.int64], predicted: NDArray[np.int64], classes: int) -> NDArray[np.int64]:
    """How often each class was taken for each.

    Args:
        truth: integers [M], 0 to `classes` - 1.
        predicted: integers [M], likewise.
        classes: K.

    Returns:
        int64 [K, K]; row: the true class, column: the predicted one.

    Raises:
        ValueError: shapes differ or a class is out of range; a mistake in the calling code.
    """
    both = np.stack([truth, predicted]).astype(np.int64)
    if both.ndim != 2 or (both.size and not 0 <= int(both.min()) <= int(both.max()) < classes):
        raise ValueError(f"classes out of range 0 to {classes - 1}, or arrays of shape {list(both.shape[1:])}")
    return np.bincount(both[0] * classes + both[1], minlength=classes**2).reshape(classes, classes)


def _quantile(confidence: float) -> float:
    return float(stats.norm.ppf(0.5 + confidence / 2))
