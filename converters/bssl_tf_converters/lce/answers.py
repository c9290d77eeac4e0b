"""What a Keras network and the network that LCE made of it give, image by image: for accuracy on whole test sets."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

import numpy as np

from bssl_tf.backend import keras, tf
from bssl_tf.preprocessing import Preprocessing
from bssl_tf_converters.lce.converter import LceInterpreter, output_names
from bssl_tf_deploy.preprocess import whole_pixels


def both_outputs(
    model: keras.Model,
    converted: bytes,
    batches: Iterable[np.ndarray],
    outputs: Sequence[str],
    preprocessing: Preprocessing | None = None,
    *,
    xnnpack: bool = True,
) -> Iterator[tuple[dict[str, np.ndarray], dict[str, np.ndarray]]]:
    """The outputs of both networks by name, float32 [B, ...]; only a batch at a time is held in memory.

    Args:
        model: as given to the converter.
        converted: what it returned.
        batches: float32 [B, H, W, C], preprocessed.
        outputs: names of the model's outputs, as given to the converter.
        preprocessing: that of the images, where the converted network takes pixels.
        xnnpack: whether LCE's interpreter computes with XNNPACK; see `export.Converted.xnnpack`.

    Yields:
        For each batch the outputs of the Keras network, and those of the converted one.
    """
    interpreter, names = LceInterpreter(converted, xnnpack=xnnpack), output_names(converted)
    [taken] = interpreter.input_quantizations
    for batch in batches:
        expected = [tensor.numpy() for tensor in tf.nest.flatten(model(batch, training=False))]
        given = batch if preprocessing is None else whole_pixels(batch, preprocessing.mean, preprocessing.std)
        found = interpreter.run([given if taken is None else taken.integers(given)])
        yield dict(zip(outputs, expected, strict=True)), dict(zip(names, found, strict=True))
