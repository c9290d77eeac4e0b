"""`supervised`: the same binary network trained with labels, as a bound for what training without them can reach.

one view of each image -> binary backbone -> linear classifier -> cross-entropy with the label
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from bssl_tf.methods.method import Ingredients, Method, NoSettings
from bssl_tf.methods.recipe import Outcome, Recipe

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

    def losses(self, batch: Batch, scheduled: tf.Tensor) -> Outcome:
        from bssl_tf.tasks.classification import LOGITS, Classification

        student, head = self.trained.values()
        logits = head(student(batch.views[0], training=True), training=True)
        return Outcome(Classification().losses({LOGITS: logits}, {"labels": batch.labels}))


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
