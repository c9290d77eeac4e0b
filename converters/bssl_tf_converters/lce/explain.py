"""Where does a converted network begin to differ from Keras, and does that matter?

Both networks are looked at where they must agree to the bit: at the signs that enter each binary layer. In Keras these
are the signs of a layer's input; in the flatbuffer, the packed tensor that its LceBconv2d reads, which is made the
network's output by writing one number over another. Where a kernel's input channel was turned around, so are its signs
(`folding.sign_thresholds`); that is taken back. So nothing is converted again, and what
is looked at is the very network that goes to the device. A layer costs one run of it for each image, and the first
layer that differs ends the search.

A sign may differ for two reasons. Its pre-activation may lie within rounding of the threshold: then the two networks
round it to different sides, which is nobody's fault; the image is set aside, as everything behind that sign differs
too. Or something in front of it is wrong, and then signs far from their thresholds differ.

`NEAR` tells the two apart: a sign counts as near its threshold if moving the pre-activation by NEAR times the layer's
root mean square turns it. Float32 rounds to 6e-8; sums over some hundred terms, a batch norm and the shortcuts of
thirty layers make up to 3e-5 of it (`parity`). A wrong bit in a kernel moves a sum by 2, one unit of its last place,
which is 3e-2 of the root mean square for a kernel of 3 x 3 x 512.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import tflite

from bssl_tf.backend import keras
from bssl_tf.errors import ConversionError
from bssl_tf.preprocessing import Preprocessing
from bssl_tf_converters.lce.checks.conversion import Conversion, look_up
from bssl_tf_converters.lce.checks.layers import quantized_kernel
from bssl_tf_converters.lce.converter import LceInterpreter, default_names, output_names
from bssl_tf_converters.lce.explanation import NEAR, OUTPUT, Difference, Explanation
from bssl_tf_converters.lce.interpreters import ask, uses_xnnpack
from bssl_tf_converters.lce.parity import TOLERANCE
from bssl_tf_converters.lce.signs import PreActivation, hard_images, pre_activations, run
from bssl_tf_converters.tflite.model import Operator, unpack_binary_kernel
from bssl_tf_deploy.golden import typical_magnitude
from bssl_tf_deploy.preprocess import whole_pixels

_log = logging.getLogger(__name__)
_EXPLAINED = 12
# Why a layer was not compared.
_NO_OPERATOR = "no LceBconv2d has the kernel"
_FEWER_OPERATORS = "calls and LceBconv2d operators differ in number"
_NO_SIGN = "the signs that enter are not made by a layer of their own"
_ALL_TURNED = "rounding had already flipped a sign in every image"


def explain(
    model: keras.Model,
    converted: bytes,
    images: np.ndarray,
    preprocessing: Preprocessing | None = None,
    *,
    names: Sequence[str] | None = None,
    xnnpack: bool | None = None,
) -> Explanation:
    """Compares a Keras model with its conversion at every sign.

    Args:
        model: as given to the converter.
        converted: what it returned.
        images: float32 [N, S, S, C], preprocessed, N at least 1. A dozen will do, as a fault shows in most of them.
        preprocessing: that of `images`, where the converted network takes pixels; these are rounded to whole ones.
        names: of the model's outputs, as given to the converter.
        xnnpack: whether LCE's interpreter is to be run with XNNPACK; None to find out on `images`, which must not be
            ones on which the two networks differ anyway.

    Raises:
        ConversionError: `converted` is not a valid flatbuffer, or there are no images.
    """
    if not len(images):
        raise ConversionError("there are no images to compare the networks on", "Give at least one")
    conversion = look_up(model, converted)
    inputs: np.ndarray = np.asarray(images, np.float32)
    pixels = None if preprocessing is None else whole_pixels(inputs, preprocessing.mean, preprocessing.std)
    if preprocessing is not None and pixels is not None:
        inputs = preprocessing.normalise(pixels)
    signs = pre_activations(model)
    values, outputs = run(model, signs, inputs)
    entering = {id(sign): value for sign, value in zip(signs, values, strict=True)}
    taken = inputs if pixels is None else pixels
    named = dict(zip(names or default_names(model), outputs, strict=True))
    if xnnpack is None:
        # An interpreter's own fault is not the network's.
        xnnpack = uses_xnnpack(ask(model.name, converted, taken, named))
    packed = _Packed(converted, taken, xnnpack)
    pairs, left_out, wrong_kernels = _pairs(conversion, signs, entering, packed)

    clean = np.ones(len(images), bool)
    compared: list[str] = []
    rounding: list[Difference] = []

    def found(fault: Difference | None, unexplained: Difference | None = None, output_images: int = 0) -> Explanation:
        behind = compared[-1] if compared else ""
        return Explanation(
            len(images),
            tuple(compared),
            left_out,
            tuple(rounding),
            fault,
            unexplained,
            behind,
            output_images,
            wrong_kernels,
        )

    for operator, sign in pairs:
        if not np.any(clean):
            left_out[sign.name] = _ALL_TURNED
            continue
        _log.info(f"comparing the input of {sign.name}")
        here = entering[id(sign)][clean]
        bits = replace(packed, images=taken[clean]).bits(operator, here.shape[-1])
        difference, differing = _compare(sign, here, _turned_back(bits, here, sign, operator))
        if difference is not None and difference.near < difference.signs:
            return found(difference)
        compared.append(sign.name)
        if difference is not None:
            rounding.append(difference)
            clean[np.flatnonzero(clean)[differing]] = False
    if not np.any(clean):
        return found(None)
    interpreter = LceInterpreter(converted, xnnpack=xnnpack)
    made = dict(zip(output_names(converted), interpreter.run([taken[clean]]), strict=True))
    count = int(np.count_nonzero(clean))
    # Not a number is not within the tolerance either.
    within = np.concatenate(
        [
            (np.abs(made[name] - output[clean]) <= TOLERANCE * typical_magnitude(output)).reshape(count, -1)
            for name, output in named.items()
        ],
        axis=1,
    )
    off = int(np.count_nonzero(~np.all(within, axis=1)))
    if not off:
        return found(None, output_images=count)
    last = Difference(OUTPUT, off, int(np.count_nonzero(~within)), float(np.mean(~within)), 0)
    # A sign that was not looked at may have been turned by rounding.
    return found(None, last, count) if left_out else found(last, output_images=count)


def images_to_explain(model: keras.Model, images: np.ndarray | None = None) -> np.ndarray:
    """A dozen of `images`, spread over them, and the `hard_images` made of them.

    Args:
        model: with one input [B, S, S, C].
        images: float32 [N, S, S, C], N at least 1; None for noise, which will do for a network without images at hand.

    Returns:
        float32 [M, S, S, C], M up to 28.
    """
    if images is None:
        shape = (_EXPLAINED, *model.input.shape[1:])
        images = np.random.default_rng(0).normal(0, 1, shape).astype(np.float32)
    taken = min(len(images), _EXPLAINED)
    chosen = images[np.arange(taken) * len(images) // max(taken, 1)]
    return np.concatenate([chosen, hard_images(model, chosen).images])


def with_output_tensor(converted: bytes, index: int) -> bytes:
    """The flatbuffer with another of its tensors as its output, for as many bytes.

    Args:
        converted: a sound flatbuffer; it is the first of its outputs that changes.
        index: of the tensor in its graph.
    """
    table = tflite.Model.GetRootAsModel(converted, 0).Subgraphs(0)._tab
    # Field 2 of the schema's SubGraph; fields begin behind the table's two sizes, of two bytes each.
    place = table.Vector(table.Offset(4 + 2 * 2))
    return converted[:place] + index.to_bytes(4, "little") + converted[place + 4 :]


def _compare(sign: PreActivation, values: np.ndarray, bits: np.ndarray) -> tuple[Difference | None, np.ndarray]:
    """How `bits` differ from the signs of `values`, both [N, H, W, C], and which of the N images do."""
    flipped = bits != sign.bits(values)
    axes = tuple(range(1, flipped.ndim))
    differing = np.any(flipped, axis=axes)
    if not np.any(differing):
        return None, differing
    step = np.float32(NEAR * np.sqrt(np.mean(np.square(values, dtype=np.float64))))
    near = sign.bits(values - step) != sign.bits(values + step)
    there = flipped[differing]
    count = int(np.count_nonzero(flipped))
    found = Difference(
        sign.name,
        int(np.count_nonzero(differing)),
        count,
        count / there.size,
        int(np.count_nonzero(flipped & near)),
    )
    return found, differing


@dataclass(frozen=True, eq=False)
class _Packed:
    """The bits that enter operators of a flatbuffer when it runs on images [N, H, W, C] as it takes them."""

    converted: bytes
    images: np.ndarray
    xnnpack: bool

    def bits(self, operator: Operator, channels: int) -> np.ndarray:
        """Bool [N, H, W, C], True for +1; LCE's words are int32 [N, H, W, ceil(C / 32)], whose bits are set for -1."""
        packed = operator.inputs[0]
        assert packed is not None
        chosen = with_output_tensor(self.converted, packed.index)
        words = LceInterpreter(chosen, xnnpack=self.xnnpack).run([self.images])[0]
        octets = np.ascontiguousarray(words).view(np.uint8)
        return np.unpackbits(octets, axis=-1, count=channels, bitorder="little") == 0


