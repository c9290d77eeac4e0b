"""Counting MACs, weights and memory: against Keras, against LCE's networks, and against slow definitions."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from typing import Any

import ai_edge_litert.schema_py_generated as schema
import numpy as np
import pytest
from flatbuffers import flexbuffers
from hypothesis import given, settings
from hypothesis import strategies as st

from bssl_tf.backend import keras, tf
from bssl_tf.models.counts import count
from bssl_tf.models.registry import build_backbone
from bssl_tf_converters.lce import converter as lce
from bssl_tf_converters.lce.deployable import with_classifier
from bssl_tf_converters.lce.export import Converted
from bssl_tf_converters.lce.float_reference import convert_float
from bssl_tf_converters.tflite.inspection import Inspection, alive_bytes, inspect_model, layer_name
from bssl_tf_converters.tflite.macs import attribute, count_macs
from bssl_tf_converters.tflite.model import Operator, Tensor, TfliteModel
from bssl_tf_deploy.quiet import captured_output
from tests.converters.networks import backbone
from tests.converters.tflite.tflite_files import Op, T, model_file
from tests.lce_models import Network, cases, written_networks

BUILTIN = schema.BuiltinOperator
TYPE = schema.TensorType


def classifier(model: keras.Model) -> keras.Model:
    width = model.output_shape[-1]
    return with_classifier(model, np.ones((width, 10), np.float32), np.zeros(10, np.float32))


def check_against_keras(content: bytes, model: keras.Model) -> Inspection:
    found, wanted = inspect_model(content), count(model)
    assert found.macs == {"binary": wanted.binary_macs, "float": wanted.float_macs, "integer": 0}
    assert found.weight_bytes["binary"] * 8 == wanted.binary_parameters
    assert found.unknown_macs == 0
    return found


def test_a_binary_network_costs_what_its_keras_layers_say(converted: Converted) -> None:
    size, channels = converted.inputs[0].shape[2:]
    found = check_against_keras(converted.model, classifier(backbone(size, channels)))
    assert sum(found.weight_bytes.values()) == converted.report.weight_bytes
    assert found.histogram == converted.report.operators
    assert found.inputs[0].shape == converted.inputs[0].shape


def test_its_float_twin_costs_the_same_in_float() -> None:
    model = classifier(backbone(28, 1))
    found, wanted = inspect_model(convert_float(model)), count(model)
    assert found.macs == {"binary": 0, "float": wanted.binary_macs + wanted.float_macs, "integer": 0}
    assert found.weight_bytes["binary"] == 0
    assert found.weight_bytes["float"] > 4 * wanted.binary_parameters


def test_depthwise_and_strided_convolutions_count_as_in_keras() -> None:
    keras.utils.set_random_seed(7)
    model = classifier(build_backbone("quicknet_tiny", 32, 3, {}))
    check_against_keras(lce.convert(model, "arm64"), model)


@pytest.mark.slow
def test_reactnet_a_has_the_macs_of_the_paper() -> None:
    """4.82 G binary and 12 M float ones at 224 px, which arXiv 2003.03488 calls BOPs and FLOPs."""
    keras.utils.set_random_seed(7)
    model = build_backbone("reactnet_a", 224, 3, {})
    dense = np.random.default_rng(0).normal(0, 1, (model.output_shape[-1], 1000)).astype(np.float32)
    model = with_classifier(model, dense, np.zeros(1000, np.float32))
    found = check_against_keras(lce.convert(model, "arm64"), model)
    assert found.macs["binary"] == pytest.approx(4.82e9, rel=1e-3)
    assert found.macs["float"] == pytest.approx(11.9e6, rel=1e-2)


def binary_macs_of(network: Network) -> int:
    """By the definition of a convolution, layer by layer; for networks of plain blocks."""
    height, width, channels = network.image
    macs = 0
    for block in network.blocks:
        sizes = []
        for size, kernel in ((height, block.kernel[0]), (width, block.kernel[1])):
            span = (kernel - 1) * block.dilation + 1
            sizes.append(len(range(0, size - span + 1 if block.padding == "valid" else size, block.stride)))
        height, width = sizes
        for _ in range(block.channels):  # each looks at the channels of its group
            macs += height * width * math.prod(block.kernel) * (channels // block.groups)
        channels = block.channels
    return macs


LCE_NETWORKS = ["odd channels", "groups of 3", "chain", "chain groups", "stride 2 valid", "dilation valid", "int8"]


def test_packed_channels_groups_strides_and_dilation_count_as_they_are_in_lce() -> None:
    networks = [network for network in written_networks() if network.name in LCE_NETWORKS]
    assert len(networks) == len(LCE_NETWORKS)
    for case in cases(networks):
        if not case.resized:
            found = inspect_model(case.content)
            assert found.macs == {"binary": binary_macs_of(case.network), "float": 0, "integer": 0}, case.name


def weights(*shape: int) -> tf.Tensor:
    return tf.constant(np.random.default_rng(0).normal(0, 1, shape).astype(np.float32))


# Input, what is done with it, and its MACs out of the arguments alone.
STOCK: dict[str, tuple[tuple[int, ...], Callable[[Any], Any], int]] = {
    "grouped": ((1, 6, 5, 8), lambda x: tf.nn.conv2d(x, weights(3, 3, 2, 12), 1, "SAME"), 6 * 5 * 12 * 9 * 2),
    "depthwise, two each": (
        (1, 6, 5, 8),
        lambda x: tf.nn.depthwise_conv2d(x, weights(3, 2, 8, 2), [1, 1, 1, 1], "VALID"),
        4 * 4 * 16 * 3 * 2,
    ),
    "transposed": (
        (1, 4, 3, 8),
        lambda x: tf.nn.conv2d_transpose(x, weights(3, 3, 5, 8), (1, 8, 6, 5), 2, "SAME"),
        4 * 3 * 8 * 9 * 5,
    ),
    "3-D": (
        (1, 4, 5, 6, 3),
        lambda x: tf.nn.conv3d(x, weights(2, 3, 3, 3, 7), [1, 1, 1, 1, 1], "SAME"),
        4 * 5 * 6 * 7 * 18 * 3,
    ),
    "3-D transposed": (
        (1, 2, 3, 4, 3),
        lambda x: tf.nn.conv3d_transpose(x, weights(2, 2, 2, 5, 3), (1, 4, 6, 8, 5), [1, 2, 2, 2, 1], "SAME"),
        2 * 3 * 4 * 3 * 8 * 5,
    ),
    "matrix product of two inputs": (
        (2, 5, 7),
        lambda x: tf.matmul(x, x, transpose_b=True),
        2 * 5 * 5 * 7,
    ),
    "transposed matrix product": ((2, 5, 7), lambda x: tf.matmul(x, x, transpose_a=True), 2 * 7 * 7 * 5),
    "dense": ((3, 20), lambda x: tf.matmul(x, weights(20, 4)), 3 * 20 * 4),
    "nothing that counts": ((1, 4, 4, 3), lambda x: tf.nn.relu(tf.nn.avg_pool2d(x, 2, 2, "SAME") * 3.0 + 1.0), 0),
}


@pytest.mark.parametrize("name", STOCK)
def test_stock_operators_count_as_defined(name: str) -> None:
    shape, function, wanted = STOCK[name]
    signature = [tf.TensorSpec(shape, tf.float32)]
    with captured_output():
        concrete = tf.function(function, input_signature=signature).get_concrete_function()
        content = tf.lite.TFLiteConverter.from_concrete_functions([concrete]).convert()
    found = inspect_model(content)
    assert found.macs == {"binary": 0, "float": wanted, "integer": 0}, found.histogram
    assert found.unknown_macs == 0


def bconv_file(options: bytes | None) -> bytes:
    """An `LceBconv2d` of 33 channels, packed into two words, that makes 40, packed too."""
    kernel = T((40, 3, 3, 2), TYPE.INT32, "kernel", bytes(40 * 9 * 2 * 4))
    tensors = [T((1, 5, 6, 2), TYPE.INT32), kernel, T((1, 5, 6, 2), TYPE.INT32)]
    return model_file(tensors, [Op("LceBconv2d", [0, 1], [2], options)], [0], [2])


def test_options_that_cannot_be_read_make_macs_unknown_not_nought() -> None:
    good = bytes(flexbuffers.Dumps({"channels_in": 33, "stride_height": 1}))
    found = inspect_model(bconv_file(good))
    assert (found.macs["binary"], found.unknown_macs) == (5 * 6 * 40 * 9 * 33, 0)
    for channels in (0, -5, 64 + 1, 2**40, "many", 33.5, [33]):
        options = bytes(flexbuffers.Dumps({"channels_in": channels}))
        assert inspect_model(bconv_file(options)).unknown_macs == 1, channels
    for garbled in (None, b"", b"\0", good[:-1], bytes(300), b"\xff" * 300, bytes(2**17) + good):
        assert inspect_model(bconv_file(garbled)).unknown_macs == 1, garbled


@settings(max_examples=300, deadline=2000)
@given(data=st.data())
def test_garbled_options_give_an_integer_or_nothing(data: st.DataObject) -> None:
    content = bytearray(flexbuffers.Dumps({"channels_in": 33, "padding": 1, "name": "x", "deep": {"a": [1, 2]}}))
    for _ in range(data.draw(st.integers(1, 5))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    options = bytes(content[: data.draw(st.integers(0, len(content)))]) if data.draw(st.booleans()) else bytes(content)
    found = attribute(Operator("LceBconv2d", True, (), (), options), "channels_in")
    assert found is None or isinstance(found, int)


def test_what_is_not_known_is_not_nought() -> None:
    tensors = [T((1, 4)), T((1, 4)), T((1, 4)), T((1, 4))]
    operators = [Op("FlexErf", [0], [1]), Op(BUILTIN.WHILE, [1], [2]), Op(BUILTIN.ADD, [1, 2], [3])]
    found = inspect_model(model_file(tensors, operators, [0], [3], graphs=3))
    assert [one.macs for one in found.operators] == [None, None, 0]
    assert (found.unknown_macs, found.graphs) == (2, 3)
    newer = inspect_model(model_file(tensors, [Op(230, [0], [1])], [0], [1]))
    assert newer.histogram == {"BUILTIN_230": 1} and newer.unknown_macs == 1


def test_shapes_that_do_not_go_together_are_not_known() -> None:
    def tensor(*shape: int) -> Tensor:
        return Tensor(0, "", shape, shape, "float32")

    for name, inputs, output in (
        ("CONV_2D", (tensor(1, 4, 4, 3), tensor(3, 3)), tensor(1, 4, 4, 3)),
        ("CONV_2D", (tensor(1, 4, 4, 3), None), tensor(1, 4, 4, 3)),
        ("CONV_2D", (), tensor(1, 4, 4, 3)),
        ("TRANSPOSE_CONV", (tensor(4), tensor(3, 3, 3, 3)), tensor(1, 4, 4, 3)),
        ("BATCH_MATMUL", (tensor(3), tensor(3)), tensor(1)),
        ("BATCH_MATMUL", (tensor(5, 7), tensor(7, 2)), tensor(4, 2)),
    ):
        assert count_macs(Operator(name, False, inputs, (output,))) is None, name
    assert count_macs(Operator("CONV_2D", False, (), ())) is None


def test_sizes_that_are_not_known_count_as_one() -> None:
    kernel = T((4, 20), TYPE.INT8, "kernel", bytes(80))
    dense = T((1, 4), TYPE.INT8, signature=(-1, 4))
    content = model_file(
        [T((1, 20), TYPE.INT8, signature=(-1, 20)), kernel, dense],
        [Op(BUILTIN.FULLY_CONNECTED, [0, 1], [2])],
        [0],
        [2],
    )
    found = inspect_model(content)
    assert found.dynamic and found.inputs[0].shape == (-1, 20)
    assert found.macs == {"binary": 0, "float": 0, "integer": 80}
    assert found.peak_bytes == 24


def test_several_inputs_types_without_a_size_and_halves_of_a_byte() -> None:
    tensors = [T((3,), TYPE.STRING), T((5,), TYPE.INT4), T((5,), TYPE.INT4, data=bytes(3)), T((2,), TYPE.BOOL)]
    found = inspect_model(model_file(tensors, [Op("Custom", [0, 1, 2], [3])], [0, 1], [3, 0]))
    assert (found.peak_bytes, found.unknown_sizes) == (3 + 2, 1)
    assert found.weight_bytes == {"binary": 0, "float": 0, "integer": 3}
    assert [one.dtype for one in found.inputs] == ["string", "int4"]
    # A type of a newer schema than the reader's.
    assert inspect_model(model_file([T((3,), 77)], [], [0], [0])).outputs[0].dtype == "type77"


def test_a_shared_constant_counts_once_in_all_and_at_each_operator() -> None:
    tensors = [T((3,)), T((3,), data=bytes(12)), T((3,), shared=1), T((3,)), T((3,)), T((9,), data=bytes(36))]
    operators = [Op(BUILTIN.ADD, [0, 1], [3]), Op(BUILTIN.ADD, [3, 2], [4]), Op(BUILTIN.ADD, [1, 2], [4])]
    found = inspect_model(model_file(tensors, operators, [0], [4]))
    assert [one.weight_bytes["float"] for one in found.operators] == [12, 12, 12]
    assert found.weight_bytes == {"binary": 0, "float": 12 + 36, "integer": 0}


def alive_by_definition(model: TfliteModel) -> list[int]:
    """For each operator, each tensor: is it an activation, here already, and here still?"""

    def has(tensors: Any, tensor: Tensor) -> bool:
        return any(other is tensor for other in tensors)

    def touches(operator: Operator, tensor: Tensor) -> bool:
        return has((*operator.inputs, *operator.outputs), tensor)

    sums = []
    for number in range(len(model.operators)):
        total = 0
        for tensor in model.tensors:
            used = any(touches(operator, tensor) for operator in model.operators)
            before = any(touches(operator, tensor) for operator in model.operators[: number + 1])
            after = any(touches(operator, tensor) for operator in model.operators[number:])
            always = has(model.inputs, tensor) or tensor.is_variable
            is_output = has(model.outputs, tensor)
            born = always or before or (is_output and not used)
            if tensor.data is None and born and (always or after or is_output):
                total += math.prod(tensor.shape) * {"float32": 4, "int8": 1, "string": 0}[tensor.dtype]
        sums.append(total)
    return sums


@st.composite
def graphs(draw: st.DrawFn) -> TfliteModel:
    """Any graph, also such as no converter would make."""
    tensors = []
    for index in range(draw(st.integers(1, 9))):
        shape = tuple(draw(st.lists(st.integers(0, 5), max_size=3)))
        dtype = draw(st.sampled_from(["float32", "float32", "int8", "string"]))
        data = b"" if draw(st.integers(0, 4)) == 0 else None
        tensors.append(Tensor(index, "", shape, shape, dtype, data, index, draw(st.integers(0, 9)) == 0))
    some = st.lists(st.sampled_from(tensors), max_size=3).map(tuple)
    operators = draw(st.lists(st.builds(Operator, st.just("ADD"), st.just(False), some, some), max_size=7))
    return TfliteModel(draw(some), draw(some), tuple(operators), tuple(tensors))


@settings(max_examples=300, deadline=None)
@given(graphs())
def test_alive_bytes_are_those_of_the_definition(model: TfliteModel) -> None:
    assert alive_bytes(model) == alive_by_definition(model)


def test_alive_bytes_of_a_chain_with_a_shortcut() -> None:
    """Input 4 B alive throughout; 40 B from operator 0 to the addition; 400 B at 1 and 2; output from 2 on."""
    tensors = [T((1,)), T((10,)), T((100,)), T((1000,)), T((3,))]
    operators = [
        Op(BUILTIN.TILE, [0], [1]),
        Op(BUILTIN.TILE, [1], [2]),
        Op(BUILTIN.ADD, [1, 2], [3]),
        Op(BUILTIN.TILE, [0], [4]),
    ]
    found = inspect_model(model_file(tensors, operators, [0], [3]))
    assert [one.alive_bytes for one in found.operators] == [44, 444, 4444, 4016]
    assert (found.peak_bytes, found.peak_operator) == (4444, 2)


@pytest.mark.parametrize(
    ("operator", "name", "layer"),
    [
        ("CONV_2D", "net/relu/Relu6;net/norm/FusedBatchNormV3;net/block_1/conv/Conv2D", "block_1/conv"),
        ("CONV_2D", "net/relu/Relu6;net/norm/FusedBatchNormV3;net/conv/Conv2D1", "conv"),
        ("DEPTHWISE_CONV_2D", "net/a_relu/Relu6;net/a/depthwise;;net/a_pad/Pad", "a"),
        ("FULLY_CONNECTED", "net/dense/MatMul;net/dense/BiasAdd", "dense"),
        ("LceBconv2d", "net/norm_3/FusedBatchNormV3;net/quant_con", "norm_3"),
        ("ADD", "net/relu/Relu;net/conv_add/add", "relu"),
        ("LceQuantize", "net/quant_conv2d_2/ste_sign/Sign_1;net/q", "quant_conv2d_2/ste_sign"),
        ("CONV_2D", "conv1/BiasAdd", "conv1"),
        ("SOFTMAX", "StatefulPartitionedCall:0", "StatefulPartitionedCall:0"),
        ("ADD", "model.layer1.0.conv", "model.layer1.0.conv"),
        ("ADD", "", ""),
        ("ADD", ";/;", ""),
    ],
)
def test_layers_have_the_name_that_a_person_knows(operator: str, name: str, layer: str) -> None:
    tensor = Tensor(0, name, (1,), (1,), "float32")
    assert layer_name(Operator(operator, False, (), (tensor,)), "net") == layer


def test_layers_of_a_real_network_are_those_of_keras(grey: Converted) -> None:
    layers = {layer.name for layer in backbone(28, 1).layers}
    named = [one.layer.split("/")[0] for one in inspect_model(grey.model).operators[:-1]]
    assert sum(name in layers for name in named) >= len(named) - 2, named


def test_everything_goes_into_json(grey: Converted) -> None:
    import dataclasses

    found = inspect_model(grey.model)
    assert json.loads(json.dumps(dataclasses.asdict(found)))["macs"]["binary"] == found.macs["binary"]
