"""What a Keras network and the network that LCE made of it answer, image by image: for accuracy on whole test sets."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from bssl_tf.backend import keras
from bssl_tf.preprocessing import Preprocessing
from bssl_tf_converters.lce.converter import LceInterpreter
from bssl_tf_deploy.preprocess import whole_pixels


def answers(
    model: keras.Model, converted: bytes, batches: Iterable[np.ndarray], preprocessing: Preprocessing | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """The best class of both networks for each image; only a batch at a time is held in memory.

    Args:
        model: as given to the converter.
        converted: what it returned.
        batches: float32 [B, S, S, C], preprocessed, one or more of them.
        preprocessing: that of the images, where the converted network takes pixels.

    Returns:
        int64 [N] of the Keras network, and the same of the converted one.
    """
    interpreter = LceInterpreter(converted)
    taken, _ = interpreter.ends
    expected, found = [], []
    for batch in batches:
        expected.append(model(batch, training=False).numpy().argmax(axis=1))
        given = batch if preprocessing is None else whole_pixels(batch, preprocessing.mean, preprocessing.std)
        found.append(interpreter.predict(given if taken is None else taken.integers(given)).argmax(axis=1))
    return np.concatenate(expected), np.concatenate(found)
