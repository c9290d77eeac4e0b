"""Answers of learned heads: the network runs once for an image, up to its features, and each head reads them."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from bssl_tf_deploy.bundle import Bundle
from bssl_tf_deploy.errors import BundleError
from bssl_tf_deploy.features import features_model
from bssl_tf_deploy.heads import UNKNOWN, Head, read_head
from bssl_tf_deploy.manifest import Manifest, TensorSignature
from bssl_tf_deploy.predictor import Interpreter, Predictor
from bssl_tf_deploy.tasks.classification import NAME as CLASSIFICATION
from bssl_tf_deploy.tasks.classification import Classification
from bssl_tf_deploy.tasks.task import Task, View

_FEATURES = "features"
_Ranked = list[tuple[str, float]]


class HeadPredictor(Predictor):
    """A bundle's network with heads that were learned on it in place of its own; see `bssl_tf_deploy.load`.

    Args:
        bundle: from `read_bundle`.
        heads: their names, at least one.
        alone: answer for the only head as a bundle's own classes are answered, not by name.
        make: an interpreter for a bundle's model.

    Raises:
        BundleError: the bundle has no features or no such head, or a head is damaged or of another network.
        UsageError: something is not the name of a head.
    """

    def __init__(
        self, bundle: Bundle, heads: Sequence[str], make: Callable[[Bundle], Interpreter], *, alone: bool
    ) -> None:
        found = {name: read_head(bundle, name) for name in heads}
        dimensions, *others = {len(head.weights) for head in found.values()}
        if others:
            raise _other_features(dimensions, others[0])
        features = TensorSignature(_FEATURES, (1, dimensions), "float32")
        manifest = dataclasses.replace(bundle.manifest, outputs=(features,))
        changed = dataclasses.replace(bundle, model=features_model(bundle.model), manifest=manifest)
        super().__init__(changed, _Rows(make(changed), dimensions))
        self.task = HeadAnswers(found, alone=alone)
        self._original, self._make, self._alone = bundle, make, alone

    def verify_golden(self) -> None:
        """Compares with the golden outputs, which are of the whole network; this one computes all but its end."""
        Predictor(self._original, self._make(self._original)).verify_golden()

    def _require(self, task: str) -> None:
        if task != CLASSIFICATION:
            raise BundleError(f"heads answer with classes, and not with what {task} gives", "Use classify or answers")
        if not self._alone:
            raise BundleError("several heads have an answer each, and classify gives one", "Use answers instead")


class HeadAnswers(Task):
    """What is made of features. The answer of a head is a list of (label, score), best first.

    An answer that is not to be trusted begins with `unknown`, with the score that was too low: that of the class after
    it. Of several heads, it is a dictionary of such lists by name.

    Args:
        heads: by name.
        alone: answers are those of the only head, not by name.
    """

    table = type(None)

    def __init__(self, heads: Mapping[str, Head], *, alone: bool) -> None:
        self._heads, self._alone = dict(heads), alone
        self._one = Classification()

    def check(self, manifest: Manifest) -> None:
        """Heads were checked when they were read."""

    def state(self) -> Mapping[str, Any]:
        """The hashes of the heads."""
        return {"heads": {name: head.sha256 for name, head in self._heads.items()}}

    def decode(self, outputs: Mapping[str, np.ndarray], manifest: Manifest, view: View, limit: int) -> Any:
        """The answer of each head, of at most `limit` parts, `unknown` among them, and no more than it has classes."""
        answers = {name: _ranked(head, outputs[_FEATURES], limit) for name, head in self._heads.items()}
        return next(iter(answers.values())) if self._alone else answers

    def record(self, answer: Any) -> dict[str, Any]:
        """`classes` as of a classifier; of several heads, `heads` with that for each name."""
        if self._alone:
            return self._one.record(answer)
        return {"heads": {name: self._one.record(ranked) for name, ranked in answer.items()}}

    def lines(self, answer: Any) -> Sequence[str]:
        """Label and score; of several heads, after the name."""
        if self._alone:
            return self._one.lines(answer)
        return [f"{name}  {line}" for name, ranked in answer.items() for line in self._one.lines(ranked)]

    def columns(self, manifest: Manifest, limit: int) -> Sequence[str]:
        """Label and score of each place; of several heads, after the name."""
        return [
            f"{'' if self._alone else f'{name}_'}{column}_{place}"
            for name, head in self._heads.items()
            for place in range(1, min(limit, len(head.about.labels)) + 1)
            for column in ("label", "score")
        ]

    def cells(self, answer: Any) -> Sequence[str | float]:
        """Label and score of each place."""
        return [cell for ranked in ([answer] if self._alone else answer.values()) for cell in self._one.cells(ranked)]

    def purpose(self, manifest: Manifest) -> str:
        """How many classes."""
        return f"Classifies images into the classes of {', '.join(self._heads)}, which were learned after export."

    def output_meanings(self, manifest: Manifest) -> Mapping[str, str]:
        """The features."""
        return {_FEATURES: "what the heads read"}

    def claims(self, manifest: Manifest) -> Sequence[str]:
        """None: a bundle's README is written before anything is learned."""
        return []

    def report_cell(self, manifest: Manifest) -> str:
        """All labels."""
        return ", ".join(label for head in self._heads.values() for label in head.about.labels)


class _Rows:
    """An interpreter whose only output is one row for each image, whatever shape the model gives it."""

    def __init__(self, interpreter: Interpreter, dimensions: int) -> None:
        self._interpreter, self._dimensions = interpreter, dimensions

    def run(self, inputs: Sequence[np.ndarray]) -> list[np.ndarray]:
        """See `Interpreter`."""
        [output] = self._interpreter.run(inputs)
        rows = output.reshape(len(output), -1)
        if rows.shape[1] != self._dimensions:
            raise _other_features(self._dimensions, rows.shape[1])
        return [rows]


def _other_features(wanted: int, found: int) -> BundleError:
    return BundleError(f"a head reads {wanted} features, and there are {found}", "Learn it again")


def _ranked(head: Head, features: np.ndarray, limit: int) -> _Ranked:
    rows = features[np.newaxis]
    [scores] = head.scores(rows)
    best = np.argsort(-head.logits(rows)[0], kind="stable")
    ranked = [(head.about.labels[index], float(scores[index])) for index in best]
    if head.unknown(rows)[0]:
        ranked.insert(0, (UNKNOWN, ranked[0][1]))
    # No more than there are classes, so that every answer fills as many columns.
    return ranked[: min(limit, len(best))]
