"""Rule: what depends on constants only is computed once, by TensorFlow itself."""

from __future__ import annotations

from typing import Any

from bssl_tf.backend import tf
from bssl_tf_converters.lce.folding.graph import CONST, Graph, Node
from bssl_tf_converters.lce.folding.writing import graph_def

# LCE reads ranges for int8 out of these, also where what they quantise is constant.
_KEPT = ("FakeQuant", "QuantizeAndDequantize")


def fold_constants(graph: Graph) -> bool:
    """f(c) -> constant, for each operator without a state whose inputs are all constant.

    What TensorFlow computes here is what it would have computed at every inference, in the same precision.
    """
    constant = {name for name, node in graph.nodes.items() if node.op == CONST}
    for node in graph.ordered():
        if (
            node.pure
            and not node.op.startswith(_KEPT)
            and all(graph[tensor].name in constant for tensor in node.inputs)
        ):
            constant.add(node.name)
    wanted = [
        node
        for node in graph.nodes.values()
        if node.name in constant and node.op != CONST and any(user.name not in constant for user, _ in graph.uses(node))
    ]
    if not wanted:
        return False
    part = Graph([node for node in graph.nodes.values() if node.name in constant], (), graph.library)
    with tf.Graph().as_default() as program:
        tf.import_graph_def(graph_def(part), name="")
        with tf.compat.v1.Session(graph=program, config=plain_run()) as session:
            values = session.run([f"{node.name}:0" for node in wanted])
    for node, value in zip(wanted, values, strict=True):
        graph.nodes[node.name] = Node(node.name, CONST, [], value.dtype, value.shape, value=value)
    graph.sweep()
    return True


def plain_run() -> Any:
    """A session's settings without TensorFlow's own rewriting, which takes ten times as long as the constants do."""
    config = tf.compat.v1.ConfigProto()
    config.graph_options.optimizer_options.opt_level = tf.compat.v1.OptimizerOptions.L0
    config.graph_options.rewrite_options.disable_meta_optimizer = True
    return config
