"""Multiply-accumulates (MACs) of TFLite's and LCE's operators, out of their shapes.

A MAC is one product and one sum of a convolution or a matrix product, counted at every output position, those at the
border too, as papers do. Transposed convolutions are counted at every input position, those that are cropped too.
Binary convolutions have their real numbers of channels, not the words that these are packed into, 32 in one. Batch
norms, additions, scales, pools and signs are not counted.
"""

from __future__ import annotations

import math
import re

from flatbuffers import flexbuffers

from bssl_tf_converters.tflite.model import READER_ERRORS, Operator

# LCE's take a few hundred.
_MAX_OPTIONS_BYTES = 2**16
# Axes of the kernel (input 1) that are multiplied for each element of the first output, or, in transposed convolutions,
# of the third input. A kernel has the input channels of one group only.
_KERNELS = {
    "CONV_2D": (4, (1, 2, 3)),  # [O, KH, KW, I]
    "DEPTHWISE_CONV_2D": (4, (1, 2)),  # [1, KH, KW, O]
    "CONV_3D": (5, (0, 1, 2, 3)),  # [KD, KH, KW, I, O]
    "FULLY_CONNECTED": (2, (1,)),  # [O, I]
}
_TRANSPOSED_KERNELS = {
    "TRANSPOSE_CONV": (4, (0, 1, 2)),  # [O, KH, KW, I]
    "CONV_3D_TRANSPOSE": (5, (0, 1, 2, 3)),  # [KD, KH, KW, O, I]
}
# Operators whose input 1 is the kernel of a convolution or a dense layer.
WITH_KERNEL = frozenset({"LceBconv2d", *_KERNELS, *_TRANSPOSED_KERNELS})
_CUSTOM_WITHOUT_MACS = ("LceQuantize", "LceDequantize", "LceBMaxPool2d")
# Builtin operators with products of matrices in them that are not counted here, or with another graph.
_UNKNOWN = re.compile(
    r"(.*_)?(LSTM|RNN)|SVDF|IF|WHILE|CALL|CALL_ONCE|DELEGATE|BUILTIN_\d+"
    r"|STABLEHLO_(CONVOLUTION|DOT_GENERAL|CUSTOM_CALL|COMPOSITE|WHILE)"
)


def count_macs(operator: Operator) -> int | None:
    """Multiply-accumulates of one run.

    Returns:
        None where they are not known: of custom operators other than LCE's, of recurrent ones, of those that run
        another graph, and where shapes do not go together.
    """
    shapes = [tensor.shape if tensor is not None else () for tensor in operator.inputs] + [()] * 3
    output = operator.outputs[0].shape if operator.outputs else ()
    name = operator.name
    if name == "LceBconv2d":
        return _binary_macs(shapes[0], shapes[1], output, attribute(operator, "channels_in"))
    if operator.is_custom:
        return 0 if name in _CUSTOM_WITHOUT_MACS else None
    if name == "BATCH_MATMUL":
        return _matrix_macs(shapes[0], output)
    if name in _KERNELS or name in _TRANSPOSED_KERNELS:
        rank, axes = (_KERNELS | _TRANSPOSED_KERNELS)[name]
        positions = shapes[2] if name in _TRANSPOSED_KERNELS else output
        if len(shapes[1]) != rank or not positions:
            return None
        return math.prod(positions) * math.prod(shapes[1][axis] for axis in axes)
    return None if _UNKNOWN.fullmatch(name) else 0


def _binary_macs(
    image: tuple[int, ...], kernel: tuple[int, ...], output: tuple[int, ...], channels: int | None
) -> int | None:
    """Of an `LceBconv2d`: packed [N, H, W, words], [O, KH, KW, words of one group], [N, OH, OW, O or words]."""
    if channels is None or not len(image) == len(kernel) == len(output) == 4:
        return None
    # Groups are of whole words; without them the last word may be filled up.
    words = -(-channels // 32)
    if channels <= 0 or image[3] != words or not kernel[3] or words % kernel[3]:
        return None
    depth = channels if kernel[3] == words else 32 * kernel[3]
    return math.prod(output[:3]) * math.prod(kernel[:3]) * depth


def _matrix_macs(left: tuple[int, ...], output: tuple[int, ...]) -> int | None:
    """Of [..., M, K] (or [..., K, M], transposed first) with a matrix that makes it [..., M, N]."""
    if len(left) < 2 or len(output) < 2:
        return None
    size, rows = left[-1] * left[-2], output[-2]
    if not rows:
        return 0
    return None if size % rows else math.prod(output) * (size // rows)


def attribute(operator: Operator, name: str) -> int | None:
    """An integer out of a custom operator's options.

    Args:
        operator: its options are a flexbuffer's map, as LCE writes them.
        name: such as `channels_in`.

    Returns:
        None where there is no such integer, or the options are garbled.
    """
    if not 0 < len(operator.custom_options) <= _MAX_OPTIONS_BYTES:
        return None
    try:
        # Looks up one key, and follows nothing else: a map that holds itself does no harm.
        value = flexbuffers.GetRoot(operator.custom_options).AsMap[name]
        return value.AsInt if value.IsInt else None
    except (*READER_ERRORS, AssertionError):
        return None
