"""From TensorFlow's functions to graphs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from bssl_tf.backend import freeze, tf
from bssl_tf_converters.lce.folding.graph import CONST, OUTPUT, Graph, Node


def read_graph(function: Any, outputs: Sequence[str]) -> Graph:
    """The inference graph of a concrete function, with its variables as constants.

    Args:
        function: a `tf.types.experimental.ConcreteFunction` that takes its tensors by name.
        outputs: names for its outputs, in the order of `function.outputs`.
    """
    captured = {internal.op.name: external for external, internal in function.graph.captures}
    if any(_calls(one) or _uses_variable(one, captured) for one in function.graph.get_operations()):
        # Variables are read inside, by what TensorFlow knows. It takes ten times as long, so not for all networks.
        # Keras compiles convolutions in groups as functions, and these stay.
        function, captured = freeze(function), {}
    values = {variable.handle.ref(): variable for variable in function.graph.variables}
    operations = [operation for operation in function.graph.get_operations() if operation.type != "NoOp"]
    nodes = [_constant_of(operation, captured, values) or _node(operation) for operation in operations]
    calls = any(_calls(operation) for operation in operations)
    library = function.graph.as_graph_def().library if calls else None
    graph = Graph(nodes, [tensor.op.name for tensor in function.inputs if tensor.op.name not in captured], library)
    for name, tensor in zip(outputs, function.outputs, strict=True):
        source = graph.nodes[tensor.op.name]
        graph.add(Node(name, OUTPUT, [_ref(tensor)], source.dtype, source.shape))
    graph.sweep()
    return graph


def _calls(operation: Any) -> bool:
    return any(value.HasField("func") for value in operation.node_def.attr.values())


def _uses_variable(operation: Any, captured: dict[str, Any]) -> bool:
    """Does it use one in another way than to read all of it?"""
    return operation.type != "ReadVariableOp" and any(
        tensor.dtype == tf.resource and tensor.op.name in captured for tensor in operation.inputs
    )


def _constant_of(operation: Any, captured: dict[str, Any], values: dict[Any, Any]) -> Node | None:
    """What the operation reads of the program around its function: a variable, or a tensor."""
    if operation.type == "ReadVariableOp" and operation.inputs[0].op.name in captured:
        value = values[captured[operation.inputs[0].op.name].ref()].numpy()
    elif operation.name in captured and operation.outputs[0].dtype != tf.resource:
        value = captured[operation.name].numpy()
    else:
        return None
    return Node(operation.name, CONST, [], value.dtype, value.shape, value=value)


def _ref(tensor: Any) -> str:
    return tensor.op.name if tensor.value_index == 0 else f"{tensor.op.name}:{tensor.value_index}"


def _node(operation: Any) -> Node:
    dtype, shape = None, None
    if operation.outputs:
        first = operation.outputs[0]
        if first.dtype.is_floating or first.dtype.is_integer or first.dtype.is_bool:
            dtype = np.dtype(first.dtype.as_numpy_dtype)
        if first.shape.is_fully_defined():
            shape = tuple(first.shape.as_list())
    # Control edges hold assertions and writes to variables back; inference has neither.
    node = Node(operation.name, operation.type, [_ref(tensor) for tensor in operation.inputs], dtype, shape)
    if operation.type == CONST:
        node.value = tf.make_ndarray(operation.get_attr("value"))
    else:
        node.definition = operation.node_def
        node.pure = bool(operation.inputs) and len(operation.outputs) == 1 and not operation.op_def.is_stateful
    return node
