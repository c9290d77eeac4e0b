"""Signs behind chains of batch norms, biases and ReLUs: as Keras's own operators say, for every whole sum."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from bssl_tf.backend import lq, tf
from bssl_tf_converters.lce.folding import fold
from bssl_tf_converters.lce.folding.constants import plain_run
from bssl_tf_converters.lce.folding.graph import AFFINE, SIGN, Graph, Node
from bssl_tf_converters.lce.folding.writing import graph_def
from tests.converters.lce.folding_graphs import additions_and_products, count, graph_of, run

# 9 x 3 inputs: sums from -27 to 27. With odd ones among them they stand for padding with 0 too.
INPUTS, CHANNELS, SIZE, MOST = 3, 4, 3, 27
STEPS = ("norm", "whole_norm", "dead_norm", "shift", "whole_shift", "scale", "negative", "relu", "prelu", "pool")


@dataclass(frozen=True)
class Case:
    """A chain behind a binary convolution, or behind a tensor of any numbers, and what reads the sign.

    Attributes:
        steps: names out of `STEPS`.
        seed: of all constants.
        scaled: whether the first kernel has a scale for each channel.
        reader: a kernel that pads with `zeros` or with `ones`, or `other`.
    """

    steps: tuple[str, ...]
    seed: int
    scaled: bool = False
    reader: str = "zeros"

    def chain(self, x: tf.Tensor) -> tf.Tensor:
        """The chain, as Keras computes it."""
        rng = np.random.default_rng(self.seed)

        def drawn(low: float, high: float) -> tf.Tensor:
            return tf.constant(rng.uniform(low, high, CHANNELS), tf.float32)

        for step in self.steps:
            turn = rng.choice([-1.0, 1.0], CHANNELS)
            whole = rng.integers(-6, 7, CHANNELS).astype(np.float32)
            if step == "norm":
                x = _norm(x, turn * drawn(0.1, 2), drawn(-1, 1), drawn(-9, 9), drawn(0.5, 90))
            elif step == "whole_norm":
                # What trained ones never have, and fresh ones do: sums that are exactly the mean.
                x = _norm(x, turn * drawn(0.1, 2), tf.zeros(CHANNELS), whole, drawn(0.5, 90))
            elif step == "dead_norm":
                x = _norm(x, turn * drawn(0, 1) * [0, 1, 1, 1e-9], drawn(-1, 1), drawn(-9, 9), drawn(0.5, 90))
            elif step == "shift":
                x = tf.nn.bias_add(x, drawn(-9, 9))
            elif step == "whole_shift":
                x = x - whole
            elif step == "scale":
                x = x * drawn(-2, 2)
            elif step == "negative":
                x = whole - x
            elif step == "relu":
                x = tf.nn.relu(x)
            elif step == "prelu":
                x = tf.nn.relu(x) + drawn(-1, 0) * tf.nn.relu(-x)
            else:
                x = tf.nn.max_pool2d(x, 2, 1, "SAME")
        return x

    def reads(self, signs: tf.Tensor) -> tf.Tensor:
        """A number that tells all signs of a pixel, each reader in its own way."""
        if self.reader == "other":
            return tf.concat([signs, signs], axis=-1)
        weights = tf.constant(2.0 ** np.arange(CHANNELS).reshape(1, 1, CHANNELS, 1), tf.float32)
        value = 0.0 if self.reader == "zeros" else 1.0
        padded = tf.pad(signs, [[0, 0], [1, 1], [1, 1], [0, 0]], constant_values=value)
        return tf.nn.conv2d(padded, weights, 1, "VALID")

    def scales(self) -> np.ndarray:
        drawn = np.random.default_rng(self.seed + 1).uniform(0.01, 2, CHANNELS)
        return drawn.astype(np.float32) if self.scaled else np.ones(CHANNELS, np.float32)

    def network(self, x: tf.Tensor) -> tf.Tensor:
        kernel = np.random.default_rng(self.seed).choice([-1, 1], (3, 3, INPUTS, CHANNELS)).astype(np.float32)
        sums = tf.nn.conv2d(lq.math.sign(x), tf.constant(kernel * self.scales()), 1, "SAME")
        return self.reads(lq.math.sign(self.chain(sums)))

    def without_convolution(self, x: tf.Tensor) -> tf.Tensor:
        return self.reads(lq.math.sign(self.chain(x)))


def _norm(x: tf.Tensor, gamma: tf.Tensor, beta: tf.Tensor, mean: tf.Tensor, variance: tf.Tensor) -> tf.Tensor:
    return tf.compat.v1.nn.fused_batch_norm(
        x, tf.cast(gamma, tf.float32), beta, tf.cast(mean, tf.float32), variance, epsilon=1e-3, is_training=False
    )[0]


def cases() -> st.SearchStrategy[Case]:
    steps = st.lists(st.sampled_from(STEPS), max_size=5).map(tuple)
    return st.builds(Case, steps, st.integers(0, 2**16), st.booleans(), st.sampled_from(["zeros", "ones", "other"]))


def every_sum() -> np.ndarray:
    """Float32 [N, H, W, C]: maps of one sum, all of them; and maps of mixed ones, for pools."""
    alike = np.broadcast_to(np.arange(-MOST, MOST + 1.0)[:, None, None, None], (2 * MOST + 1, SIZE, SIZE, CHANNELS))
    mixed = np.random.default_rng(0).integers(-MOST, MOST + 1, alike.shape)
    return np.concatenate([alike, mixed]).astype(np.float32)


def fed(graph: Graph, tensor: str, value: np.ndarray) -> np.ndarray:
    """What the graph makes of `value` in a tensor's place."""
    with tf.Graph().as_default() as program:
        tf.import_graph_def(graph_def(graph), name="")
        image = np.zeros(graph[graph.inputs[0]].shape or (), np.float32)
        with tf.compat.v1.Session(graph=program, config=plain_run()) as session:
            result: np.ndarray = session.run("logits:0", {f"{tensor}:0": value, f"{graph.inputs[0]}:0": image})
    return result


