"""Classification: one output of logits, one for each label; the answer is the best classes with their scores."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
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
class Table:
    """The task's own part of the manifest.

    Attributes:
        labels: K names, in the order of the logits.
        probe: None where the classifier was not a probe of bssl-tf.
        accuracy: None where there were no labelled test images of these classes.
    """

    labels: tuple[str, ...]
    probe: Probe | None
    accuracy: Accuracy | None


class Classification(Task):
    """See the top of this file. An answer is a list of (label, score), best first."""

    table = Table

    def check(self, manifest: Manifest) -> None:
        """One output [1, K] for K labels, at least one; accuracies in percent."""
        table: Table = manifest.table
        expect(len(table.labels) > 0, "table.labels", "a list of at least one")
        expect(len(manifest.outputs) == 1, "outputs", "a list of one, the logits")
        shape = (1, len(table.labels))
        expect(manifest.outputs[0].shape == shape, "outputs[0].shape", f"{list(shape)}, as there are that many labels")
        shares = [] if table.accuracy is None else [table.accuracy.top1_percent, table.accuracy.keras_top1_percent]
        expect(all(0 <= share <= 100 for share in shares), "table.accuracy", "in percent")
        expect(table.probe is None or 0 <= table.probe.top1_percent <= 100, "table.probe", "in percent")

    def decode(
        self, outputs: Mapping[str, np.ndarray], manifest: Manifest, view: View, limit: int
    ) -> list[tuple[str, float]]:
        """The best classes and their scores, which are softmax: 0 to 1, and 1 in sum over all classes."""
        table: Table = manifest.table
        scores = softmax(outputs[manifest.outputs[0].name])
        # Stable, so that equal scores come in the order of the labels.
        best = np.argsort(-scores, kind="stable")[:limit]
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


def softmax(logits: np.ndarray) -> np.ndarray:
    """exp(logits) over their sum along the last axis, in float64; any finite logits, without overflow."""
    shifted = logits.astype(np.float64) - np.max(logits, axis=-1, keepdims=True)
    exponentials = np.exp(shifted)
    scores: np.ndarray = exponentials / np.sum(exponentials, axis=-1, keepdims=True)
    return scores
