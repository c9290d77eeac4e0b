"""Temperature scaling: one number that makes a classifier's confidence match its accuracy, and changes no answer.

Chuan Guo, Geoff Pleiss, Yu Sun, Kilian Q. Weinberger: On Calibration of Modern Neural Networks, ICML 2017
(https://arxiv.org/abs/1706.04599).
"""

from __future__ import annotations

import logging
import math

import numpy as np
from scipy import optimize, special

from bssl_tf_deploy.tasks.classification import Calibration, softmax

# With fewer, the error after scaling is mostly noise.
MIN_IMAGES = 100
# More would not change it, and take memory.
MAX_IMAGES = 10_000
BINS = 15
_LOWEST, _HIGHEST = 0.01, 100.0
_log = logging.getLogger(__name__)


def fit_temperature(logits: np.ndarray, labels: np.ndarray) -> float | None:
    """The temperature T that minimises the negative log likelihood of softmax(logits / T) (section 4.2, equation 9).

    Args:
        logits: [N, K].
        labels: [N], 0 to K - 1.

    Returns:
        T, above zero; None where none from 0.01 to 100 is the best: all answers are right, or no better than chance.
    """
    truth = np.arange(len(labels)), labels
    logits = logits.astype(np.float64)

    def loss(log_temperature: float) -> float:
        # Unimodal: it is convex in 1 / T.
        return -float(np.mean(special.log_softmax(logits / math.exp(log_temperature), axis=1)[truth]))

    ends = (math.log(_LOWEST), math.log(_HIGHEST))
    found = float(optimize.minimize_scalar(loss, bounds=ends, method="bounded", options={"xatol": 1e-6}).x)
    # A search within bounds never quite reaches them.
    return math.exp(found) if ends[0] + 0.01 < found < ends[1] - 0.01 else None


def calibration_error(probabilities: np.ndarray, labels: np.ndarray, bins: int = BINS) -> float:
    """The expected calibration error: sum over bins of |B| / N * |accuracy(B) - confidence(B)| (equations 2, 3 and 5).

    Args:
        probabilities: [N, K], each row 1 in sum.
        labels: [N], 0 to K - 1.
        bins: of equal width, ((m - 1) / bins, m / bins] for m = 1, 2, ...

    Returns:
        A share, 0 to 1.
    """
    confidence = probabilities.max(axis=1)
    right = probabilities.argmax(axis=1) == labels
    place = np.clip(np.ceil(confidence * bins).astype(int) - 1, 0, bins - 1)
    # |B| / N * |mean - mean| is |sum - sum| / N.
    gaps = np.bincount(place, right, bins) - np.bincount(place, confidence, bins)
    return float(np.abs(gaps).sum() / len(labels))


def calibrate(logits: np.ndarray, labels: np.ndarray) -> Calibration | None:
    """The temperature of a classifier, and its expected calibration error before and after.

    The error after is measured on images that the temperature was not fitted to: each half of the images is scaled by
    the temperature of the other. The temperature that is returned is that of all of them.

    Args:
        logits: [N, K], of images that the network did not learn from.
        labels: [N], 0 to K - 1.

    Returns:
        None, with a message in the log, where there are too few images or no temperature is the best.
    """
    if len(labels) < MIN_IMAGES:
        _log.info(f"confidence is not calibrated: {len(labels)} labelled test images are fewer than {MIN_IMAGES}")
        return None
    order = np.random.default_rng(0).permutation(len(labels))[:MAX_IMAGES]
    logits, labels = logits[order], labels[order]
    first = np.arange(len(labels)) < len(labels) // 2
    temperatures = [fit_temperature(logits[chosen], labels[chosen]) for chosen in (~first, first, first | ~first)]
    of_second, of_first, of_all = temperatures
    if of_second is None or of_first is None or of_all is None:
        _log.warning("confidence is not calibrated: every answer is right, or no temperature improves them")
        return None
    scales = np.where(first, of_second, of_first)[:, np.newaxis]
    before, after = (calibration_error(softmax(one), labels) for one in (logits, logits / scales))
    # Rounded, so that the last bits of another machine's arithmetic give the same bundle.
    return Calibration(float(f"{of_all:.6g}"), len(labels), BINS, round(100 * before, 4), round(100 * after, 4))
