"""Checks of what LCE made: is every binary layer still binary, and is there no float on the way?"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from typing import Any

from bssl_tf_converters.lce.checks.conversion import DENSE, FLOAT_CONVOLUTIONS, Conversion, is_int8
from bssl_tf_converters.lce.checks.expected import multiplying_operators
from bssl_tf_converters.lce.checks.findings import AFTER, Note, register
from bssl_tf_converters.lce.checks.wiring import calls
from bssl_tf_converters.tflite.model import Operator

# What LCE folds into bits when it comes in the right order behind a binary convolution, and computes in float when not.
_FOLDABLE = {"ADD", "SUB", "MUL", "DIV", "RELU", "RELU6", "RELU_N1_TO_1", "PRELU", "LEAKY_RELU", "MAX_POOL_2D"}


@register(AFTER, "lost-layer", "error")
def lost_layer(conversion: Conversion) -> Iterator[Note]:
    """A layer meant to be binary is not an LceBconv2d; LCE did not recognise it and computes in float."""
    total = len(conversion.lost) + len(conversion.layers)
    for layer in conversion.lost:
        yield Note(
            layer.name,
            f"is one of {len(conversion.lost)} of {total} binary layers that did not stay binary in LCE",
            "Give it an input and a kernel quantiser from ste_sign, approx_sign, swish_sign, and for kernels "
            "magnitude_aware_sign, with nothing between sign and convolution",
        )


@register(AFTER, "extra-float", "error")
def extra_float(conversion: Conversion) -> Iterator[Note]:
    """More float convolutions or dense operators than the model computes with, besides its binary layers."""
    model = conversion.model
    binary = {id(layer): layer for layer in conversion.layers.values()}
    # A layer that was lost is one of the float ones, and reported by its own check.
    expected = multiplying_operators(model) - sum(calls(model, layer) for layer in binary.values())
    made = [operator for operator in conversion.content.operators if operator.name in (*FLOAT_CONVOLUTIONS, *DENSE)]
    if len(made) > expected:
        yield Note(
            "",
            f"LCE made {len(made)} float convolutions and dense operators where {model.name} has {expected}: "
            f"{_names(made)}",
            "Look at the layers of these names: LCE did not recognise what is meant to be binary there",
        )


@register(AFTER, "dequantize", "error")
def dequantize(conversion: Conversion) -> Iterator[Note]:
    """Bits turned back into floats, for an operator that LCE cannot compute in bits."""
    made = [operator for operator in conversion.content.operators if operator.name == "LceDequantize"]
    in_float = sum(calls(conversion.model, layer) for layer in (*conversion.accepted, *conversion.lost))
    if len(made) > in_float:
        yield Note(
            "",
            f"LCE made {len(made)} operators that turn bits back into floats: {_names(made)}",
            "Look at the layers of these names: between a sign and its convolution must be nothing, so pool, pad and "
            "concatenate before the sign",
        )


@register(AFTER, "tensorflow-operator", "error", allowable=False)
def tensorflow_operator(conversion: Conversion) -> Iterator[Note]:
    """An operator that exists in TensorFlow only; no interpreter on a device has it."""
    for name, operators in _by_name(conversion).items():
        if operators[0].is_custom and not name.startswith("Lce"):
            yield Note(
                "",
                f"operator {name} exists in TensorFlow only, and no interpreter on a device has it: "
                f"{_names(operators)}",
                "Build the network from layers that TFLite knows",
            )


@register(AFTER, "int8-left-float", "error")
def int8_left_float(conversion: Conversion) -> Iterator[Note]:
    """int8 was requested, and a convolution or dense operator computes in float."""
    names = (*FLOAT_CONVOLUTIONS, *DENSE)
    left = [one for one in conversion.content.operators if one.name in names and not is_int8(one)]
    if conversion.int8 and left:
        yield Note(
            "",
            f"{len(left)} operators did not become int8: {_names(left)}",
            "Use Conv2D, DepthwiseConv2D and Dense without groups there",
        )


@register(AFTER, "separate-quantize", "warning")
def separate_quantize(conversion: Conversion) -> Iterator[Note]:
    """A binary layer writes floats that LceQuantize turns back into bits; the usual cause is padding with 0."""
    for layer, between in _detours(conversion):
        if not between and layer.padding == "same" and layer.pad_values == 0:
            yield Note(
                layer.name,
                "pads with 0, so LCE writes its results as floats and makes bits of them in a second operator",
                "Set pad_values=1 and train again, to keep the results as bits",
            )
        elif not between:
            yield Note(
                layer.name,
                "writes floats, and LCE makes bits of them in a second operator",
                "Feed it to the next convolution directly or through a batch norm",
            )


@register(AFTER, "float-between", "warning")
def float_between(conversion: Conversion) -> Iterator[Note]:
    """Float operators between two binary layers that could be folded into the first."""
    for layer, between in _detours(conversion):
        if between:
            yield Note(
                layer.name,
                f"is followed by {', '.join(operator.name for operator in between)} in float before the next sign: "
                f"{_names(between)}",
                "Put ReLU first, the batch norm after it, a max pool after that, and use no PReLU there",
            )


def _detours(conversion: Conversion) -> Iterator[tuple[Any, list[Operator]]]:
    """Binary layers whose floats go to an LceQuantize and nowhere else, and the operators on that way, in order."""
    operators = conversion.content.operators
    makers = {id(output): place for place, operator in enumerate(operators) for output in operator.outputs}
    readers: dict[int, int] = defaultdict(int)
    for operator in operators:
        for tensor in operator.inputs:
            readers[id(tensor)] += 1
    for tensor in conversion.content.outputs:
        readers[id(tensor)] += 1
    for operator in operators:
        if operator.name != "LceQuantize":
            continue
        between: list[Operator] = []
        tensor = operator.inputs[0]
        while readers[id(tensor)] == 1 and id(tensor) in makers:
            place = makers[id(tensor)]
            if place in conversion.layers:
                yield conversion.layers[place], between
                break
            computed = [one for one in operators[place].inputs if one is not None and one.data is None]
            if operators[place].name not in _FOLDABLE or len(computed) != 1:
                break
            between.insert(0, operators[place])
            tensor = computed[0]


def _by_name(conversion: Conversion) -> dict[str, list[Operator]]:
    named: dict[str, list[Operator]] = defaultdict(list)
    for operator in conversion.content.operators:
        named[operator.name].append(operator)
    return named


def _names(operators: list[Operator]) -> str:
    """The tensors that they write, whose names hold those of the Keras layers."""
    names = [operator.outputs[0].name.partition(";")[0] for operator in operators]
    more = f" and {len(names) - 8} more" if len(names) > 8 else ""
    return ", ".join(names[:8]) + more
