"""Convolutions in half precision: what is rounded, what is not, and that training goes on."""

from __future__ import annotations

import numpy as np
import pytest

from bssl_tf.backend import keras, lq, optimizer_variables, tf
from bssl_tf.descent import descend
from bssl_tf.models.binarization import binarize
from bssl_tf.models.layers import binary_conv
from bssl_tf.models.precision import HalfPrecisionQuantConv2D, in_precision
from bssl_tf.models.registry import build_backbone

NETWORKS = ("binary_resnet", "reactnet_a", "quicknet_tiny", "float_resnet")


@pytest.mark.parametrize("name", NETWORKS)
def test_only_convolutions_are_computed_in_half_precision(name: str, rng: np.random.Generator) -> None:
    network = build_backbone(name, 32, 3, {})
    half = in_precision(network, "float16")
    rounded = {layer.name for layer in half.layers if layer.compute_dtype == "float16"}
    assert rounded == {
        layer.name
        for layer in network.layers
        if isinstance(layer, (keras.layers.Conv2D, keras.layers.DepthwiseConv2D))
        and not isinstance(layer, lq.layers.QuantConv2D)
    }
    binary = [layer for layer in half.layers if isinstance(layer, lq.layers.QuantConv2D)]
    assert all(isinstance(layer, HalfPrecisionQuantConv2D) for layer in binary)
    assert bool(binary) == (name != "float_resnet")
    assert all(weight.dtype == tf.float32 for weight in half.weights)
    assert half.output.dtype == tf.float32
    images = tf.constant(rng.standard_normal((2, 32, 32, 3)), tf.float32)
    for a, b in zip(half.get_weights(), network.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)
    if name == "float_resnet":  # of others a sign may flip further in
        np.testing.assert_allclose(half(images), network(images), rtol=0.05, atol=0.02)


def test_signs_are_of_numbers_that_were_not_rounded() -> None:
    """1e-9 is zero in float16, whose sign is +1."""
    inputs = keras.layers.Input((4, 4, 32))
    network = keras.Model(inputs, binary_conv(32, 3, "conv", padding="valid")(inputs))
    network.set_weights([np.full((3, 3, 32, 32), -1e-9, np.float32)])
    half = in_precision(binarize(network, weights=True), "float16")
    with_weights = half(tf.fill((1, 4, 4, 32), -1e-9))
    # 288 products of -1 and -1, times the scale 1e-9, which float16 does round.
    assert float(tf.reduce_min(half.layers[-1].input_quantizer(tf.constant([-1e-9])))) == -1
    np.testing.assert_array_equal(with_weights >= 0, True)
    network.set_weights([np.full((3, 3, 32, 32), -1e-2, np.float32)])
    half.set_weights(network.get_weights())
    np.testing.assert_allclose(half(tf.fill((1, 4, 4, 32), -1e-9)), 2.88, rtol=1e-3)


def test_a_network_with_operators_and_other_convolutions_keeps_them_in_float32() -> None:
    class Own(keras.layers.Conv2D):
        """Of a package."""

    image = keras.Input((8, 8, 1))
    x = keras.layers.Conv2D(32, 3, padding="same", name="conv")(image)
    x = tf.nn.relu(x + keras.layers.BatchNormalization()(x)) * 2.0
    x = keras.layers.DepthwiseConv2D(3, name="depthwise")(x) - 1.0
    x = lq.layers.QuantDepthwiseConv2D(3, input_quantizer="ste_sign", depthwise_quantizer="ste_sign")(x)
    x = lq.layers.QuantConv2DTranspose(8, 3, input_quantizer="ste_sign", kernel_quantizer="ste_sign")(x)
    half = in_precision(keras.Model(image, tf.reduce_mean(Own(8, 3)(x), [1, 2])), "float16")
    assert {layer.name for layer in half.layers if layer.compute_dtype == "float16"} == {"conv", "depthwise"}
    assert half.output.dtype == half.get_layer("conv").output.dtype == tf.float32
    assert isinstance(half.layers[-2], Own)


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_nothing_is_copied_where_nothing_is_rounded(precision: str) -> None:
    """On a CPU bfloat16 is oneDNN's."""
    network = build_backbone("binary_resnet", 28, 1, {"depth": 1})
    assert in_precision(network, precision) is network


def test_bfloat16_is_keras_own_where_there_is_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    listed = tf.config.list_logical_devices
    monkeypatch.setattr(tf.config, "list_logical_devices", lambda kind: ["a GPU"] if kind == "GPU" else listed(kind))
    half = in_precision(build_backbone("binary_resnet", 28, 1, {"depth": 1}), "bfloat16")
    assert half.get_layer("stem_conv").compute_dtype == "bfloat16"


def test_a_step_whose_gradients_overflow_changes_no_weight_and_halves_the_scale() -> None:
    weight = tf.Variable(1.0)
    optimizer = keras.mixed_precision.LossScaleOptimizer(keras.optimizers.SGD(0.5), initial_scale=8)
    optimizer.build([weight])
    found = []
    for factor in (4.0, 0.0):
        descend(lambda own: (tf.sqrt(weight * own), {}), (tf.constant(factor),), [weight], optimizer)
        found.append((float(weight), float(optimizer.loss_scale)))
    assert found == [(0.5, 8.0), (0.5, 4.0)]
    assert float(optimizer_variables(optimizer)[-2]) == 4.0, "what a checkpoint has to hold"
