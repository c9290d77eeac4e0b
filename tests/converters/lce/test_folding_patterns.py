"""What is recognised before the rules run: constants, signs, PReLUs, batch norms, and what only looks like them."""

from __future__ import annotations

import numpy as np
import pytest

from bssl_tf.backend import keras, lq, tf
from bssl_tf_converters.lce.folding import fold
from bssl_tf_converters.lce.folding.constants import fold_constants
from bssl_tf_converters.lce.folding.graph import AFFINE, CONST, PRELU, SIGN
from bssl_tf_converters.lce.folding.patterns import affines, drop_identities, recognise
from tests.converters.lce.folding_graphs import (
    SHAPE,
    Function,
    Layers,
    assert_same,
    count,
    graph_of,
    images,
    recognised,
    run,
)


def test_constants_are_computed_once() -> None:
    """XNOR-Net's kernels: clipped, with their mean magnitude as scale."""

    def function(x: tf.Tensor) -> tf.Tensor:
        kernel = tf.clip_by_value(tf.constant(Layers(0).kernel(1, 1, 4, 4)), -0.3, 0.3)
        scale = tf.reduce_mean(tf.abs(kernel), axis=[0, 1, 2], keepdims=True)
        return tf.nn.conv2d(lq.math.sign(x), scale * lq.math.sign(kernel), 1, "SAME")

    graph = graph_of(function, SHAPE)
    assert fold_constants(graph)
    assert {node.op for node in graph.nodes.values()} <= {"Placeholder", CONST, "Sign", "AddV2", "Conv2D", "Output"} | {
        "Identity"
    }
    assert_same(graph, function)
    assert not fold_constants(graph)


def test_what_is_random_or_a_range_for_int8_is_no_constant() -> None:
    def function(x: tf.Tensor) -> tf.Tensor:
        noise = tf.random.uniform([4], dtype=tf.float32)
        return x + noise + tf.quantization.fake_quant_with_min_max_vars(tf.constant([0.1, 0.2, 0.3, 0.4]), -1.0, 1.0)

    graph = graph_of(function, SHAPE, tf.float32)
    fold(graph)
    assert count(graph, "RandomUniform") == count(graph, "FakeQuantWithMinMaxVars") == 1


def test_signs_prelus_and_norms_are_recognised() -> None:
    prelu = keras.layers.PReLU(shared_axes=[1, 2], alpha_initializer="ones")
    prelu.build(SHAPE)

    def function(x: tf.Tensor) -> tf.Tensor:
        x = tf.nn.bias_add(x, tf.constant([1.0, -1.0, 0.5, 0.0]))
        norm = [tf.constant(values) for values in ([1.0, -2.0, 0.0, 1.0], [0.1] * 4, [0.5] * 4, [2.0] * 4)]
        x = tf.compat.v1.nn.fused_batch_norm(x, *norm, is_training=False, epsilon=1e-3)[0]
        one = tf.constant(1.0)
        signs = lq.quantizers.ste_sign(x) + tf.where(x < 0.0, -one, one) + lq.quantizers.SwishSign()(x)
        return prelu(x) * signs

    graph = graph_of(function, SHAPE, tf.float32)
    drop_identities(graph)
    fold_constants(graph)
    recognise(graph)
    affines(graph)
    # Three ways to write one sign.
    assert (count(graph, SIGN), count(graph, PRELU), count(graph, AFFINE)) == (1, 1, 2)
    image = images(SHAPE, np.float32)
    np.testing.assert_allclose(run(graph, image), function(tf.constant(image)).numpy(), atol=1e-5)


@pytest.mark.parametrize(
    "function",
    [
        lambda x: tf.sign(x),
        lambda x: tf.sign(tf.sign(x) + 1.0),
        lambda x: tf.where(x > 0, tf.ones_like(x), -tf.ones_like(x)),
        lambda x: tf.where(x >= 0, 2 * tf.ones_like(x), -tf.ones_like(x)),
        lambda x: tf.where(x >= Layers(0).pixel_shift(tf.zeros(x.shape, x.dtype)), tf.ones_like(x), -tf.ones_like(x)),
        lambda x: tf.nn.relu(x) + 0.5 * tf.nn.relu(-2.0 * x),
        lambda x: tf.nn.relu(x) * 0.5 * tf.nn.relu(-x),
    ],
)
def test_what_only_looks_like_one_is_left(function: Function) -> None:
    graph = recognised(function)
    assert count(graph, SIGN, PRELU) == 0
    assert_same(graph, function)


@pytest.mark.parametrize(
    "function",
    [
        lambda x: Layers(0).pixel_shift(x),
        lambda x: x[:1, :1, :1] + tf.constant(np.ones(SHAPE)),
        lambda x: x[..., :1] * tf.constant([1.0, 2.0, 3.0, 4.0], tf.float64),
        lambda x: x / tf.constant([1.0, 0.0, 1.0, 1.0], tf.float64),
        lambda x: x * tf.constant(np.inf, tf.float64),
        lambda x: x * x,
    ],
)
def test_what_is_no_constant_for_each_channel_is_left(function: Function) -> None:
    assert count(recognised(function), AFFINE) == 0


def test_a_norm_in_training_is_left() -> None:
    def function(x: tf.Tensor) -> tf.Tensor:
        return tf.compat.v1.nn.fused_batch_norm(x, tf.ones([4]), tf.zeros([4]), is_training=True)[0]

    graph = graph_of(function, SHAPE, tf.float32)
    fold(graph)
    assert count(graph, "FusedBatchNormV3") == 1


@pytest.mark.parametrize("factor", [1.0, 0.7])
def test_a_norms_mean_still_gives_exactly_its_shift(factor: float) -> None:
    """Sums of +1 and -1 hit a whole mean exactly, and the sign that follows has to see the same zero as before."""
    rng = np.random.default_rng(0)
    # A negative scale among them keeps the product in front of the sign.
    gamma = tf.constant(rng.uniform(0.5, 1.5, 64) * rng.choice([-1, 1], 64), tf.float32)
    variance = tf.constant(rng.uniform(0.5, 1.5, 64), tf.float32)
    mean = tf.constant(rng.integers(-7, 8, 64), tf.float32)
    shape = (4, 5, 5, 64)

    def function(x: tf.Tensor) -> tf.Tensor:
        x = tf.compat.v1.nn.fused_batch_norm(x, gamma, tf.zeros([64]), mean, variance, is_training=False)[0]
        return lq.math.sign(factor * x)

    graph = graph_of(function, shape, tf.float32)
    fold(graph)
    image = rng.integers(-8, 8, shape).astype(np.float32)
    np.testing.assert_array_equal(run(graph, image), function(tf.constant(image)).numpy())


def test_variables_become_constants_however_they_are_read() -> None:
    """As a whole, in part, inside a function, and a tensor that was computed before."""
    variable, before = tf.Variable(np.arange(8.0)), tf.constant(np.arange(4.0)) + 1
    called = tf.function(lambda x: x * variable[:4], autograph=False)
    without_variable = tf.function(lambda x: x * 3.0, autograph=False)
    ways: list[Function] = [
        lambda x: x + variable[4:],
        lambda x: x * tf.gather(variable, [1, 3, 5, 7]),
        called,
        without_variable,
        lambda x: x - before,
    ]
    for way in ways:
        graph = graph_of(way, SHAPE)
        assert graph.inputs == ("image",)
        assert_same(graph, way)
        fold(graph)
        assert_same(graph, way)
        assert count(graph, AFFINE) == 1
