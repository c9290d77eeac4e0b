"""What operators do with a number that each channel was multiplied with, or that was added to it."""

from __future__ import annotations

import numpy as np

from bssl_tf_converters.lce.folding.graph import AFFINE, SIGN, Graph, Node

# Linear in their first input, with a constant second one; a product and a sum behind them are free in TFLite and LCE.
KERNELS = ("Conv2D", "DepthwiseConv2dNative", "MatMul")


def has_kernel(graph: Graph, node: Node) -> bool:
    """Is it a convolution or dense operator with a constant kernel, channels last?"""
    if node.op not in KERNELS or graph.constant(node.inputs[1]) is None or node.shape is None:
        return False
    if node.op == "MatMul":
        return not node.attribute("transpose_a").b and not node.attribute("transpose_b").b
    return node.text("data_format") in ("", "NHWC")


def is_binary(graph: Graph, node: Node) -> bool:
    """Is it a Conv2D of signs, perhaps padded, with a constant kernel?"""
    if node.op != "Conv2D" or not has_kernel(graph, node):
        return False
    source = graph[node.inputs[0]]
    if source.op in ("Pad", "PadV2"):
        source = graph[source.inputs[0]]
    return source.op == SIGN


def fuses_affine(graph: Graph, node: Node) -> bool:
    """Would converters fuse an `AFFINE` right behind it? Behind kernels, and a binary convolution's ReLU."""
    if node.op == "Relu":
        source = graph[node.inputs[0]]
        return is_binary(graph, source) and graph.only_user(source) is node
    return has_kernel(graph, node)


def is_free(graph: Graph, affine: Node) -> bool:
    """Does an `AFFINE` cost no operator, as converters fuse it with the one operator before it?"""
    source = graph[affine.inputs[0]]
    return fuses_affine(graph, source) and graph.only_user(source) is affine


def is_shift(graph: Graph, node: Node) -> bool:
    """Is it an `AFFINE` that adds only, and that costs an operator?"""
    return node.op == AFFINE and not np.any(node.scale != 1) and not is_free(graph, node)


def keeps_channels(graph: Graph, node: Node) -> bool:
    """Does it take averages, maxima or other shapes of each channel by itself, so that f(x + c) = f(x) + c?

    TensorFlow's and TFLite's pools leave padding out of both averages and maxima.
    """
    if node.shape is None or not node.shape or not node.inputs or not graph[node.inputs[0]].shape:
        return False
    before = graph[node.inputs[0]].shape
    assert before is not None
    if node.op in ("AvgPool", "MaxPool"):
        return node.text("data_format") in ("", "NHWC") and list(node.attribute("ksize").list.i)[::3] == [1, 1]
    if node.op == "Mean":
        axes = graph.constant(node.inputs[1])
        return axes is not None and not np.any(axes % len(before) == len(before) - 1)
    return node.op in ("Reshape", "Squeeze") and node.shape[-1] == before[-1]


def channel_ends(graph: Graph, node: Node) -> list[int] | None:
    """Where the parts of a concatenation of channels end, but for the last; None if the node is none."""
    if node.op != "ConcatV2" or not node.shape:
        return None
    axis = graph.constant(node.inputs[-1])
    shapes = [graph[tensor].shape for tensor in node.inputs[:-1]]
    if axis is None or int(axis) % len(node.shape) != len(node.shape) - 1 or not all(shapes):
        return None
    return list(np.cumsum([part[-1] for part in shapes if part])[:-1])


def through_kernel(graph: Graph, node: Node, shift: np.ndarray) -> np.ndarray | None:
    """By how much f(x + shift) is more than f(x), float64 [O]; None if that depends on the pixel.

    Only where nothing is padded: a padded pixel is 0 whatever is added to the others.
    """
    if not has_kernel(graph, node) or graph[node.inputs[0]].shape is None:
        return None
    kernel = np.asarray(graph.constant(node.inputs[1]), np.float64)
    if node.op == "MatMul":
        return shift @ kernel
    if not _unpadded(node, graph[node.inputs[0]], kernel.shape[:2]) or kernel.shape[2] != len(shift):
        return None
    taps = kernel.sum(axis=(0, 1))
    return (taps * shift[:, np.newaxis]).reshape(-1) if node.op == "DepthwiseConv2dNative" else shift @ taps


def scaled_kernel(graph: Graph, node: Node, scale: np.ndarray) -> np.ndarray | None:
    """The kernel that gives f(x * scale) for x, in its own dtype; None for a convolution in groups."""
    kernel = graph.constant(node.inputs[1]) if has_kernel(graph, node) else None
    if kernel is None or kernel.shape[-2] != len(scale):
        return None
    return np.asarray(kernel * scale[:, np.newaxis], kernel.dtype)


def _unpadded(node: Node, source: Node, size: tuple[int, ...]) -> bool:
    if node.text("padding") == "VALID":
        return True
    if node.text("padding") != "SAME" or source.shape is None:
        return False
    strides, dilations = list(node.attribute("strides").list.i), list(node.attribute("dilations").list.i) or [1] * 4
    for axis in (1, 2):
        steps = -(-source.shape[axis] // strides[axis]) - 1
        if steps * strides[axis] + (size[axis - 1] - 1) * dilations[axis] + 1 > source.shape[axis]:
            return False
    return True
