"""Several labels for one image: one logit each; the answer is the labels that are more likely than not, with scores."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import numpy as np

from bssl_tf_deploy.manifest import Manifest
from bssl_tf_deploy.strict import expect
from bssl_tf_deploy.tasks.task import Task, View

NAME = "multilabel"
# What a label has to reach to be among the answers.
_THRESHOLD = 0.5
_SHOWN_LABELS = 12


@dataclass(frozen=True)
class Precision:
    """Mean average precision on test images, percent: over the labels that some of them have and some lack.

    Attributes:
        images: how many.
        map_percent: of the model in the bundle.
        keras_map_percent: of the Keras network before conversion, in float32.
    """

    images: int
    map_percent: float
    keras_map_percent: float


@dataclass(frozen=True)
class Table:
    """The task's own part of the manifest.

    Attributes:
        labels: K names, in the order of the logits.
        accuracy: None where there were no labelled test images of these labels.
    """

    labels: tuple[str, ...]
    accuracy: Precision | None


class MultiLabel(Task):
    """See the top of this file. An answer is a list of (label, score), best first; it may be empty."""

    table = Table
    agreement = "agreement of labels"
    figures = MappingProxyType({"map_percent": "mean average precision"})

    def check(self, manifest: Manifest) -> None:
        """One output [1, K] for K labels, at least one; precision in percent."""
        table: Table = manifest.table
        expect(len(table.labels) > 0, "table.labels", "a list of at least one")
        expect(len(manifest.outputs) == 1, "outputs", "a list of one, the logits")
        shape = (1, len(table.labels))
        expect(manifest.outputs[0].shape == shape, "outputs[0].shape", f"{list(shape)}, as there are that many labels")
        shares = [] if table.accuracy is None else [table.accuracy.map_percent, table.accuracy.keras_map_percent]
        expect(all(0 <= share <= 100 for share in shares), "table.accuracy", "in percent")

    def decode(
        self, outputs: Mapping[str, np.ndarray], manifest: Manifest, view: View, limit: int
    ) -> list[tuple[str, float]]:
        """The labels whose score, the sigmoid of the logit, is 0.5 or more."""
        table: Table = manifest.table
        logits = outputs[manifest.outputs[0].name]
        scores = sigmoid(logits)
        best = [index for index in np.argsort(-logits, kind="stable") if scores[index] >= _THRESHOLD][:limit]
        return [(table.labels[index], float(scores[index])) for index in best]

    def record(self, answer: list[tuple[str, float]]) -> dict[str, Any]:
        """`labels`, a list of `label` and `score`."""
        return {"labels": [{"label": label, "score": score} for label, score in answer]}

    def lines(self, answer: list[tuple[str, float]]) -> Sequence[str]:
        """Label and score; a line of its own where no label reaches 0.5."""
        return [f"{label}  {score:.4f}" for label, score in answer] or ["no label"]

    def columns(self, manifest: Manifest, limit: int) -> Sequence[str]:
        """Label and score of each."""
        shown = min(limit, len(manifest.table.labels))
        return [f"{name}_{place}" for place in range(1, shown + 1) for name in ("label", "score")]

    def cells(self, answer: list[tuple[str, float]]) -> Sequence[str | float]:
        """Label and score of each, best first."""
        return [cell for pair in answer for cell in pair]

    def purpose(self, manifest: Manifest) -> str:
        """Gives an image any of some labels, and how many there are."""
        return f"Finds which of {len(manifest.table.labels)} labels an image has: any number of them, or none."

    def output_meanings(self, manifest: Manifest) -> Mapping[str, str]:
        """One logit for each label."""
        return {manifest.outputs[0].name: "one logit for each label of `manifest.json`; its sigmoid is the score"}

    def claims(self, manifest: Manifest) -> Sequence[str]:
        """Precision where it is known, and agreement with Keras."""
        table: Table = manifest.table
        parity = manifest.parity
        measured = "Precision of this model: not measured, as there were no labelled test images of these labels."
        if table.accuracy is not None:
            measured = (
                f"Mean average precision of this model on {table.accuracy.images} test images: "
                f"{table.accuracy.map_percent:.2f} % ({table.accuracy.keras_map_percent:.2f} % in Keras, float32)."
            )
        return [
            measured,
            f"The same labels as by the Keras network: {100 * parity.agreement:.2f} % of {parity.images} images.",
            f"A label is given from a score of {_THRESHOLD} on; scores are not calibrated.",
        ]

    def report_cell(self, manifest: Manifest) -> str:
        """The first labels."""
        labels = manifest.table.labels
        return ", ".join(labels[:_SHOWN_LABELS]) + (" and more" if len(labels) > _SHOWN_LABELS else "")


def sigmoid(logits: np.ndarray) -> np.ndarray:
    """1 / (1 + exp(-logits)), in float64, without overflow."""
    halves: np.ndarray = 0.5 * (1.0 + np.tanh(0.5 * logits.astype(np.float64)))
    return halves
