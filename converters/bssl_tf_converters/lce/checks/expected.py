"""How many convolutions and dense operators a Keras model computes with, whatever they come from."""

from __future__ import annotations

import math
from typing import Any

from bssl_tf.backend import keras, tf

_CONVOLUTIONS = ("Conv2D", "DepthwiseConv2dNative", "Conv2DBackpropInput", "Conv3D", "Conv3DBackpropInputV2")
_BATCHED = ("BatchMatMul", "BatchMatMulV2", "BatchMatMulV3", "Einsum")
_CALLS = ("PartitionedCall", "StatefulPartitionedCall")


def multiplying_operators(model: keras.Model) -> int:
    """The most TFLite operators with a kernel or a matrix that `model` can become, its binary layers included.

    TensorFlow's graph is counted and not Keras's layers, of which some become two operators (SeparableConv2D), some
    many (LocallyConnected2D, MultiHeadAttention), and some functions that are not layers become one.
    """
    signature = [tf.TensorSpec((1, *model.input.shape[1:]), model.input.dtype)]
    function = tf.function(lambda image: model(image, training=False), input_signature=signature)
    graph = function.get_concrete_function().graph
    library = {one.signature.name: one for one in graph.as_graph_def().library.function}
    return sum(
        _in_function(library, operation.get_attr("f").name) if operation.type in _CALLS else _most(operation)
        for operation in graph.get_operations()
    )


def _most(operation: Any) -> int:
    """How many TFLite operators one of TensorFlow's may become."""
    if operation.type in _CONVOLUTIONS:
        channels, kernel = operation.inputs[0].shape, operation.inputs[1].shape
        # A grouped convolution may become one for each group.
        if operation.type == "Conv2D" and operation.get_attr("data_format") == b"NHWC" and channels[-1] and kernel[2]:
            return channels[-1] // kernel[2]
        return 1
    if operation.type in _BATCHED:
        # The converter may write out a product for each matrix of a batch.
        sizes = operation.outputs[0].shape.as_list()
        kept = sizes[:-1] if operation.type == "Einsum" else sizes[:-2]
        return max(1, math.prod(size or 1 for size in kept))
    return int(operation.type == "MatMul")


def _in_function(library: dict[str, Any], name: str) -> int:
    found = 0
    for node in library[name].node_def:
        if node.op in _CALLS:
            found += _in_function(library, node.attr["f"].func.name)
        found += node.op in (*_CONVOLUTIONS, *_BATCHED, "MatMul")
    return found