def _pairs(
    conversion: Conversion, signs: list[PreActivation], entering: dict[int, np.ndarray], packed: _Packed
) -> tuple[list[tuple[Operator, PreActivation]], dict[str, str], dict[str, int]]:
    """Operators with the signs that they read, in the order in which they run; layers without, and why; and which
    kernels differ, in how many signs.

    Args:
        conversion: the flatbuffer with its layers.
        signs: that enter binary layers in Keras.
        entering: id of a sign -> what enters there, float32 [N, H, W, C].
        packed: the flatbuffer on the same images.
    """
    operators = conversion.content.operators
    places, wrong = _places(conversion)
    left_out: dict[str, str] = {}
    pairs: dict[int, PreActivation] = {}
    for layer in (*{id(one): one for one in conversion.layers.values()}.values(), *conversion.lost):
        own = [sign for sign in signs if sign.layer is layer]
        there = sorted(place for place, one in places.items() if one is layer)
        if not there:
            left_out[layer.name] = _NO_OPERATOR
        elif not own:
            left_out[layer.name] = _NO_SIGN
        elif len(own) != len(there):
            left_out[layer.name] = _FEWER_OPERATORS
        elif len(own) == 1:
            pairs[there[0]] = own[0]
        else:
            # Operators of one kernel may run in another order than its calls: each call takes the one most like it.
            made = {place: packed.bits(operators[place], entering[id(own[0])].shape[-1]) for place in there}
            for sign in own:
                values = entering[id(sign)]
                place = max(made, key=lambda place: _agreement(sign, values, made[place], operators[place]))
                del made[place]
                pairs[place] = sign
    return [(operators[place], pairs[place]) for place in sorted(pairs)], left_out, wrong


