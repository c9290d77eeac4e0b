"""From graphs to TensorFlow's GraphDef and SavedModel."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from bssl_tf.backend import tf
from bssl_tf_converters.lce.folding.channels import is_free
from bssl_tf_converters.lce.folding.graph import AFFINE, CONST, OUTPUT, PRELU, SIGN, Graph, Node

# What LCE recognises as a sign is what larq writes: Sign(Sign(x) + 0.1).
_NUDGE = 0.1


def graph_def(graph: Graph) -> Any:
    """The graph as TensorFlow's GraphDef, from placeholders to Identity nodes with the names of its outputs."""
    written = tf.compat.v1.GraphDef()
    for node in graph.ordered():
        if node.op == AFFINE and np.all(node.scale == -1) and not is_free(graph, node):
            written.node.extend(_difference(node))
        else:
            written.node.extend(_definitions(node))
    if graph.library is not None:
        written.library.CopyFrom(graph.library)
    written.versions.producer = tf.version.GRAPH_DEF_VERSION
    return written


def write_saved_model(graph: Graph, folder: Path) -> None:
    """Writes a SavedModel with the graph's inputs and outputs as its only signature.

    In TensorFlow 1's form, which has no place for variables, functions and Keras's layers, so that a converter has none
    of them to read.

    Args:
        graph: its inputs and outputs have known shapes.
        folder: is made, and must not be there yet.
    """
    v1 = tf.compat.v1
    outputs = [node.name for node in graph.nodes.values() if node.op == OUTPUT]
    with tf.Graph().as_default() as program:
        tf.import_graph_def(graph_def(graph), name="")
        info = {name: program.get_tensor_by_name(f"{name}:0") for name in (*graph.inputs, *outputs)}
        signature = v1.saved_model.predict_signature_def(
            {name: info[name] for name in graph.inputs}, {name: info[name] for name in outputs}
        )
        with v1.Session(graph=program) as session:
            builder = v1.saved_model.Builder(str(folder))
            key = tf.saved_model.DEFAULT_SERVING_SIGNATURE_DEF_KEY
            builder.add_meta_graph_and_variables(session, [tf.saved_model.SERVING], {key: signature})
            builder.save()


def _definitions(node: Node) -> Iterator[Any]:
    """The NodeDefs that a node is written as; the last has its name."""
    if node.op == CONST:
        yield _constant(node.name, node.value)
    elif node.op == OUTPUT:
        yield _operator(node.name, "Identity", node.inputs, node.dtype)
    elif node.op == AFFINE:
        yield from _affine(node)
    elif node.op == SIGN:
        yield _constant(f"{node.name}/nudge", np.array(_NUDGE, node.dtype))
        yield _operator(f"{node.name}/ternary", "Sign", node.inputs, node.dtype)
        yield _operator(f"{node.name}/nudged", "AddV2", [f"{node.name}/ternary", f"{node.name}/nudge"], node.dtype)
        yield _operator(node.name, "Sign", [f"{node.name}/nudged"], node.dtype)
    elif node.op == PRELU:
        # Keras's way, the one that TFLite makes PRELU of.
        yield _constant(f"{node.name}/slopes", -node.value)
        yield _operator(f"{node.name}/positive", "Relu", node.inputs, node.dtype)
        yield _operator(f"{node.name}/turned", "Neg", node.inputs, node.dtype)
        yield _operator(f"{node.name}/negative", "Relu", [f"{node.name}/turned"], node.dtype)
        yield _operator(f"{node.name}/sloped", "Mul", [f"{node.name}/slopes", f"{node.name}/negative"], node.dtype)
        yield _operator(node.name, "AddV2", [f"{node.name}/positive", f"{node.name}/sloped"], node.dtype)
    else:
        definition = tf.compat.v1.NodeDef()
        definition.CopyFrom(node.definition)
        definition.name = node.name
        del definition.input[:]
        definition.input.extend(node.inputs)
        # Registered by the process that traced it, and of no use here.
        definition.attr.pop("_gradient_op_type", None)
        yield definition


def _affine(node: Node) -> Iterator[Any]:
    x = node.inputs
    scaled, shifted = bool(np.any(node.scale != 1)), bool(np.any(node.shift != 0))
    if scaled:
        name = f"{node.name}/scaled" if shifted else node.name
        yield _constant(f"{node.name}/scale", node.scale.astype(node.dtype))
        yield _operator(name, "Mul", [*x, f"{node.name}/scale"], node.dtype)
        x = [name]
    if shifted:
        yield _constant(f"{node.name}/shift", node.shift.astype(node.dtype))
        yield _operator(node.name, "AddV2", [*x, f"{node.name}/shift"], node.dtype)
    if not scaled and not shifted:
        yield _operator(node.name, "Identity", x, node.dtype)


def _difference(node: Node) -> Iterator[Any]:
    yield _constant(f"{node.name}/shift", node.shift.astype(node.dtype))
    yield _operator(node.name, "Sub", [f"{node.name}/shift", *node.inputs], node.dtype)


def _operator(name: str, op: str, inputs: Sequence[str], dtype: np.dtype | None) -> Any:
    node = tf.compat.v1.NodeDef(name=name, op=op, input=inputs)
    node.attr["T"].type = tf.as_dtype(dtype).as_datatype_enum
    return node


def _constant(name: str, value: np.ndarray) -> Any:
    node = tf.compat.v1.NodeDef(name=name, op="Const")
    node.attr["dtype"].type = tf.as_dtype(value.dtype).as_datatype_enum
    node.attr["value"].tensor.CopyFrom(tf.make_tensor_proto(value, shape=value.shape))
    return node
