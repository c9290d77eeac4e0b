"""Appends operators to a flatbuffer that a converter made, by the classes of TFLite's schema.

For what no converter writes: the rest of the file is as it was.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import flatbuffers
import numpy as np

from bssl_tf.backend import tflite_schema

_IDENTIFIER = b"TFL3"
_ALIGNMENT = 16  # of constants, in bytes: the schema's


@dataclass(frozen=True)
class Appender:
    """Appends operators to a model of one graph and one signature. Methods return the places of their new tensors.

    Attributes:
        schema: TFLite's.
        model: its `ModelT`.
    """

    schema: Any
    model: Any

    @classmethod
    def of(cls, content: bytes) -> Appender:
        """For the model of a flatbuffer."""
        schema = tflite_schema()
        model = schema.ModelT.InitFromPackedBuf(content)
        # What these classes write by themselves is not aligned as the schema wants it.
        for number, one in enumerate(model.buffers):
            model.buffers[number] = _aligned(schema, one.data)
        return cls(schema, model)

    @property
    def outputs(self) -> list[int]:
        """The places of the graph's outputs."""
        return [int(place) for place in self.model.subgraphs[0].outputs]

    def finished(self, outputs: Mapping[str, int]) -> bytes:
        """The flatbuffer, with other outputs, by name."""
        self.model.subgraphs[0].outputs = np.array([*outputs.values()], np.int32)
        entries = []
        for name, place in outputs.items():
            entry = self.schema.TensorMapT()
            entry.name, entry.tensorIndex = name, place
            entries.append(entry)
        self.model.signatureDefs[0].outputs = entries
        builder = flatbuffers.Builder(1 << 20)
        builder.Finish(self.model.Pack(builder), _IDENTIFIER)
        return bytes(builder.Output())

    def constant(self, values: np.ndarray | np.generic, name: str) -> int:
        """Of the type and shape of `values`."""
        array = np.asarray(values)
        self.model.buffers.append(_aligned(self.schema, np.frombuffer(array.tobytes(), np.uint8)))
        return self._tensor(list(array.shape), name, array.dtype.name, len(self.model.buffers) - 1)

    def in_float(self, place: int, name: str) -> int:
        """The tensor, as float32 where it is int8."""
        tensor = self.model.subgraphs[0].tensors[place]
        if tensor.type == self.schema.TensorType.FLOAT32:
            return place
        return self.add(self.schema.BuiltinOperator.DEQUANTIZE, [place], list(tensor.shape), f"{name}_float")

    def reshaped(self, place: int, shape: list[int], name: str) -> int:
        wanted = self.constant(np.array(shape, np.int32), f"{name}_shape")
        options = self.schema.ReshapeOptionsT()
        options.newShape = np.array(shape, np.int32)
        return self.add(self.schema.BuiltinOperator.RESHAPE, [place, wanted], shape, name, options)

    def joined(self, places: Sequence[int], axis: int, shape: list[int], name: str) -> int:
        if len(places) == 1:
            return places[0]
        options = self.schema.ConcatenationOptionsT()
        options.axis = axis
        return self.add(self.schema.BuiltinOperator.CONCATENATION, places, shape, name, options)

    def gathered(self, place: int, columns: list[int], axis: int, shape: list[int], name: str) -> int:
        options = self.schema.GatherOptionsT()
        options.axis = axis
        wanted = self.constant(np.array(columns, np.int32), f"{name}_columns")
        return self.add(self.schema.BuiltinOperator.GATHER, [place, wanted], shape, name, options)

    def add(self, builtin: int, inputs: Sequence[int], shape: list[int], name: str, options: Any = None) -> int:
        """A builtin operator; without `options`, those of its kind as they are by themselves."""
        schema = self.schema
        defaults = {
            schema.BuiltinOperator.ADD: schema.AddOptionsT,
            schema.BuiltinOperator.SUB: schema.SubOptionsT,
            schema.BuiltinOperator.MUL: schema.MulOptionsT,
            schema.BuiltinOperator.EXP: schema.ExpOptionsT,
            schema.BuiltinOperator.MINIMUM: schema.MaximumMinimumOptionsT,
            schema.BuiltinOperator.MAXIMUM: schema.MaximumMinimumOptionsT,
            schema.BuiltinOperator.DEQUANTIZE: schema.DequantizeOptionsT,
        }
        if options is None and builtin in defaults:
            options = defaults[builtin]()
        made = schema.OperatorT()
        made.opcodeIndex = self._code(builtin, None)
        made.inputs = np.array(inputs, np.int32)
        place = self._tensor(shape, name, "float32", 0)
        made.outputs = np.array([place], np.int32)
        if options is not None:
            made.builtinOptions = options
            made.builtinOptionsType = getattr(schema.BuiltinOptions, type(options).__name__.removesuffix("T"))
        self.model.subgraphs[0].operators.append(made)
        return place

    def custom(self, operator: str, inputs: Sequence[int], shapes: Sequence[list[int]], options: bytes) -> list[int]:
        """A custom operator with float32 outputs, which have the names that models of TensorFlow give them.

        Args:
            operator: its name.
            inputs: places.
            shapes: of its outputs.
            options: a flexbuffer.
        """
        made = self.schema.OperatorT()
        made.opcodeIndex = self._code(self.schema.BuiltinOperator.CUSTOM, operator)
        made.inputs = np.array(inputs, np.int32)
        names = (operator, *(f"{operator}:{number}" for number in range(1, len(shapes))))
        places = [self._tensor(shape, name, "float32", 0) for shape, name in zip(shapes, names, strict=True)]
        made.outputs = np.array(places, np.int32)
        made.customOptions = np.frombuffer(options, np.uint8)
        self.model.subgraphs[0].operators.append(made)
        return places

    def _tensor(self, shape: list[int], name: str, dtype: str, buffer: int) -> int:
        tensor = self.schema.TensorT()
        tensor.shape, tensor.name = np.array(shape, np.int32), name
        tensor.type, tensor.buffer = getattr(self.schema.TensorType, dtype.upper()), buffer
        tensor.hasRank = True
        self.model.subgraphs[0].tensors.append(tensor)
        return len(self.model.subgraphs[0].tensors) - 1

    def _code(self, builtin: int, custom: str | None) -> int:
        codes = self.model.operatorCodes
        for number, code in enumerate(codes):
            # Strings of a file that was read are bytes.
            if code.builtinCode == builtin and (custom is None or code.customCode in (custom, custom.encode())):
                return number
        code = self.schema.OperatorCodeT()
        code.builtinCode, code.customCode, code.version = builtin, custom, 1
        # Where older files have the code: as far as a byte goes.
        code.deprecatedBuiltinCode = min(builtin, self.schema.BuiltinOperator.PLACEHOLDER_FOR_GREATER_OP_CODES)
        codes.append(code)
        return len(codes) - 1


def _aligned(schema: Any, data: Any) -> Any:
    """A `BufferT` whose data will start at a multiple of 16 bytes."""

    class Aligned(schema.BufferT):
        def Pack(self, builder: flatbuffers.Builder) -> int:
            place = None
            if self.data is not None and len(self.data):
                content = np.asarray(self.data, np.uint8).tobytes()
                builder.StartVector(1, len(content), _ALIGNMENT)
                builder.head -= len(content)
                builder.Bytes[builder.Head() : builder.Head() + len(content)] = content
                place = builder.EndVector()
            schema.BufferStart(builder)
            if place is not None:
                schema.BufferAddData(builder, place)
            return int(schema.BufferEnd(builder))

    made = Aligned()
    made.data = data
    return made
