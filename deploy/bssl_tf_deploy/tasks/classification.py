"""Classification: one output of logits, one for each label; the answer is the best classes with their scores."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import numpy as np

from bssl_tf_deploy.manifest import Manifest
from bssl_tf_deploy.strict import expect
from bssl_tf_deploy.tasks.task import Task, View

NAME = "classification"
_SHOWN_LABELS = 12


@dataclass(frozen=True)
class Accuracy:
    """Top-1 on test images, percent.

    Attributes:
        images: how many: all that have a label of these classes, unless the export was given a smaller number.
        top1_percent: of the model in the bundle.
        keras_top1_percent: of the Keras network before conversion, in float32.
    """

    images: int
    top1_percent: float
    keras_top1_percent: float


@dataclass(frozen=True)
class Probe:
    """The linear classifier that was fitted on frozen features and became the network's last layer.

    Attributes:
        data: the data set that it was fitted on.
        top1_percent: its accuracy there, on all test images, before conversion.
    """

    data: str
    top1_percent: float


@dataclass(frozen=True)
class Calibration:
    """How far scores are probabilities, and what makes them so: temperature scaling (Guo et al., ICML 2017).

    Attributes:
        temperature: scores are softmax(logits / temperature), above zero; the order of classes does not depend on it.
        images: labelled test images that it was fitted to.
        bins: of confidence, of equal width, that the errors are measured with.
        ece_percent_before: expected calibration error of softmax(logits), percent.
        ece_percent_after: with the temperature; each half of the images with that of the other half.
    """

    temperature: float
    images: int
    bins: int
    ece_percent_before: float
    ece_percent_after: float


@dataclass(frozen=True)
class Table:
    """The task's own part of the manifest.

    Attributes:
        labels: K names, in the order of the logits.
        probe: None where the classifier was not a probe of bssl-tf.
        accuracy: None where there were no labelled test images of these classes.
        calibration: None where there were too few of them; scores are softmax(logits) then.
    """

    labels: tuple[str, ...]
    probe: Probe | None
    accuracy: Accuracy | None
    calibration: Calibration | None = None


class Classification(Task):
    """See the top of this file. An answer is a list of (label, score), best first."""

    table = Table
    agreement = "top-1 agreement"
    figures = MappingProxyType({"top1_percent": "top-1"})

    def check(self, manifest: Manifest) -> None:
        """One output [1, K] for K labels, at least one; accuracies in percent."""
        table: Table = manifest.table
        expect(len(table.labels) > 0, "table.labels", "a list of at least one")
        expect(len(manifest.outputs) == 1, "outputs", "a list of one, the logits")
        shape = (1, len(table.labels))
        expect(manifest.outputs[0].shape == shape, "outputs[0].shape", f"{list(shape)}, as there are that many labels")
        shares = [] if table.accuracy is None else [table.accuracy.top1_percent, table.accuracy.keras_top1_percent]
        expect(all(0 <= share <= 100 for share in shares), "table.accuracy", "in percent")
        if table.calibration is not None:
            temperature = table.calibration.temperature
            expect(1e-6 <= temperature <= 1e6, "table.calibration.temperature", "from 1e-6 to 1e6")
            errors = (table.calibration.ece_percent_before, table.calibration.ece_percent_after)
            expect(all(0 <= error <= 100 for error in errors), "table.calibration", "in percent")
        expect(table.probe is None or 0 <= table.probe.top1_percent <= 100, "table.probe", "in percent")

    def decode(
        self, outputs: Mapping[str, np.ndarray], manifest: Manifest, view: View, limit: int
    ) -> list[tuple[str, float]]:
        """The best classes and their scores: softmax of the logits over the temperature, 1 in sum over all classes."""
        table: Table = manifest.table
        logits = outputs[manifest.outputs[0].name]
        scores = softmax(logits, 1.0 if table.calibration is None else table.calibration.temperature)
        # By logits, whose order no temperature changes; stable, so that equal ones come in the order of the labels.
        best = np.argsort(-logits, kind="stable")[:limit]
        return [(table.labels[index], float(scores[index])) for index in best]

    def record(self, answer: list[tuple[str, float]]) -> dict[str, Any]:
        """`classes`, a list of `label` and `score`."""
        return {"classes": [{"label": label, "score": score} for label, score in answer]}

    def lines(self, answer: list[tuple[str, float]]) -> Sequence[str]:
        """Label and score."""
        return [f"{label}  {score:.4f}" for label, score in answer]

    def columns(self, manifest: Manifest, limit: int) -> Sequence[str]:
        """Label and score of each class."""
        shown = min(limit, len(manifest.table.labels))
        return [f"{name}_{place}" for place in range(1, shown + 1) for name in ("label", "score")]

    def cells(self, answer: list[tuple[str, float]]) -> Sequence[str | float]:
        """Label and score of each class, best first."""
        return [cell for pair in answer for cell in pair]

    def purpose(self, manifest: Manifest) -> str:
        """Classifies images, and into how many classes."""
        return f"Classifies images into {len(manifest.table.labels)} classes."

    def output_meanings(self, manifest: Manifest) -> Mapping[str, str]:
        """One logit for each label."""
        return {manifest.outputs[0].name: "one logit for each label of `manifest.json`"}

    def claims(self, manifest: Manifest) -> Sequence[str]:
        """Accuracy where it is known, agreement with Keras, and that there is no class for all else."""
        table: Table = manifest.table
        parity, rounded = manifest.parity, ", rounded in the same way" if manifest.binary.int8_operators else ""
        claims = []
        if table.probe is not None:
            claims.append(
                f"Its classes come from a linear probe on frozen features, with a top-1 accuracy on {table.probe.data} "
                f"of {table.probe.top1_percent:.1f} % before conversion."
            )
        if table.accuracy is None:
            claims.append(
                "Accuracy of this model: not measured, as there were no labelled test images of these classes."
            )
        else:
            claims.append(
                f"Top-1 accuracy of this model on {table.accuracy.images} test images: "
                f"{table.accuracy.top1_percent:.2f} % ({table.accuracy.keras_top1_percent:.2f} % in Keras, float32)."
            )
        if (found := table.calibration) is not None:
            claims.append(
                f"Its scores are softmax(logits / {found.temperature:.4g}): this temperature was fitted to "
                f"{found.images} labelled test images. Expected calibration error, with {found.bins} bins: "
                f"{found.ece_percent_before:.2f} % before, {found.ece_percent_after:.2f} % after, measured on images "
                "that the temperature was not fitted to (Guo et al., ICML 2017)."
            )
        return [
            *claims,
            f"Top-1 agreement with the Keras network{rounded}: {100 * parity.agreement:.2f} % of "
            f"{parity.images} images.",
            "It assigns one of its classes to every image, even to an image that shows none of them.",
        ]

    def report_cell(self, manifest: Manifest) -> str:
        """The first labels."""
        labels = manifest.table.labels
        return ", ".join(labels[:_SHOWN_LABELS]) + (" and more" if len(labels) > _SHOWN_LABELS else "")


def same_top1(expected: Mapping[str, np.ndarray], found: Mapping[str, np.ndarray]) -> np.ndarray:
    """For each image whether the only output of two networks, [N, K], has the same best class: bool [N]."""
    [first], [second] = expected.values(), found.values()
    return np.asarray(np.argmax(first, axis=1) == np.argmax(second, axis=1))


def softmax(logits: np.ndarray, temperature: float = 1.0) -> np.ndarray:
    """exp(logits / temperature) over their sum along the last axis, in float64; any finite logits, without overflow."""
    shifted = logits.astype(np.float64) - np.max(logits, axis=-1, keepdims=True)
    exponentials = np.exp(shifted / temperature)
    scores: np.ndarray = exponentials / np.sum(exponentials, axis=-1, keepdims=True)
    return scores
