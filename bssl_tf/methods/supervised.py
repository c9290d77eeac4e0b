"""`supervised`: the same binary network trained with labels, as a bound for what training without them can reach.

one view of each image -> binary backbone -> linear classifier -> cross-entropy with the label
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from bssl_tf.methods.method import Ingredients, Method, NoSettings
from bssl_tf.methods.recipe import Recipe

if TYPE_CHECKING:
    from bssl_tf.backend import keras, tf
    from bssl_tf.data.views import Batch


class Supervised(Recipe):
    """The recipe above for one stage."""

    views = 1

    def __init__(self, student: keras.Model, classes: int) -> None:
        from bssl_tf.models.heads import mlp_head

        super().__init__()
        head = mlp_head("head", student.output_shape[-1], (classes,), use_batch_norm=False)
        self.trained = {"student": student, "head": head}

    def losses(self, batch: Batch, scheduled: tf.Tensor) -> Mapping[str, tf.Tensor]:
        from bssl_tf.backend import tf

        student, head = self.trained.values()
        logits = head(student(batch.views[0], training=True), training=True)
        cross_entropy = tf.nn.sparse_softmax_cross_entropy_with_logits(labels=batch.labels, logits=logits)
        hits = tf.cast(tf.equal(tf.argmax(logits, axis=-1, output_type=tf.int32), batch.labels), tf.float32)
        return {"loss": tf.reduce_mean(cross_entropy), "train_top1": 100.0 * tf.reduce_mean(hits)}


def _build(config: NoSettings, given: Ingredients) -> Recipe:
    return Supervised(given.backbone, given.classes)


METHOD = Method(
    name="supervised",
    summary="training with labels, for comparison",
    settings=NoSettings,
    build=_build,
    logs={"train_top1": "accuracy on the views of the epoch, percent"},
    needs_labels=True,
)
