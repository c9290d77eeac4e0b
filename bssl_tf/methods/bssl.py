"""`bssl`: joint classifier training (Kim and Choi, CVPR 2022, arXiv 2110.08851).

    two views of each image
    teacher: frozen features h -> classifier g, trained here too  (the target moves)
    student: binary backbone   -> classifier f
    loss = (1 - lambda) * feature similarity + lambda * KL( softmax(g(h) / 0.2) || softmax(f / 0.2) )
    student on view 1 against teacher on view 2, plus the reverse; lambda rises from 0.1 to 0.3 along half a cosine

Modified multi-stage training: stage 2 begins with the student, its classifier and the jointly trained g of stage 1.
The released code holds g still; the paper trains it, and so does this unless `bssl.classifier=frozen`. Each of the four
parts has a switch in `BsslConfig`.

Nothing in the loss keeps f and g from agreeing on a constant, and left to themselves they may: the target's entropy,
its spread and what it tells about the image are logged, and the run stops when it tells nothing any more. A slow g
(`bssl.classifier_rate`) delays that; similarity of `features`, which h holds in place, leaves the student something.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from bssl_tf.methods.method import Ingredients, Method, Schedule
from bssl_tf.methods.recipe import Outcome, Recipe
from bssl_tf.schedules import dynamic_balance
from bssl_tf.settings import Positive, PositiveInt, Share, Table

if TYPE_CHECKING:
    from bssl_tf.backend import keras, tf
    from bssl_tf.data.views import Batch
    from bssl_tf.teachers.teacher import Teacher

# Nats that a target tells about its image; a useful one tells more than one, a collapsed one nothing.
_COLLAPSED_INFORMATION = 0.01


@dataclass(frozen=True)
class BsslConfig(Table):
    """Joint classifier training (METHOD bssl; arXiv 2110.08851). Each of its four parts can be switched off.

    Attributes:
        classifier: `joint` trains the classifier on the teacher's features too; `frozen` leaves it random.
        classifier_rate: learning rate of that classifier as a share of the student's. The paper does not mention one
            (hence 1); a lower one delays the collapse of both classifiers to a constant.
        feature_similarity: between the classifiers' `outputs`, between the backbones' `features`, or `off`.
        balance_start: weight of the KL term at the first step.
        balance_end: weight of the KL term at the last step; the same value twice switches dynamic balancing off.
        carry_classifier: the second stage continues with the classifier of the first (modified multi-stage training)
            instead of a fresh one.
        temperature: temperature of both softmaxes.
        hidden_width: hidden units of both classifiers.
        output_width: outputs of both classifiers.
    """

    classifier: Literal["joint", "frozen"] = "joint"
    classifier_rate: Share = 1.0
    feature_similarity: Literal["outputs", "features", "off"] = "outputs"
    balance_start: Share = 0.1
    balance_end: Share = 0.3
    carry_classifier: bool = True
    temperature: Positive = 0.2
    hidden_width: PositiveInt = 2000
    output_width: PositiveInt = 2000


class Bssl(Recipe):
    """The recipe above for one stage."""

    views = 2

    def __init__(self, student: keras.Model, teacher: Teacher, config: BsslConfig) -> None:
        from bssl_tf.models.heads import mlp_head

        super().__init__()
        self.teacher_outputs = teacher.features
        self._config = config
        width, widths = student.output_shape[-1], (config.hidden_width, config.output_width)
        self.trained = {"student": student, "head": mlp_head("head", width, widths, use_batch_norm=True)}
        self._classifier = mlp_head("teacher_classifier", teacher.feature_width, widths, use_batch_norm=True)
        # A frozen classifier still normalises by the batch, so its moving averages change: it is a companion.
        (self.trained if config.classifier == "joint" else self.companions)["teacher_classifier"] = self._classifier
        if config.classifier == "joint":
            self.rates = {"teacher_classifier": config.classifier_rate}
        if not config.carry_classifier:
            self.fresh_each_stage = frozenset({"teacher_classifier"})
        if config.feature_similarity == "features" and width != teacher.feature_width:
            # Where widths differ the student's features are mapped onto the teacher's (section 4.2).
            adapter = mlp_head("adapter", width, (teacher.feature_width,), use_batch_norm=False)
            self.trained["adapter"] = adapter

    def scheduled(self, progress: float) -> float:
        """The balance lambda; without feature similarity there is nothing to balance."""
        if self._config.feature_similarity == "off":
            return 1.0
        return dynamic_balance(progress, self._config.balance_start, self._config.balance_end)

    def losses(self, batch: Batch, scheduled: tf.Tensor) -> Outcome:
        from bssl_tf.backend import tf
        from bssl_tf.losses.feature_similarity import feature_similarity
        from bssl_tf.losses.kl_divergence import kl_divergence
        from bssl_tf.losses.target_statistics import target_statistics
        from bssl_tf.replicas import gather

        c, balance = self._config, scheduled
        features = [self.trained["student"](view, training=True) for view in batch.views]
        outputs = [self.trained["head"](x, training=True) for x in features]
        targets = [self._classifier(h, training=True) for h in batch.teacher]
        if c.classifier == "frozen":
            targets = [tf.stop_gradient(target) for target in targets]

        kl = sum(kl_divergence(targets[1 - i], outputs[i], c.temperature) for i in (0, 1))
        losses = {"loss": balance * kl, "kl": kl, "balance": balance}
        if c.feature_similarity != "off":
            theirs, ours = targets, outputs
            if c.feature_similarity == "features":
                adapter = self.trained.get("adapter", tf.identity)
                theirs, ours = list(batch.teacher), [adapter(x) for x in features]
            similarity = sum(feature_similarity(theirs[1 - i], ours[i]) for i in (0, 1))
            losses |= {"loss": losses["loss"] + (1.0 - balance) * similarity, "feature_similarity": similarity}
        return Outcome(losses | target_statistics(gather(targets[0]), c.temperature))

    def collapsed(self, means: Mapping[str, float]) -> str | None:
        if means["target_information"] >= _COLLAPSED_INFORMATION:
            return None
        return (
            f"the classifier on the teacher's features has collapsed: its targets are the same for every image "
            f"(target_information {means['target_information']:.4f} nats, entropy {means['target_entropy']:.2f})"
        )


def _build(config: BsslConfig, given: Ingredients) -> Recipe:
    return Bssl(given.backbone, given.require_teacher(), config)


METHOD = Method(
    name="bssl",
    summary="joint classifier training",
    settings=BsslConfig,
    build=_build,
    logs={
        "kl": "divergence of the student's classifier from the teacher's, nats, both ways of the views",
        "feature_similarity": "2 - 2 cos, both ways of the views; without it where it is off",
        "balance": "weight of the divergence",
        "target_entropy": "entropy of a target, nats",
        "target_spread": "standard deviation of target logits over the batch",
        "target_information": "information of a target about which image it belongs to, nats; 0 is collapse",
    },
    needs_teacher=True,
    # Section 5: warm-up for 10 of 200 epochs; a shorter run for as large a share.
    schedule=Schedule("cosine", warmup_epochs=10.0, warmup_one_in=20),
)
