"""Checks of the Keras model, before anything is converted: what LCE's matcher would not take for binary.

The matcher is larq_compute_engine/mlir/transforms/prepare_tf.cc and prepare_patterns_common.td of LCE 0.16;
tests/converters/lce/test_conversion_matrix.py tries every rule here against it.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from bssl_tf.backend import keras, lq, tf
from bssl_tf.keras_files.models import KERAS_2_HINT
from bssl_tf_converters.lce.checks.findings import BEFORE, Note, register
from bssl_tf_converters.lce.checks.layers import (
    activation_function,
    binary_layers,
    input_shape,
    is_binary_kernel,
    leaves,
    quantized_kernel,
    quantizer_name,
    quantizers,
    sign_of,
    way_from_sign,
)

_LAYERS = keras.layers
_SIGNS = "ste_sign, approx_sign or swish_sign"
# A word of LCE's bits.
_GRAIN = 32


@register(BEFORE, "keras-3", "error", allowable=False)
def keras_3(model: Any) -> Iterator[Note]:
    """The model is from Keras 3, which neither larq nor LCE supports."""
    if not isinstance(model, keras.Model):
        kind = f"{type(model).__module__}.{type(model).__name__}"
        yield Note("", f"this is a {kind}, not a Keras 2 model", KERAS_2_HINT)


@register(BEFORE, "one-input", "error", allowable=False)
def one_input(model: keras.Model) -> Iterator[Note]:
    """The model has several inputs or no outputs, or its layers were never called; a bundle has one image."""
    inputs, outputs = model.inputs or (), model.outputs or ()
    if len(inputs) != 1 or not outputs:
        yield Note(
            "",
            f"{model.name} has {len(inputs)} inputs and {len(outputs)} outputs",
            "Give it one image and its outputs, with keras.Input and keras.Model(input, outputs)",
        )


@register(BEFORE, "unknown-size", "error", allowable=False)
def unknown_size(model: keras.Model) -> Iterator[Note]:
    """Height, width or channels of the input are not fixed; LCE would treat them as 1."""
    for tensor in model.inputs:
        if None in tensor.shape[1:]:
            yield Note(
                "",
                f"{model.name} takes images of any size {list(tensor.shape[1:])}, which LCE would treat as 1",
                "Build it with a fixed size, keras.Input((height, width, channels))",
            )


@register(BEFORE, "mixed-precision", "error", allowable=False)
def mixed_precision(model: keras.Model) -> Iterator[Note]:
    """Something is not float32; LCE refuses mixed precision."""
    hint = "Build it without a mixed-precision policy and load the weights again"
    for tensor in model.inputs:
        if tensor.dtype != tf.float32:
            yield Note("", f"{model.name} takes {tensor.dtype.name} and not float32", hint)
    for layer in leaves(model):
        types = {variable.dtype.base_dtype.name for variable in getattr(layer, "_trainable_weights", ())}
        types |= {layer.compute_dtype} - {None} if layer.inbound_nodes else set()
        if types - {"float32"}:
            yield Note(layer.name, f"computes in {', '.join(sorted(types))} and not in float32", hint)


@register(BEFORE, "nothing-binary", "warning")
def nothing_binary(model: keras.Model) -> Iterator[Note]:
    """No layer is quantised; LCE then has no benefit, and TensorFlow's own converter does just as well."""
    if not any(quantizers(layer) for layer in leaves(model)):
        yield Note(
            "",
            f"{model.name} has no binary layer: LCE has no benefit, and TensorFlow's own converter does just as well",
            "If it is to be binary, use QuantConv2D with an input_quantizer and a kernel_quantizer",
        )


@register(BEFORE, "layer-kind", "error")
def layer_kind(model: keras.Model) -> Iterator[Note]:
    """A quantised layer is not a QuantConv2D; LCE has no binary operator for it and computes in float."""
    for layer in binary_layers(model):
        if not isinstance(layer, lq.layers.QuantConv2D):
            yield Note(layer.name, f"is a {type(layer).__name__}, which LCE would convert to float", _instead(layer))


def _instead(layer: Any) -> str:
    if isinstance(layer, _LAYERS.Dense):
        return "Write it as Reshape((1, 1, C)), QuantConv2D(units, 1) and Flatten"
    if isinstance(layer, _LAYERS.Conv2DTranspose):
        return "Use UpSampling2D and QuantConv2D"
    if isinstance(layer, _LAYERS.Conv1D):
        return "Write it as Reshape((1, length, C)) and QuantConv2D(filters, (1, size))"
    if isinstance(layer, (_LAYERS.DepthwiseConv2D, _LAYERS.SeparableConv2D)):
        return "Use QuantConv2D, with groups of 32 channels where it is to be narrow"
    return "Use QuantConv2D"


