"""`toy`: two views of each image -> binary backbone -> linear head; loss = invariance + lack of spread."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from bssl_tf.errors import ConfigError
from bssl_tf.methods.method import Ingredients, Method, Schedule
from bssl_tf.methods.recipe import Outcome, Recipe
from bssl_tf.settings import Positive, PositiveInt, Table, TrainingConfig

if TYPE_CHECKING:
    from bssl_tf.backend import keras, tf
    from bssl_tf.data.views import Batch


@dataclass(frozen=True)
class ToyConfig(Table):
    """A toy.

    Attributes:
        width: of the head.
        spread: that each of its outputs should have over a batch.
    """

    width: PositiveInt = 16
    spread: Positive = 1.0


class Toy(Recipe):
    """The recipe above for one stage."""

    views = 2

    def __init__(self, student: keras.Model, config: ToyConfig) -> None:
        from bssl_tf.models.heads import mlp_head

        super().__init__()
        self._spread = config.spread
        head = mlp_head("head", student.output_shape[-1], (config.width,), use_batch_norm=False)
        self.trained = {"student": student, "head": head}

    def losses(self, batch: Batch, scheduled: tf.Tensor) -> Outcome:
        from bssl_tf.replicas import gather

        from .loss import invariance, lack_of_spread

        student, head = self.trained.values()
        one, other = (head(student(view, training=True), training=True) for view in batch.views)
        apart, flat = invariance(one, other), lack_of_spread(gather(one), self._spread)
        return Outcome({"loss": apart + flat, "invariance": apart, "lack_of_spread": flat})


def _build(config: ToyConfig, given: Ingredients) -> Recipe:
    return Toy(given.backbone, config)


def _check(config: ToyConfig, training: TrainingConfig) -> None:
    if training.batch_size < 2:
        raise ConfigError("a batch of 1 has no spread", "Pass --batch-size 2 or more")


def _advise(config: ToyConfig, training: TrainingConfig, images: int) -> Iterable[str]:
    yield f"{images} images are plenty for a toy"


METHOD = Method(
    name="toy",
    summary="a toy",
    settings=ToyConfig,
    build=_build,
    logs={"invariance": "distance of the views", "lack_of_spread": "what the spread falls short of"},
    schedule=Schedule("cosine", warmup_epochs=1.0, warmup_one_in=4),
    check=_check,
    advise=_advise,
)
