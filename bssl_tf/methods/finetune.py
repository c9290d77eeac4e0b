"""`finetune`: the whole binary network trained with labels, from the weights of a pretrained student.

one view of each image that keeps its label -> binary backbone -> the task's head -> the task's loss

Activations and weights are binary from the beginning: the latent weights come from a student that was trained so. The
head is fresh and learns at a rate of its own. With a teacher, a classifier fitted on its features gives soft targets as
well (Hinton et al., Distilling the Knowledge in a Neural Network, 2015, arXiv 1503.02531). It gives them for images
without labels too, so that few labels reach as far as the teacher does (Chen et al., Big Self-Supervised Models are
Strong Semi-Supervised Learners, NeurIPS 2020, arXiv 2006.10029, section 2).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from bssl_tf.methods.method import Ingredients, Method
from bssl_tf.methods.recipe import Outcome, Recipe
from bssl_tf.settings import Positive, Share, Table

if TYPE_CHECKING:
    from bssl_tf.backend import keras, tf
    from bssl_tf.data.views import Batch
    from bssl_tf.tasks.task import Purpose


@dataclass(frozen=True)
class FinetuneSettings(Table):
    """How a student is fine-tuned; the backbone's learning rate is `training.learning_rate`.

    Attributes:
        head_learning_rate: peak learning rate of the head.
        class_weights: `balanced` weights the loss of each image by the number of images per class over that of its own
            class; `none` counts all images alike.
        distillation: share of the teacher's soft targets in the loss, 0 to 1; the rest is that of the labels. Without
            a teacher it has no effect.
        temperature: divides the logits of both networks for soft targets.
    """

    head_learning_rate: Positive = 1e-2
    class_weights: Literal["none", "balanced"] = "none"
    distillation: Share = 0.5
    temperature: Positive = 2.0


class FineTuned(Recipe):
    """The recipe above.

    Args:
        backbone: with the weights to start from.
        purpose: the task, its classes, and what the teacher gives.
        config: settings.
        learning_rate: the backbone's.
    """

    def __init__(self, backbone: keras.Model, purpose: Purpose, config: FinetuneSettings, learning_rate: float) -> None:
        from bssl_tf.backend import tf

        super().__init__()
        network = purpose.task.network(backbone, purpose.class_names)
        self.trained = {"student": network}
        self.teacher_outputs = purpose.taught
        self._purpose, self._config = purpose, config
        self._names = purpose.task.outputs(network)
        of_backbone = {id(variable) for variable in backbone.trainable_variables}
        share = config.head_learning_rate / learning_rate
        self._of_head = [(v, share) for v in network.trainable_variables if id(v) not in of_backbone]
        self._class_weights: tf.Tensor | None = None
        if config.class_weights == "balanced":
            self._class_weights = tf.constant(purpose.balanced_weights(), tf.float32)

    def rated(self) -> list[tuple[tf.Variable, float]]:
        """The head's."""
        return self._of_head

    def losses(self, batch: Batch, scheduled: tf.Tensor) -> Outcome:
        from bssl_tf.backend import tf

        task = self._purpose.task
        assert batch.targets is not None
        # Labelled images first; in one pass, so that batch norm sees all of them.
        found = tf.nest.flatten(self.trained["student"](tf.concat(batch.views, axis=0), training=True))
        outputs = {name: tf.cast(one, tf.float32) for name, one in zip(self._names, found, strict=True)}
        labelled = {name: one[: tf.shape(batch.views[0])[0]] for name, one in outputs.items()}
        losses = dict(task.losses(labelled, batch.targets, self._class_weights))
        if not batch.teacher:
            return Outcome(losses)
        taught = tf.concat(batch.teacher, axis=0)
        distillation = task.distillation(outputs, taught, self._config.temperature)
        share = self._config.distillation
        loss = (1 - share) * losses["loss"] + share * distillation
        return Outcome(losses | {"loss": loss, "distillation": distillation})


def _build(config: FinetuneSettings, given: Ingredients) -> Recipe:
    return FineTuned(given.backbone, given.require_purpose(), config, given.training.learning_rate)


METHOD = Method(
    name="finetune",
    summary="the whole network trained with labels",
    settings=FinetuneSettings,
    build=_build,
    logs={
        "train_top1": "accuracy on the views of the epoch, percent (classification)",
        "train_labels": "labels that are right on the views of the epoch, percent (multilabel)",
        "distillation": "divergence from the teacher's soft targets, nats, times the temperature squared",
    },
    needs_labels=True,
    fine_tunes=True,
)
