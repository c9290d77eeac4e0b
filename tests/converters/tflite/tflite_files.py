"""Small .tflite files, written field by field: of any operator, sound or not."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import ai_edge_litert.schema_py_generated as schema
import flatbuffers


@dataclass(frozen=True)
class T:
    """A tensor; `shared` is the number of an earlier tensor whose buffer it has too."""

    shape: tuple[int, ...]
    dtype: int = schema.TensorType.FLOAT32
    name: str = ""
    data: bytes | None = None
    shared: int | None = None
    signature: tuple[int, ...] | None = None
    is_variable: bool = False


@dataclass(frozen=True)
class Op:
    """An operator: a custom code, or a builtin's number, and the numbers of its tensors."""

    code: str | int
    inputs: Sequence[int]
    outputs: Sequence[int]
    options: bytes | None = None


def model_file(
    tensors: Sequence[T], operators: Sequence[Op], inputs: Sequence[int], outputs: Sequence[int], *, graphs: int = 1
) -> bytes:
    """A flatbuffer; graphs beyond the first are empty."""
    model: Any = schema.ModelT()
    model.version = 3
    model.buffers = [schema.BufferT()]
    codes = list(dict.fromkeys(operator.code for operator in operators))
    model.operatorCodes = [_code(code) for code in codes]
    graph: Any = schema.SubGraphT()
    graph.tensors = []
    for tensor in tensors:
        made: Any = schema.TensorT()
        made.shape, made.type, made.name = list(tensor.shape), tensor.dtype, tensor.name
        made.shapeSignature = None if tensor.signature is None else list(tensor.signature)
        made.isVariable = tensor.is_variable
        made.buffer = 0 if tensor.shared is None else graph.tensors[tensor.shared].buffer
        if tensor.data is not None:
            made.buffer = len(model.buffers)
            model.buffers.append(schema.BufferT())
            model.buffers[-1].data = list(tensor.data)
        graph.tensors.append(made)
    graph.operators = []
    for operator in operators:
        node: Any = schema.OperatorT()
        node.opcodeIndex = codes.index(operator.code)
        node.inputs, node.outputs = list(operator.inputs), list(operator.outputs)
        node.customOptions = None if operator.options is None else list(operator.options)
        graph.operators.append(node)
    graph.inputs, graph.outputs = list(inputs), list(outputs)
    model.subgraphs = [graph, *(schema.SubGraphT() for _ in range(graphs - 1))]
    builder = flatbuffers.Builder(1024)
    builder.Finish(model.Pack(builder), b"TFL3")
    return bytes(builder.Output())


def _code(code: str | int) -> Any:
    made: Any = schema.OperatorCodeT()
    if isinstance(code, str):
        made.builtinCode = schema.BuiltinOperator.CUSTOM
        made.customCode = code
    else:
        made.builtinCode = code
    made.deprecatedBuiltinCode = min(made.builtinCode, 127)
    return made
