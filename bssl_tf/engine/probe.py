"""A look at the network while it trains: k-nearest neighbours on a few labelled images.

Cheap enough for every epoch, and for curves within one run alone: `bssl-tf evaluate` measures all images, and beside
controls. It only reads: a run with it ends in the same weights as one without, bit for bit.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from bssl_tf.backend import keras, tf
from bssl_tf.data.image_set import DataSplits, ImageSet
from bssl_tf.data.preprocessing import evaluation_batches
from bssl_tf.evaluation.knn import knn_top1
from bssl_tf.preprocessing import Preprocessing

PROTOCOL = "knn-20"
_NEIGHBOURS = 20
_TRAIN_IMAGES, _TEST_IMAGES = 1000, 500
_BATCH = 250


class Probe:
    """What is measured, and how often; see `make_probe`.

    Attributes:
        part: which of a method's trained networks.
        every: epochs between two measurements.
    """

    def __init__(self, part: str, every: int, train: ImageSet, test: ImageSet, preprocessing: Preprocessing) -> None:
        self.part, self.every = part, every
        self._train, self._test, self._preprocessing = train, test, preprocessing
        self._network: keras.Model | None = None
        self._features: Callable[[tf.Tensor], tf.Tensor]

    def measure(self, network: keras.Model) -> dict[str, Any]:
        """What a record of metrics.jsonl says beside its place: `probe`, `top1` in percent, images of each part.

        `top1` is None for a network that gives no numbers any more; the next step will say so.
        """
        if network is not self._network:
            self._network = network
            # One graph for all measurements of a stage. Trained in bfloat16, networks give that.
            self._features = tf.function(lambda batch: tf.cast(network(batch, training=False), tf.float32))
        train, test = self._features_of(self._train), self._features_of(self._test)
        top1 = None
        if np.isfinite(train).all() and np.isfinite(test).all():
            (top1,) = knn_top1(train, self._train.require_labels(), test, self._test.require_labels(), (_NEIGHBOURS,))
        return {"probe": PROTOCOL, "top1": top1, "train_images": len(train), "test_images": len(test)}

    def _features_of(self, images: ImageSet) -> np.ndarray:
        """float32 [N, D]."""
        batches = evaluation_batches(images, self._preprocessing, _BATCH)
        return np.concatenate([self._features(tf.constant(batch)).numpy() for batch in batches])


def make_probe(part: str, data: DataSplits, preprocessing: Preprocessing, every: int) -> Probe | None:
    """A probe on at most 1,000 training and 500 test images, evenly spread; None without labels, test, or wish.

    Args:
        part: which of the method's trained networks to measure.
        data: what the run trains on.
        preprocessing: of the network's images.
        every: epochs between two measurements; 0 for none.
    """
    test = data.test
    if not every or test is None or not len(test) or data.train.labels is None or test.labels is None:
        return None
    return Probe(part, every, data.train.spread(_TRAIN_IMAGES), test.spread(_TEST_IMAGES), preprocessing)