def _agreement(sign: PreActivation, values: np.ndarray, bits: np.ndarray, operator: Operator) -> float:
    """The share of `bits` that are the signs of `values`, 0 to 1; 0 where they are of another size."""
    if bits.shape != values.shape:
        return 0.0
    return float(np.mean(_turned_back(bits, values, sign, operator) == sign.bits(values)))


def _places(conversion: Conversion) -> tuple[dict[int, Any], dict[str, int]]:
    """The binary layer of each operator, by the operator's place; and which kernels differ, in how many signs.

    Kernels that are equal make the pairs (`look_up`). What is left over on both sides, of the same shape, is paired in
    the order in which it runs: a kernel with a wrong bit is equal to none.
    """
    operators = conversion.content.operators
    pairs = dict(conversion.layers)
    free = [place for place, one in enumerate(operators) if one.name == "LceBconv2d" and place not in pairs]
    wrong: dict[str, int] = {}
    for layer in conversion.lost:
        kernel = quantized_kernel(layer)
        if kernel is None:
            continue
        expected = np.transpose(kernel >= 0, (3, 0, 1, 2))
        for place in free:
            try:
                made = unpack_binary_kernel(operators[place], kernel.shape[2])
            except ConversionError:
                continue
            if made.shape == expected.shape:
                pairs[place] = layer
                free.remove(place)
                wrong[layer.name] = int(np.count_nonzero(made ^ _turns(made, expected) != expected))
                break
    return pairs, wrong


def _turns(made: np.ndarray, expected: np.ndarray) -> np.ndarray:
    """Which input and output channels of a kernel, bool [O, KH, KW, I], were turned around: bool [O, 1, 1, I].

    A channel counts as turned where most of its signs differ, so that single wrong bits do not hide it.
    """
    differing = np.mean(np.where(made == expected, 1.0, -1.0), axis=(1, 2))
    inputs = np.where(differing[0] < 0, -1.0, 1.0)
    for _ in range(2):
        outputs = np.where(differing @ inputs < 0, -1.0, 1.0)
        inputs = np.where(outputs @ differing < 0, -1.0, 1.0)
    turned: np.ndarray = np.outer(outputs, inputs) < 0
    return turned[:, np.newaxis, np.newaxis]


def _turned_back(bits: np.ndarray, values: np.ndarray, sign: PreActivation, operator: Operator) -> np.ndarray:
    """`bits` [N, H, W, C] as Keras has them, where the operator's kernel says that channels were turned around.

    All inputs turned, and all outputs, is the same kernel as none: what fits the signs of `values` better is right.
    """
    kernel = quantized_kernel(sign.layer)
    if kernel is None or kernel.shape[2] != bits.shape[-1]:
        # Groups are not turned.
        return bits
    made = unpack_binary_kernel(operator, kernel.shape[2])
    back: np.ndarray = bits ^ _turns(made, np.transpose(kernel >= 0, (3, 0, 1, 2)))[0, 0, 0]
    return back if 2 * np.count_nonzero(back == sign.bits(values)) >= back.size else ~back
