"""Rules that recognise: the many ways in which TensorFlow writes a batch norm, a sign or a PReLU become one node."""

from __future__ import annotations

import numpy as np

from bssl_tf_converters.lce.folding.graph import AFFINE, CONST, PRELU, SIGN, Graph, Node

_ADDITIONS = ("Add", "AddV2", "BiasAdd")
_BATCH_NORMS = ("FusedBatchNorm", "FusedBatchNormV2", "FusedBatchNormV3")


def recognise(graph: Graph) -> None:
    """Replaces patterns by `SIGN` and `PRELU`; the same sign of the same tensor is kept once.

    `affines` is to follow: PReLU has a product and signs have a sum inside.
    """
    for rule in (signs, prelus):
        rule(graph)
        graph.sweep()


def drop_identities(graph: Graph) -> None:
    """Identity(x) -> x, and a Pad by nothing -> its input. IdentityN carries a gradient, as x -> (x, ...)."""
    for node in graph.ordered():
        if node.op in ("Identity", "StopGradient", "PreventGradient", "Snapshot", "IdentityN"):
            for index, source in enumerate(node.inputs[1:], start=1):
                for user in graph.nodes.values():
                    user.inputs = [source if tensor == f"{node.name}:{index}" else tensor for tensor in user.inputs]
            graph.replace(node, node.inputs[0])
        elif node.op in ("Pad", "PadV2"):
            paddings = graph.constant(node.inputs[1])
            if paddings is not None and not np.any(paddings):
                graph.replace(node, node.inputs[0])


def signs(graph: Graph) -> None:
    """Sign(Sign(x) + c), 0 < c < 1 -> SIGN(x); where(x >= b, 1, -1) -> SIGN(x - b). So sign(0) = +1 in both."""
    known: dict[str, Node] = {}
    for node in graph.ordered():
        found = _nudged_sign(graph, node) or _selected_sign(graph, node)
        if found is None:
            continue
        x, threshold = found
        source = graph[x]
        if np.any(threshold != 0):
            x = graph.add_affine(source, 1, -threshold, f"{node.name}/threshold").name
        if x in known:
            graph.replace(node, known[x].name)
            continue
        node.op, node.inputs, node.definition = SIGN, [x], None
        known[x] = node


def prelus(graph: Graph) -> None:
    """Relu(x) + c * Relu(-x), as Keras writes it -> PRELU(x) with slopes -c."""
    for node in graph.ordered():
        for positive, product in _either_way(graph, node, "Add", "AddV2"):
            for negative, factor in _either_way(graph, product, "Mul"):
                if (
                    positive.op != "Relu"
                    or negative.op != "Relu"
                    or factor.op != CONST
                    or factor.value.dtype.kind != "f"
                ):
                    continue
                turned = graph[negative.inputs[0]]
                if turned.op == "Neg" and turned.inputs == positive.inputs and positive.shape == node.shape:
                    node.op, node.inputs, node.definition = PRELU, list(positive.inputs), None
                    node.value = -factor.value


def affines(graph: Graph) -> None:
    """x * c, x + c, x - c, c - x, x / c, bias and batch norm at inference -> AFFINE(x), for c one number a channel.

    Batch norm: gamma * (x - mean) / sqrt(variance + epsilon) + beta.
    """
    for node in graph.ordered():
        found = affine_of(graph, node)
        if found is not None:
            x, node.scale, node.shift = found
            node.op, node.inputs, node.definition = AFFINE, [x], None
    graph.sweep()


def affine_of(graph: Graph, node: Node) -> tuple[str, np.ndarray, np.ndarray] | None:
    """What a node reads, and its scale and shift, float64 [C], if it is an `AFFINE` or can become one."""
    if node.op == AFFINE:
        return node.inputs[0], node.scale, node.shift
    found = _batch_norm(graph, node) if node.op in _BATCH_NORMS else _arithmetic(graph, node)
    if found is None:
        return None
    x, scale, shift = found
    if not np.all(np.isfinite(scale)) or not np.all(np.isfinite(shift)):
        return None
    channels = node.shape[-1:] if node.shape else ()
    return x, np.broadcast_to(scale, channels), np.broadcast_to(shift, channels)


