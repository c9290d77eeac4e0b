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

import dataclasses
from collections.abc import Mapping

from bssl_tf.backend import keras, tf
from bssl_tf.data.views import Batch
from bssl_tf.losses.guided_distillation import guided_distillation
from bssl_tf.methods.method import Method
from bssl_tf.methods.moco import Moco
from bssl_tf.models.heads import mlp_head
from bssl_tf.settings import MocoConfig, S2bnnConfig
from bssl_tf.teachers.teacher import Teacher


class S2bnn(Method):
    """The recipe above for one stage, distillation only."""

    views = 1

    def __init__(self, student: keras.Model, teacher: Teacher, config: S2bnnConfig) -> None:
        super().__init__()
        self.teacher_outputs = teacher.embed
        self._temperature = config.temperature
        width = student.output_shape[-1]
        # Section 3.1: MLP d-d-128; the width follows the teacher's so that the two distributions can be compared.
        widths = (width, teacher.embedding_width)
        head = mlp_head("head", width, widths, use_batch_norm=config.head_batch_norm)
        self.trained = {"student": student, "head": head}

    def losses(self, batch: Batch, scheduled: tf.Tensor) -> Mapping[str, tf.Tensor]:
        embedding = self.trained["head"](self.trained["student"](batch.views[0], training=True), training=True)
        return _distillation(batch.teacher[0], embedding, self._temperature)


class ContrastiveS2bnn(Moco):
    """Contrastive learning and distillation through one projection head, for one stage."""

    def __init__(
        self,
        student: keras.Model,
        teacher: Teacher,
        config: S2bnnConfig,
        moco: MocoConfig,
        *,
        batch_size: int,
        seed: int,
    ) -> None:
        # One head for both losses, the one of distillation alone, so that the two variants differ in the loss only.
        moco = dataclasses.replace(
            moco, embedding_width=teacher.embedding_width, head_batch_norm=config.head_batch_norm
        )
        super().__init__(student, moco, part="student", batch_size=batch_size, seed=seed)
        self.teacher_outputs = teacher.embed
        self._distillation_temperature = config.temperature

    def losses(self, batch: Batch, scheduled: tf.Tensor) -> Mapping[str, tf.Tensor]:
        query = self.query(batch.views[0])
        contrastive = self.contrast(query, batch.views[1])
        parts = _distillation(batch.teacher[0], query, self._distillation_temperature)
        return {
            "loss": parts["loss"] + contrastive,
            "contrastive": contrastive,
            "gap_to_teacher": parts["gap_to_teacher"],
        }


def _distillation(teacher: tf.Tensor, student: tf.Tensor, temperature: float) -> Mapping[str, tf.Tensor]:
    loss = guided_distillation(teacher, student, temperature)
    # The cross-entropy's floor is the teacher's entropy; what is left is what the student can still learn.
    return {"loss": loss, "gap_to_teacher": loss - guided_distillation(teacher, teacher, temperature)}
