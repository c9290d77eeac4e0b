"""`swav`: Swapping assignments between views (Caron et al., NeurIPS 2020, arXiv 2006.09882), with two crops.

    two views of each image
    backbone -> projection head -> normalised z -> prototypes -> scores
    code of a view = its scores, balanced over the prototypes by Sinkhorn and Knopp   (no gradient)
    loss = cross-entropy( code of view 1, softmax(scores of view 2 / 0.1) ), plus the reverse

Prototypes have length one, and stand still at the beginning of the first stage. There is no queue of features, so a
batch should hold about as many images as there are prototypes, or more (section 3.1). Small crops beside the two large
ones, which the paper calls multi-crop, are omitted: at 32 px they would be smaller than the network's field of view.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from bssl_tf.errors import ConfigError
from bssl_tf.methods.method import Ingredients, Method, Schedule
from bssl_tf.methods.recipe import Outcome, Recipe
from bssl_tf.settings import NotNegative, Positive, PositiveInt, Table, TrainingConfig

if TYPE_CHECKING:
    from bssl_tf.backend import keras, tf
    from bssl_tf.data.views import Batch


@dataclass(frozen=True)
class SwavConfig(Table):
    """SwAV (METHOD swav; arXiv 2006.09882) with two crops.

    Attributes:
        hidden_width: hidden units of the projection head.
        embedding_width: outputs of the projection head.
        prototypes: number of clusters; balancing needs about as many images per batch, as there is no queue.
        temperature: temperature of the student's softmax.
        epsilon: softness of the balanced assignment.
        iterations: iterations of Sinkhorn and Knopp's algorithm.
        frozen_epochs: epochs at the start of the first stage in which the prototypes are frozen.
    """

    hidden_width: PositiveInt = 512
    embedding_width: PositiveInt = 128
    prototypes: PositiveInt = 300
    temperature: Positive = 0.1
    epsilon: Positive = 0.05
    iterations: PositiveInt = 3
    frozen_epochs: NotNegative = 1.0


class Swav(Recipe):
    """The recipe above for one stage; `frozen_share` of it the prototypes stand still."""

    views = 2

    def __init__(self, student: keras.Model, config: SwavConfig, *, frozen_share: float) -> None:
        from bssl_tf.backend import keras
        from bssl_tf.models.heads import mlp_head

        super().__init__()
        self._config = config
        self._frozen_share = frozen_share
        widths = (config.hidden_width, config.embedding_width)
        prototypes = keras.Sequential(
            [
                keras.layers.Input((config.embedding_width,)),
                keras.layers.Dense(config.prototypes, use_bias=False, name="prototypes"),
            ],
            name="prototypes",
        )
        self.trained = {
            "student": student,
            "head": mlp_head("head", student.output_shape[-1], widths, use_batch_norm=True),
            "prototypes": prototypes,
        }
        self._normalise_prototypes()

    def scheduled(self, progress: float) -> float:
        """0 while the prototypes stand still, then 1."""
        return float(progress >= self._frozen_share)

    def losses(self, batch: Batch, scheduled: tf.Tensor) -> Outcome:
        from bssl_tf.backend import tf
        from bssl_tf.losses.swapped_prediction import balanced_assignment, swapped_prediction
        from bssl_tf.replicas import gather, own_rows

        c = self._config
        student, head, prototypes = self.trained.values()
        scores = []
        for view in batch.views:
            z = tf.math.l2_normalize(head(student(view, training=True), training=True), axis=-1)
            kernel = prototypes.layers[-1].kernel
            # Without a gradient Adam leaves the prototypes where they are.
            scores.append(tf.matmul(z, scheduled * kernel + (1.0 - scheduled) * tf.stop_gradient(kernel)))
        codes = [balanced_assignment(gather(s), c.epsilon, c.iterations) for s in scores]
        loss = sum(swapped_prediction(own_rows(codes[1 - i]), scores[i], c.temperature) for i in (0, 1)) / 2.0
        used = tf.size(tf.unique(tf.argmax(codes[0], axis=-1)).y)
        return Outcome({"loss": loss, "prototypes_used": tf.cast(used, tf.float32)})

    def after_step(self, updates: Mapping[str, tf.Tensor], scheduled: tf.Tensor) -> None:
        self._normalise_prototypes()

    def _normalise_prototypes(self) -> None:
        from bssl_tf.backend import tf

        kernel = self.trained["prototypes"].layers[-1].kernel
        kernel.assign(tf.math.l2_normalize(kernel, axis=0))


def _build(config: SwavConfig, given: Ingredients) -> Recipe:
    frozen_share = config.frozen_epochs / given.stage_epochs if given.first_stage else 0.0
    return Swav(given.backbone, config, frozen_share=frozen_share)


def _check(config: SwavConfig, training: TrainingConfig) -> None:
    if config.frozen_epochs >= training.epochs:
        raise ConfigError(
            f"swav.frozen_epochs is {config.frozen_epochs}",
            f"Give less than the {training.epochs} epochs of a stage",
        )


METHOD = Method(
    name="swav",
    summary="SwAV, swapped cluster assignments",
    settings=SwavConfig,
    build=_build,
    logs={"prototypes_used": "prototypes that are the first choice of an image in the batch"},
    schedule=Schedule("cosine", warmup_epochs=10.0, warmup_one_in=20),
    check=_check,
)
