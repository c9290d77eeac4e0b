"""Which images are worth labelling first: far from each other, and uncertain where a classifier says so."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

# In units of the median distance to the mean. Of 150 photos of flowers no two were nearer than 0.51 in pixels, or than
# 0.57 in the features of binary networks. Stored again as JPEG or at two thirds of the size, a photo moved by 0.01 in
# pixels, but by 0.2 (seldom up to 0.7) in features, whose signs flip; with 2 % cut off at each side by 0.2 and 0.3.
# Pixels alone would take two photos from one tripod for the same.
NEAR_PIXELS, NEAR_FEATURES = 0.2, 0.5


@dataclass(frozen=True, eq=False)
class Points:
    """Images as they are compared.

    Attributes:
        features: float [N, D], Euclidean.
        pixels: float [N, P] of very small pictures, for near-duplicates.
    """

    features: np.ndarray
    pixels: np.ndarray


@dataclass(frozen=True, eq=False)
class Selection:
    """Chosen images, the most worthwhile first.

    Attributes:
        chosen: int64 [K], their places.
        distances: float64 [K], of each to the nearest one chosen before, in units of the median distance to the mean;
            infinite for the first.
    """

    chosen: np.ndarray
    distances: np.ndarray


def margins(scores: np.ndarray) -> np.ndarray:
    """How sure a classifier is: the best probability less the second best, [N, K] to [N], 0 to 1.

    Margin sampling labels what has the smallest: Scheffer, Decomain and Wrobel, "Active Hidden Markov Models for
    Information Extraction", IDA 2001, section 4.
    """
    if scores.shape[1] < 2:
        return np.ones(len(scores))
    second, first = np.partition(scores, -2, axis=1)[:, -2:].T
    sure: np.ndarray = np.clip(first - second, 0, 1)
    return sure


def select(
    points: Points, count: int, *, seed: int, labelled: Points | None = None, margin: np.ndarray | None = None
) -> Selection:
    """Greedy k-center: again and again the image that is farthest from all chosen ones (and from labelled ones).

    Algorithm 1 of Sener and Savarese, "Active Learning for Convolutional Neural Networks: A Core-Set Approach", ICLR
    2018. The image that is left farthest from all chosen ones is at most twice as far as with the best choice of as
    many. With a margin, distances count 1 - margin times, so that images that a classifier is sure of come later.

    Of near-duplicates, near in pixels and in features, one is chosen at most: there may be fewer than `count`.

    Args:
        points: N images.
        count: how many to choose, at most.
        seed: of the first one, where nothing is labelled.
        labelled: images that have labels already.
        margin: [N], 0 to 1; see `margins`.
    """
    features, pixels = _Space.of("features", points, labelled), _Space.of("pixels", points, labelled)
    worth = np.ones(len(features.points)) if margin is None else 1 - margin
    nearest, fresh = np.full(len(worth), np.inf), np.ones(len(worth), bool)

    def take(one: np.ndarray, small: np.ndarray) -> None:
        nonlocal nearest, fresh
        distances = features.distances(one)
        nearest = np.minimum(nearest, distances)
        fresh &= (distances > NEAR_FEATURES) | (pixels.distances(small) > NEAR_PIXELS)

    for one, small in zip(features.known, pixels.known, strict=True):
        take(one, small)
    chosen, distances = list[int](), list[float]()
    while fresh.any() and len(chosen) < count:
        if np.isinf(nearest).all():
            total = worth.sum()
            place = int(np.random.default_rng(seed).choice(len(worth), p=worth / total if total > 0 else None))
        else:
            # Where all are sure, by distance alone.
            value = np.where(fresh, nearest * worth, -1)
            place = int(np.argmax(value if value.max() > 0 else np.where(fresh, nearest, -1)))
        chosen.append(place)
        distances.append(float(nearest[place]))
        take(features.points[place], pixels.points[place])
    return Selection(np.array(chosen, np.int64), np.array(distances))


@dataclass(frozen=True, eq=False)
class _Space:
    """Points and known points, float64, in units of the median distance of all to their mean."""

    points: np.ndarray
    known: np.ndarray

    @classmethod
    def of(cls, name: str, points: Points, labelled: Points | None) -> _Space:
        inside = getattr(points, name).astype(np.float64)
        known = np.zeros((0, inside.shape[1])) if labelled is None else getattr(labelled, name).astype(np.float64)
        everything = np.concatenate([inside, known])
        spread = float(np.median(np.linalg.norm(everything - everything.mean(axis=0), axis=1))) or 1.0
        return cls(inside / spread, known / spread)

    def distances(self, one: np.ndarray) -> np.ndarray:
        found: np.ndarray = np.linalg.norm(self.points - one, axis=1)
        return found
