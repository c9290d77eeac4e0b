"""Reads a .tflite file without TensorFlow: operators, tensors, constants. Safe on cut or garbled bytes.

The schema's reader (PyPI package `tflite`) follows offsets without a look at where they lead. Everything is therefore
read through `_Reader`, which counts what it reads against the size of the file, so that a garbled length cannot make
it loop for ever; and the indices that an interpreter would follow blindly are checked here.
"""

from __future__ import annotations

import functools
import math
import struct
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import tflite

from bssl_tf.errors import ConversionError

_IDENTIFIER = b"TFL3"
_VERSION = 3
_MAX_RANK = 16
# Bytes of one element, for the types that LCE and TFLite write here.
_ITEM_BYTES = {
    tflite.TensorType.FLOAT32: 4,
    tflite.TensorType.FLOAT16: 2,
    tflite.TensorType.INT32: 4,
    tflite.TensorType.UINT8: 1,
    tflite.TensorType.INT64: 8,
    tflite.TensorType.BOOL: 1,
    tflite.TensorType.INT16: 2,
    tflite.TensorType.INT8: 1,
    tflite.TensorType.FLOAT64: 8,
    tflite.TensorType.UINT32: 4,
}
# What the reader raises when bytes make no sense.
_READER_ERRORS = (struct.error, ValueError, IndexError, KeyError, TypeError, AttributeError, OverflowError, MemoryError)


@dataclass(frozen=True)
class Tensor:
    """A tensor of the graph.

    Attributes:
        name: as stored; the converter cuts long ones.
        shape: with batch size 1.
        dtype: the schema's name in lower case, such as `float32`.
        data: a constant's bytes; None for what is computed.
    """

    name: str
    shape: tuple[int, ...]
    dtype: str
    data: bytes | None


@dataclass(frozen=True)
class Operator:
    """An operator of the graph.

    Attributes:
        name: its custom code (`LceBconv2d`) or the schema's name (`CONV_2D`).
        is_custom: whether it has a custom code.
        inputs: None where an optional one is left out.
        outputs: at least one in a sound model.
    """

    name: str
    is_custom: bool
    inputs: tuple[Tensor | None, ...]
    outputs: tuple[Tensor, ...]


@dataclass(frozen=True)
class TfliteModel:
    """A model's graph.

    Attributes:
        inputs: of the graph.
        outputs: of the graph.
        operators: in the order in which they run.
        weight_bytes: size of all constants.
    """

    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]
    operators: tuple[Operator, ...]
    weight_bytes: int


def read_model(content: bytes) -> TfliteModel:
    """Reads a flatbuffer with one graph.

    Raises:
        ConversionError: it is no sound TFLite flatbuffer.
    """
    try:
        return _Reader(content).model()
    except _READER_ERRORS as error:
        raise ConversionError(
            f"this is no sound TFLite model ({error or type(error).__name__})", "Export it again"
        ) from error


def operator_histogram(content: bytes) -> dict[str, int]:
    """How many operators of each name a flatbuffer has, sorted by name. Raises `ConversionError`."""
    return histogram(read_model(content))


def histogram(model: TfliteModel) -> dict[str, int]:
    """How many operators of each name `model` has, sorted by name."""
    return dict(sorted(Counter(operator.name for operator in model.operators).items()))


