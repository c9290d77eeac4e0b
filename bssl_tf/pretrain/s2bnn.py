"""`s2bnn`: guided distribution calibration, distillation only (Shen et al., CVPR 2021, arXiv 2102.08946).

    one view of each image
    teacher: frozen backbone -> frozen projection head -> z_t      (inference mode)
    student: binary backbone -> projection head        -> z_s
    loss = cross-entropy( softmax(norm(z_t) / 0.2), softmax(norm(z_s) / 0.2) )

Two stages: binary activations first, then binary weights too, with a fresh optimiser; the learning rate falls
in a straight line to zero in each.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from bssl_tf.backend import keras, tf
from bssl_tf.config import S2bnnConfig
from bssl_tf.losses.guided_distillation import guided_distillation
from bssl_tf.models.heads import mlp_head
from bssl_tf.pretrain.method import Method
from bssl_tf.teachers.teacher import Teacher


class S2bnn(Method):
    """The recipe above for one stage."""

    views = 1

    def __init__(self, student: keras.Model, teacher: Teacher, config: S2bnnConfig) -> None:
        super().__init__()
        self._teacher = teacher
        self._temperature = config.temperature
        width = student.output_shape[-1]
        # Section 3.1: MLP d-d-128; the width follows the teacher's so that the two distributions can be compared.
        head = mlp_head("head", width, (width, teacher.embedding_width), use_batch_norm=False)
        self.trained = {"student": student, "head": head}

    def losses(self, views: Sequence[tf.Tensor], balance: tf.Tensor) -> Mapping[str, tf.Tensor]:
        teacher_embedding = self._teacher.embed(views[0])
        student_embedding = self.trained["head"](self.trained["student"](views[0], training=True), training=True)
        loss = guided_distillation(teacher_embedding, student_embedding, self._temperature)
        floor = guided_distillation(teacher_embedding, teacher_embedding, self._temperature)
        # The cross-entropy's floor is the teacher's entropy; what is left is what the student can still learn.
        return {"loss": loss, "gap_to_teacher": loss - floor}