def _either_way(graph: Graph, node: Node, *ops: str) -> list[tuple[Node, Node]]:
    """The two nodes that one of the operators `ops` reads, in both orders."""
    if node.op not in ops or len(node.inputs) != 2:
        return []
    left, right = graph[node.inputs[0]], graph[node.inputs[1]]
    return [(left, right), (right, left)]


def _nudged_sign(graph: Graph, node: Node) -> tuple[str, np.ndarray] | None:
    if node.op == "Sign":
        for inner, nudge in _either_way(graph, graph[node.inputs[0]], "Add", "AddV2"):
            if inner.op == "Sign" and nudge.op == CONST and nudge.value.size == 1 and 0 < nudge.value.item() < 1:
                return inner.inputs[0], np.zeros(1)
    return None


def _selected_sign(graph: Graph, node: Node) -> tuple[str, np.ndarray] | None:
    if node.op not in ("Select", "SelectV2"):
        return None
    condition = graph[node.inputs[0]]
    wanted = {"GreaterEqual": (1, -1), "Less": (-1, 1)}.get(condition.op)
    if wanted is None or condition.shape != node.shape:
        return None
    for tensor, number in zip(node.inputs[1:], wanted, strict=True):
        value = graph.constant(tensor)
        if value is None or not value.size or np.any(value != number):
            return None
    x, threshold = condition.inputs[0], per_channel(graph.constant(condition.inputs[1]), graph[condition.inputs[0]])
    if threshold is None or graph[x].shape != node.shape or not np.all(np.isfinite(threshold)):
        return None
    return x, threshold


def _arithmetic(graph: Graph, node: Node) -> tuple[str, np.ndarray, np.ndarray] | None:
    if node.op not in (*_ADDITIONS, "Sub", "Mul", "RealDiv") or len(node.inputs) != 2:
        return None
    if node.op == "BiasAdd" and node.text("data_format") not in ("", "NHWC"):
        return None
    left, right = node.inputs
    one, none = np.ones(1), np.zeros(1)
    for x, tensor, turned in ((left, right, False), (right, left, True)):
        source = graph[x]
        # A constant that makes the tensor larger is not a constant for each channel.
        if x != source.name or source.shape != node.shape or graph.constant(x) is not None:
            continue
        c = per_channel(graph.constant(tensor), source)
        if c is None:
            continue
        if node.op in _ADDITIONS:
            return x, one, c
        if node.op == "Mul":
            return x, c, none
        if node.op == "Sub":
            return (x, -one, c) if turned else (x, one, -c)
        if not turned and np.all(c != 0):
            return x, 1 / c, none
    return None


def _batch_norm(graph: Graph, node: Node) -> tuple[str, np.ndarray, np.ndarray] | None:
    side_outputs = {f"{node.name}:{index}" for index in range(1, 6)}
    if any(tensor in side_outputs for user in graph.nodes.values() for tensor in user.inputs):
        return None
    if node.attribute("is_training").b or node.text("data_format") not in ("", "NHWC"):
        return None
    values = [graph.constant(tensor) for tensor in node.inputs[1:]]
    if graph[node.inputs[0]].shape is None or any(value is None for value in values):
        return None
    gamma, beta, mean, variance = (np.asarray(value, np.float64) for value in values)
    if np.any(variance + node.attribute("epsilon").f <= 0):
        return None
    # Rounded before the shift is made of it: then x = mean gives beta and nothing else, also behind a rounded product.
    scale = (gamma / np.sqrt(variance + node.attribute("epsilon").f)).astype(node.dtype).astype(np.float64)
    return node.inputs[0], scale, beta - mean * scale


def per_channel(value: np.ndarray | None, beside: Node) -> np.ndarray | None:
    """A constant as float64 [C] or [1], if it goes with the last axis of `beside`; else None."""
    if value is None or value.dtype.kind != "f" or beside.shape is None or not beside.shape:
        return None
    if value.ndim > len(beside.shape) or value.size not in (1, beside.shape[-1]):
        return None
    if value.size > 1 and value.shape[-1] != value.size:
        return None
    return np.asarray(value, np.float64).reshape(-1)
