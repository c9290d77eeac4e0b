"""Reading flatbuffers: right on real ones, and on garbled ones an error in one line."""

from __future__ import annotations

import struct

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bssl_tf.errors import ConversionError
from bssl_tf_converters.lce import LceInterpreter
from bssl_tf_converters.tflite_model import operator_histogram, read_model, unpack_binary_kernel


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
        with pytest.raises(ConversionError, match="no sound TFLite model") as caught:
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
