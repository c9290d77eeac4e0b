"""What came out of LCE, with every binary layer found again in it."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from typing import Any

import numpy as np

from bssl_tf.backend import keras
from bssl_tf_converters.checks.layers import binary_layers, quantized_kernel
from bssl_tf_converters.tflite_model import Operator, TfliteModel, histogram, read_model, unpack_binary_kernel

FLOAT_CONVOLUTIONS = ("CONV_2D", "DEPTHWISE_CONV_2D", "TRANSPOSE_CONV", "CONV_3D")


@dataclass(frozen=True)
class BinaryReport:
    """What a flatbuffer is made of.

    Attributes:
        binary_convolutions: LceBconv2d operators, one for each binary layer.
        float_convolutions: operators that convolve in float, such as the stem.
        fully_connected: float dense operators.
        weight_bytes: size of all constants.
        operators: how many of each name.
    """

    binary_convolutions: int
    float_convolutions: int
    fully_connected: int
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
    """

    model: keras.Model
    content: TfliteModel
    report: BinaryReport
    layers: dict[int, Any]
    lost: tuple[Any, ...]
    accepted: tuple[Any, ...]


def look_up(model: keras.Model, converted: bytes, accepted: tuple[str, ...] = ()) -> Conversion:
    """Finds every binary layer of `model` in the flatbuffer, by its kernel.

    Names do not serve: LCE names an operator after what it fused into it, or after the next layer, and cuts the name.
    The packed kernel does. Where LCE folds a batch norm with a negative scale into a bit-packed output, it turns the
    channel's signs around, so that kernels are compared up to the sign of each output channel.

    Args:
        model: as given to the converter.
        converted: what it returned.
        accepted: names of layers that may be float.

    Raises:
        ConversionError: `converted` is no sound flatbuffer.
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
        if free:
            found[free[0]] = layer
        elif layer.name not in accepted:
            lost.append(layer)
    counts = histogram(content)
    report = BinaryReport(
        counts.get("LceBconv2d", 0),
        sum(counts.get(name, 0) for name in FLOAT_CONVOLUTIONS),
        counts.get("FULLY_CONNECTED", 0),
        content.weight_bytes,
        counts,
    )
    names = [layer for layer in model.submodules if getattr(layer, "name", None) in accepted]
    return Conversion(model, content, report, found, tuple(lost), tuple(names))


def _channel_counts(operator: Operator, widths: set[int]) -> list[int]:
    """Input channels that the operator's kernel may stand for: a word holds 32, and the last is filled up."""
    packed = operator.inputs[1] if len(operator.inputs) > 1 else None
    if packed is None or not packed.shape:
        return []
    return [width for width in sorted(widths) if -(-width // 32) == packed.shape[-1]]


def _fingerprint(signs: np.ndarray) -> tuple[tuple[int, ...], bytes]:
    """bool [O, KH, KW, I] to something that stays the same when a channel O changes sign."""
    first = signs[:, :1, :1, :1]
    return signs.shape, np.packbits(signs ^ first).tobytes()
