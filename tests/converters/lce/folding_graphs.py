"""Runs functions and their folded graphs side by side, and draws random functions, for the tests of folding."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from hypothesis import strategies as st

from bssl_tf.backend import lq, tf
from bssl_tf_converters.lce.folding.channels import is_free
from bssl_tf_converters.lce.folding.constants import fold_constants, plain_run
from bssl_tf_converters.lce.folding.graph import AFFINE, Graph
from bssl_tf_converters.lce.folding.patterns import affines, drop_identities, recognise
from bssl_tf_converters.lce.folding.reading import read_graph
from bssl_tf_converters.lce.folding.writing import graph_def

Function = Callable[[tf.Tensor], tf.Tensor]
SHAPE = (2, 5, 5, 4)


def graph_of(function: Function, shape: tuple[int, ...], dtype: Any = tf.float64) -> Graph:
    """The inference graph of a function of one tensor [shape], called `image`."""
    signature = [tf.TensorSpec(shape, dtype, name="image")]
    return read_graph(tf.function(function, input_signature=signature).get_concrete_function(), ["logits"])


def run(graph: Graph, image: np.ndarray) -> np.ndarray:
    """What TensorFlow makes of the graph."""
    with tf.Graph().as_default() as program:
        tf.import_graph_def(graph_def(graph), name="")
        # TensorFlow's own rewriting would round sums of +1 and -1.
        with tf.compat.v1.Session(graph=program, config=plain_run()) as session:
            result: np.ndarray = session.run("logits:0", {"image:0": image})
    return result


def additions_and_products(graph: Graph) -> int:
    """Operators that `AFFINE` nodes cost, where no convolution takes them."""
    affines = [node for node in graph.nodes.values() if node.op == AFFINE and not is_free(graph, node)]
    # c - x is one operator.
    return sum(
        1 if np.all(node.scale == -1) else int(np.any(node.scale != 1)) + int(np.any(node.shift != 0))
        for node in affines
    )


def images(shape: tuple[int, ...], dtype: Any = np.float64, seed: int = 0) -> np.ndarray:
    """Normal numbers, a tenth of them 0."""
    rng = np.random.default_rng(seed)
    return np.where(rng.random(shape) < 0.1, 0, rng.normal(0, 2, shape)).astype(dtype)


def recognised(function: Function, shape: tuple[int, ...] = SHAPE) -> Graph:
    """The graph as the rules find it."""
    graph = graph_of(function, shape)
    drop_identities(graph)
    fold_constants(graph)
    recognise(graph)
    affines(graph)
    return graph


def assert_same(graph: Graph, function: Function, shape: tuple[int, ...] = SHAPE) -> None:
    """The rules are exact, so that in float64 only its rounding is left."""
    image = images(shape)
    expected = function(tf.constant(image)).numpy()
    np.testing.assert_allclose(run(graph, image), expected, rtol=0, atol=1e-12 * max(np.max(np.abs(expected)), 1))


def count(graph: Graph, *ops: str) -> int:
    """Nodes of these kinds."""
    return sum(node.op in ops for node in graph.nodes.values())


class Layers:
    """Layers with random constants in float64.

    Scales without a shift are powers of two. They round nothing, so that sums of +1 and -1 which are 0 stay 0: no sign
    hangs on rounding.
    """

    def __init__(self, seed: int) -> None:
        self.rng = np.random.default_rng(seed)

    def vector(self, x: tf.Tensor, low: float = -1.0, high: float = 1.0) -> tf.Tensor:
        """A number for each channel of `x`."""
        return tf.constant(self.rng.uniform(low, high, int(x.shape[-1])), x.dtype)

    def powers_of_two(self, count: int) -> np.ndarray:
        """0.5, 1 or 2 for each of `count` channels."""
        return 2.0 ** self.rng.integers(-1, 2, count)

    def shift(self, x: tf.Tensor) -> tf.Tensor:
        return x + self.vector(x)

    def positive_scale(self, x: tf.Tensor) -> tf.Tensor:
        return x * tf.constant(self.powers_of_two(int(x.shape[-1])), x.dtype)

    def mixed_scale(self, x: tf.Tensor) -> tf.Tensor:
        return self.positive_scale(x) * tf.constant([-1.0, 1.0] * (int(x.shape[-1]) // 2), x.dtype)

    def zero_scale(self, x: tf.Tensor) -> tf.Tensor:
        return self.positive_scale(x) * tf.constant([0.0] + [1.0] * (int(x.shape[-1]) - 1), x.dtype)

    def quotient(self, x: tf.Tensor) -> tf.Tensor:
        return x / tf.constant(self.powers_of_two(int(x.shape[-1])), x.dtype)

    def difference(self, x: tf.Tensor) -> tf.Tensor:
        return self.vector(x) - x

    def norm(self, x: tf.Tensor) -> tf.Tensor:
        """Batch norm; TensorFlow's operator has no float64."""
        factor = self.vector(x, 0.5, 1.5) * tf.math.rsqrt(self.vector(x, 0.5, 1.5) + 1e-3)
        return x * factor + (self.vector(x) - self.vector(x) * factor)

    def pixel_shift(self, x: tf.Tensor) -> tf.Tensor:
        """Another number for each pixel, which no rule may take for one for each channel."""
        return x + tf.constant(self.rng.normal(0, 1, x.shape), x.dtype)

    def relu(self, x: tf.Tensor) -> tf.Tensor:
        return tf.nn.relu(x)

    def prelu(self, x: tf.Tensor) -> tf.Tensor:
        return tf.nn.relu(x) + (-self.vector(x)) * tf.nn.relu(-x)

    def max_pool(self, x: tf.Tensor) -> tf.Tensor:
        return tf.nn.max_pool2d(x, 2, 1, "SAME")

    def average_pool(self, x: tf.Tensor) -> tf.Tensor:
        return tf.nn.avg_pool2d(x, 3, 1, "SAME")

    def kernel(self, *shape: int) -> np.ndarray:
        return self.rng.normal(0, 0.3, shape)

    def convolution(self, x: tf.Tensor, padding: str = "SAME") -> tf.Tensor:
        channels = int(x.shape[-1])
        return tf.nn.conv2d(x, tf.constant(self.kernel(3, 3, channels, channels), x.dtype), 1, padding)

    def pointwise(self, x: tf.Tensor) -> tf.Tensor:
        channels = int(x.shape[-1])
        return tf.nn.conv2d(x, tf.constant(self.kernel(1, 1, channels, channels), x.dtype), 1, "SAME")

    def depthwise(self, x: tf.Tensor) -> tf.Tensor:
        kernel = tf.constant(self.kernel(1, 1, int(x.shape[-1]), 1), x.dtype)
        return tf.nn.depthwise_conv2d(x, kernel, [1, 1, 1, 1], "VALID")

    def binary(self, x: tf.Tensor, pad: float = 1.0) -> tf.Tensor:
        """A binary convolution with a scale for each output channel."""
        channels = int(x.shape[-1])
        signs = tf.pad(lq.math.sign(x), [[0, 0], [1, 1], [1, 1], [0, 0]], constant_values=pad)
        kernel = self.rng.choice([-1.0, 1.0], (3, 3, channels, channels)) * self.powers_of_two(channels)
        return tf.nn.conv2d(signs, tf.constant(kernel, x.dtype), 1, "VALID")

    def threshold(self, x: tf.Tensor) -> tf.Tensor:
        """A binary convolution behind a learned threshold, in the other way to write a sign."""
        channels = int(x.shape[-1])
        one = tf.constant(1.0, x.dtype)
        signs = tf.where(x >= self.vector(x), one, -one)
        kernel = self.rng.choice([-1.0, 1.0], (1, 1, channels, channels))
        return tf.nn.conv2d(signs, tf.constant(kernel, x.dtype), 1, "SAME")

    def residual_sum(self, x: tf.Tensor) -> tf.Tensor:
        return self.norm(self.binary(self.shift(x))) + x

    def sum_of_two(self, x: tf.Tensor) -> tf.Tensor:
        return self.norm(self.binary(x)) + self.shift(self.relu(x))

    def reactnet(self, x: tf.Tensor) -> tf.Tensor:
        """Threshold, binary convolution, batch norm, shortcut, and PReLU between shifts."""
        return self.shift(self.prelu(self.shift(self.residual_sum(x))))

    def halves(self, x: tf.Tensor) -> tf.Tensor:
        """Two branches of the same signs side by side, and each with the shortcut."""
        signed = self.shift(x)
        half = int(x.shape[-1]) // 2
        both = [self.norm(self.binary(signed))[..., :half], (self.norm(self.binary(signed)) + x)[..., half:]]
        return tf.concat(both, axis=-1)

    def side_by_side(self, x: tf.Tensor) -> tf.Tensor:
        doubled = tf.concat([self.norm(self.binary(x)), self.norm(self.convolution(x)) + x], axis=-1)
        channels = int(x.shape[-1])
        kernel = tf.constant(self.kernel(1, 1, 2 * channels, channels), x.dtype)
        return tf.nn.conv2d(self.prelu(self.shift(doubled)), kernel, 1, "SAME")

    def dense(self, x: tf.Tensor) -> tf.Tensor:
        pooled = tf.reduce_mean(x, axis=[1, 2])
        return tf.matmul(pooled, tf.constant(self.kernel(int(x.shape[-1]), 3), x.dtype)) + 1.0


STEPS = sorted(
    name
    for name, member in vars(Layers).items()
    if callable(member) and not name.startswith("_") and name not in ("vector", "powers_of_two", "kernel", "dense")
)


@st.composite
def functions(draw: st.DrawFn) -> tuple[list[str], int, bool]:
    """Names of steps, the seed of their constants, and whether a dense layer ends them."""
    steps = draw(st.lists(st.sampled_from(STEPS), min_size=1, max_size=8))
    return steps, draw(st.integers(0, 2**16)), draw(st.booleans())


def function_of(steps: list[str], seed: int, dense: bool) -> Function:
    """The steps one after the other."""

    def function(x: tf.Tensor) -> tf.Tensor:
        layers = Layers(seed)
        for step in steps:
            x = getattr(layers, step)(x)
        return layers.dense(x) if dense else x

    return function
