"""`s2bnn`: guided distribution calibration (Shen et al., CVPR 2021, arXiv 2102.08946).

    one view of each image
    teacher: frozen backbone -> frozen projection head -> z_t      (inference mode)
    student: binary backbone -> projection head        -> z_s
    loss = cross-entropy( softmax(norm(z_t) / 0.2), softmax(norm(z_s) / 0.2) )

Distillation only is the paper's best variant. With `s2bnn.contrastive=true` MoCo's loss on a second view is added, 1:1.
Two stages: binary activations first, then binary weights too, with a fresh optimiser; the learning rate falls
in a straight line to zero in each.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from bssl_tf.methods.method import Ingredients, Method
from bssl_tf.methods.moco import Moco, MocoConfig, check_queue, queue_advice
from bssl_tf.methods.recipe import Outcome, Recipe
from bssl_tf.seeding import named_seed
from bssl_tf.settings import Positive, PositiveInt, Share, Table, TrainingConfig

if TYPE_CHECKING:
    from bssl_tf.backend import keras, tf
    from bssl_tf.data.views import Batch
    from bssl_tf.teachers.teacher import Teacher


@dataclass(frozen=True)
class S2bnnConfig(Table):
    """Guided distribution calibration (METHOD s2bnn; arXiv 2102.08946).

    Attributes:
        temperature: temperature of both softmaxes.
        head_batch_norm: batch norm inside the projection head; the paper has none.
        contrastive: add MoCo's loss with equal weight, through the same head.
        contrastive_temperature: temperature of InfoNCE.
        contrastive_momentum: momentum of the key encoder; 0.999 for long training, 0.99 for a few hundred steps.
        contrastive_queue_size: negatives in the queue, a multiple of the batch size.
    """

    temperature: Positive = 0.2
    head_batch_norm: bool = False
    contrastive: bool = False
    contrastive_temperature: Positive = 0.2
    contrastive_momentum: Share = 0.999
    contrastive_queue_size: PositiveInt = 65536


class S2bnn(Recipe):
    """The recipe above for one stage, distillation only."""

    views = 1

    def __init__(self, student: keras.Model, teacher: Teacher, config: S2bnnConfig) -> None:
        from bssl_tf.models.heads import mlp_head

        super().__init__()
        self.teacher_outputs = teacher.embed
        self._temperature = config.temperature
        width = student.output_shape[-1]
        # Section 3.1: MLP d-d-128; the width follows the teacher's so that the two distributions can be compared.
        widths = (width, teacher.embedding_width)
        head = mlp_head("head", width, widths, use_batch_norm=config.head_batch_norm)
        self.trained = {"student": student, "head": head}

    def losses(self, batch: Batch, scheduled: tf.Tensor) -> Outcome:
        embedding = self.trained["head"](self.trained["student"](batch.views[0], training=True), training=True)
        return Outcome(_distillation(batch.teacher[0], embedding, self._temperature))


class ContrastiveS2bnn(Moco):
    """Contrastive learning and distillation through one projection head, for one stage."""

    def __init__(
        self, student: keras.Model, teacher: Teacher, config: S2bnnConfig, *, batch_size: int, seed: int
    ) -> None:
        # One head for both losses, the one of distillation alone, so that the two variants differ in the loss only.
        moco = MocoConfig(
            embedding_width=teacher.embedding_width,
            temperature=config.contrastive_temperature,
            momentum=config.contrastive_momentum,
            queue_size=config.contrastive_queue_size,
            head_batch_norm=config.head_batch_norm,
        )
        super().__init__(student, moco, part="student", batch_size=batch_size, seed=seed)
        self.teacher_outputs = teacher.embed
        self._distillation_temperature = config.temperature

    def losses(self, batch: Batch, scheduled: tf.Tensor) -> Outcome:
        query = self.query(batch.views[0])
        contrastive, keys = self.contrast(query, batch.views[1])
        parts = _distillation(batch.teacher[0], query, self._distillation_temperature)
        losses = {
            "loss": parts["loss"] + contrastive,
            "contrastive": contrastive,
            "gap_to_teacher": parts["gap_to_teacher"],
        }
        return Outcome(losses, {"keys": keys})


def _distillation(teacher: tf.Tensor, student: tf.Tensor, temperature: float) -> Mapping[str, tf.Tensor]:
    from bssl_tf.losses.guided_distillation import guided_distillation

    loss = guided_distillation(teacher, student, temperature)
    # The cross-entropy's floor is the teacher's entropy; what is left is what the student can still learn.
    return {"loss": loss, "gap_to_teacher": loss - guided_distillation(teacher, teacher, temperature)}


def _build(config: S2bnnConfig, given: Ingredients) -> Recipe:
    teacher = given.require_teacher()
    if config.contrastive:
        size, seed = given.training.batch_size, named_seed(given.training.seed, "queue")
        return ContrastiveS2bnn(given.backbone, teacher, config, batch_size=size, seed=seed)
    return S2bnn(given.backbone, teacher, config)


def _check(config: S2bnnConfig, training: TrainingConfig) -> None:
    if config.contrastive:
        check_queue("s2bnn.contrastive_queue_size", config.contrastive_queue_size, training.batch_size)


def _advise(config: S2bnnConfig, training: TrainingConfig, images: int) -> Iterable[str]:
    if config.contrastive:
        size = config.contrastive_queue_size
        yield from queue_advice("s2bnn.contrastive_queue_size", size, training.batch_size, images)


METHOD = Method(
    name="s2bnn",
    summary="guided distillation",
    settings=S2bnnConfig,
    build=_build,
    logs={
        "gap_to_teacher": "the loss less the entropy of the teacher's distribution, its floor, nats",
        "contrastive": "the part of MoCo's loss, nats; with `s2bnn.contrastive` only",
    },
    needs_teacher=True,
    check=_check,
    advise=_advise,
)
