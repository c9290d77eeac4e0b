"""Reading flatbuffers: right on real ones, and on garbled ones an error in one line."""

from __future__ import annotations

import dataclasses
import json
import signal
import struct
from collections.abc import Callable
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import ai_edge_litert.schema_py_generated as schema
import numpy as np
import pytest
from flatbuffers import flexbuffers
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bssl_tf.backend import keras
from bssl_tf.errors import ConversionError
from bssl_tf.reports.inspection import WIDTH, table
from bssl_tf_converters.lce.converter import LceInterpreter
from bssl_tf_converters.lce.float_reference import convert_float
from bssl_tf_converters.tflite.inspection import Inspection, inspect_model
from bssl_tf_converters.tflite.model import operator_histogram, read_first_graph, read_model, unpack_binary_kernel
from tests.converters.tflite.tflite_files import Op, T, model_file

BUILTIN = schema.BuiltinOperator
TYPE = schema.TensorType


def test_operators_and_tensors_of_a_real_model(flatbuffer: bytes) -> None:
    content = read_model(flatbuffer)
    binary = [operator for operator in content.operators if operator.name == "LceBconv2d"]
    assert all(operator.is_custom for operator in binary)
    assert [operator.outputs[0].shape for operator in binary] == [(1, 14, 14, 32), (1, 7, 7, 64), (1, 4, 4, 128)]
    assert operator_histogram(flatbuffer)["LceBconv2d"] == 3
    assert list(operator_histogram(flatbuffer)) == sorted(operator_histogram(flatbuffer))
    # 1-bit kernels, and a float stem, dense layer, multipliers and biases.
    kernels = 3 * 3 * (32 * 32 + 32 * 64 + 64 * 128) // 8
    assert kernels < content.weight_bytes < kernels + 12_000


def test_a_kernel_of_another_width_is_refused(flatbuffer: bytes) -> None:
    operator = next(operator for operator in read_model(flatbuffer).operators if operator.name == "LceBconv2d")
    assert unpack_binary_kernel(operator, 32).shape == (32, 3, 3, 32)
    with pytest.raises(ConversionError, match="no kernel for 33 channels"):
        unpack_binary_kernel(operator, 33)


@pytest.mark.parametrize("content", [b"", b"TFL3", b"\x1c\0\0\0TFL3", b"x" * 100, bytes(1000)], ids=range(5))
def test_what_is_no_flatbuffer_is_refused_by_reader_and_interpreter(content: bytes) -> None:
    for read in (read_model, LceInterpreter):
        with pytest.raises(ConversionError, match="not a valid TFLite model") as caught:
            read(content)
        assert "\n" not in str(caught.value)


def test_every_cut_is_refused(flatbuffer: bytes) -> None:
    for length in range(0, len(flatbuffer) - 4, 997):
        with pytest.raises(ConversionError):
            read_model(flatbuffer[:length])


