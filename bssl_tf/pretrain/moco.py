"""`moco`: MoCo v2 (Chen et al., arXiv 2003.04297), which trains the float teacher.

    two views of each image
    query: backbone -> projection head       -> q   (trained)
    key:   the same, as a moving average     -> k   (no gradient)
    loss = InfoNCE of q against its k and a first-in-first-out queue of earlier keys, T = 0.2

On one machine there is nothing to shuffle batch norm over; the key encoder normalises with its own batch.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from bssl_tf.backend import keras, tf
from bssl_tf.config import MocoConfig
from bssl_tf.errors import ConfigError
from bssl_tf.losses.info_nce import info_nce
from bssl_tf.models.heads import mlp_head
from bssl_tf.pretrain.method import Method


class Moco(Method):
    """The recipe above for one stage."""

    views = 2

    def __init__(self, backbone: keras.Model, config: MocoConfig, *, batch_size: int, seed: int) -> None:
        super().__init__()
        check_queue(config, batch_size)
        self._temperature, self._momentum, self._batch_size = config.temperature, config.momentum, batch_size
        width = backbone.output_shape[-1]
        widths = (width, config.embedding_width)
        head = mlp_head("head", width, widths, use_batch_norm=config.head_batch_norm)
        self.trained = {"teacher": backbone, "head": head}
        self.companions = {"key_teacher": _copy(backbone), "key_head": _copy(head)}
        noise = np.random.default_rng(seed).standard_normal((config.queue_size, config.embedding_width))
        queue = (noise / np.linalg.norm(noise, axis=1, keepdims=True)).astype(np.float32)
        self.state = {
            "queue": tf.Variable(queue, trainable=False),
            "queue_next": tf.Variable(0, dtype=tf.int32, trainable=False),
            "keys": tf.Variable(np.zeros((batch_size, config.embedding_width), np.float32), trainable=False),
        }

    def losses(self, views: Sequence[tf.Tensor], balance: tf.Tensor) -> Mapping[str, tf.Tensor]:
        teacher, head = self.trained.values()
        key_teacher, key_head = self.companions.values()
        query = head(teacher(views[0], training=True), training=True)
        key = tf.stop_gradient(key_head(key_teacher(views[1], training=True), training=True))
        self.state["keys"].assign(tf.math.l2_normalize(key, axis=-1))
        return {"loss": info_nce(query, key, self.state["queue"], self._temperature)}

    def after_step(self) -> None:
        for name, model in self.trained.items():
            for key_weight, weight in zip(
                self.companions[f"key_{name}"].trainable_variables, model.trainable_variables, strict=True
            ):
                key_weight.assign(self._momentum * key_weight + (1.0 - self._momentum) * weight)
        queue, start = self.state["queue"], self.state["queue_next"]
        # The queue is a whole number of batches long, so a batch never wraps around its end.
        rows = tf.range(self._batch_size) + start
        queue.scatter_nd_update(rows[:, tf.newaxis], self.state["keys"])
        start.assign((start + self._batch_size) % queue.shape[0])


def check_queue(config: MocoConfig, batch_size: int) -> None:
    """Raises `ConfigError` unless the queue is a whole number of batches long."""
    if config.queue_size < batch_size or config.queue_size % batch_size:
        raise ConfigError(
            f"queue size {config.queue_size} is not a multiple of batch size {batch_size}",
            f"Try --set moco.queue_size={max(1, round(config.queue_size / batch_size)) * batch_size}",
        )


def _copy(model: keras.Model) -> keras.Model:
    copy = keras.models.clone_model(model)
    copy.set_weights(model.get_weights())
    return copy
