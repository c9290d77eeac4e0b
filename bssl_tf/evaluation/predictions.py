"""What a protocol took each test image for, and where that is kept so that nothing has to be computed twice.

Accuracies, paired tests, confusion matrices and the most confident mistakes all come from here.
"""

from __future__ import annotations

import functools
import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from bssl_tf.checkpoints import read_tensors, write_tensors
from bssl_tf.errors import RunFolderError

FILE = "predictions.safetensors"
_FORMAT = "1"
# Subject -> protocol -> its answers.
Answers = dict[str, dict[str, "Predictions"]]


@dataclass(frozen=True, eq=False)
class Predictions:
    """Answers for M images, of one classifier or of one for each draw of labelled images.

    Attributes:
        predicted: integers [draws, M], the class that each image was taken for.
        truth: integers [M], its true class.
        confidence: float [draws, M], 0 to 1: the share that the classifier gives its answer (a softmax or a share of
            votes); None where it has none.

    Raises:
        ValueError: shapes contradict each other; a mistake in the calling code.
    """

    predicted: np.ndarray
    truth: np.ndarray
    confidence: np.ndarray | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "predicted", np.asarray(self.predicted, np.int32))
        object.__setattr__(self, "truth", np.asarray(self.truth, np.int32))
        shape = self.predicted.shape
        if len(shape) != 2 or not shape[0] or shape[1:] != self.truth.shape:
            raise ValueError(f"predictions {list(shape)} of {list(self.truth.shape)} images")
        if self.confidence is not None:
            object.__setattr__(self, "confidence", np.asarray(self.confidence, np.float32))
            if self.confidence.shape != shape:
                raise ValueError(f"confidence {list(self.confidence.shape)} of predictions {list(shape)}")

    @classmethod
    def of_scores(cls, scores: np.ndarray, truth: np.ndarray) -> Predictions:
        """One draw: the best class of each row of `scores` [M, K], which sum to one."""
        predicted = np.argmax(scores, axis=1)
        return cls(predicted[np.newaxis], truth, np.take_along_axis(scores, predicted[:, np.newaxis], axis=1).T)

    @classmethod
    def of_logits(cls, logits: np.ndarray, truth: np.ndarray) -> Predictions:
        """One draw: the best class of each row of `logits` [M, K], with its softmax."""
        predicted = np.argmax(logits, axis=1)
        highest = np.max(logits, axis=1, keepdims=True)
        shares = 1.0 / np.sum(np.exp(logits.astype(np.float64) - highest), axis=1)
        return cls(predicted[np.newaxis], truth, shares[np.newaxis])

    @functools.cached_property
    def correct(self) -> NDArray[np.bool_]:
        """bool [draws, M]."""
        return self.predicted == self.truth

    @property
    def images(self) -> int:
        """M."""
        return len(self.truth)

    @property
    def accuracies(self) -> tuple[float, ...]:
        """Top-1 in percent, 0 to 100, of each draw."""
        return tuple(100.0 * float(np.mean(draw)) for draw in self.correct)

    def confident_mistakes(self, count: int) -> NDArray[np.int64]:
        """Places of the wrong answers of the first draw that it is surest of, the surest first; at most `count`.

        Empty where there is no confidence to go by.
        """
        if self.confidence is None:
            return np.zeros(0, np.int64)
        wrong = np.flatnonzero(~self.correct[0])
        return wrong[np.argsort(-self.confidence[0, wrong], kind="stable")][:count]


def write_predictions(folder: Path, answers: Mapping[str, Mapping[str, Predictions]]) -> None:
    """Writes all answers into `folder`, atomically. Raises `StorageError`."""
    tensors: dict[str, np.ndarray] = {}
    for subject, protocols in answers.items():
        for protocol, one in protocols.items():
            parts = {"predicted": one.predicted, "truth": one.truth, "confidence": one.confidence}
            # The subject last: it is the only one that may hold a slash.
            tensors |= {f"{protocol}/{part}/{subject}": t for part, t in parts.items() if t is not None}
    write_tensors(folder / FILE, tensors, {"format": _FORMAT})


def read_predictions(folder: Path) -> Answers:
    """Reads what `write_predictions` wrote.

    Raises:
        RunFolderError: the file is missing or damaged.
    """
    path = folder / FILE
    again = f"Make it again with `bssl-tf evaluate {shlex.quote(str(folder))}`"
    if not path.is_file():
        raise RunFolderError(f"{path} is missing", again)
    tensors, metadata = read_tensors(path)
    try:
        if metadata.get("format") != _FORMAT:
            raise ValueError(f"format {metadata.get('format')!r}, not {_FORMAT!r}")
        parts: dict[tuple[str, str], dict[str, np.ndarray]] = {}
        for name, tensor in tensors.items():
            protocol, part, subject = name.split("/", 2)
            kind = np.float32 if part == "confidence" else np.int32
            if part not in ("predicted", "truth", "confidence") or tensor.dtype != kind:
                raise ValueError(f"tensor {name!r} of type {tensor.dtype}")
            if part == "confidence" and not np.isfinite(tensor).all():
                raise ValueError(f"tensor {name!r} holds numbers that are not finite")
            parts.setdefault((subject, protocol), {})[part] = tensor
        answers: Answers = {}
        for (subject, protocol), found in parts.items():
            one = Predictions(found["predicted"], found["truth"], found.get("confidence"))
            if not one.images:
                raise ValueError(f"no images for {protocol}")
            answers.setdefault(subject, {})[protocol] = one
    except (KeyError, ValueError) as error:
        raise RunFolderError(f"{path} is damaged ({error})", again) from error
    return answers
