"""Folded networks through real LCE: fewer operators, and what Keras says."""

from __future__ import annotations

import numpy as np
import pytest

from bssl_tf.backend import keras, lq, tf
from bssl_tf.data.preprocessing import fit_preprocessing
from bssl_tf.errors import ConversionError
from bssl_tf.models.layers import LearnedShift
from bssl_tf.preprocessing import Preprocessing
from bssl_tf_converters.lce import converter as lce
from bssl_tf_converters.lce.checks import check_binary
from bssl_tf_converters.lce.deployable import with_classifier
from bssl_tf_converters.lce.parity import compare
from bssl_tf_converters.tflite.model import operator_histogram, read_model
from tests.converters.lce.test_networks_convert import settled
from tests.converters.networks import backbone, embedded_images, image_set, random_probe


def small_reactnet() -> keras.Model:
    """Two blocks of ReActNet's kind, the second with two convolutions side by side."""
    layers = keras.layers

    def half(x: tf.Tensor, signed: tf.Tensor) -> tf.Tensor:
        y = lq.layers.QuantConv2D(
            32,
            3,
            padding="same",
            pad_values=1.0,
            use_bias=False,
            input_quantizer="approx_sign",
            kernel_quantizer="magnitude_aware_sign",
        )(signed)
        return layers.Add()([layers.BatchNormalization()(y), x])

    def rprelu(x: tf.Tensor) -> tf.Tensor:
        return LearnedShift()(layers.PReLU(shared_axes=[1, 2])(LearnedShift()(x)))

    image = layers.Input((16, 16, 3))
    x = layers.BatchNormalization()(layers.Conv2D(32, 3, padding="same", use_bias=False)(image))
    x = rprelu(half(x, LearnedShift()(x)))
    signed = LearnedShift()(x)
    x = rprelu(layers.Concatenate()([half(x, signed), half(x, signed)]))
    model = keras.Model(image, layers.GlobalAveragePooling2D()(x), name="small_reactnet")
    rng = np.random.default_rng(0)
    for weight in model.weights:
        if weight.shape.rank == 1 and "variance" not in weight.name:
            weight.assign(rng.normal(0, 0.5, weight.shape))
        elif "alpha" in weight.name:
            weight.assign(rng.uniform(0, 0.5, weight.shape))
    return model


def test_a_reactnet_is_down_to_its_bound_in_lce_and_says_the_same() -> None:
    network = small_reactnet()
    pictures = np.random.default_rng(1).normal(0, 1, (24, 16, 16, 3)).astype(np.float32)
    model = with_classifier(network, *random_probe(network, pictures, 5))
    plain, folded = lce.convert(model, "arm64", fold=False), lce.convert(model, "arm64")
    # For each of the three binary convolutions the shortcut's addition, and one in front of the second sign.
    assert operator_histogram(plain)["ADD"] == 3 + 2 + 2 * 2
    assert operator_histogram(folded) == operator_histogram(plain) | {"ADD": 3 + 1}
    check_binary(model, folded)
    parity = compare(
        {"features": model(pictures, training=False).numpy()},
        {"features": lce.LceInterpreter(folded).predict(pictures)},
    )
    assert parity.share_within_tolerance >= 0.75
    assert parity.outputs["features"].median_abs_difference < parity.outputs["features"].tolerance / 10


@pytest.fixture(scope="module")
def grey_network() -> tuple[keras.Model, Preprocessing]:
    """Convolution, ReLU, batch norm and shortcut, and what its images go through."""
    return backbone(28, 1), fit_preprocessing(image_set(), 28)


def test_the_kernels_scale_behind_a_relu_is_fused(grey_network: tuple[keras.Model, Preprocessing]) -> None:
    histogram = operator_histogram(lce.convert(grey_network[0], "arm64"))
    assert {operator: histogram.get(operator, 0) for operator in ("LceBconv2d", "ADD", "MUL", "RELU")} == {
        "LceBconv2d": 3,
        "ADD": 3,
        "MUL": 0,
        "RELU": 0,
    }


def test_raw_pixels_cost_a_cast_and_a_sum(grey_network: tuple[keras.Model, Preprocessing]) -> None:
    model, preprocessing = grey_network
    pixels = image_set().images[:32]
    converted = lce.convert(model, "arm64", preprocessing=preprocessing)
    content = read_model(converted)
    assert (content.inputs[0].dtype, content.inputs[0].shape) == ("uint8", (1, 28, 28, 1))
    assert [operator.name for operator in content.operators[:3]] == ["CAST", "ADD", "CONV_2D"]
    interpreter = lce.LceInterpreter(converted)
    expected = model(preprocessing.normalise(pixels), training=False).numpy()
    parity = compare({"features": expected}, {"features": interpreter.predict(pixels)})
    assert parity.share_within_tolerance > 0.9
    assert parity.outputs["features"].median_abs_difference < 1e-5
    with pytest.raises(ValueError, match=r"an input is float32 .*, the network takes uint8"):
        interpreter.predict(pixels.astype(np.float32))


def test_a_convolution_in_groups_which_keras_makes_a_function_stays_binary() -> None:
    image = keras.layers.Input((6, 6, 64))
    convolution = lq.layers.QuantConv2D(64, 3, groups=2, input_quantizer="ste_sign", kernel_quantizer="ste_sign")
    x = keras.layers.BatchNormalization()(convolution(LearnedShift()(image)))
    for fold_it in (False, True):
        converted = lce.convert(keras.Model(image, keras.layers.GlobalAveragePooling2D()(x)), "arm64", fold=fold_it)
        assert operator_histogram(converted)["LceBconv2d"] == 1


def test_preprocessing_for_other_images_is_refused(grey_network: tuple[keras.Model, Preprocessing]) -> None:
    with pytest.raises(ConversionError, match=r"takes images \[28, 28, 1\].*Give the preprocessing"):
        lce.convert(grey_network[0], "arm64", preprocessing=Preprocessing(32, 1, (0.5,), (0.5,)))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "arguments", "counts"),
    [
        # 26 thresholds, the first of them in the stem, and 31 shortcuts.
        ("reactnet_a", {}, {"ADD": 31 + 25, "PRELU": 26, "LceBconv2d": 31}),
        ("quicknet_small", {}, {"ADD": 16, "MUL": 0, "RELU": 0, "LceBconv2d": 16}),
        ("bireal_net18", {"width": 32}, {"ADD": 16, "LceBconv2d": 16}),
    ],
)
def test_networks_are_down_to_their_bounds(name: str, arguments: dict[str, int], counts: dict[str, int]) -> None:
    network = settled(name, 32, arguments)
    pictures = embedded_images(32, 3, 16)
    model = with_classifier(network, *random_probe(network, pictures, 10))
    converted = lce.convert(model, "arm64")
    histogram = operator_histogram(converted)
    assert {operator: histogram.get(operator, 0) for operator in counts} == counts
    check_binary(model, converted)
