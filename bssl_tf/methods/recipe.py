"""What a method does in a stage: networks to train, a loss for a batch of views, and what happens after a step."""

from __future__ import annotations

import abc
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from bssl_tf.backend import keras, tf
    from bssl_tf.data.views import Batch


class Outcome(NamedTuple):
    """What a recipe makes of a batch.

    Attributes:
        losses: float32 scalars by name, means over the images; `loss` is the one that is minimised, the others are
            logged next to it.
        updates: what `Recipe.after_step` is to have, by name, such as embeddings for a queue: tensors [B, ...], a row
            per image.
    """

    losses: Mapping[str, tf.Tensor]
    updates: Mapping[str, tf.Tensor] = MappingProxyType({})


class Recipe(abc.ABC):
    """A recipe for one stage.

    Attributes:
        views: how many augmented views of each image a step takes.
        teacher_outputs: what is taken of the frozen teacher for a view, [B, S, S, C] to [B, D]; None without a teacher.
        trained: the networks that the optimiser changes, by name; saved in checkpoints.
        companions: further networks whose weights change, such as a momentum encoder; saved in checkpoints.
        state: variables beside the networks', such as a queue; saved in checkpoints.
        rates: learning rates of networks in `trained` as a share of the run's; 1 for those that are not named.
        fresh_each_stage: names of networks that a second stage does not take over from the first.
    """

    views: int = 1
    teacher_outputs: Callable[[tf.Tensor], tf.Tensor] | None = None

    def __init__(self) -> None:
        self.trained: dict[str, keras.Model] = {}
        self.companions: dict[str, keras.Model] = {}
        self.state: dict[str, tf.Variable] = {}
        self.rates: dict[str, float] = {}
        self.fresh_each_stage: frozenset[str] = frozenset()

    def rated(self) -> list[tuple[tf.Variable, float]]:
        """Variables that learn at another rate than the run's, each with its share of it: those of `rates`."""
        return [
            (variable, rate)
            for name, rate in self.rates.items()
            for variable in self.trained[name].trainable_variables
            if rate != 1
        ]

    def scheduled(self, progress: float) -> float:
        """A number that changes while the stage goes on, for `losses` and `after_step`; 0 at all times by default.

        Args:
            progress: 0 at the stage's first step, towards 1 at its end.
        """
        return 0.0

    @abc.abstractmethod
    def losses(self, batch: Batch, scheduled: tf.Tensor) -> Outcome:
        """The loss and what it is made of. It assigns nothing: what a step changes beside weights is in `updates`.

        On several devices each computes this for its rows of the batch. The losses are then averaged, so whatever is
        not a mean over images has to see all of them (`bssl_tf.replicas.gather`).

        Args:
            batch: `self.views` views, labels if the method declares `needs_labels`, and `teacher_outputs` of each view.
            scheduled: float32 scalar, what `self.scheduled` returns for this step.
        """

    def after_step(self, updates: Mapping[str, tf.Tensor], scheduled: tf.Tensor) -> None:  # noqa: B027 - most have none
        """Runs in the graph once per step, after the optimiser's update; nothing by default.

        Args:
            updates: of `losses`, with the rows of all devices in the order of the batch.
            scheduled: as for `losses`.
        """

    def collapsed(self, means: Mapping[str, float]) -> str | None:
        """What is wrong when an epoch's mean losses show that the method learns nothing any more; None if nothing is.

        Args:
            means: the losses of `losses`, averaged over the epoch.
        """
        return None

    def trainable_variables(self) -> list[tf.Variable]:
        """What the optimiser changes, in a fixed order."""
        return [variable for model in self.trained.values() for variable in model.trainable_variables]
