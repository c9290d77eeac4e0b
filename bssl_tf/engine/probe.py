"""A look at the network while it trains: k-nearest neighbours on a few labelled images, or a task's own metric.

Cheap enough for every epoch, and for curves within one run alone: `bssl-tf evaluate` measures all images, and beside
controls. It only reads: a run with it ends in the same weights as one without, bit for bit, unless it stops by it or
keeps the best.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import numpy as np

from bssl_tf.backend import keras, tf
from bssl_tf.data.image_set import DataSplits, ImageSet
from bssl_tf.data.preprocessing import evaluation_batches
from bssl_tf.evaluation.knn import knn_top1
from bssl_tf.evaluation.statistics import accuracy_interval
from bssl_tf.preprocessing import Preprocessing
from bssl_tf.tasks.task import Task

_log = logging.getLogger(__name__)
PROTOCOL = "knn-20"
VALIDATION = "validation"
_NEIGHBOURS = 20
_TRAIN_IMAGES, _TEST_IMAGES = 1000, 500
_BATCH = 250


class Probe:
    """What is measured, and how often; see `make_probe`.

    Attributes:
        part: which of a method's trained networks.
        every: epochs between two measurements.
        keeps_best: whether the weights of the best measurement are the result, not those of the last step.
    """

    keeps_best = False

    def __init__(
        self,
        part: str,
        every: int,
        train: ImageSet,
        test: ImageSet,
        preprocessing: Preprocessing,
        *,
        announced: bool = False,
    ) -> None:
        self.part, self.every, self._announced = part, every, announced
        self._train, self._test, self._preprocessing = train, test, preprocessing
        self._network: keras.Model | None = None
        self._features: Callable[[tf.Tensor], tf.Tensor]

    def measure(self, network: keras.Model) -> dict[str, Any]:
        """What a record of metrics.jsonl says beside its place: `probe`, `top1` in percent, images of each part.

        `top1` is None for a network whose features are not finite; the next step will report that.
        """
        if network is not self._network:
            self._network = network
            # One graph for all measurements of a stage. Trained in bfloat16, networks give that.
            self._features = tf.function(lambda batch: tf.cast(network(batch, training=False), tf.float32))
        top1 = self.top1_of(lambda batch: self._features(tf.constant(batch)).numpy())
        if self._announced:
            _log.info(f"{self.part}: {self.described(top1)}")
        return {"probe": PROTOCOL, "top1": top1, "train_images": len(self._train), "test_images": len(self._test)}

    def top1_of(self, features: Callable[[np.ndarray], np.ndarray]) -> float | None:
        """Accuracy in percent of any features, float32 [B, S, S, C] to [B, D], by this measure; None if not finite."""
        train, test = (
            np.concatenate([features(batch) for batch in evaluation_batches(images, self._preprocessing, _BATCH)])
            for images in (self._train, self._test)
        )
        if not (np.isfinite(train).all() and np.isfinite(test).all()):
            return None
        (top1,) = knn_top1(train, self._train.require_labels(), test, self._test.require_labels(), (_NEIGHBOURS,))
        return top1

    def described(self, top1: float | None) -> str:
        """`top1` for a person, with its 95 % interval."""
        if top1 is None:
            return f"{PROTOCOL} not measured, because its features are not finite"
        interval = accuracy_interval([top1], len(self._test))
        return (
            f"{PROTOCOL} {top1:.1f} % (95 % interval {interval.low:.1f} to {interval.high:.1f}, "
            f"{len(self._test)} test images)"
        )


class Validation:
    """Measures a network with its head on held-out images, by the task's own metric; for the loop, like `Probe`.

    Attributes:
        part, every, keeps_best: as of `Probe`.
        images: how many there are.
    """

    part = "student"
    keeps_best = True

    def __init__(self, task: Task[Any], labelled: Any, preprocessing: Preprocessing, every: int) -> None:
        self.every, self.images = every, len(labelled)
        self._task, self._labelled, self._preprocessing = task, labelled, preprocessing
        self._network: keras.Model | None = None
        self._graph: Callable[..., Any]

    def measure(self, network: keras.Model) -> dict[str, Any]:
        """What a record of metrics.jsonl says beside its place: `probe`, `metric`, `score`, other metrics, images."""
        if network is not self._network:
            self._network = network
            # One graph for all measurements.
            self._graph = tf.function(
                lambda images, training: network(images, training=training), reduce_retracing=True
            )
        metrics = self._task.metrics(self._graph, self._labelled, self._preprocessing)
        finite = {name: score if np.isfinite(score) else None for name, score in metrics.items()}
        (metric, score), *others = finite.items()
        return {"probe": VALIDATION, "metric": metric, "score": score, **dict(others), "test_images": self.images}


def make_probe(
    part: str, data: DataSplits, preprocessing: Preprocessing, every: int, *, announced: bool = False
) -> Probe | None:
    """A probe on at most 1,000 training and 500 test images, evenly spread; None without labels, test, or wish.

    Args:
        part: which of the method's trained networks to measure.
        data: what the run trains on, or another labelled set.
        preprocessing: of the network's images.
        every: epochs between two measurements; 0 for none.
        announced: log each measurement.
    """
    test = data.test
    if not every or test is None or not len(test) or data.train.labels is None or test.labels is None:
        return None
    return Probe(
        part, every, data.train.spread(_TRAIN_IMAGES), test.spread(_TEST_IMAGES), preprocessing, announced=announced
    )
