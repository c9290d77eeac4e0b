"""Reads a .tflite file without TensorFlow: operators, tensors, constants. Safe on cut or garbled bytes.

The schema's reader (PyPI package `tflite`) follows offsets without a look at where they lead. Everything is therefore
read through `_Reader`, which counts what it reads, so that a garbled length can make it neither loop for ever nor
fill the memory; and the indices that an interpreter would follow blindly are checked here.
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
from bssl_tf_deploy.files import HEAD_BYTES, standing_in

_IDENTIFIER = b"TFL3"
_VERSION = 3
_MAX_RANK = 16
# Tables (tensors, operators) and numbers in their lists: ten times those of the largest networks, read in seconds.
_MAX_TABLES = 2**16
_MAX_NUMBERS = 2**19
# Bits of one element, by the schema's name; strings and resources have no size of their own.
_ITEM_BITS = {
    **dict.fromkeys(("int4",), 4),
    **dict.fromkeys(("int8", "uint8", "bool"), 8),
    **dict.fromkeys(("int16", "uint16", "float16", "bfloat16"), 16),
    **dict.fromkeys(("int32", "uint32", "float32"), 32),
    **dict.fromkeys(("int64", "uint64", "float64", "complex64"), 64),
    **dict.fromkeys(("complex128",), 128),
}
# What the reader of flatbuffers raises when bytes make no sense.
READER_ERRORS = (struct.error, ValueError, IndexError, KeyError, TypeError, AttributeError, OverflowError, MemoryError)


@dataclass(frozen=True)
class Tensor:
    """A tensor of the graph.

    Attributes:
        index: its place in the graph.
        name: as stored; the converter cuts long ones.
        shape: with 1 for sizes that are not known before it runs.
        signature: the same with -1 for those.
        dtype: the schema's name in lower case, such as `float32`; `type19` for one that is newer than this reader.
        data: a constant's bytes; None for what is computed.
        buffer: where these lie; tensors with the same constant share it.
        is_variable: whether it keeps its value from one run to the next.
    """

    index: int
    name: str
    shape: tuple[int, ...]
    signature: tuple[int, ...]
    dtype: str
    data: bytes | None = None
    buffer: int = 0
    is_variable: bool = False

    @property
    def size_bytes(self) -> int | None:
        """In memory, dense; None for a type whose elements have no fixed size, such as `string`."""
        bits = _ITEM_BITS.get(self.dtype)
        return None if bits is None else -(-math.prod(self.shape) * bits // 8)


@dataclass(frozen=True)
class Operator:
    """An operator of the graph.

    Attributes:
        name: its custom code (`LceBconv2d`) or the schema's name (`CONV_2D`; `BUILTIN_207` where that is newer than
            this reader).
        is_custom: whether the name is a custom code.
        inputs: None where an optional one is left out.
        outputs: at least one in a sound model.
        custom_options: of a custom operator; LCE's are a flexbuffer.
    """

    name: str
    is_custom: bool
    inputs: tuple[Tensor | None, ...]
    outputs: tuple[Tensor, ...]
    custom_options: bytes = b""


@dataclass(frozen=True)
class TfliteModel:
    """A model's graph, the first one where there are several.

    Attributes:
        inputs: of the graph.
        outputs: of the graph.
        operators: in the order in which they run.
        tensors: all of the graph, in the file's order.
        graphs: how many the file has: control flow and further signatures have their own.
    """

    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]
    operators: tuple[Operator, ...]
    tensors: tuple[Tensor, ...]
    graphs: int = 1

    @property
    def weight_bytes(self) -> int:
        """Size of all constants, each counted once."""
        return sum({tensor.buffer: len(tensor.data) for tensor in self.tensors if tensor.data is not None}.values())


def read_model(content: bytes) -> TfliteModel:
    """Reads a flatbuffer with one graph, inputs and outputs.

    Raises:
        ConversionError: it is not a valid TFLite flatbuffer, or of another kind.
    """
    model = read_first_graph(content)
    if model.graphs != 1:
        raise ConversionError(
            f"this TFLite model has {model.graphs} graphs instead of one",
            "Export it again without control flow, and with one signature",
        )
    if not model.inputs or not model.outputs:
        raise ConversionError("this is not a valid TFLite model (it has no inputs or no outputs)", "Export it again")
    return model


def read_first_graph(content: bytes) -> TfliteModel:
    """Reads the first graph of any TFLite flatbuffer, which is the one that an interpreter runs unless told otherwise.

    Raises:
        ConversionError: it is not a valid TFLite flatbuffer.
    """
    try:
        return _Reader(content).first_graph()
    except READER_ERRORS as error:
        # What is not a ValueError is about the reader's own steps.
        cause = error if type(error) is ValueError else "an offset points nowhere; the file may be truncated"
        raise ConversionError(f"this is not a valid TFLite model ({cause})", "Export it again") from error


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
        if (instead := standing_in(content[:HEAD_BYTES])) is not None:
            raise ValueError(f"it is {instead}")
        if content[4:8] != _IDENTIFIER:
            raise ValueError("the identifier TFL3 is missing")
        self._content = content
        self._bytes_left = len(content)
        self._tables_left = _MAX_TABLES
        self._numbers_left = _MAX_NUMBERS
        self._constants: dict[int, bytes | None] = {}
        self._root = tflite.Model.GetRootAsModel(content, 0)

    def first_graph(self) -> TfliteModel:
        if self._root.Version() != _VERSION:
            raise ValueError(f"schema version {self._root.Version()}")
        graphs = self._root.SubgraphsLength()
        # Each takes four bytes at least.
        if not 1 <= graphs <= len(self._content) // 4:
            raise ValueError(f"{graphs} graphs")
        graph = self._root.Subgraphs(0)
        codes = self._tables(self._root.OperatorCodesLength, self._root.OperatorCodes)
        names = [self._operator_name(code) for code in codes]
        tensors = tuple(
            self._tensor(index, tensor) for index, tensor in enumerate(self._tables(graph.TensorsLength, graph.Tensors))
        )
        operators = tuple(
            self._operator(operator, names, tensors)
            for operator in self._tables(graph.OperatorsLength, graph.Operators)
        )
        inputs = tuple(_at(tensors, index) for index in self._numbers(graph.InputsLength, graph.InputsAsNumpy))
        outputs = tuple(_at(tensors, index) for index in self._numbers(graph.OutputsLength, graph.OutputsAsNumpy))
        # Each tensor is written once; a file that says otherwise could make of little bytes much to look at.
        if sum(len(operator.outputs) for operator in operators) + len(inputs) + len(outputs) > _MAX_TABLES:
            raise ValueError("a list is longer than that of any network")
        return TfliteModel(inputs, outputs, operators, tensors, graphs)

    def _tables(self, length: Callable[[], int], get: Callable[[int], Any]) -> Iterator[Any]:
        count = length()
        self._tables_left -= count
        if self._tables_left < 0:
            raise ValueError("a list is longer than that of any network")
        for index in range(count):
            yield get(index)

    def _numbers(self, length: Callable[[], int], get: Callable[[], Any]) -> list[int]:
        count = length()
        self._numbers_left -= count
        if self._numbers_left < 0:
            raise ValueError("a list is longer than that of any network")
        # The reader gives the number 0 for a vector that is not there.
        return [int(number) for number in get()] if count else []

    def _bytes(self, length: Callable[[], int], get: Callable[[], Any]) -> bytes | None:
        count = length()
        self._spend(count)
        return get().tobytes() if count else None

    def _spend(self, count: int) -> None:
        self._bytes_left -= count
        if self._bytes_left < 0:
            raise ValueError("what it claims to hold is longer than the file")

    def _text(self, content: bytes | None) -> str:
        if content is None:
            return ""
        self._spend(len(content))
        return content.decode("utf-8", "replace")

    def _operator_name(self, code: Any) -> tuple[str, bool]:
        # Old files have the code in a field of one byte only; the schema says to take the larger.
        builtin = max(code.BuiltinCode(), code.DeprecatedBuiltinCode())
        if builtin == tflite.BuiltinOperator.CUSTOM:
            name = self._text(code.CustomCode())
            if not name:
                raise ValueError("a custom operator has no name")
            return name, True
        return _enum_names(tflite.BuiltinOperator).get(builtin) or f"BUILTIN_{_newer(builtin)}", False

    def _operator(self, table: Any, names: list[tuple[str, bool]], tensors: tuple[Tensor, ...]) -> Operator:
        name, is_custom = _at(names, table.OpcodeIndex())
        inputs = self._numbers(table.InputsLength, table.InputsAsNumpy)
        outputs = self._numbers(table.OutputsLength, table.OutputsAsNumpy)
        return Operator(
            name,
            is_custom,
            tuple(None if index == -1 else _at(tensors, index) for index in inputs),
            tuple(_at(tensors, index) for index in outputs),
            self._bytes(table.CustomOptionsLength, table.CustomOptionsAsNumpy) or b"",
        )

    def _constant(self, index: int) -> bytes | None:
        if index not in self._constants:
            if not 0 <= index < self._root.BuffersLength():
                raise ValueError(f"there is no buffer {index}")
            buffer = self._root.Buffers(index)
            data = self._bytes(buffer.DataLength, buffer.DataAsNumpy)
            if data is None and buffer.Offset() > 1:  # Large models keep constants behind the flatbuffer.
                start, size = buffer.Offset(), buffer.Size()
                if start + size > len(self._content):
                    raise ValueError("a constant is beyond the file's end")
                self._spend(size)
                data = self._content[start : start + size]
            self._constants[index] = data
        return self._constants[index]

    def _tensor(self, index: int, table: Any) -> Tensor:
        shape = tuple(self._numbers(table.ShapeLength, table.ShapeAsNumpy))
        if len(shape) > _MAX_RANK or any(size < 0 for size in shape):
            raise ValueError(f"a tensor has shape {list(shape[:_MAX_RANK])}")
        signature = tuple(self._numbers(table.ShapeSignatureLength, table.ShapeSignatureAsNumpy))
        dtype = _enum_names(tflite.TensorType).get(table.Type()) or f"type{_newer(table.Type())}"
        tensor = Tensor(
            index,
            self._text(table.Name()),
            shape,
            signature if len(signature) == len(shape) else shape,
            dtype.lower(),
            self._constant(table.Buffer()),
            table.Buffer(),
            table.IsVariable(),
        )
        size = tensor.size_bytes
        if size is not None and size >= 2**63:
            raise ValueError(f"a tensor has shape {list(shape)}, which fits into no memory")
        # Sparse constants are shorter.
        if tensor.data is not None and size not in (None, len(tensor.data)) and table.Sparsity() is None:
            raise ValueError("a constant is not as long as its shape demands")
        return tensor


def _newer(value: int) -> int:
    """The number of an operator or type that this reader has no name for, if it may be one of a newer schema."""
    if not 0 <= value < 512:
        raise ValueError(f"an operator or type has the number {value}")
    return value


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
