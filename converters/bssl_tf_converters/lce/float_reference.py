"""The float32 and int8 networks of the same shape as stock TFLite models, to be timed beside the binary one."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from bssl_tf.backend import keras, lq, tf
from bssl_tf.errors import ConversionError
from bssl_tf_converters.lce.deployable import with_classifier
from bssl_tf_deploy.quiet import captured_output, with_output

_CALIBRATION_IMAGES = 8


def convert_float(model: keras.Model, calibration: np.ndarray | None = None, *, int8_ends: bool = False) -> bytes:
    """Converts the float twin of `model` with TensorFlow's own converter, for batches of one.

    Args:
        model: a network with one input [B, S, S, C] of known size; binary layers become plain convolutions.
        calibration: images float32 [N, S, S, C]; given, all of it becomes int8, else it stays float32.
        int8_ends: with `calibration`, input and output are int8 too.

    Raises:
        ConversionError: TensorFlow cannot convert it.
    """
    with captured_output() as output:
        try:
            twin = float_twin(model)
            signature = [tf.TensorSpec((1, *twin.input_shape[1:]), tf.float32, name="image")]
            function = tf.function(lambda image: twin(image, training=False), input_signature=signature)
            converter = tf.lite.TFLiteConverter.from_concrete_functions([function.get_concrete_function()], twin)
            # By way of the graph alone: to write and read a SavedModel takes ten times as long as all the rest.
            converter.experimental_lower_to_saved_model = False
            if calibration is not None:
                converter.optimizations = [tf.lite.Optimize.DEFAULT]
                converter.representative_dataset = lambda: _one_by_one(calibration)
                # Refuses what has no int8 kernel, instead of leaving it in float.
                converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
                if int8_ends:
                    converter.inference_input_type = converter.inference_output_type = tf.int8
            converted: bytes = converter.convert()
        except Exception as error:  # As in `lce.convert`.
            kind = "float" if calibration is None else "int8"
            raise ConversionError(
                f"the {kind} network of {model.name}'s shape cannot be converted ({type(error).__name__})",
                "See what TensorFlow printed with --debug",
            ) from with_output(error, output())
    return converted


def float_twin(model: keras.Model) -> keras.Model:
    """The float network of the same shape: every quantised convolution becomes a plain one, weights copied.

    For timing beside the binary network, not for use: with its latent weights it computes something else.
    """

    def clone(layer: keras.layers.Layer) -> keras.layers.Layer:
        if isinstance(layer, keras.Model):
            return float_twin(layer)
        config = layer.get_config()
        if isinstance(layer, lq.layers.QuantConv2D):
            for key in ("input_quantizer", "kernel_quantizer", "pad_values", "metrics", "kernel_constraint"):
                config.pop(key, None)
            return keras.layers.Conv2D.from_config(config)
        return type(layer).from_config(config)

    twin = keras.models.clone_model(model, clone_function=clone)
    twin.set_weights(model.get_weights())
    return twin


def stock_networks(backbone: keras.Model, classes: int) -> dict[str, bytes]:
    """The float32 and the int8 network of a bundle's shape, with any weights, which is all that timing needs.

    Args:
        backbone: from [B, S, S, C] to features [B, D].
        classes: K.

    Returns:
        `float32` and `int8`; both take and give float32.

    Raises:
        ConversionError: TensorFlow cannot convert it.
    """
    rng = np.random.default_rng(0)
    # Drawn, because the converter would fold a layer of zeros away.
    weights = rng.normal(0, 0.1, (backbone.output_shape[-1], classes)).astype(np.float32)
    network = with_classifier(backbone, weights, np.zeros(classes, np.float32))
    images = rng.normal(0, 1, (_CALIBRATION_IMAGES, *network.input_shape[1:])).astype(np.float32)
    return {"float32": convert_float(network), "int8": convert_float(network, images)}


def _one_by_one(images: np.ndarray) -> Iterator[list[np.ndarray]]:
    for index in range(len(images)):
        yield [images[index : index + 1]]
