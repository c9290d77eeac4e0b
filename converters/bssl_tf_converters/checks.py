"""Is what came out of LCE still binary? LCE turns what it does not recognise into float convolutions, without a word.

`check_convertible` looks at the Keras model before, `check_binary` at the flatbuffer after. Both name the layer.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Any

import numpy as np

from bssl_tf.backend import keras, lq
from bssl_tf.errors import ConversionError
from bssl_tf.models.binarization import binary_layers
from bssl_tf_converters.tflite_model import Operator, histogram, read_model, unpack_binary_kernel

# larq's quantisers that become 1-bit operators with the right numbers, each tried against LCE 0.16 by
# tests/converters/test_quantizers.py. The others, as an input's (I) or a kernel's (K) quantiser:
#   ste_tern             I: LCE takes it for a sign, one output in six is wrong    K: float
#   magnitude_aware_sign I: float, and wrong                                       K: right, the scale is folded
#   ste_heaviside, dorefa_quantizer, NoOp                                          I, K: float
# DoReFa(1, mode="weights") is right for kernels, but any other setting of it is not; it stays out.
_q = lq.quantizers
INPUT_QUANTIZERS = {
    "ste_sign": (_q.SteSign, _q.ste_sign),
    "approx_sign": (_q.ApproxSign, _q.approx_sign),
    "swish_sign": (_q.SwishSign, _q.swish_sign),
}
KERNEL_QUANTIZERS = INPUT_QUANTIZERS | {"magnitude_aware_sign": (_q.MagnitudeAwareSign,)}

_FLOAT_CONVOLUTIONS = ("CONV_2D", "DEPTHWISE_CONV_2D", "TRANSPOSE_CONV", "CONV_3D")
_LAYERS = keras.layers
_CONVOLUTION_LAYERS = (_LAYERS.Conv1D, _LAYERS.Conv2D, _LAYERS.Conv3D, _LAYERS.DepthwiseConv2D)
_SEPARABLE_LAYERS = (_LAYERS.SeparableConv1D, _LAYERS.SeparableConv2D)


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


def check_convertible(model: keras.Model) -> None:
    """Refuses layers that LCE is known to convert to float, or to wrong numbers.

    Raises:
        ConversionError: names the layer and what to change.
    """
    for layer in _leaves(model):
        quantizers = {
            name: value
            for name in ("input_quantizer", "kernel_quantizer", "depthwise_quantizer", "pointwise_quantizer")
            if (value := getattr(layer, name, None)) is not None
        }
        if not quantizers:
            continue
        if type(layer) is not lq.layers.QuantConv2D:
            hint = "Use QuantConv2D"
            if isinstance(layer, keras.layers.Dense):
                hint = "Write it as Reshape((1, 1, C)), QuantConv2D(units, 1) and Flatten"
            raise ConversionError(
                f"layer {layer.name} is a {type(layer).__name__}, which LCE would convert to float", hint
            )
        _check_pair(layer, quantizers)
        _check_quantizer(layer, "input", quantizers["input_quantizer"], INPUT_QUANTIZERS)
        _check_quantizer(layer, "kernel", quantizers["kernel_quantizer"], KERNEL_QUANTIZERS)
        if layer.padding == "same" and layer.pad_values not in (0, 1):
            raise ConversionError(
                f"layer {layer.name} pads with {layer.pad_values:g}, which LCE would convert to float",
                "Set pad_values to 1 (fast) or 0",
            )


def check_binary(model: keras.Model, converted: bytes) -> BinaryReport:
    """Finds every binary layer of `model` again in the flatbuffer, by its kernel.

    Names do not serve: LCE names an operator after what it fused into it, or after the next layer, and cuts the name.
    The packed kernel does. Where LCE folds a batch norm with a negative scale into a bit-packed output, it turns the
    channel's signs around, so that kernels are compared up to the sign of each output channel.

    Args:
        model: as given to the converter.
        converted: what it returned.

    Raises:
        ConversionError: a layer is not binary there, or there is more float than `model` has; names the layers.
    """
    content = read_model(converted)
    found = Counter(
        _fingerprint(unpack_binary_kernel(operator, channels))
        for operator in content.operators
        if operator.name == "LceBconv2d"
        for channels in _channel_counts(model, operator)
    )
    lost = []
    layers = binary_layers(model)
    for layer in layers:
        # Keras holds [KH, KW, I, O]; sign(0) is +1 in larq and LCE.
        kernel = _latent_kernel(layer)
        key = _fingerprint(np.transpose(kernel >= 0, (3, 0, 1, 2)))
        if found[key]:
            found[key] -= 1
        else:
            zeros = not np.all(np.any(kernel, axis=(0, 1, 2)))
            lost.append(f"{layer.name} (a kernel of zeros)" if zeros else layer.name)
    if lost:
        raise ConversionError(
            f"{len(lost)} of {len(layers)} binary layers did not stay binary in LCE: {', '.join(lost)}",
            "Give each an input and a kernel quantiser out of ste_sign, approx_sign, and for kernels "
            "magnitude_aware_sign, with nothing between sign and convolution",
        )
    _check_floats(model, content.operators)
    counts = histogram(content)
    return BinaryReport(
        counts.get("LceBconv2d", 0),
        sum(counts.get(name, 0) for name in _FLOAT_CONVOLUTIONS),
        counts.get("FULLY_CONNECTED", 0),
        content.weight_bytes,
        counts,
    )


def _leaves(model: keras.Model) -> list[Any]:
    return [layer for layer in model.submodules if isinstance(layer, keras.layers.Layer)]


def _check_pair(layer: Any, quantizers: dict[str, Any]) -> None:
    for side, other in (("input", "kernel"), ("kernel", "input")):
        if f"{side}_quantizer" not in quantizers:
            raise ConversionError(
                f"layer {layer.name} has a {other} quantiser and no {side} quantiser, so that LCE would convert it "
                "to float",
                f"Set {side}_quantizer, or take {other}_quantizer away",
            )


def _check_quantizer(layer: Any, side: str, quantizer: Any, known: dict[str, tuple[Any, ...]]) -> None:
    if any(quantizer is one or type(quantizer) is one for kinds in known.values() for one in kinds):
        return
    name = getattr(quantizer, "name", None) or getattr(quantizer, "__name__", type(quantizer).__name__)
    raise ConversionError(
        f"layer {layer.name} has the {side} quantiser {name}, which is not known to convert right with LCE",
        f"Use one of {', '.join(known)}; bssl_tf_converters.checks says what LCE does with the others",
    )


def _latent_kernel(layer: Any) -> np.ndarray:
    kernel: np.ndarray = layer.get_weights()[0]
    return kernel


def _channel_counts(model: keras.Model, operator: Operator) -> set[int]:
    """Input channels that the operator's kernel may stand for: a word holds 32, and the last is filled up."""
    packed = operator.inputs[1]
    assert packed is not None
    counts = {_latent_kernel(layer).shape[2] for layer in binary_layers(model)}
    return {count for count in counts if -(-count // 32) == packed.shape[-1]}


def _fingerprint(signs: np.ndarray) -> tuple[tuple[int, ...], bytes]:
    """bool [O, KH, KW, I] to something that stays the same when a channel O changes sign."""
    first = signs[:, :1, :1, :1]
    return signs.shape, np.packbits(signs ^ first).tobytes()


def _check_floats(model: keras.Model, operators: tuple[Operator, ...]) -> None:
    binary = {id(layer) for layer in binary_layers(model)}
    layers = [layer for layer in _leaves(model) if id(layer) not in binary]
    separable = sum(isinstance(layer, _SEPARABLE_LAYERS) for layer in layers)
    convolutions = sum(isinstance(layer, _CONVOLUTION_LAYERS) for layer in layers)
    dense = sum(isinstance(layer, keras.layers.Dense) for layer in layers)
    # A separable layer is a convolution to Keras too, and two operators to TFLite.
    for names, allowed, kind in (
        (_FLOAT_CONVOLUTIONS, convolutions + separable, "convolutions"),
        (("FULLY_CONNECTED",), dense, "dense operators"),
        (("LceDequantize",), 0, "operators that turn bits back into floats"),
    ):
        named = [operator for operator in operators if operator.name in names]
        if len(named) > allowed:
            raise ConversionError(
                f"LCE made {len(named)} {kind} where {model.name} has {allowed} in float: "
                f"{', '.join(operator.outputs[0].name.partition(';')[0] for operator in named)}",
                "Look at the layers of these names: what stands between a sign and its convolution must be nothing, "
                "or an operator that LCE knows",
            )
    for operator in operators:
        if operator.is_custom and not operator.name.startswith("Lce"):
            raise ConversionError(
                f"operator {operator.name} exists in TensorFlow only, and no interpreter on a device has it",
                "Build the network from layers that TFLite knows",
            )