@register(BEFORE, "half-quantized", "error")
def half_quantized(model: keras.Model) -> Iterator[Note]:
    """Only one side of a layer is quantised; LCE computes in float."""
    binary = {id(layer) for layer in binary_layers(model)}
    for layer in leaves(model):
        present = quantizers(layer)
        if not present or id(layer) in binary:
            continue
        if "input_quantizer" not in present:
            missing, there = "input_quantizer", sorted(present)[0]
        else:
            kernel = quantized_kernel(layer)
            if kernel is not None and is_binary_kernel(kernel):
                continue
            missing, there = "kernel_quantizer", "input_quantizer"
        yield Note(
            layer.name,
            f"has {_article(there)} {_spoken(there)} and no {_spoken(missing)}, so LCE would convert it to float",
            f"Set {missing}, or remove {there}",
        )


def _article(attribute: str) -> str:
    return "an" if attribute.startswith("i") else "a"


def _spoken(attribute: str) -> str:
    return attribute.replace("_quantizer", " quantiser")


@register(BEFORE, "ternary-input", "error", allowable=False)
def ternary_input(model: keras.Model) -> Iterator[Note]:
    """A ternary quantiser of activations; LCE treats it as a sign, and its numbers are wrong."""
    for layer, quantizer, sign in _signs(model):
        if sign.kind == "ternary":
            yield Note(
                layer.name,
                f"has the input quantiser {quantizer_name(quantizer)}, which LCE treats as a sign: "
                "the zeros would be lost, and the numbers wrong",
                f"Use one of {_SIGNS}",
            )


@register(BEFORE, "batch-dependent", "error", allowable=False)
def batch_dependent(model: keras.Model) -> Iterator[Note]:
    """A quantiser makes an image's numbers depend on the rest of its batch; on a device a batch is one image."""
    for layer, quantizer, sign in _signs(model):
        if sign.depends_on_batch:
            yield Note(
                layer.name,
                f"has the input quantiser {quantizer_name(quantizer)}, whose scale is taken over the batch, so that "
                "one image alone would give other numbers",
                f"Use one of {_SIGNS}",
            )


@register(BEFORE, "input-quantizer", "error")
def input_quantizer(model: keras.Model) -> Iterator[Note]:
    """An input quantiser that LCE cannot turn into bits: values other than +1 and -1, or an unknown form of sign."""
    binary = {id(layer) for layer in binary_layers(model)}
    for layer, quantizer, sign in _signs(model):
        if id(layer) not in binary or sign.depends_on_batch:
            continue
        name = quantizer_name(quantizer)
        if sign.kind == "other":
            message = f"has the input quantiser {name}, which gives other numbers than +1 and -1"
        elif sign.kind == "unknown sign":
            message = f"has the input quantiser {name}, a sign in a form that LCE does not know"
        else:
            continue
        yield Note(
            layer.name,
            f"{message}, so LCE would convert it to float",
            f"Use one of {_SIGNS}, or write it as tf.where(x >= 0, 1.0, -1.0)",
        )


def _signs(model: keras.Model) -> Iterator[tuple[Any, Any, Any]]:
    """Layers with an input quantiser, and activations in the graph; what they apply; what LCE makes of that."""
    for layer in leaves(model):
        function = getattr(layer, "input_quantizer", None)
        if function is None and layer.inbound_nodes:
            function = activation_function(layer)
        shape = input_shape(layer)
        sign = None if function is None or shape is None else sign_of(function, shape)
        if sign is not None:
            yield layer, function, sign


@register(BEFORE, "between-sign-and-convolution", "error")
def between_sign_and_convolution(model: keras.Model) -> Iterator[Note]:
    """Something stands between a sign and its convolution; LCE turns the bits back into floats there."""
    for layer in _binary_convolutions(model):
        way = None if layer.input_quantizer is not None else way_from_sign(model, layer)
        if way:
            names = ", ".join(between.name for between in way)
            pools = all(isinstance(between, (_LAYERS.MaxPool2D, _LAYERS.AveragePooling2D)) for between in way)
            hint = "Pool before the sign: max pooling and sign may change places" if pools else f"Put {names} first"
            yield Note(layer.name, f"takes a sign through {names}, so LCE would convert it to float", hint)


