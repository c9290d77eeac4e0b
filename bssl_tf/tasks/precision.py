"""Average precision: the mean over the images that have a label of the precision among images of their score or more.

Its mean over labels (mAP) needs no threshold. Guessing reaches the share of images that have the label.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def average_precisions(scores: np.ndarray, has: NDArray[np.bool_], weights: np.ndarray | None = None) -> np.ndarray:
    """Average precision of each label in percent; NaN where no image has it, or all do.

    Args:
        scores: float [N, K].
        has: bool [N, K], which labels each image has.
        weights: [R, N], how often each image counts, for each of R resamplings; None for once each.

    Returns:
        Float64 [R, K], R 1 without `weights`.
    """
    weights = np.ones((1, len(scores))) if weights is None else weights
    found = np.full((len(weights), has.shape[1]), np.nan)
    for place in np.flatnonzero(has.any(axis=0) & ~has.all(axis=0)):
        order = np.argsort(-scores[:, place], kind="stable")
        ranked = scores[order, place]
        counts = weights[:, order]
        right = counts * has[order, place]
        # Images of one score are told apart by nothing: each counts from the last of them on.
        last = np.searchsorted(-ranked, -ranked, side="right") - 1
        precision = (np.cumsum(right, axis=1) / np.maximum(np.cumsum(counts, axis=1), 1e-9))[:, last]
        totals = right.sum(axis=1)
        with np.errstate(invalid="ignore", divide="ignore"):
            found[:, place] = 100.0 * (right * precision).sum(axis=1) / totals
    return found


def mean_average_precision(scores: np.ndarray, has: NDArray[np.bool_]) -> float:
    """The mean over the labels that have one, in percent; NaN where none has. Shapes as for `average_precisions`."""
    [found] = average_precisions(scores, has)
    known = found[np.isfinite(found)]
    return float(known.mean()) if len(known) else float("nan")
