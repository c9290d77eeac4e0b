"""From TensorFlow's functions to graphs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from bssl_tf.backend import freeze, tf
from bssl_tf_converters.folding.graph import CONST, OUTPUT, Graph, Node


def read_graph(function: Any, outputs: Sequence[str]) -> Graph:
    """The inference graph of a concrete function, with its variables as constants.

    Args:
        function: a `tf.types.experimental.ConcreteFunction` that takes its tensors by name.
        outputs: names for its outputs, in the order of `function.outputs`.
    """
    frozen = freeze(function)
    nodes = [_node(operation) for operation in frozen.graph.get_operations() if operation.type != "NoOp"]
    # Keras compiles convolutions in groups as functions, which stay.
    calls = any(value.HasField("func") for node in nodes if node.definition for value in node.definition.attr.values())
    library = frozen.graph.as_graph_def().library if calls else None
    graph = Graph(nodes, [tensor.op.name for tensor in frozen.inputs], library)
    for name, tensor in zip(outputs, frozen.outputs, strict=True):
        source = graph.nodes[tensor.op.name]
        graph.add(Node(name, OUTPUT, [_ref(tensor)], source.dtype, source.shape))
    graph.sweep()
    return graph


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
