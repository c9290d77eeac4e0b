"""Rules: products and sums for each channel are merged, and move towards a convolution that takes them for free."""

from __future__ import annotations

import numpy as np

from bssl_tf_converters.lce.folding.channels import (
    channel_ends,
    fuses_affine,
    is_free,
    keeps_channels,
    scaled_kernel,
    through_kernel,
)
from bssl_tf_converters.lce.folding.graph import AFFINE, PRELU, Graph, Node

# f(x * a) = f(x) * a for a >= 0 only.
_BENT = ("Relu", PRELU)


def merge_affines(graph: Graph) -> bool:
    """(x * a + b) * c + d -> x * ac + (bc + d), where nobody else reads the first; x * 1 + 0 -> x."""
    changed = False
    for node in graph.ordered():
        if node.op != AFFINE:
            continue
        before = graph[node.inputs[0]]
        if before.op == AFFINE and graph.only_user(before) is node:
            node.inputs = list(before.inputs)
            node.scale, node.shift = _product(before, node)
            del graph.nodes[before.name]
            changed = True
        if not np.any(node.scale != 1) and not np.any(node.shift != 0):
            graph.replace(node, node.inputs[0])
            changed = True
    return changed


def raise_affines(graph: Graph) -> bool:
    """Moves what stands behind an operator in front of it, where a convolution further up takes it.

    pool(x) * a + b -> pool(x * a + b), for max pools with a >= 0.
    relu(x) * a + b -> relu(x * a) + b and prelu(x) * a + b -> prelu(x * a) + b, for a >= 0; not for the ReLU right
    behind a binary convolution, which LCE fuses with what follows.
    concat(x, y) * [a, c] + [b, d] -> concat(x * a + b, y * c + d).
    """
    changed = False
    for node in graph.ordered():
        if node.op != AFFINE or node not in graph:
            continue
        source = graph[node.inputs[0]]
        if graph.only_user(source) is not node:
            continue
        if fuses_affine(graph, source) or source.op == AFFINE:
            continue
        bent = source.op in _BENT
        if bent and (not np.any(node.scale != 1) or is_free(graph, node)):
            continue
        if not _takes(
            graph,
            source,
            node,
            with_shift=bool(np.any(node.shift != 0)) and not bent,
            negative=bool(np.any(node.scale < 0)),
        ):
            continue
        if source.op == "ConcatV2":
            _split(graph, source, node.scale, node.shift)
        else:
            above = graph.add_affine(graph[source.inputs[0]], node.scale, 0 if bent else node.shift)
            source.inputs[0] = above.name
        if bent:
            node.scale = np.ones_like(node.scale)
        else:
            graph.replace(node, source.name)
        changed = True
    return changed


def fold_into_kernels(graph: Graph) -> bool:
    """conv(x * a + b, k) -> conv(x, k * a) + sum(k * b) where nothing is padded, else conv(x + b / a, k * a).

    k * a is for each input channel. For convolutions and dense operators in float.
    """
    changed = False
    for node in graph.ordered():
        if node.op != AFFINE or not np.any(node.scale != 1) or is_free(graph, node):
            continue
        users = graph.uses(node)
        kernels = [scaled_kernel(graph, user, node.scale) if index == 0 else None for user, index in users]
        if any(kernel is None for kernel in kernels) or not users:
            continue
        sums = [through_kernel(graph, user, node.shift) for user, _ in users]
        padded = any(total is None for total in sums) and bool(np.any(node.shift != 0))
        if padded and np.any(node.scale == 0):
            continue
        for (user, _), kernel, total in zip(users, kernels, sums, strict=True):
            assert kernel is not None
            user.inputs[1] = graph.add_constant(f"{user.name}/scaled", kernel).name
            if not padded and total is not None and np.any(total != 0):
                graph.insert_affine(user, 1, total)
        node.shift = node.shift / node.scale if padded else np.zeros_like(node.shift)
        node.scale = np.ones_like(node.scale)
        changed = True
    return changed


def lower_affines(graph: Graph) -> bool:
    """pool(x + b) -> pool(x) + b, for what no convolution took: the map is smaller behind the pool."""
    changed = False
    for node in graph.ordered():
        if node.op != AFFINE or is_free(graph, node) or node not in graph:
            continue
        pool = graph.only_user(node)
        if pool is None or pool.op not in ("AvgPool", "Mean") or not keeps_channels(graph, pool):
            continue
        pool.inputs[0] = node.inputs[0]
        graph.insert_affine(pool, node.scale, node.shift)
        del graph.nodes[node.name]
        changed = True
    return changed


def _product(first: Node, second: Node) -> tuple[np.ndarray, np.ndarray]:
    """Scale and shift of second(first(x)).

    The scale is rounded before the shift is made of it, so that an x for which `first` gives exactly 0, such as a batch
    norm's mean, still gives the second's shift and nothing else: a sign may follow.
    """
    scale = (first.scale * second.scale).astype(first.dtype).astype(np.float64)
    with np.errstate(divide="ignore", invalid="ignore"):
        shift = np.where(first.scale != 0, first.shift / first.scale * scale, first.shift * second.scale)
    return scale, shift + second.shift


def _takes(graph: Graph, node: Node, user: Node, *, with_shift: bool, negative: bool) -> bool:
    """Can a product (and a sum) behind `node`, which only `user` may read, be had for free by moving it up?"""
    if graph.only_user(node) is not user or (negative and node.op in (*_BENT, "MaxPool")):
        return False
    if fuses_affine(graph, node):
        return True
    if node.op == AFFINE:
        return is_free(graph, node) or bool(np.any(node.scale != 1))
    if keeps_channels(graph, node) or (node.op in _BENT and not with_shift):
        sources = node.inputs[:1]
    else:
        sources = node.inputs[:-1] if channel_ends(graph, node) is not None else []
    takes = [_takes(graph, graph[tensor], node, with_shift=with_shift, negative=negative) for tensor in sources]
    return bool(takes) and all(takes)


def _split(graph: Graph, concat: Node, scale: np.ndarray, shift: np.ndarray) -> None:
    ends = channel_ends(graph, concat)
    assert ends is not None
    for index, (a, b) in enumerate(zip(np.split(scale, ends), np.split(shift, ends), strict=True)):
        concat.inputs[index] = graph.add_affine(graph[concat.inputs[index]], a, b).name
