"""Classifies images with a bundle and any interpreter that can run its model."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

import numpy as np

from bssl_tf_deploy.bundle import Bundle
from bssl_tf_deploy.errors import BundleError
from bssl_tf_deploy.preprocess import load_image

# Over the median magnitude of the golden logits. Rounding stays below 3e-5 of it, a flipped sign mostly moves them by
# more than 0.01 (measured: bssl_tf_converters.parity).
GOLDEN_TOLERANCE = 1e-3
# Another machine rounds in another way, and a value within rounding of zero may change its sign there. That hits
# single images; a wrong kernel hits all.
_ONE_MAY_DIFFER_IN = 4


class Interpreter(Protocol):
    """What runs a model."""

    def predict(self, batch: np.ndarray) -> np.ndarray:
        """Logits float32 [B, K] of images float32 [B, S, S, C]."""


class Predictor:
    """A bundle and what runs it.

    Args:
        bundle: from `read_bundle`.
        interpreter: made from `bundle.model`.
    """

    def __init__(self, bundle: Bundle, interpreter: Interpreter) -> None:
        self.bundle = bundle
        self._interpreter = interpreter

    def verify_golden(self) -> None:
        """Runs the golden inputs and compares with the golden outputs.

        Raises:
            BundleError: they differ by more than rounding explains; no result of this interpreter is to be trusted.
        """
        expected = self.bundle.golden_outputs
        logits = self._interpreter.predict(self.bundle.golden_inputs)
        tolerance = GOLDEN_TOLERANCE * float(np.median(np.abs(expected)))
        if logits.shape == expected.shape:
            # Not a number is not within the tolerance either.
            off = np.count_nonzero(~(np.max(np.abs(logits - expected), axis=1) <= tolerance))
            if off <= len(expected) // _ONE_MAY_DIFFER_IN:
                return
            difference = f"{off} of {len(expected)} differ by more than {tolerance:.2g}"
        else:
            difference = f"they have shape {list(logits.shape)}, not {list(expected.shape)}"
        raise BundleError(
            f"the interpreter does not give the golden outputs of {self.bundle.path}: {difference}",
            "Install the larq-compute-engine that the bundle's manifest names, or export it again",
        )

    def classify(self, images: Sequence[Path | np.ndarray], top: int = 3) -> list[list[tuple[str, float]]]:
        """The best classes of each image.

        Args:
            images: files, or preprocessed arrays float32 [1, S, S, C].
            top: how many classes, at least 1; all of them where there are fewer.

        Returns:
            For each image (label, score), best first; scores are softmax, 0 to 1, and sum to 1 over all classes.

        Raises:
            ImageError: a file cannot be read.
        """
        preprocessing = self.bundle.manifest.preprocessing
        labels = self.bundle.manifest.labels
        results = []
        for image in images:
            batch = image if isinstance(image, np.ndarray) else load_image(image, preprocessing)
            scores = softmax(self._interpreter.predict(batch))[0]
            # Stable, so that equal scores come in the order of the labels.
            best = np.argsort(-scores, kind="stable")[:top]
            results.append([(labels[index], float(scores[index])) for index in best])
        return results


def softmax(logits: np.ndarray) -> np.ndarray:
    """exp(logits) over their sum along the last axis, in float64; any finite logits, without overflow."""
    shifted = logits.astype(np.float64) - np.max(logits, axis=-1, keepdims=True)
    exponentials = np.exp(shifted)
    scores: np.ndarray = exponentials / np.sum(exponentials, axis=-1, keepdims=True)
    return scores
