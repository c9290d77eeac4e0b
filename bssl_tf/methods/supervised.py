"""`supervised`: the same binary network trained with labels, as a bound for what training without them can reach.

one view of each image -> binary backbone -> linear classifier -> cross-entropy with the label
"""

from __future__ import annotations

from collections.abc import Mapping

from bssl_tf.backend import keras, tf
from bssl_tf.data.views import Batch
from bssl_tf.methods.method import Method
from bssl_tf.models.heads import mlp_head


class Supervised(Method):
    """The recipe above for one stage."""

    views = 1
    needs_labels = True

    def __init__(self, student: keras.Model, classes: int) -> None:
        super().__init__()
        head = mlp_head("head", student.output_shape[-1], (classes,), use_batch_norm=False)
        self.trained = {"student": student, "head": head}

    def losses(self, batch: Batch, scheduled: tf.Tensor) -> Mapping[str, tf.Tensor]:
        student, head = self.trained.values()
        logits = head(student(batch.views[0], training=True), training=True)
        cross_entropy = tf.nn.sparse_softmax_cross_entropy_with_logits(labels=batch.labels, logits=logits)
        hits = tf.cast(tf.equal(tf.argmax(logits, axis=-1, output_type=tf.int32), batch.labels), tf.float32)
        return {"loss": tf.reduce_mean(cross_entropy), "train_top1": 100.0 * tf.reduce_mean(hits)}