@settings(max_examples=150, deadline=2000, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_garbled_bytes_give_a_model_or_one_line(flatbuffer: bytes, data: st.DataObject) -> None:
    """Offsets and lengths anywhere, most of all at the end, where the graph's tables lie."""
    garbled = bytearray(flatbuffer)
    tables = st.integers(max(0, len(garbled) - 12_000), len(garbled) - 4) | st.integers(0, len(garbled) - 4)
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(tables) // 4 * 4
        value = data.draw(st.integers(0, 2**32 - 1) | st.sampled_from([0, 1, 2**31 - 1, 2**31, 2**32 - 1]))
        struct.pack_into("<I", garbled, at, value)
    try:
        read_model(bytes(garbled))
    except ConversionError as error:
        assert "\n" not in str(error)


def test_lengths_beyond_the_file_do_not_hang() -> None:
    """A vector that says it has four thousand million entries."""
    content = np.zeros(64, np.uint8)
    content[:8] = np.frombuffer(struct.pack("<I4s", 8, b"TFL3"), np.uint8)
    for value in (2**31, 2**32 - 1):
        content[8:].view(np.uint32)[:] = value
        with pytest.raises(ConversionError):
            read_model(content.tobytes())


def test_several_graphs_are_one_clear_line_where_one_is_wanted() -> None:
    content = model_file([T((1, 4)), T((1, 4))], [Op(BUILTIN.RELU, [0], [1])], [0], [1], graphs=2)
    assert read_first_graph(content).graphs == 2
    for read in (read_model, LceInterpreter):
        with pytest.raises(ConversionError, match="has 2 graphs instead of one"):
            read(content)
    without_inputs = model_file([T((1, 4))], [], [], [0])
    assert read_first_graph(without_inputs).inputs == ()
    with pytest.raises(ConversionError, match="no inputs or no outputs"):
        read_model(without_inputs)


def test_a_builtin_operator_with_an_empty_custom_code_is_no_custom_one() -> None:
    model: Any = schema.ModelT.InitFromPackedBuf(
        model_file([T((1, 4)), T((1, 4))], [Op(BUILTIN.RELU, [0], [1])], [0], [1])
    )
    model.operatorCodes[0].customCode = ""
    [operator] = read_model(packed(model)).operators
    assert (operator.name, operator.is_custom) == ("RELU", False)


def test_constants_behind_the_flatbuffer_are_read_or_refused() -> None:
    """Large models keep them there, since a flatbuffer ends at 2 GiB."""
    model: Any = schema.ModelT.InitFromPackedBuf(
        model_file([T((2,)), T((2,), data=bytes(8)), T((2,))], [Op(BUILTIN.ADD, [0, 1], [2])], [0], [2])
    )
    model.buffers[1].data, model.buffers[1].size = None, 8
    model.buffers[1].offset = 2**20
    assert_refused(packed(model) + b"12345678", "beyond the file's end")
    model.buffers[1].offset = len(packed(model))
    assert read_model(packed(model) + b"12345678").tensors[1].data == b"12345678"


def packed(model: Any) -> bytes:
    import flatbuffers

    builder = flatbuffers.Builder(1024)
    builder.Finish(model.Pack(builder), b"TFL3")
    return bytes(builder.Output())


def assert_refused(content: bytes, why: str) -> None:
    with time_limit(20), pytest.raises(ConversionError, match=why) as caught:
        read_first_graph(content)
    assert "\n" not in str(caught.value)


class Hang(BaseException):
    """Not an Exception, so that nothing that is tested can swallow it."""


@contextmanager
def _time_limit(seconds: float) -> Any:
    def stop(*_: object) -> None:
        raise Hang(f"still busy after {seconds} s")

    before = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


time_limit: Callable[[float], AbstractContextManager[None]] = _time_limit


def of_every_kind() -> bytes:
    """A small file with all that the reader looks at, so that a few random bytes hit something."""
    options = bytes(flexbuffers.Dumps({"channels_in": 33, "padding": 1}))
    tensors = [
        T((1, 5, 6, 33), name="serving_default_image:0", signature=(-1, 5, 6, 33)),
        T((1, 5, 6, 2), TYPE.INT32, "net/conv/ste_sign/Sign_1"),
        T((40, 3, 3, 2), TYPE.INT32, "net/conv/kernel", bytes(40 * 9 * 2 * 4)),
        T((1, 5, 6, 40), name="net/conv/Conv2D", signature=(-1, 5, 6, 40)),
        T((1, 5, 6, 40), name="net/add/add"),
        T((3,), TYPE.STRING, "labels"),
        T((7, 40), TYPE.INT8, "net/dense/MatMul", bytes(280)),
        T((7,), TYPE.INT4, "net/bias", bytes(4)),
        T((30, 7), TYPE.INT8, "StatefulPartitionedCall:0", is_variable=True),
    ]
    operators = [
        Op("LceQuantize", [0], [1], bytes(flexbuffers.Dumps({}))),
        Op("LceBconv2d", [1, 2, -1], [3], options),
        Op(BUILTIN.ADD, [3, 3], [4]),
        Op(BUILTIN.FULLY_CONNECTED, [4, 6, 7], [8]),
        Op("FlexErf", [8, 5], [8]),
    ]
    return model_file(tensors, operators, [0, 5], [8], graphs=2)


def mutated(content: bytes, rng: np.random.Generator) -> bytes:
    """Random bytes, cut, a run of zeros, two words swapped, or a word that says something large."""
    changed = bytearray(content)
    # Where tables lie in what LCE writes; constants are most of the rest, and nothing can be wrong with them.
    low = 0 if rng.random() < 0.3 else max(0, len(content) - 12_000)

    def place() -> int:
        return int(rng.integers(low, len(content) - 8)) // 4 * 4

    kind = rng.integers(5)
    if kind == 0:
        for _ in range(rng.integers(1, 9)):
            changed[rng.integers(low, len(content))] = rng.integers(256)
    elif kind == 1:
        del changed[rng.integers(low, len(content)) :]
    elif kind == 2:
        at = place()
        end = min(len(content), at + int(rng.integers(1, 400)))
        changed[at:end] = bytes(end - at)
    elif kind == 3:
        one, other = place(), place()
        changed[one : one + 4], changed[other : other + 4] = changed[other : other + 4], changed[one : one + 4]
    else:
        struct.pack_into("<I", changed, place(), rng.choice([1, 2**16, 2**24, 2**31 - 1, 2**31, 2**32 - 8, 2**32 - 1]))
    return bytes(changed)


def shown(content: bytes) -> Inspection:
    """Through all that the command does; fails if it takes longer than any file of this size may."""
    with time_limit(10):
        found = inspect_model(content)
        json.dumps(dataclasses.asdict(found))
        lines = table("file", found)
    assert max(map(len, lines)) <= WIDTH
    assert all(line.isprintable() for line in lines)
    return found


def test_1500_mutated_files_are_inspected_or_refused_in_one_line(flatbuffer: bytes) -> None:
    image = keras.Input((9, 8, 3))
    x = keras.layers.BatchNormalization()(keras.layers.Conv2D(6, 3, activation="relu")(image))
    x = keras.layers.Dense(5)(keras.layers.Flatten()(keras.layers.DepthwiseConv2D(3, 2)(x)))
    floats = convert_float(keras.Model(image, x))
    rng = np.random.default_rng(20211015)
    for content in (flatbuffer, floats, of_every_kind()):
        shown(content)
        refused = 0
        for _ in range(500):
            try:
                shown(mutated(content, rng))
            except ConversionError as error:
                refused += 1
                assert "\n" not in str(error)
                # The reader's own bounds are to hold before the memory's.
                assert not isinstance(error.__cause__, MemoryError)
        # Both ways out were taken, and often.
        assert 50 < refused < 480, refused


def test_hostile_files_are_bounded_in_time_and_size() -> None:
    relu = [Op(BUILTIN.RELU, [0], [1])]
    # A name of a million characters, and one that steers a terminal.
    names = shown(model_file([T((1, 4), name="a/" * 500_000), T((1,), name="\x1b[2J\n\u202e" * 99)], relu, [0], [1]))
    assert len(names.inputs[0].name) == 500
    # The same long name written by each of many operators.
    tensors = [T((1, 4), name="x" * 100_000), T((1, 4), name="y;z" * 30_000)]
    many = shown(model_file(tensors, [Op("c" * 100_000, [0], [1])] * 2000, [0], [1]))
    assert len(json.dumps(dataclasses.asdict(many))) < 10_000_000
    assert len(table("file", shown(model_file(tensors, relu, [0] * 500, [1])))) < 40
    # More elements than 64 bits can count; and so many operands that none has room for its own.
    assert_refused(model_file([T((2**31 - 1,) * 5), T((1,))], relu, [0], [1]), "which fits into no memory")
    assert_refused(model_file([T((1,) * 17), T((1,))], relu, [0], [1]), "a tensor has shape")
    assert_refused(model_file([T((-1, 4)), T((1,))], relu, [0], [1]), r"a tensor has shape \[-1, 4\]")
    assert_refused(model_file([T((1,)), T((1,))], relu, [0], [1] * 70_000), "longer than that of any network")
    assert_refused(model_file([T((1,)), T((1,))], relu, [0] * 600_000, [1]), "longer than that of any network")
    assert_refused(model_file([T((1,)), T((1,))], [Op(300_000, [0], [1])], [0], [1]), "has the number 300000")
    assert_refused(model_file([T((1,)), T((1,))], [Op(BUILTIN.RELU, [0], [9])], [0], [1]), "there is no item 9")


def test_long_lists_of_zeros_are_bounded() -> None:
    """Zeros are tables without fields wherever one looks; here every offset in turn leads to a list of them."""
    tiny = model_file([T((1,)), T((1,))], [Op(BUILTIN.RELU, [0], [1])], [0], [1])
    content = bytearray(tiny + bytes(2**23))
    operators = []
    for at in range(8, len(tiny) - 4, 4):
        kept = content[at : at + 4]
        struct.pack_into("<I", content, at, len(tiny) - at)
        # Nearly as many as are read, and as many as are not.
        for length in (20_000, 2**20):
            struct.pack_into("<I", content, len(tiny), length)
            try:
                operators.append(len(shown(bytes(content)).operators))
            except ConversionError as error:
                assert not isinstance(error.__cause__, MemoryError)
        content[at : at + 4] = kept
    assert max(operators) == 20_000
