"""An evaluation as lines of text, as `bssl-tf evaluate`, `bssl-tf summary` and notebooks show it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any

from bssl_tf_deploy.text import printable

if TYPE_CHECKING:
    from bssl_tf.evaluation.detection import DetectionEvaluation
    from bssl_tf.evaluation.multilabel import MultiLabelEvaluation
    from bssl_tf.evaluation.records import Evaluation, HeadComparison

# Of which all are shown.
_MOST_CLASSES = 20


class Shown(ABC):
    """What `str`, a notebook and IPython show as lines."""

    @abstractmethod
    def text_lines(self) -> list[str]:
        """For people. Names of files and classes in them may hold anything."""

    def __str__(self) -> str:
        return "\n".join(map(printable, self.text_lines()))

    def _repr_pretty_(self, printer: Any, cycle: bool) -> None:
        printer.text(str(self))


def accuracy_table(result: Evaluation) -> list[str]:
    """Its lines: what was measured, the protocols, and each row with its intervals."""
    lines = [
        f"{result.data}: {result.train_images} training and {result.test_images} test images, "
        f"{result.classes} classes; top-1 accuracy in percent with its 95 % interval, seed {result.seed}"
    ]
    names = list(dict.fromkeys(name for row in result.rows for name in row.scores))
    lines.append(f"{'features':28} {'width':>6} " + " ".join(f"{name:>20}" for name in names))
    for row in result.rows:
        cells = {
            name: f"{row.mean(name):.1f} ({interval.low:.1f} to {interval.high:.1f})"
            for name, interval in row.intervals.items()
        }
        lines.append(f"{row.features:28} {row.width:6d} " + " ".join(f"{cells.get(name, '-'):>20}" for name in names))
    return lines


def trained_with(labels_used: str | None) -> list[str]:
    """Whose labels went into the weights; no line for nobody's."""
    return [f"Trained with the help of {labels_used}."] if labels_used else []


def verdict_lines(result: Evaluation) -> list[str]:
    """Which head is better, where there are two, and the verdict."""
    of_heads = _heads_lines(result.heads) if result.heads is not None else []
    return [*of_heads, result.verdict.sentence]


def _heads_lines(found: HeadComparison) -> list[str]:
    """Whether the fine-tuned network or a linear probe is better, class by class where they differ most."""
    classes = sorted(found.classes, key=lambda one: one.fine_tuned - one.probe)
    shown = (
        classes if len(classes) <= _MOST_CLASSES else [*classes[: _MOST_CLASSES // 2], *classes[-_MOST_CLASSES // 2 :]]
    )
    lines = [found.sentence, f"{'class':28} {'images':>6} {'linear probe':>20} {'fine-tuned':>20}"]
    lines += [f"{one.name:28} {one.images:6d} {one.probe:18.1f} % {one.fine_tuned:18.1f} %" for one in shown]
    if len(shown) < len(classes):
        lines.append(
            f"{len(classes) - len(shown)} more classes, which differ less, are in evaluation.json and the report"
        )
    return lines


def multilabel_table(found: MultiLabelEvaluation) -> list[str]:
    """The average precision of each label."""

    lines = [
        f"{found.data}: {found.train_images} training and {found.test_images} test images, {len(found.labels)} labels; "
        f"average precision, seed {found.seed}",
        f"{'label':28} {'images':>6} {'linear probe':>20} {'fine-tuned':>20}",
    ]
    lines += [
        f"{one.name:28} {one.images:6d} {_percent(one.probe):>20} {_percent(one.fine_tuned):>20}"
        for one in found.labels
    ]
    return lines


def detection_table(found: DetectionEvaluation) -> list[str]:
    """The average precision of each class, and of all."""
    lines = [
        f"{found.data}: {found.train_images} training and {found.test_images} test images, {len(found.classes)} "
        f"classes; COCO's average precision{' of a float twin' * found.float_twin}, input {found.input_size}, seed "
        f"{found.seed}",
        f"{'class':28} {'objects':>7} {'AP50':>8} {'AP75':>8} {'AP':>8}",
    ]
    lines += [
        f"{one.name:28} {one.objects:7d} {_percent(one.ap50):>8} {_percent(one.ap75):>8} {_percent(one.ap):>8}"
        for one in found.classes
    ]
    objects = sum(one.objects for one in found.classes)
    lines.append(
        f"{'mean':28} {objects:7d} {_percent(found.ap50):>8} {_percent(found.ap75):>8} {_percent(found.ap):>8}"
    )
    lines += [
        f"{one.title:28} {one.objects:7d} {_percent(one.ap50):>8} {_percent(one.ap75):>8} {_percent(one.ap):>8}"
        if one.objects
        else f"{one.title:28} {one.objects:7d} not measured: no test image has an object of this size"
        for one in found.sizes
    ]
    return lines


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{value:.1f} %"
