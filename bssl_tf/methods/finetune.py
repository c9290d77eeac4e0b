"""`finetune`: the whole binary network trained with labels, from the weights of a pretrained student.

one view of each image that keeps its label -> binary backbone -> the task's head -> the task's loss

Activations and weights are binary from the beginning: the latent weights come from a student that was trained so.
From random weights there is a stage before that in which activations alone are binary. A float twin has one stage, in
which nothing is. The head is fresh and learns at a rate of its own. With a teacher, a classifier fitted on its
features gives soft targets as well (Hinton et al., Distilling the Knowledge in a Neural Network, 2015, arXiv
1503.02531). It gives them for images without labels too, so that few labels reach as far as the teacher does (Chen et
al., Big Self-Supervised Models are Strong Semi-Supervised Learners, NeurIPS 2020, arXiv 2006.10029, section 2).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from bssl_tf.errors import ConfigError
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
        binary_weights: whether weights are binary already, in backbone and head.
        binary_activations: whether activations are; without, neither is, and the network is a float twin.
    """

    def __init__(
        self,
        backbone: keras.Model,
        purpose: Purpose,
        config: FinetuneSettings,
        learning_rate: float,
        *,
        binary_weights: bool = True,
        binary_activations: bool = True,
    ) -> None:
        from bssl_tf.backend import tf
        from bssl_tf.models.binarization import binarize, float_twin, named_weights

        super().__init__()
        own = backbone.input_shape
        network = purpose.task.network(backbone, purpose.class_names, purpose.height or own[1], purpose.width or own[2])
        if not binary_activations:
            network = float_twin(network)
        elif not binary_weights:
            network = binarize(network, weights=False)
        self.trained = {"student": network}
        self.teacher_outputs = purpose.taught
        self._purpose, self._config = purpose, config
        self._names = purpose.task.outputs(network)
        below = named_weights(backbone)
        of_head = {id(variable) for name, variable in named_weights(network).items() if name not in below}
        share = config.head_learning_rate / learning_rate
        self._of_head = [(v, share) for v in network.trainable_variables if id(v) in of_head]
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
    purpose = given.require_purpose()
    if config.class_weights != "none" and not purpose.task.weighs_classes:
        raise ConfigError(f"the task {purpose.task.name} does not weight classes", "Omit --class-weights")
    rate = given.training.learning_rate
    return FineTuned(
        given.backbone,
        purpose,
        config,
        rate,
        binary_weights=given.binary_weights,
        binary_activations=given.binary_activations,
    )


METHOD = Method(
    name="finetune",
    summary="the whole network trained with labels",
    settings=FinetuneSettings,
    build=_build,
    logs={
        "train_top1": "accuracy on the views of the epoch, percent (classification)",
        "class_loss": "quality focal loss of classes, nats per cell that learns a box (detection)",
        "box_loss": "1 - GIoU, mean over cells that learn a box (detection)",
        "train_labels": "labels that are right on the views of the epoch, percent (multilabel)",
        "distillation": "divergence from the teacher's soft targets, nats, times the temperature squared",
    },
    needs_labels=True,
    fine_tunes=True,
)