@register(BEFORE, "kernel-quantizer", "error")
def kernel_quantizer(model: keras.Model) -> Iterator[Note]:
    """A kernel quantiser whose values are not plus or minus one number per output channel; LCE computes in float."""
    for layer in _binary_convolutions(model):
        if not is_binary_kernel(_kernel(layer)) and not _quantizes(layer):
            yield Note(
                layer.name,
                f"has the kernel quantiser {quantizer_name(layer.kernel_quantizer)}, whose results are not plus or "
                "minus one number for each output channel, so LCE would convert it to float",
                f"Use one of {_SIGNS}, or magnitude_aware_sign; a scale for each input channel belongs in front",
            )


@register(BEFORE, "kernel-zeros", "error")
def kernel_zeros(model: keras.Model) -> Iterator[Note]:
    """Quantised weights of zero, where a channel's latent weights are; LCE computes the whole layer in float."""
    for layer in _binary_convolutions(model):
        kernel = _kernel(layer)
        if not is_binary_kernel(kernel) and _quantizes(layer):
            dead = np.flatnonzero(~np.all(kernel, axis=(0, 1, 2)))
            yield Note(
                layer.name,
                f"has weights of zero after its kernel quantiser, in {len(dead)} of {kernel.shape[3]} output channels "
                f"(the first is {dead[0] if len(dead) else 0}), so LCE would convert all of it to float",
                "Train on, or set the latent weights of these channels to any other number",
            )


@register(BEFORE, "pad-value", "error")
def pad_value(model: keras.Model) -> Iterator[Note]:
    """Padding with a number other than 0 or 1; LCE computes in float."""
    for layer in _binary_convolutions(model):
        if layer.padding == "same" and layer.pad_values not in (0, 1):
            yield Note(
                layer.name,
                f"pads with {float(layer.pad_values):g}, which LCE would convert to float",
                "Set pad_values to 1 (fast) or 0",
            )


@register(BEFORE, "channels-first", "error")
def channels_first(model: keras.Model) -> Iterator[Note]:
    """Channels before height and width; LCE computes in float."""
    for layer in _binary_convolutions(model):
        if layer.data_format != "channels_last":
            yield Note(layer.name, "has its channels first, which LCE would convert to float", "Put channels last")


@register(BEFORE, "group-grain", "error")
def group_grain(model: keras.Model) -> Iterator[Note]:
    """Groups of channels that do not fill words of 32 bits; LCE computes in float."""
    for layer in _binary_convolutions(model):
        channels = _kernel(layer).shape[2]
        if layer.groups > 1 and channels % _GRAIN:
            yield Note(
                layer.name,
                f"has {layer.groups} groups of {channels} input channels, which LCE would convert to float",
                f"Make a group's input channels a multiple of {_GRAIN}",
            )


@register(BEFORE, "groups", "warning")
def groups(model: keras.Model) -> Iterator[Note]:
    """A grouped convolution; of LCE's kernels only the indirect one runs it, as does our runtime."""
    for layer in _binary_convolutions(model):
        if layer.groups > 1:
            yield Note(
                layer.name,
                f"has {layer.groups} groups, which LCE's default kernel refuses to run",
                "Run it with our runtime, or with use_indirect_bgemm of LCE's interpreter",
            )


@register(BEFORE, "channel-grain", "warning")
def channel_grain(model: keras.Model) -> Iterator[Note]:
    """Input channels that do not fill words of 32 bits; they cost as much as the next multiple."""
    for layer in _binary_convolutions(model):
        channels = _kernel(layer).shape[2]
        if layer.groups == 1 and channels % _GRAIN:
            full = -(-channels // _GRAIN) * _GRAIN
            yield Note(
                layer.name,
                f"has {channels} input channels, which cost as much as {full}",
                f"Make them a multiple of {_GRAIN}",
            )


def _binary_convolutions(model: keras.Model) -> list[Any]:
    return [layer for layer in binary_layers(model) if isinstance(layer, lq.layers.QuantConv2D)]


def _kernel(layer: Any) -> np.ndarray:
    kernel = quantized_kernel(layer)
    assert kernel is not None, "a QuantConv2D has a kernel"
    return kernel


def _quantizes(layer: Any) -> bool:
    """Whether the kernel quantiser makes a binary kernel of weights without zeros."""
    shape = _kernel(layer).shape
    weights = np.random.default_rng(0).uniform(0.01, 1, shape) * np.random.default_rng(1).choice([-1, 1], shape)
    return is_binary_kernel(layer.kernel_quantizer(tf.constant(weights, tf.float32)).numpy())
