"""Rule: a binary kernel keeps its signs only; its scale goes into what follows."""

from __future__ import annotations

import numpy as np

from bssl_tf_converters.lce.folding.channels import is_binary
from bssl_tf_converters.lce.folding.graph import AFFINE, Graph


def pull_kernel_scales(graph: Graph) -> bool:
    """conv(sign(x), k * s) -> conv(sign(x), k) * s, for k of +1 and -1 and one s > 0 for each output channel.

    A channel of zeros has no sign; it stays as it is, for `checks` to find.
    """
    changed = False
    for node in graph.ordered():
        kernel = graph.constant(node.inputs[1]) if is_binary(graph, node) else None
        if kernel is None:
            continue
        scale = scale_of_signs(kernel)
        if scale is None or np.all(scale == 1):
            continue
        node.inputs[1] = graph.add_constant(f"{node.name}/signs", np.sign(kernel)).name
        graph.insert_affine(node, scale, 0)
        changed = True
    return changed


def scale_of_signs(kernel: np.ndarray) -> np.ndarray | None:
    """The [O] numbers above 0 that a kernel [KH, KW, I, O] is plus or minus; None if it is not such a kernel."""
    scale: np.ndarray = np.max(np.abs(kernel), axis=(0, 1, 2))
    return None if np.any(scale == 0) or np.any(np.abs(kernel) != scale) else scale


def postpone_scales(graph: Graph) -> bool:
    """relu(conv(x) * s) -> relu(conv(x)) * s, for s > 0: LCE fuses a ReLU right behind the convolution only."""
    changed = False
    for node in graph.ordered():
        if node.op != AFFINE or not is_binary(graph, graph[node.inputs[0]]):
            continue
        relu = graph.only_user(node)
        if relu is None or relu.op != "Relu" or np.any(node.scale <= 0) or np.any(node.shift != 0):
            continue
        if graph.only_user(graph[node.inputs[0]]) is not node:
            continue
        relu.inputs[0] = node.inputs[0]
        graph.insert_affine(relu, node.scale, 0)
        del graph.nodes[node.name]
        changed = True
    return changed
