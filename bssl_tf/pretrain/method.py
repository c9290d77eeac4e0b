"""What a pretraining method is: networks to train, a loss for a tuple of views, and what happens behind a step."""

from __future__ import annotations

import abc
from collections.abc import Mapping, Sequence

from bssl_tf.backend import keras, tf


class Method(abc.ABC):
    """A recipe for one stage.

    Attributes:
        views: how many augmented views of each image a step takes.
        trained: the networks that the optimiser changes, by name; saved in checkpoints.
        companions: further networks whose weights change, such as a momentum encoder; saved in checkpoints.
        state: variables beside the networks', such as a queue; saved in checkpoints.
    """

    views: int = 1

    def __init__(self) -> None:
        self.trained: dict[str, keras.Model] = {}
        self.companions: dict[str, keras.Model] = {}
        self.state: dict[str, tf.Variable] = {}

    def balance(self, progress: float) -> float:
        """The weight that `losses` gets; `progress` goes from 0 at the stage's first step to 1 at its end."""
        return 0.0

    @abc.abstractmethod
    def losses(self, views: Sequence[tf.Tensor], balance: tf.Tensor) -> Mapping[str, tf.Tensor]:
        """The loss and what it is made of.

        Args:
            views: `self.views` tensors [B, S, S, C] float32, normalised.
            balance: float32 scalar, what `balance` says for this step.

        Returns:
            Float32 scalars by name; `loss` is the one that is minimised, the others are logged beside it.
        """

    def after_step(self) -> None:  # noqa: B027 - most methods have nothing to do here
        """Runs in the graph behind the optimiser's update; nothing by default."""

    def trainable_variables(self) -> list[tf.Variable]:
        """What the optimiser changes, in a fixed order."""
        return [variable for model in self.trained.values() for variable in model.trainable_variables]
