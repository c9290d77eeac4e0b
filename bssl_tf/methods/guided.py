"""`guided`: this project's own recipe: the teacher's features, and their similarities to those of other images.

    V views of each image, each seen by student and teacher
    teacher: frozen backbone (-> its projection head)  -> t, less the mean of all anchors
    student: binary backbone -> deep head              -> s
    anchors: t of this batch and a first-in-first-out queue of earlier ones
    loss = regression * (2 - 2 cos(t, s)) + similarity * cross-entropy of similarities to the anchors

S2-BNN's target is a softmax over the dimensions of the teacher's embedding. That suits a projection head that was
trained with such similarities; over the features of a network that has none it is nearly uniform. Distances between
images mean something in any feature space: regression with a deep head follows SimReg (arXiv 2201.05131, section 3),
similarities to a queue follow SEED (arXiv 2101.04731), and that teacher and student see the same view follows Beyer et
al. (arXiv 2106.05237). The mean is subtracted because features after a ReLU all point the same way.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from bssl_tf.errors import ConfigError
from bssl_tf.methods.method import Ingredients, Method
from bssl_tf.methods.moco import check_queue, put, queue_advice
from bssl_tf.methods.recipe import Outcome, Recipe
from bssl_tf.settings import NotNegative, NotNegativeInt, Positive, PositiveInt, Table, TrainingConfig

if TYPE_CHECKING:
    from bssl_tf.backend import keras, tf
    from bssl_tf.data.views import Batch
    from bssl_tf.teachers.teacher import Teacher


@dataclass(frozen=True)
class GuidedConfig(Table):
    """Regression onto a teacher's features and their similarities (METHOD guided).

    Attributes:
        views: views of each image in a step.
        regression: weight of the regression onto the teacher's vector.
        similarity: weight of the similarities to the anchors.
        centered: subtract the anchors' mean from the teacher's vectors.
        teacher_temperature: temperature of the teacher's similarities.
        student_temperature: temperature of the student's similarities.
        queue_size: anchors in the queue, a multiple of the batch size.
        head_layers: dense layers of the student's head.
        head_width: units of each of them but the last; 0 for twice the student's features.
    """

    views: PositiveInt = 2
    regression: NotNegative = 1.0
    similarity: NotNegative = 1.0
    centered: bool = True
    teacher_temperature: Positive = 0.1
    student_temperature: Positive = 0.1
    queue_size: PositiveInt = 2048
    head_layers: PositiveInt = 3
    head_width: NotNegativeInt = 0


class Guided(Recipe):
    """The recipe above for one stage."""

    def __init__(self, student: keras.Model, teacher: Teacher, config: GuidedConfig, *, batch_size: int) -> None:
        import numpy as np

        from bssl_tf.backend import tf
        from bssl_tf.memory import require_memory
        from bssl_tf.models.heads import mlp_head

        super().__init__()
        self.views, self._config, self._batch_size = config.views, config, batch_size
        self.teacher_outputs = teacher.embed
        width, output = student.output_shape[-1], teacher.embedding_width
        widths = [config.head_width or 2 * width] * (config.head_layers - 1) + [output]
        self.trained = {"student": student, "head": mlp_head("head", width, widths, use_batch_norm=True)}
        if config.similarity:
            # The zeros that it starts with, and the queue itself.
            needed = 2 * config.queue_size * output * np.float32(0).nbytes
            require_memory(needed, f"a queue of {config.queue_size}", "guided.queue_size")
            self.state = {
                "queue": tf.Variable(tf.zeros((config.queue_size, output)), trainable=False),
                "queue_next": tf.Variable(0, dtype=tf.int32, trainable=False),
                "queue_filled": tf.Variable(0, dtype=tf.int32, trainable=False),
            }

    def losses(self, batch: Batch, scheduled: tf.Tensor) -> Outcome:
        from bssl_tf.backend import tf
        from bssl_tf.losses.feature_similarity import feature_similarity
        from bssl_tf.losses.similarity_distillation import similarity_distillation

        config = self._config
        anchors, known = self._anchors(batch)
        mean = _mean(anchors, known) if config.centered else 0.0
        parts: dict[str, list[tf.Tensor]] = {"regression": [], "similarity": [], "gap_to_teacher": []}
        for view, teacher in zip(batch.views, batch.teacher, strict=True):
            student = self.trained["head"](self.trained["student"](view, training=True), training=True)
            target = tf.stop_gradient(teacher - mean)
            parts["regression"].append(feature_similarity(target, student))
            if config.similarity:
                others = (anchors - mean, known, config.teacher_temperature)
                loss = similarity_distillation(target, student, *others, config.student_temperature)
                parts["similarity"].append(loss)
                least = similarity_distillation(target, target, *others, config.teacher_temperature)
                parts["gap_to_teacher"].append(loss - least)
        means = {name: tf.add_n(values) / self.views for name, values in parts.items() if values}
        loss = config.regression * means["regression"]
        if config.similarity:
            loss += config.similarity * means["similarity"]
        return Outcome({"loss": loss, **means}, {"anchors": batch.teacher[0]} if config.similarity else {})

    def after_step(self, updates: Mapping[str, tf.Tensor], scheduled: tf.Tensor) -> None:
        from bssl_tf.backend import tf

        if not self.state:
            return
        put(self.state, updates["anchors"], self._batch_size)
        filled = self.state["queue_filled"]
        filled.assign(tf.minimum(filled + self._batch_size, self.state["queue"].shape[0]))

    def _anchors(self, batch: Batch) -> tuple[tf.Tensor, tf.Tensor]:
        """The teacher's vectors of all devices' images and of earlier ones, [K, D], and which of them are there."""
        from bssl_tf.backend import tf
        from bssl_tf.replicas import gather

        own = gather(batch.teacher[0])
        known = tf.ones(tf.shape(own)[:1], tf.bool)
        if not self.state:
            return own, known
        queue = self.state["queue"]
        filled = tf.range(queue.shape[0]) < self.state["queue_filled"]
        return tf.concat([own, queue], axis=0), tf.concat([known, filled], axis=0)


def _mean(vectors: tf.Tensor, known: tf.Tensor) -> tf.Tensor:
    """The mean of the rows of [K, D] that are `known`: [D]."""
    from bssl_tf.backend import tf

    shares = tf.cast(known, tf.float32)[:, tf.newaxis]
    return tf.reduce_sum(vectors * shares, axis=0) / tf.reduce_sum(shares)


def _check(config: GuidedConfig, training: TrainingConfig) -> None:
    if not config.regression and not config.similarity:
        raise ConfigError("guided.regression and guided.similarity are both 0", "Set one of them above 0")
    if config.similarity:
        check_queue("guided.queue_size", config.queue_size, training.batch_size)


def _build(config: GuidedConfig, given: Ingredients) -> Recipe:
    return Guided(given.backbone, given.require_teacher(), config, batch_size=given.training.batch_size)


METHOD = Method(
    name="guided",
    summary="a teacher's features and their similarities, this project's own",
    settings=GuidedConfig,
    build=_build,
    queue="queue_size",
    logs={
        "regression": "2 - 2 cos of student's and teacher's vectors",
        "similarity": "the cross-entropy of similarities to the anchors, nats; not with `guided.similarity=0`",
        "gap_to_teacher": "the same less the entropy of the teacher's similarities, its floor, nats",
    },
    needs_teacher=True,
    check=_check,
    advise=lambda config, training, images: (
        queue_advice("guided.queue_size", config.queue_size, training.batch_size, images) if config.similarity else ()
    ),
)
