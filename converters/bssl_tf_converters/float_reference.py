"""The float network of the same shape as a stock TFLite model, to be timed beside the binary one."""

from __future__ import annotations

import numpy as np

from bssl_tf.backend import keras, tf
from bssl_tf.errors import ConversionError
from bssl_tf.models.binarization import float_twin
from bssl_tf.models.registry import build_backbone
from bssl_tf_converters.deployable import with_classifier
from bssl_tf_deploy.quiet import captured_output, with_output


def convert_float(model: keras.Model) -> bytes:
    """Converts the float twin of `model` with TensorFlow's own converter, in float32, for batches of one.

    Args:
        model: a network with one input [B, S, S, C] of known size; binary layers become plain convolutions.

    Raises:
        ConversionError: TensorFlow cannot convert it.
    """
    with captured_output() as output:
        try:
            twin = float_twin(model)
            signature = [tf.TensorSpec((1, *twin.input_shape[1:]), tf.float32, name="image")]
            function = tf.function(lambda image: twin(image, training=False), input_signature=signature)
            converter = tf.lite.TFLiteConverter.from_concrete_functions([function.get_concrete_function()], twin)
            converted: bytes = converter.convert()
        except Exception as error:  # As in `lce.convert`.
            raise ConversionError(
                f"the float network of {model.name}'s shape cannot be converted ({type(error).__name__})",
                "See what TensorFlow printed with --debug",
            ) from with_output(error, output())
    return converted


def float_network(backbone: str, image_size: int, channels: int, arguments: dict[str, int], classes: int) -> bytes:
    """The float network of a bundle's shape with fresh weights, which is all that timing needs.

    Args:
        backbone: name in the registry.
        image_size: pixels a side.
        channels: 1 or 3.
        arguments: what the builder takes beside.
        classes: K.

    Raises:
        NetworkError: this version knows no such network.
        ConversionError: TensorFlow cannot convert it.
    """
    model = build_backbone(backbone, image_size, channels, arguments)
    # Drawn, because the converter would fold a layer of zeros away.
    weights = np.random.default_rng(0).normal(0, 0.1, (model.output_shape[-1], classes)).astype(np.float32)
    return convert_float(with_classifier(model, weights, np.zeros(classes, np.float32)))
