"""Each rule alone: it is exact mathematics, and does not fire where it would not be."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import example, given, settings

from bssl_tf.backend import lq, tf
from bssl_tf_converters.lce.folding import fold
from bssl_tf_converters.lce.folding.affine_chains import (
    fold_into_kernels,
    lower_affines,
    merge_affines,
    raise_affines,
)
from bssl_tf_converters.lce.folding.constants import fold_constants
from bssl_tf_converters.lce.folding.graph import AFFINE, CONST, Graph
from bssl_tf_converters.lce.folding.kernel_scales import postpone_scales, pull_kernel_scales
from bssl_tf_converters.lce.folding.stored_shifts import store_shifts
from tests.converters.lce.folding_graphs import (
    SHAPE,
    Function,
    Layers,
    additions_and_products,
    assert_same,
    count,
    function_of,
    functions,
    graph_of,
    images,
    recognised,
    run,
)

Rule = Callable[[Graph], bool]


@settings(max_examples=40, deadline=None)
@given(functions())
@example((["shift", "reactnet", "reactnet", "max_pool", "side_by_side", "reactnet"], 1, True))
@example((["norm", "binary", "relu", "norm", "residual_sum", "average_pool", "threshold"], 2, False))
def test_folding_changes_no_function_and_adds_no_operator(drawn: tuple[list[str], int, bool]) -> None:
    function = function_of(*drawn)
    graph = recognised(function)
    before = additions_and_products(graph)
    fold(graph)
    assert additions_and_products(graph) <= before
    assert_same(graph, function)
    # Nothing is left to do.
    for rule in (pull_kernel_scales, merge_affines, fold_into_kernels, store_shifts, fold_constants):
        assert not rule(graph), rule.__name__


def check_rule(rule: Rule, function: Function, *, fires: bool = True, merge: bool = False) -> Graph:
    """The graph after `rule`, which is exact and adds no operator; before it, chains are merged if `merge`."""
    graph = recognised(function)
    if merge:
        merge_affines(graph)
    operators = additions_and_products(graph)
    assert rule(graph) is fires
    assert additions_and_products(graph) <= operators
    assert_same(graph, function)
    return graph


def test_a_kernels_scale_goes_behind_it() -> None:
    graph = check_rule(pull_kernel_scales, function_of(["binary"], 3, False))
    graph.sweep()
    kernels = [node.value for node in graph.nodes.values() if node.op == CONST and node.value.ndim == 4]
    assert all(np.all(np.abs(kernel) == 1) for kernel in kernels)


@pytest.mark.parametrize("broken", ["zeros", "one zero", "another size", "no signs"])
def test_a_kernel_that_is_no_scaled_sign_stays(broken: str) -> None:
    kernel = np.tile(np.array([0.5, -0.25, 1.0, 2.0]), (3, 3, 4, 1))
    if broken == "zeros":
        kernel[..., 1] = 0
    elif broken == "one zero":
        kernel[0, 0, 0, 1] = 0
    elif broken == "another size":
        kernel[0, 0, 0, 1] = 0.3

    def function(x: tf.Tensor) -> tf.Tensor:
        return tf.nn.conv2d(x if broken == "no signs" else lq.math.sign(x), tf.constant(kernel), 1, "SAME")

    check_rule(pull_kernel_scales, function, fires=False)


def test_a_scale_goes_past_the_relu_that_lce_fuses() -> None:
    def function(x: tf.Tensor, scale: float = 0.5) -> tf.Tensor:
        kernel = tf.constant(np.sign(Layers(0).kernel(1, 1, 4, 4)))
        return tf.nn.relu(
            tf.nn.conv2d(lq.math.sign(x), kernel, 1, "SAME") * tf.constant([1.0, 2.0, 3.0, scale], x.dtype)
        )

    graph = check_rule(postpone_scales, function)
    assert graph["logits"].inputs and graph[graph["logits"].inputs[0]].op == AFFINE
    for scale in (0.0, -1.0):
        check_rule(postpone_scales, lambda x, scale=scale: function(x, scale), fires=False)  # type: ignore[misc]


def test_chains_become_one_product_and_one_sum() -> None:
    graph = check_rule(merge_affines, function_of(["shift", "quotient", "difference", "norm"], 5, False))
    assert count(graph, AFFINE) == 1


def test_a_value_that_is_used_elsewhere_is_computed_once() -> None:
    def function(x: tf.Tensor) -> tf.Tensor:
        layers = Layers(4)
        used = layers.positive_scale(tf.nn.relu(x))
        return tf.concat([layers.shift(used), tf.nn.softmax(used)], axis=-1)

    check_rule(merge_affines, function, fires=False)


def conv_then(*steps: str) -> Function:
    return function_of(["convolution", *steps], 7, False)


@pytest.mark.parametrize(
    ("steps", "left"),
    [
        (["max_pool", "positive_scale", "shift"], 0),
        (["average_pool", "mixed_scale", "shift"], 0),
        (["average_pool", "max_pool", "average_pool", "norm"], 0),
        (["norm", "relu", "norm"], 1),
        (["norm", "prelu", "norm"], 1),
        (["norm", "prelu", "max_pool", "quotient"], 0),
    ],
)
def test_products_and_sums_go_up_to_the_convolution(steps: list[str], left: int) -> None:
    function = conv_then(*steps)
    graph = recognised(function)
    while any([merge_affines(graph), raise_affines(graph)]):
        pass
    assert additions_and_products(graph) == left
    assert_same(graph, function)


@pytest.mark.parametrize(
    "function",
    [
        conv_then("max_pool", "mixed_scale"),
        conv_then("max_pool", "average_pool", "mixed_scale"),
        conv_then("norm", "prelu", "mixed_scale"),
        conv_then("norm", "relu", "shift"),
        # A convolution that is far away, behind a sum.
        conv_then("residual_sum", "max_pool", "positive_scale"),
        function_of(["max_pool", "positive_scale"], 7, False),
    ],
)
def test_what_would_not_be_equal_or_not_be_cheaper_does_not_go_up(function: Function) -> None:
    graph = recognised(function)
    while merge_affines(graph):
        pass
    assert not raise_affines(graph)


def test_a_concatenation_of_convolutions_is_split() -> None:
    def function(x: tf.Tensor) -> tf.Tensor:
        layers = Layers(8)
        return layers.norm(tf.concat([layers.convolution(x), layers.max_pool(layers.pointwise(x))], axis=-1))

    graph = recognised(function)
    while any([merge_affines(graph), raise_affines(graph)]):
        pass
    assert additions_and_products(graph) == 0
    assert_same(graph, function)


@pytest.mark.parametrize(
    ("steps", "left"),
    [
        # Padded pixels are 0, whatever is added to the others: the sum stays, the product goes.
        (["mixed_scale", "shift", "convolution"], 1),
        (["mixed_scale", "convolution"], 0),
        (["norm", "pointwise"], 0),
        (["zero_scale", "shift", "pointwise"], 0),
        (["norm", "depthwise"], 0),
    ],
)
def test_the_inputs_normalisation_goes_into_the_kernel(steps: list[str], left: int) -> None:
    function = function_of(steps, 10, False)
    graph = recognised(function)
    merge_affines(graph)
    assert fold_into_kernels(graph)
    assert additions_and_products(graph) == left
    assert_same(graph, function)


def test_a_padded_convolution_does_not_take_a_scale_of_zero_with_its_sum() -> None:
    graph = recognised(function_of(["zero_scale", "shift", "convolution"], 10, False))
    merge_affines(graph)
    assert not fold_into_kernels(graph)


def test_valid_padding_takes_the_whole_normalisation() -> None:
    def function(x: tf.Tensor) -> tf.Tensor:
        layers = Layers(11)
        return layers.convolution(layers.norm(x), "VALID")

    graph = recognised(function)
    merge_affines(graph)
    assert fold_into_kernels(graph)
    assert additions_and_products(graph) == 0
    assert_same(graph, function)


def test_what_is_left_is_added_behind_the_pool() -> None:
    graph = check_rule(
        lower_affines, lambda x: tf.nn.softmax(tf.reduce_mean(Layers(1).shift(tf.nn.relu(x)), axis=[1, 2]))
    )
    affine = next(node for node in graph.nodes.values() if node.op == AFFINE)
    assert affine.shape == (2, 4)


@pytest.mark.parametrize(
    ("steps", "left"),
    [
        # Thresholds along a chain of sums all vanish: each is stored with the next one's.
        (["convolution", *["residual_sum"] * 4], 0),
        # A PReLU gives what it gives, so that one addition stands in front of each next sign.
        (["convolution", *["reactnet"] * 4, "residual_sum"], 4),
        (["convolution", "norm", "max_pool", "shift", "binary"], 0),
        (["convolution", "side_by_side"], 0),
        (["relu", "shift", "binary"], 1),
        (["relu", "shift", "sum_of_two", "shift", "binary"], 1),
    ],
)
def test_shifts_are_stored_where_they_are_free(steps: list[str], left: int) -> None:
    function = function_of(steps, 12, False)
    graph = recognised(function)
    while any([merge_affines(graph), store_shifts(graph)]):
        pass
    assert additions_and_products(graph) == left
    assert_same(graph, function)


def test_a_norm_behind_a_shift_that_a_sign_reads_too_takes_it_in() -> None:
    def function(x: tf.Tensor) -> tf.Tensor:
        layers = Layers(14)
        shifted = layers.shift(tf.nn.relu(x))
        return tf.nn.softmax(layers.norm(shifted)) + layers.binary(layers.shift(shifted))

    graph = recognised(function)
    while merge_affines(graph):
        pass
    assert additions_and_products(graph) == 1 + 2 + 1
    assert store_shifts(graph)
    assert additions_and_products(graph) == 2 + 1
    assert_same(graph, function)


def test_shifts_of_one_tensor_do_not_lean_on_each_other() -> None:
    def function(x: tf.Tensor) -> tf.Tensor:
        layers = Layers(13)
        x = tf.nn.relu(x)
        both = layers.shift(x) + layers.shift(x)
        return tf.nn.softmax(both + layers.shift(x))

    graph = recognised(function)
    fold(graph)
    assert_same(graph, function)


@pytest.mark.parametrize(("threshold", "left"), [(1.0, 0), (1e7, 1)])
def test_a_threshold_that_no_number_reaches_costs_the_others_no_digits(threshold: float, left: int) -> None:
    """A channel whose batch norm has died; in float32, where 1e7 would leave none behind the point."""

    def function(x: tf.Tensor) -> tf.Tensor:
        layers = Layers(15)
        x = layers.convolution(x)
        signed = lq.math.sign(x + tf.constant([0.0, threshold, 0.5, -0.5]))
        return tf.nn.relu(layers.pointwise(x)) + tf.nn.conv2d(signed, tf.ones([1, 1, 4, 4]), 1, "SAME")

    graph = graph_of(function, SHAPE, tf.float32)
    fold(graph)
    assert additions_and_products(graph) == left
    image = images(SHAPE, np.float32)
    np.testing.assert_allclose(run(graph, image), function(tf.constant(image)).numpy(), rtol=0, atol=1e-4)
