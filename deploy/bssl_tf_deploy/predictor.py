"""Classifies images with a bundle and any interpreter that can run its model."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

import numpy as np

from bssl_tf_deploy.bundle import Bundle
from bssl_tf_deploy.errors import BundleError
from bssl_tf_deploy.preprocess import load_image, load_pixels

# Over the median magnitude of the golden logits. Rounding stays below 3e-5 of it, a flipped sign mostly moves them by
# more than 0.01 (measured: bssl_tf_converters.lce.parity).
GOLDEN_TOLERANCE = 1e-3
# Another machine rounds in another way, and a value within rounding of zero may change its sign there. That hits
# single images; a wrong kernel hits all.
_ONE_MAY_DIFFER_IN = 4


class Interpreter(Protocol):
    """What runs a model."""

    def predict(self, batch: np.ndarray) -> np.ndarray:
        """Logits float32 [B, K] of images [B, S, S, C], of the type in the manifest's signature."""


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
        difference = self._difference(self._interpreter.predict(self.bundle.golden_inputs), self.bundle.golden_outputs)
        if difference:
            raise BundleError(
                f"the interpreter does not give the golden outputs of {self.bundle.path}: {difference}",
                "Export it again; where both runtimes are installed, see which one is off with --runtime own and lce",
            )

    def check_against(self, other: Interpreter, images: Sequence[Path | str | np.ndarray]) -> float:
        """Runs images through another interpreter too.

        Args:
            other: a second opinion, made from the same model.
            images: see `outputs`; at least one.

        Returns:
            The largest difference between two logits.

        Raises:
            BundleError: they differ by more than rounding explains.
            ImageError: a file cannot be read.
        """
        inputs = np.concatenate([self._input(image) for image in images])
        expected, logits = other.predict(inputs), self._interpreter.predict(inputs)
        difference = self._difference(logits, expected)
        if difference:
            raise BundleError(
                f"two interpreters of {self.bundle.path} do not agree: {difference}",
                "Trust neither; a value within rounding of zero may flip in one image, so try more of them",
            )
        return float(np.max(np.abs(logits - expected)))

    def _difference(self, logits: np.ndarray, expected: np.ndarray) -> str:
        """How two sets of logits [B, K] differ by more than rounding explains; empty if they do not."""
        if logits.shape != expected.shape:
            return f"they have shape {list(logits.shape)}, not {list(expected.shape)}"
        tolerance = GOLDEN_TOLERANCE * float(np.median(np.abs(self.bundle.golden_outputs)))
        # Not a number is not within the tolerance either.
        off = np.count_nonzero(~(np.max(np.abs(logits - expected), axis=1) <= tolerance))
        if off <= len(expected) // _ONE_MAY_DIFFER_IN:
            return ""
        return f"{off} of {len(expected)} differ by more than {tolerance:.2g}"

    def outputs(self, images: Sequence[Path | str | np.ndarray]) -> np.ndarray:
        """What the network makes of images: float32 [N, K], one logit for each label.

        Args:
            images: at least one; files, or arrays [1, S, S, C] of the type in the manifest's signature: float32,
                preprocessed; uint8 pixels; int8.

        Raises:
            ImageError: a file cannot be read.
        """
        # One after another, so that many images need no more memory than one.
        return np.concatenate([self._interpreter.predict(self._input(image)) for image in images])

    def _input(self, image: Path | str | np.ndarray) -> np.ndarray:
        if isinstance(image, np.ndarray):
            return image
        manifest = self.bundle.manifest
        signature = manifest.signature.input
        if signature.dtype == "uint8":
            return load_pixels(Path(image), manifest.preprocessing)
        loaded = load_image(Path(image), manifest.preprocessing)
        return loaded if signature.quantization is None else signature.quantization.integers(loaded)

    def classify(self, images: Sequence[Path | str | np.ndarray], top: int = 3) -> list[list[tuple[str, float]]]:
        """The best classes of each image.

        Args:
            images: see `outputs`.
            top: how many classes, at least 1; all of them where there are fewer.

        Returns:
            For each image (label, score), best first; scores are softmax, 0 to 1, and sum to 1 over all classes.

        Raises:
            ImageError: a file cannot be read.
        """
        return [self.best(self.outputs([image])[0], top) for image in images]

    def best(self, outputs: np.ndarray, top: int) -> list[tuple[str, float]]:
        """The best classes by the outputs [K] for one image; see `classify`."""
        labels, scores = self.bundle.manifest.labels, softmax(outputs)
        # Stable, so that equal scores come in the order of the labels.
        best = np.argsort(-scores, kind="stable")[:top]
        return [(labels[index], float(scores[index])) for index in best]


def softmax(logits: np.ndarray) -> np.ndarray:
    """exp(logits) over their sum along the last axis, in float64; any finite logits, without overflow."""
    shifted = logits.astype(np.float64) - np.max(logits, axis=-1, keepdims=True)
    exponentials = np.exp(shifted)
    scores: np.ndarray = exponentials / np.sum(exponentials, axis=-1, keepdims=True)
    return scores