def folded(case: Case) -> tuple[Graph, Node]:
    """The folded network for `every_sum`, and its first convolution."""
    graph = graph_of(case.network, (len(every_sum()), SIZE, SIZE, INPUTS), tf.float32)
    fold(graph)
    return graph, next(node for node in graph.ordered() if node.op == "Conv2D")


@settings(max_examples=60, deadline=None)
@given(cases())
@example(Case(("whole_norm",), 1))
@example(Case(("whole_norm", "pool", "scale", "relu", "whole_norm"), 2, True, "zeros"))
@example(Case(("negative", "pool", "negative", "pool", "whole_shift"), 3, False, "zeros"))
@example(Case((), 4, True))
def test_every_whole_sum_has_keras_sign(case: Case) -> None:
    graph, convolution = folded(case)
    sums = every_sum()
    expected = case.reads(lq.math.sign(case.chain(tf.constant(sums * case.scales())))).numpy()
    np.testing.assert_array_equal(fed(graph, convolution.name, sums), expected)


@settings(max_examples=30, deadline=None)
@given(cases())
@example(Case(("whole_norm", "relu", "whole_shift", "prelu"), 1, True))
def test_no_whole_sum_is_near_its_threshold(case: Case) -> None:
    """Half a sum away at least: no way to multiply and add can miss that. ReLUs are gone."""
    graph, convolution = folded(case)
    assert count(graph, "Relu", "Prelu") == 0
    signs = [node for node in graph.nodes.values() if node.op == SIGN]
    last = graph[signs[-1].inputs[0]]
    if case.steps and last.op == AFFINE and "pool" not in case.steps:
        assert last.inputs[0] == convolution.name
        sums = every_sum().reshape(-1, CHANNELS).astype(np.float64)
        away = np.abs(sums * last.scale + last.shift) / np.abs(last.scale)
        assert away.min() > 0.4999


@settings(max_examples=60, deadline=None)
@given(cases())
@example(Case(("relu", "scale"), 5))
@example(Case(("whole_norm",), 6, False, "other"))
def test_any_number_has_keras_sign(case: Case) -> None:
    """Also the numbers next to the threshold, which rounding would turn, and both zeros."""
    shape = (9, SIZE, SIZE, CHANNELS)
    graph = graph_of(case.without_convolution, shape, tf.float32)
    fold(graph)
    values = np.random.default_rng(case.seed).normal(0, 5, shape).astype(np.float32)
    values[0], values[1] = 0, -0.0
    for affine in (node for node in graph.nodes.values() if node.op == AFFINE):
        threshold = (-affine.shift / affine.scale).astype(np.float32)
        # What is next to 0 counts as 0, and nothing is beyond 2^100.
        usual = (np.abs(threshold) > 1e-20) & (np.abs(threshold) < 1e20)
        threshold = np.where(usual, threshold, np.float32(1))
        below, above = (np.nextafter(threshold, np.float32(far)) for far in (-np.inf, np.inf))
        values[2:8] = np.stack([below, threshold, above, -below, -threshold, -above])[:, None, None]
    expected = case.without_convolution(tf.constant(values)).numpy()
    np.testing.assert_array_equal(run(graph, values), expected)
    if case.reader == "zeros" and "pool" not in case.steps:
        assert additions_and_products(graph) <= 1


