"""`byol`: Bootstrap your own latent (Grill et al., NeurIPS 2020, arXiv 2006.07733), for a teacher or a binary student.

    two views of each image
    online: backbone -> projection head -> predictor -> q   (trained)
    target: backbone -> projection head              -> z   (a moving average of the online one, no gradient)
    loss = 2 - 2 cos(q of view 1, z of view 2), plus the reverse

The target's momentum rises to 1 along half a cosine. There are no negatives: if all images get one embedding, the
run stops with that reason.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from bssl_tf.methods.method import Ingredients, Method, Schedule
from bssl_tf.methods.recipe import Outcome, Recipe
from bssl_tf.schedules import dynamic_balance
from bssl_tf.settings import PositiveInt, Share, Table

if TYPE_CHECKING:
    from bssl_tf.backend import keras, tf
    from bssl_tf.data.views import Batch

# Of the spread that embeddings in all directions have; an untrained network has about a half.
_COLLAPSED_SPREAD = 0.02


@dataclass(frozen=True)
class ByolConfig(Table):
    """BYOL (METHOD byol; arXiv 2006.07733).

    Attributes:
        hidden_width: hidden units of projection head and predictor.
        embedding_width: outputs of both.
        momentum: momentum of the target network at the first step; rises to 1 along half a cosine.
    """

    hidden_width: PositiveInt = 512
    embedding_width: PositiveInt = 128
    momentum: Share = 0.99


class Byol(Recipe):
    """The recipe above for one stage; `part` is the backbone's name, `teacher` or `student`."""

    views = 2

    def __init__(self, backbone: keras.Model, config: ByolConfig, *, part: str) -> None:
        from bssl_tf.models.binarization import copy_of
        from bssl_tf.models.heads import mlp_head

        super().__init__()
        self._part, self._momentum = part, config.momentum
        widths = (config.hidden_width, config.embedding_width)
        head = mlp_head("head", backbone.output_shape[-1], widths, use_batch_norm=True)
        predictor = mlp_head("predictor", config.embedding_width, widths, use_batch_norm=True)
        self.trained = {part: backbone, "head": head, "predictor": predictor}
        self.companions = {f"target_{part}": copy_of(backbone), "target_head": copy_of(head)}

    def scheduled(self, progress: float) -> float:
        return dynamic_balance(progress, self._momentum, 1.0)

    def losses(self, batch: Batch, scheduled: tf.Tensor) -> Outcome:
        from bssl_tf.backend import tf
        from bssl_tf.losses.feature_similarity import feature_similarity
        from bssl_tf.replicas import gather

        online, head, predictor = self.trained.values()
        target, target_head = self.companions.values()
        predicted = [predictor(head(online(v, training=True), training=True), training=True) for v in batch.views]
        targets = [tf.stop_gradient(target_head(target(view, training=True), training=True)) for view in batch.views]
        loss = sum(feature_similarity(targets[1 - i], predicted[i]) for i in (0, 1))
        directions = tf.math.l2_normalize(gather(targets[0]), axis=-1)
        # 1 when the embeddings point everywhere alike, 0 when they are all the same.
        spread = tf.sqrt(tf.reduce_sum(tf.math.reduce_variance(directions, axis=0)))
        return Outcome({"loss": loss, "target_spread": spread})

    def after_step(self, updates: Mapping[str, tf.Tensor], scheduled: tf.Tensor) -> None:
        from bssl_tf.methods.momentum import follow

        for name in (self._part, "head"):
            follow(self.companions[f"target_{name}"], self.trained[name], scheduled)

    def collapsed(self, means: Mapping[str, float]) -> str | None:
        if means["target_spread"] >= _COLLAPSED_SPREAD:
            return None
        return f"the embeddings have collapsed to one direction (target_spread {means['target_spread']:.4f} of 1)"


def _build(config: ByolConfig, given: Ingredients) -> Recipe:
    return Byol(given.backbone, config, part=given.part)


METHOD = Method(
    name="byol",
    summary="BYOL, without negative pairs",
    settings=ByolConfig,
    build=_build,
    logs={"target_spread": "1 when the target's embeddings point everywhere alike, 0 when all are the same"},
    trains_teachers=True,
    schedule=Schedule("cosine", warmup_epochs=10.0, warmup_one_in=20),
)