class _Reader:
    def __init__(self, content: bytes) -> None:
        # The reader takes negative offsets for offsets from the end; below 2 GiB there are none in a sound file.
        if not 8 <= len(content) < 2**31:
            raise ValueError(f"{len(content)} bytes")
        if content[4:8] != _IDENTIFIER:
            raise ValueError("it does not say TFL3")
        self._content = content
        # Every element of every vector takes at least a byte, so a sound file cannot have more than this.
        self._budget = len(content)
        self._root = tflite.Model.GetRootAsModel(content, 0)

    def model(self) -> TfliteModel:
        if self._root.Version() != _VERSION:
            raise ValueError(f"schema version {self._root.Version()}")
        if self._root.SubgraphsLength() != 1:
            raise ValueError(f"{self._root.SubgraphsLength()} graphs")
        graph = self._root.Subgraphs(0)
        buffers = list(self._objects(self._root.BuffersLength, self._root.Buffers))
        codes = list(self._objects(self._root.OperatorCodesLength, self._root.OperatorCodes))
        names = [self._operator_name(code) for code in codes]
        constants = [self._constant(buffer) for buffer in buffers]
        tensors = [self._tensor(tensor, constants) for tensor in self._objects(graph.TensorsLength, graph.Tensors)]
        operators = tuple(
            Operator(
                _at(names, operator.OpcodeIndex()),
                _at(codes, operator.OpcodeIndex()).CustomCode() is not None,
                tuple(
                    None if index == -1 else _at(tensors, index)
                    for index in self._indices(operator.InputsLength, operator.InputsAsNumpy)
                ),
                tuple(_at(tensors, i) for i in self._indices(operator.OutputsLength, operator.OutputsAsNumpy)),
            )
            for operator in self._objects(graph.OperatorsLength, graph.Operators)
        )
        inputs = tuple(_at(tensors, index) for index in self._indices(graph.InputsLength, graph.InputsAsNumpy))
        outputs = tuple(_at(tensors, index) for index in self._indices(graph.OutputsLength, graph.OutputsAsNumpy))
        if not inputs or not outputs:
            raise ValueError("it has no inputs or no outputs")
        # Tensors may share a buffer.
        used = {id(tensor.data): tensor.data for tensor in tensors if tensor.data is not None}
        return TfliteModel(inputs, outputs, operators, sum(map(len, used.values())))

    def _spend(self, count: int) -> int:
        self._budget -= count
        if count < 0 or self._budget < 0:
            raise ValueError("a length is beyond the file's end")
        return count

    def _objects(self, length: Callable[[], int], get: Callable[[int], Any]) -> Iterator[Any]:
        for index in range(self._spend(length())):
            yield get(index)

    def _indices(self, length: Callable[[], int], get: Callable[[], Any]) -> list[int]:
        # The reader gives the number 0 for a vector that is not there.
        return [int(index) for index in get()] if self._spend(length()) else []

    def _text(self, content: bytes | None) -> str:
        if content is None:
            return ""
        self._spend(len(content))
        return content.decode("utf-8")

    def _operator_name(self, code: Any) -> str:
        # Old files have the code in a field of one byte only; the schema says to take the larger.
        builtin = max(code.BuiltinCode(), code.DeprecatedBuiltinCode())
        if builtin == tflite.BuiltinOperator.CUSTOM:
            name = self._text(code.CustomCode())
            if not name:
                raise ValueError("a custom operator has no name")
            return name
        return _enum_names(tflite.BuiltinOperator)[builtin]

    def _constant(self, buffer: Any) -> bytes | None:
        return buffer.DataAsNumpy().tobytes() if self._spend(buffer.DataLength()) else None

    def _tensor(self, tensor: Any, constants: list[bytes | None]) -> Tensor:
        shape = tuple(self._indices(tensor.ShapeLength, tensor.ShapeAsNumpy))
        if len(shape) > _MAX_RANK or any(size < 0 for size in shape):
            raise ValueError(f"a tensor has shape {list(shape[:_MAX_RANK])}")
        dtype = tensor.Type()
        data: bytes | None = _at(constants, tensor.Buffer())
        if data is not None and dtype in _ITEM_BYTES and len(data) != math.prod(shape) * _ITEM_BYTES[dtype]:
            raise ValueError("a constant is not as long as its shape says")
        return Tensor(self._text(tensor.Name()), shape, _enum_names(tflite.TensorType)[dtype].lower(), data)


@functools.cache
def _enum_names(enum: type) -> dict[int, str]:
    return {value: name for name, value in vars(enum).items() if isinstance(value, int)}


def _at(items: Sequence[Any], index: int) -> Any:
    if not 0 <= index < len(items):
        raise ValueError(f"there is no item {index}")
    return items[index]


def unpack_binary_kernel(operator: Operator, channels_in: int) -> np.ndarray:
    """The kernel of an `LceBconv2d`, bool [O, KH, KW, I], True where it is +1.

    LCE packs 32 input channels into an int32, lowest bit first, a set bit for -1, and fills up the last word.

    Raises:
        ConversionError: the operator has no kernel of that width.
    """
    kernel = operator.inputs[1] if len(operator.inputs) > 1 else None
    words = math.ceil(channels_in / 32)
    if kernel is None or kernel.data is None or len(kernel.shape) != 4 or kernel.shape[3] != words:
        raise ConversionError(f"operator {operator.name} has no kernel for {channels_in} channels", "Export it again")
    packed = np.frombuffer(kernel.data, np.uint8).reshape(*kernel.shape[:3], words * 4)
    return np.unpackbits(packed, axis=-1, count=channels_in, bitorder="little") == 0
