"""`bssl`: joint classifier training (Kim and Choi, CVPR 2022, arXiv 2110.08851).

    two views of each image
    teacher: frozen features h -> classifier g, trained here too  (the target moves)
    student: binary backbone   -> classifier f
    loss = (1 - lambda) * feature similarity + lambda * KL( softmax(g(h) / 0.2) || softmax(f / 0.2) )
    student on view 1 against teacher on view 2, plus the reverse; lambda rises from 0.1 to 0.3 along half a cosine

Modified multi-stage training: stage 2 begins with the student, its classifier and the jointly trained g of stage 1.
The released code holds g still; the paper trains it, and so does this. A moving target can collapse: its entropy and
its spread over the batch are logged.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from bssl_tf.backend import keras, tf
from bssl_tf.config import BsslConfig
from bssl_tf.losses.feature_similarity import feature_similarity
from bssl_tf.losses.kl_divergence import kl_divergence
from bssl_tf.models.heads import mlp_head
from bssl_tf.pretrain.method import Method
from bssl_tf.schedules import dynamic_balance
from bssl_tf.teachers.teacher import Teacher


class Bssl(Method):
    """The recipe above for one stage."""

    views = 2

    def __init__(self, student: keras.Model, teacher: Teacher, config: BsslConfig) -> None:
        super().__init__()
        self._teacher = teacher
        self._config = config
        widths = (config.hidden_width, config.output_width)
        self.trained = {
            "student": student,
            "head": mlp_head("head", student.output_shape[-1], widths, use_batch_norm=True),
            "teacher_classifier": mlp_head("teacher_classifier", teacher.feature_width, widths, use_batch_norm=True),
        }

    def balance(self, progress: float) -> float:
        return dynamic_balance(progress, self._config.balance_start, self._config.balance_end)

    def losses(self, views: Sequence[tf.Tensor], balance: tf.Tensor) -> Mapping[str, tf.Tensor]:
        c = self._config
        student, head, classifier = self.trained.values()
        outputs = [head(student(view, training=True), training=True) for view in views]
        targets = [classifier(self._teacher.features(view), training=True) for view in views]

        kl = sum(kl_divergence(targets[1 - i], outputs[i], c.temperature) for i in (0, 1))
        similarity = sum(feature_similarity(targets[1 - i], outputs[i]) for i in (0, 1))

        probabilities = tf.nn.softmax(targets[0] / c.temperature)
        entropy = -tf.reduce_mean(tf.reduce_sum(probabilities * tf.nn.log_softmax(targets[0] / c.temperature), -1))
        return {
            "loss": (1.0 - balance) * similarity + balance * kl,
            "feature_similarity": similarity,
            "kl": kl,
            "balance": balance,
            "target_entropy": entropy,
            "target_spread": tf.reduce_mean(tf.math.reduce_std(targets[0], axis=0)),
        }
