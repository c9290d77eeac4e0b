"""How a method declares itself: what it needs, its settings, its checks, and how its recipe is built for a stage.

Importing a declaration loads no TensorFlow, so that names and settings are known at once; a recipe's own imports are
inside its functions for that reason.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Generic, Literal, TypeVar

from bssl_tf.settings import Table, TrainingConfig

if TYPE_CHECKING:
    from bssl_tf.backend import keras
    from bssl_tf.methods.recipe import Recipe
    from bssl_tf.tasks.task import Purpose
    from bssl_tf.teachers.teacher import Teacher

S = TypeVar("S", bound=Table)


@dataclass(frozen=True)
class NoSettings(Table):
    """Of a method that has none."""


@dataclass(frozen=True)
class Schedule:
    """The learning rate's course where the user sets none.

    Attributes:
        name: `linear` or `cosine`, see `TrainingConfig`.
        warmup_epochs: of a long run.
        warmup_one_in: a shorter one warms up for one epoch in this many.
    """

    name: Literal["linear", "cosine"] = "linear"
    warmup_epochs: float = 0.0
    warmup_one_in: int = 1

    def settings(self, epochs: int) -> dict[str, Any]:
        """The settings of `TrainingConfig` for stages of `epochs` epochs."""
        return {"schedule": self.name, "warmup_epochs": min(self.warmup_epochs, epochs / self.warmup_one_in)}


@dataclass(frozen=True)
class Ingredients:
    """What a recipe is built from.

    Attributes:
        backbone: the network to train, [B, S, S, C] float32 to [B, D] float32.
        part: what it is called in checkpoints, and in the recipe's `trained`.
        teacher: where the method needs one.
        classes: how many the labels have, 0 without labels.
        training: how the run is optimised.
        stage_epochs: how long this stage lasts.
        first_stage: whether it is the first.
        purpose: what a network is fine-tuned for, of a method that does that.
        binary_weights: whether weights are binary in this stage, those of layers that the recipe adds too.
        binary_activations: likewise; without them the network is a float twin.
    """

    backbone: keras.Model
    part: Literal["teacher", "student"]
    teacher: Teacher | None
    classes: int
    training: TrainingConfig
    stage_epochs: int
    first_stage: bool
    purpose: Purpose | None = None
    binary_weights: bool = True
    binary_activations: bool = True

    def require_teacher(self) -> Teacher:
        """The teacher of a method that declares that it needs one."""
        assert self.teacher is not None, "the method's declaration lacks needs_teacher=True"
        return self.teacher

    def require_purpose(self) -> Purpose:
        """The purpose for a method that declares that it fine-tunes."""
        assert self.purpose is not None, "the method's declaration lacks fine_tunes=True"
        return self.purpose


def _nothing(*_: Any) -> tuple[()]:
    return ()


@dataclass(frozen=True)
class Method(Generic[S]):
    """A declaration; a module of a method has one, called `METHOD`.

    Attributes:
        name: after `--method`, and of its table in config.toml.
        summary: what it is, in a few words, for `--help`.
        settings: a frozen dataclass derived from `bssl_tf.settings.Table`, with a default for everything.
        build: makes the recipe for a stage; it must make the same networks for all stages.
        logs: the losses of `Recipe.losses` beside `loss`, with its meaning and unit; it goes to metrics.jsonl.
        needs_teacher: whether it learns from a frozen teacher.
        needs_labels: whether a step takes labels.
        trains_teachers: whether `bssl-tf teacher` can use it too; then the recipe trains a `teacher` and a `head`.
        fine_tunes: whether it is for `bssl-tf finetune`, and nothing else; then the recipe trains a `student`, the
            backbone with the head of the task.
        schedule: of a student's training.
        queue: the setting of its table that is the length of its queue; empty without one.
        check: refuses settings that do not go together, before any data is there. Takes the settings and how the run
            is optimised; raises `ConfigError`.
        advise: lines of advice about settings that do not suit the data. Takes the same, and the number of images.
    """

    name: str
    summary: str
    settings: type[S]
    build: Callable[[S, Ingredients], Recipe]
    logs: Mapping[str, str]
    needs_teacher: bool = False
    needs_labels: bool = False
    trains_teachers: bool = False
    fine_tunes: bool = False
    schedule: Schedule = Schedule()
    queue: str = ""
    check: Callable[[S, TrainingConfig], object] = _nothing
    advise: Callable[[S, TrainingConfig, int], Iterable[str]] = _nothing
