"""What came out of LCE, with every binary layer found again in it."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from typing import Any

import numpy as np

from bssl_tf.backend import keras
from bssl_tf_converters.lce.checks.layers import binary_layers, quantized_kernel
from bssl_tf_converters.lce.checks.wiring import calls
from bssl_tf_converters.tflite.model import Operator, TfliteModel, histogram, read_model, unpack_binary_kernel

FLOAT_CONVOLUTIONS = ("CONV_2D", "DEPTHWISE_CONV_2D", "TRANSPOSE_CONV", "CONV_3D")
DENSE = ("FULLY_CONNECTED", "BATCH_MATMUL")


@dataclass(frozen=True)
class BinaryReport:
    """What a flatbuffer is made of.

    Attributes:
        binary_convolutions: LceBconv2d operators, one for each binary layer.
        float_convolutions: operators that convolve in float, such as the stem.
        fully_connected: float dense operators.
        int8_operators: convolutions and dense operators in int8.
        weight_bytes: size of all constants.
        operators: how many of each name.
    """

    binary_convolutions: int
    float_convolutions: int
    fully_connected: int
    int8_operators: int
    weight_bytes: int
    operators: dict[str, int]


@dataclass(frozen=True)
class Conversion:
    """A model and its flatbuffer.

    Attributes:
        model: as given to the converter.
        content: what it made.
        report: what that is made of.
        layers: the binary layer that became an operator, by the operator's place in `content.operators`.
        lost: layers meant to be binary that became no LceBconv2d and are not in `accepted`.
        accepted: layers that were allowed to become float.
        int8: whether it was asked for int8.
    """

    model: keras.Model
    content: TfliteModel
    report: BinaryReport
    layers: dict[int, Any]
    lost: tuple[Any, ...]
    accepted: tuple[Any, ...]
    int8: bool = False


def look_up(model: keras.Model, converted: bytes, accepted: tuple[str, ...] = (), *, int8: bool = False) -> Conversion:
    """Finds every binary layer of `model` in the flatbuffer, by its kernel.

    Names do not serve: LCE names an operator after what it fused into it, or after the next layer, and cuts the name.
    The packed kernel does. Where LCE folds a batch norm with a negative scale into a bit-packed output, it turns the
    output channel's signs around, and `folding.sign_thresholds` those of an input channel. So kernels are compared up
    to the sign of each output and input channel.

    Args:
        model: as given to the converter.
        converted: what it returned.
        accepted: names of layers that may be float.
        int8: whether it was asked for int8.

    Raises:
        ConversionError: `converted` is not a valid flatbuffer.
    """
    content = read_model(converted)
    layers = [(layer, quantized_kernel(layer)) for layer in binary_layers(model)]
    widths = {kernel.shape[2] for _, kernel in layers if kernel is not None}
    places = defaultdict(list)
    for place, operator in enumerate(content.operators):
        if operator.name == "LceBconv2d":
            for channels in _channel_counts(operator, widths):
                places[_fingerprint(unpack_binary_kernel(operator, channels))].append(place)
    found: dict[int, Any] = {}
    lost = []
    for layer, kernel in layers:
        # Keras holds [KH, KW, I, O]; sign(0) is +1 in larq and LCE.
        key = None if kernel is None else _fingerprint(np.transpose(kernel >= 0, (3, 0, 1, 2)))
        free = [place for place in places.get(key, ()) if place not in found] if key is not None else []
        # A layer that is called twice makes two operators, one where both calls take the same.
        found |= dict.fromkeys(free[: calls(model, layer)], layer)
        if free:
            continue
        if layer.name not in accepted:
            lost.append(layer)
    counts = histogram(content)
    in_float = [operator for operator in content.operators if not is_int8(operator)]
    report = BinaryReport(
        counts.get("LceBconv2d", 0),
        sum(operator.name in FLOAT_CONVOLUTIONS for operator in in_float),
        sum(operator.name == "FULLY_CONNECTED" for operator in in_float),
        len(content.operators) - len(in_float),
        content.weight_bytes,
        counts,
    )
    names = [layer for layer in model.submodules if getattr(layer, "name", None) in accepted]
    return Conversion(model, content, report, found, tuple(lost), tuple(names), int8)


def is_int8(operator: Operator) -> bool:
    """Is it a convolution or dense operator that computes in int8?"""
    kernel = operator.inputs[1] if len(operator.inputs) > 1 else None
    return operator.name in (*FLOAT_CONVOLUTIONS, *DENSE) and kernel is not None and kernel.dtype == "int8"


def _channel_counts(operator: Operator, widths: set[int]) -> list[int]:
    """Input channels that the operator's kernel may stand for: a word holds 32, and the last is filled up."""
    packed = operator.inputs[1] if len(operator.inputs) > 1 else None
    if packed is None or not packed.shape:
        return []
    return [width for width in sorted(widths) if -(-width // 32) == packed.shape[-1]]


def _fingerprint(signs: np.ndarray) -> tuple[tuple[int, ...], bytes]:
    """bool [O, KH, KW, I] to something that stays the same when a channel O, or a channel I, changes sign."""
    of_outputs = signs ^ signs[:, :1, :1, :1]
    return signs.shape, np.packbits(of_outputs ^ of_outputs[:1, :1, :1]).tobytes()
