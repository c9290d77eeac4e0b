"""`moco`: MoCo v2 (Chen et al., arXiv 2003.04297), for a float teacher or as the baseline for a binary student.

    two views of each image
    query: backbone -> projection head       -> q   (trained)
    key:   the same, as a moving average     -> k   (no gradient)
    loss = InfoNCE of q against its k and a first-in-first-out queue of earlier keys, T = 0.2

S2-BNN's three improvements for binary students (section 3.1) are settings of the run: `training.optimizer=adam` without
weight decay, `augmentation.name=lite`, `stages=progressive`; each has the plain alternative beside it.
There is no shuffled batch norm: the key encoder normalises with its own batch, on several devices with all of it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from bssl_tf.errors import ConfigError
from bssl_tf.methods.method import Ingredients, Method
from bssl_tf.methods.recipe import Outcome, Recipe
from bssl_tf.seeding import named_seed
from bssl_tf.settings import Positive, PositiveInt, Share, Table

if TYPE_CHECKING:
    from bssl_tf.backend import keras, tf
    from bssl_tf.data.views import Batch


@dataclass(frozen=True)
class MocoConfig(Table):
    """MoCo v2 (METHOD moco; arXiv 2003.04297), for a teacher or a student.

    Attributes:
        embedding_width: outputs of the projection head.
        temperature: temperature of InfoNCE.
        momentum: momentum of the key encoder; 0.999 for long training, 0.99 for a few hundred steps.
        queue_size: negatives in the queue, a multiple of the batch size.
        head_batch_norm: batch norm inside the projection head.
    """

    embedding_width: PositiveInt = 128
    temperature: Positive = 0.2
    momentum: Share = 0.999
    queue_size: PositiveInt = 65536
    head_batch_norm: bool = False


class Moco(Recipe):
    """The recipe above for one stage; `part` is the backbone's name, `teacher` or `student`."""

    views = 2

    def __init__(self, backbone: keras.Model, config: MocoConfig, *, part: str, batch_size: int, seed: int) -> None:
        import numpy as np

        from bssl_tf.backend import tf
        from bssl_tf.memory import require_memory
        from bssl_tf.models.binarization import copy_of
        from bssl_tf.models.heads import mlp_head

        super().__init__()
        check_queue("moco.queue_size", config.queue_size, batch_size)
        self._temperature, self._momentum, self._batch_size = config.temperature, config.momentum, batch_size
        self._part = part
        width = backbone.output_shape[-1]
        head = mlp_head("head", width, (width, config.embedding_width), use_batch_norm=config.head_batch_norm)
        self.trained = {part: backbone, "head": head}
        self.companions = {f"key_{part}": copy_of(backbone), "key_head": copy_of(head)}
        # The numbers that are drawn, what makes them of length one, and the queue itself.
        needed = config.queue_size * config.embedding_width * (2 * np.float64(0).nbytes + 2 * np.float32(0).nbytes)
        require_memory(needed, f"a queue of {config.queue_size}", "moco.queue_size or moco.embedding_width")
        noise = np.random.default_rng(seed).standard_normal((config.queue_size, config.embedding_width))
        queue = (noise / np.linalg.norm(noise, axis=1, keepdims=True)).astype(np.float32)
        self.state = {
            "queue": tf.Variable(queue, trainable=False),
            "queue_next": tf.Variable(0, dtype=tf.int32, trainable=False),
        }

    def losses(self, batch: Batch, scheduled: tf.Tensor) -> Outcome:
        loss, keys = self.contrast(self.query(batch.views[0]), batch.views[1])
        return Outcome({"loss": loss}, {"keys": keys})

    def query(self, view: tf.Tensor) -> tf.Tensor:
        """[B, S, S, C] to [B, D], not normalised."""
        return self.trained["head"](self.trained[self._part](view, training=True), training=True)

    def contrast(self, query: tf.Tensor, key_view: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """InfoNCE of `query` [B, D] against the keys of `key_view` [B, S, S, C]; and those, [B, D], for the queue."""
        from bssl_tf.backend import tf
        from bssl_tf.losses.info_nce import info_nce

        features = self.companions[f"key_{self._part}"](key_view, training=True)
        key = tf.stop_gradient(self.companions["key_head"](features, training=True))
        return info_nce(query, key, self.state["queue"], self._temperature), tf.math.l2_normalize(key, axis=-1)

    def after_step(self, updates: Mapping[str, tf.Tensor], scheduled: tf.Tensor) -> None:
        from bssl_tf.methods.momentum import follow

        for name, model in self.trained.items():
            follow(self.companions[f"key_{name}"], model, self._momentum)
        put(self.state, updates["keys"], self._batch_size)


def put(state: Mapping[str, tf.Variable], rows: tf.Tensor, batch_size: int) -> None:
    """Puts a batch's rows, [B, D], into `state["queue"]`, [K, D], in place of the oldest; `queue_next` moves on."""
    from bssl_tf.backend import tf

    queue, start = state["queue"], state["queue_next"]
    # The queue is a whole number of batches long, so a batch never wraps around its end.
    queue.scatter_update(tf.IndexedSlices(rows, tf.range(batch_size) + start))
    start.assign((start + batch_size) % queue.shape[0])


def check_queue(setting: str, size: int, batch_size: int) -> None:
    """Raises `ConfigError` unless a queue of `size`, set by `setting`, is a whole number of batches long."""
    if size < batch_size or size % batch_size:
        raise ConfigError(
            f"queue size {size} is not a multiple of batch size {batch_size}",
            f"Try --set {setting}={max(1, round(size / batch_size)) * batch_size}",
        )


def queue_advice(setting: str, size: int, batch_size: int, images: int) -> Iterable[str]:
    """Warns of a queue of `size`, set by `setting`, that is longer than the data set."""
    if size > images:
        yield (
            f"the queue of {size} is longer than the {images} images, so that earlier views of an "
            f"image count as other images; pass --set {setting}={max(1, images // 2 // batch_size) * batch_size}"
        )


def _build(config: MocoConfig, given: Ingredients) -> Recipe:
    size, seed = given.training.batch_size, named_seed(given.training.seed, "queue")
    return Moco(given.backbone, config, part=given.part, batch_size=size, seed=seed)


METHOD = Method(
    name="moco",
    summary="MoCo v2, contrastive with a queue",
    settings=MocoConfig,
    build=_build,
    queue="queue_size",
    logs={},
    trains_teachers=True,
    check=lambda config, training: check_queue("moco.queue_size", config.queue_size, training.batch_size),
    advise=lambda config, training, images: queue_advice(
        "moco.queue_size", config.queue_size, training.batch_size, images
    ),
)
