"""Several labels per image: a fine-tuned network against linear probes on the network before, by average precision."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bssl_tf.evaluation.records import STRICT, Count, Percent, as_record, read_evaluated
from bssl_tf.evaluation.statistics import Interval
from bssl_tf.evaluation.task_evaluation import TaskEvaluation
from bssl_tf.evaluation.text import Shown, multilabel_table, trained_with
from bssl_tf.files import write_json
from bssl_tf.tasks.precision import average_precisions

FILE = "evaluation-multilabel.json"
TUNED_BETTER, PROBE_BETTER, NOT_SHOWN = "fine-tuned", "linear probe", "not shown"
_RESAMPLES = 1000


@dataclass(frozen=True)
class LabelScores:
    """Average precisions of one label, percent.

    Attributes:
        name: of the label.
        images: test images that have it.
        probe: of the linear probe; None where no test image has the label, or all do.
        fine_tuned: of the fine-tuned network, likewise.
    """

    __pydantic_config__ = STRICT

    name: str
    images: Count
    probe: Percent | None
    fine_tuned: Percent | None


@dataclass(frozen=True)
class MultiLabelEvaluation(TaskEvaluation, Shown):
    """What evaluation-multilabel.json holds.

    Attributes:
        probe: mean average precision of the linear probes, percent.
        fine_tuned: that of the fine-tuned network.
        interval: the 95 % interval of the difference, percentage points, by resampling the test images.
        better: `fine-tuned`, `linear probe`, or `not shown` where the interval has 0 in it.
        sentence: for a person.
        labels: each of them.
    """

    probe: Percent
    fine_tuned: Percent
    interval: Interval
    better: str
    sentence: str
    labels: tuple[LabelScores, ...]

    def text_lines(self) -> list[str]:
        """The average precision of each label, and the sentence."""
        return [*multilabel_table(self), *trained_with(self.labels_used), self.sentence]


def compare(
    names: tuple[str, ...], has: NDArray[np.bool_], probe: np.ndarray, tuned: np.ndarray, *, seed: int
) -> dict[str, Any]:
    """The fields of `MultiLabelEvaluation` from `probe` on.

    Args:
        names: K labels.
        has: bool [M, K], of the test images.
        probe: scores [M, K] of linear probes.
        tuned: logits [M, K] of the fine-tuned network.
        seed: of the resampling.
    """
    [of_probe], [of_tuned] = (average_precisions(scores, has) for scores in (probe, tuned))
    means = [float(np.nanmean(one)) for one in (of_probe, of_tuned)]
    chance = np.random.default_rng(seed)
    counts = chance.multinomial(len(has), np.full(len(has), 1 / len(has)), size=_RESAMPLES)
    differences = average_precisions(tuned, has, counts) - average_precisions(probe, has, counts)
    points = np.nanmean(differences, axis=1)
    low, high = (float(end) for end in np.quantile(points[np.isfinite(points)], (0.025, 0.975)))
    better = TUNED_BETTER if low > 0 else PROBE_BETTER if high < 0 else NOT_SHOWN
    head = {
        TUNED_BETTER: "The fine-tuned network is better than linear probes on the network before",
        PROBE_BETTER: "Linear probes on the network before are better than the fine-tuned network",
        NOT_SHOWN: f"{len(has)} test images do not show whether the fine-tuned network or linear probes on the network "
        "before are better",
    }[better]
    sentence = (
        f"{head}: mean average precision {means[1]:.1f} % fine-tuned, {means[0]:.1f} % by the probes "
        f"({means[1] - means[0]:+.1f} points, 95 % interval {low:+.1f} to {high:+.1f})."
    )
    labels = tuple(
        LabelScores(name, int(has[:, place].sum()), *(_percent(one[place]) for one in (of_probe, of_tuned)))
        for place, name in enumerate(names)
    )
    return {
        "probe": means[0],
        "fine_tuned": means[1],
        "interval": Interval(low, high),
        "better": better,
        "sentence": sentence,
        "labels": labels,
    }


def write_multilabel(folder: Path, found: MultiLabelEvaluation) -> None:
    """Writes the file, atomically. Raises `StorageError`."""
    write_json(folder / FILE, as_record(found))


def read_multilabel(folder: Path) -> MultiLabelEvaluation | None:
    """What `write_multilabel` wrote; None where there is none.

    Raises:
        RunFolderError: the file is damaged.
    """
    return read_evaluated(folder / FILE, MultiLabelEvaluation)


def _percent(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None
