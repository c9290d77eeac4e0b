"""What an evaluation found, as evaluation.json and `--record` hold it, and its strict reading."""

from __future__ import annotations

import dataclasses
import json
import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, TypeVar

from pydantic import ConfigDict, Field, ValidationError

from bssl_tf.errors import RunFolderError
from bssl_tf.evaluation.predictions import Answers, Predictions
from bssl_tf.evaluation.statistics import Interval, accuracy_interval
from bssl_tf.evaluation.text import Shown, accuracy_table, trained_with, verdict_lines
from bssl_tf.files import read_json, write_json
from bssl_tf.settings import DataConfig
from bssl_tf.settings.reading import adapter_of

T = TypeVar("T")
FILE = "evaluation.json"
# P-values around 0.05 that a few other answers would carry to its other side.
_CLOSE = (0.01, 0.25)
STUDENT, TEACHER, RAW_PIXELS = "student", "float teacher", "control: raw pixels"
# What a fine-tuned student was.
BEFORE = "student before fine-tuning"
STRICT: ConfigDict = {"extra": "forbid", "strict": True, "allow_inf_nan": False}
Percent = Annotated[float, Field(ge=0, le=100)]
Count = Annotated[int, Field(ge=0)]


def untrained(subject: str) -> str:
    """The name of the control for `subject`: the same network with fresh weights."""
    return f"control: untrained {subject.removeprefix('float ')}"


@dataclass(frozen=True)
class Solution:
    """How far the solver of the linear probe came.

    Attributes:
        strength: the regularisation that was chosen, scikit-learn's C.
        iterations: of L-BFGS.
        limit: at which it was stopped.
        gradient: the largest component of the objective's gradient where it ended; zero at the optimum.
    """

    __pydantic_config__ = STRICT

    strength: float
    iterations: Count
    limit: Count
    gradient: float

    @property
    def converged(self) -> bool:
        """Whether it ended by itself, within its tolerance of the optimum."""
        return self.iterations < self.limit


@dataclass(frozen=True)
class SubjectScores:
    """How well each protocol does with one subject's features.

    Attributes:
        features: whose.
        width: how many.
        scores: protocol -> top-1 in percent, one for each draw of it (a single one for most).
        intervals: protocol -> the 95 % interval in percent: Wilson's, or Student's t over several draws.
        linear_probe: how far the solver of `linear-probe` came; None where that was not measured.
    """

    __pydantic_config__ = STRICT

    features: str
    width: Count
    scores: dict[str, Annotated[tuple[Percent, ...], Field(min_length=1)]]
    intervals: dict[str, Interval]
    linear_probe: Solution | None = None

    def __post_init__(self) -> None:
        if self.intervals.keys() != self.scores.keys():
            raise ValueError("intervals are not of the protocols that scores are of")

    @classmethod
    def of(
        cls, features: str, width: int, answers: Mapping[str, Predictions], solution: Solution | None
    ) -> SubjectScores:
        """The scores of all `answers`, by protocol."""
        scores = {protocol: one.accuracies for protocol, one in answers.items()}
        intervals = {name: accuracy_interval(draws, answers[name].images) for name, draws in scores.items()}
        return cls(features, width, scores, intervals, solution)

    def mean(self, protocol: str) -> float:
        """Top-1 in percent, over all draws."""
        draws = self.scores[protocol]
        return sum(draws) / len(draws)


@dataclass(frozen=True)
class Comparison:
    """The subject against a control, by a paired test on the same test images.

    Attributes:
        control: its name.
        points: percentage points that the subject is above it.
        interval: the 95 % interval of `points`.
        p_value: McNemar's exact test, adjusted by Holm's method for all comparisons of the verdict.
    """

    __pydantic_config__ = STRICT

    control: str
    points: float
    interval: Interval
    p_value: Annotated[float, Field(ge=0, le=1)]


@dataclass(frozen=True)
class Verdict:
    """Whether anything was learned, in one sentence; see `evaluation.verdict`.

    Attributes:
        outcome: `learned`, `not above pixels`, `not shown`, or `unknown` without controls.
        protocol: that it rests on; "" for `unknown`.
        sentence: for a person.
        next_step: what to do about it; "" where it was learned.
        comparisons: with the untrained network, and with raw pixels where the protocol takes them.
    """

    __pydantic_config__ = STRICT

    outcome: str
    protocol: str
    sentence: str
    next_step: str
    comparisons: tuple[Comparison, ...]


@dataclass(frozen=True)
class ClassScores:
    """Accuracies on the test images of one class, percent.

    Attributes:
        name: of the class.
        images: of it.
        probe: of the linear probe.
        fine_tuned: of the fine-tuned network.
    """

    __pydantic_config__ = STRICT

    name: str
    images: Count
    probe: Percent
    fine_tuned: Percent