@pytest.mark.parametrize(("reader", "left"), [("zeros", 1), ("ones", 2), ("other", 2)])
def test_a_negative_scale_goes_into_the_kernel_that_pads_with_zeros_only(reader: str, left: int) -> None:
    case = Case(("norm",), 11, reader=reader)
    graph = graph_of(lambda x: case.without_convolution(tf.nn.relu(x)), (2, SIZE, SIZE, CHANNELS), tf.float32)
    fold(graph)
    assert additions_and_products(graph) == left


def test_a_positive_scale_in_front_of_a_sign_vanishes() -> None:
    def function(x: tf.Tensor) -> tf.Tensor:
        return lq.math.sign(tf.nn.softsign(x) * tf.constant([0.1, 1.0, 2.0, 3.0]))

    graph = graph_of(function, (1, SIZE, SIZE, CHANNELS), tf.float32)
    fold(graph)
    assert count(graph, AFFINE) == 0


@pytest.mark.parametrize(
    "steps", [("norm",), ("norm", "relu", "pool", "norm"), ("pool", "dead_norm"), ("relu", "norm")]
)
def test_a_float_convolution_takes_all_and_keeps_its_size(steps: tuple[str, ...]) -> None:
    """A threshold that is never reached would be 2^100, and one of an unscaled sum far from the others: int8 has one
    range for all channels."""
    case = Case(steps, 9)
    kernel = np.random.default_rng(9).normal(0, 1, (3, 3, CHANNELS, CHANNELS)) * [0.01, 1, 10, 100]

    def function(x: tf.Tensor) -> tf.Tensor:
        return case.without_convolution(tf.nn.conv2d(x, tf.constant(kernel, tf.float32), 1, "SAME"))

    graph = graph_of(function, (40, SIZE, SIZE, CHANNELS), tf.float32)
    fold(graph)
    assert additions_and_products(graph) == 0 == count(graph, "Relu")
    assert all(np.max(np.abs(node.shift)) < 100 for node in graph.nodes.values() if node.op == AFFINE)
    values = np.random.default_rng(9).normal(0, 5, (40, SIZE, SIZE, CHANNELS)).astype(np.float32)
    assert np.mean(run(graph, values) != function(tf.constant(values)).numpy()) < 1e-3


def test_what_is_read_by_others_too_stays() -> None:
    """Behind a batch norm with a shortcut the sum is a float: no threshold can be moved."""

    def function(x: tf.Tensor) -> tf.Tensor:
        normed = Case(("norm",), 3).chain(tf.nn.relu(x))
        return tf.concat([lq.math.sign(normed), normed], axis=-1)

    graph = graph_of(function, (2, SIZE, SIZE, CHANNELS), tf.float32)
    fold(graph)
    assert additions_and_products(graph) == 2
    values = np.random.default_rng(0).normal(0, 5, (2, SIZE, SIZE, CHANNELS)).astype(np.float32)
    np.testing.assert_allclose(run(graph, values), function(tf.constant(values)).numpy(), rtol=1e-5, atol=1e-5)


def test_a_chain_that_turns_back_is_left() -> None:
    """A PReLU with a negative slope falls and rises."""

    def function(x: tf.Tensor) -> tf.Tensor:
        bent = tf.nn.relu(x) + tf.constant([0.5, -0.5, 1.0, -2.0]) * tf.nn.relu(-x)
        return lq.math.sign(bent - 1.0)

    graph = graph_of(function, (1, SIZE, SIZE, CHANNELS), tf.float32)
    fold(graph)
    assert count(graph, "Prelu") == 1
    values = np.random.default_rng(0).normal(0, 3, (1, SIZE, SIZE, CHANNELS)).astype(np.float32)
    np.testing.assert_array_equal(run(graph, values), function(tf.constant(values)).numpy())