@dataclass(frozen=True)
class HeadComparison:
    """A fine-tuned network against a linear probe on the network that it started from; see `evaluation.heads`.

    Attributes:
        better: `fine-tuned`, `linear probe`, or `not shown`.
        points: percentage points that the fine-tuned network is above the probe.
        interval: the 95 % interval of `points`.
        p_value: McNemar's exact test.
        sentence: for a person.
        classes: those with test images.
    """

    __pydantic_config__ = STRICT

    better: str
    points: float
    interval: Interval
    p_value: Annotated[float, Field(ge=0, le=1)]
    sentence: str
    classes: tuple[ClassScores, ...]


@dataclass(frozen=True)
class Evaluation(Shown):
    """The table and its conditions.

    Attributes:
        run: the folder or file that was evaluated.
        subject: whose features it is about, a row's `features`.
        data: the labelled set's name.
        data_settings: how to open it again.
        train_images: that probes were fitted on.
        test_images: that accuracies are of.
        test_fingerprint: of the test images and their labels.
        train_fingerprint: of the labelled training images.
        classes: how many.
        class_names: theirs.
        seed: of the probes and of the untrained control.
        method: that trained the subject.
        backbone: its network.
        epochs: of each stage; 0 where it was not trained here.
        photos: images that the subject was trained on without labels; None where that is not known.
        labels_used: whose labels went into the subject's weights, a clause; None if none.
        conditions: machine, versions, time.
        command: what the user called.
        rows: the subject first, then its controls, then the teacher.
        verdict: in one sentence.
        heads: of a fine-tuned student, whether that or a linear probe is better; None where it was not measured.
    """

    __pydantic_config__ = STRICT

    run: str
    subject: str
    data: str
    data_settings: DataConfig
    train_images: Count
    test_images: Annotated[int, Field(ge=1)]
    test_fingerprint: str
    train_fingerprint: str
    classes: Count
    class_names: tuple[str, ...]
    seed: int
    method: str
    backbone: str
    epochs: Count
    photos: Count | None
    labels_used: str | None
    conditions: dict[str, Any]
    command: str
    rows: Annotated[tuple[SubjectScores, ...], Field(min_length=1)]
    verdict: Verdict
    heads: HeadComparison | None = None

    def text_lines(self) -> list[str]:
        """The table, whose labels went into the weights, which head is better, and the verdict."""
        return [*accuracy_table(self), *trained_with(self.labels_used), *verdict_lines(self)]

    def row(self, features: str) -> SubjectScores | None:
        """That of this subject."""
        return next((row for row in self.rows if row.features == features), None)

    @property
    def unfinished_probes(self) -> int:
        """How many linear probes stopped at their limit, where that may matter: the verdict rests on them and is close.

        Further iterations move an accuracy by tenths of a point, which no clear verdict notices.
        """
        close = any(_CLOSE[0] < one.p_value < _CLOSE[1] for one in self.verdict.comparisons)
        if self.verdict.protocol != "linear-probe" or not close:
            return 0
        return sum(row.linear_probe is not None and not row.linear_probe.converged for row in self.rows)

    def same_images(self, other: Evaluation) -> bool:
        """Whether both were fitted and measured on the same images with the same labels and seed."""
        return all(
            getattr(self, name) == getattr(other, name)
            for name in ("subject", "test_fingerprint", "train_fingerprint", "class_names", "seed")
        )


def as_record(evaluation: Any) -> dict[str, Any]:
    """An evaluation as JSON holds it."""
    return dict(json.loads(json.dumps(dataclasses.asdict(evaluation))))


def write_evaluation(folder: Path, evaluation: Evaluation) -> None:
    """Writes evaluation.json, atomically. Raises `StorageError`."""
    write_json(folder / FILE, as_record(evaluation))


def read_evaluation(folder: Path) -> Evaluation | None:
    """What `write_evaluation` wrote; None where there is none.

    Raises:
        RunFolderError: the file is damaged, or not one of this version.
    """
    return read_evaluated(folder / FILE, Evaluation)


def belong_together(evaluation: Evaluation, answers: Answers) -> bool:
    """Whether every score of `evaluation` is that of `answers`: a run may have been killed between two files."""
    return all(
        (found := answers.get(row.features, {}).get(protocol)) is not None and found.accuracies == draws
        for row in evaluation.rows
        for protocol, draws in row.scores.items()
    )


def read_evaluated(path: Path, kind: type[T]) -> T | None:
    """What `bssl-tf evaluate` wrote into a run folder; None where it wrote nothing.

    Raises:
        RunFolderError: the file is damaged, or not one of this version.
    """
    if not path.exists():
        return None
    return read_strictly(path, kind, f"Make it again with `bssl-tf evaluate {shlex.quote(str(path.parent))}`")


def read_strictly(path: Path, kind: type[T], next_step: str) -> T:
    """The JSON in `path` as a dataclass: every key known, every value of its type.

    Raises:
        RunFolderError: it is not; the first difference is named.
    """
    try:
        return adapter_of(kind).validate_json(json.dumps(read_json(path)), strict=True)
    except RunFolderError as error:
        raise error.with_next_step(next_step) from error
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        place = ".".join(map(str, first["loc"]))
        raise RunFolderError(f"{path} is damaged ({place + ': ' if place else ''}{first['msg']})", next_step) from error
