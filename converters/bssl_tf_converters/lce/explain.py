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

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import tflite

from bssl_tf.backend import keras
from bssl_tf.errors import ConversionError
from bssl_tf.preprocessing import Preprocessing
from bssl_tf_converters.lce.checks.conversion import Conversion, look_up
from bssl_tf_converters.lce.checks.layers import quantized_kernel
from bssl_tf_converters.lce.converter import LceInterpreter
from bssl_tf_converters.lce.parity import TOLERANCE, PreActivation, pre_activations, threshold_images
from bssl_tf_converters.tflite.model import Operator, read_model, unpack_binary_kernel
from bssl_tf_deploy.preprocess import whole_pixels

NEAR = 1e-4
_OUTPUT = "the output"
_EXPLAINED = 12


@dataclass(frozen=True)
class Difference:
    """Signs that differ in front of one layer, or numbers that differ at the end.

    Attributes:
        layer: the binary layer that reads the signs; at the end `the output`.
        images: how many images have such signs, of those that had none before.
        signs: how many signs differ in these images.
        share: of all signs there in these images, 0 to 1.
        near: how many of `signs` are within `NEAR` of their threshold.
    """

    layer: str
    images: int
    signs: int
    share: float
    near: int


@dataclass(frozen=True)
class Explanation:
    """What a comparison layer by layer found.

    Attributes:
        images: how many were compared.
        compared: the binary layers whose inputs were compared, in the order in which they run; up to the fault.
        left_out: binary layers that were not found in the flatbuffer or not reached in Keras.
        rounding: layers where signs differ in some images, all of them near their thresholds.
        fault: the first layer where signs differ that are not near.
        behind: the last layer in front of it whose input agrees; empty if there is none.
        wrong_kernels: layers whose kernels differ in the flatbuffer: name -> how many signs of the kernel.
    """

    images: int
    compared: tuple[str, ...]
    left_out: tuple[str, ...]
    rounding: tuple[Difference, ...]
    fault: Difference | None
    behind: str
    wrong_kernels: dict[str, int]

    def lines(self) -> list[str]:
        """In words, a line each."""
        found = [
            f"layer {one.layer}: {one.signs} signs differ in {one.images} of {self.images} images, all of them within "
            f"{NEAR:g} of their threshold: rounding, no fault"
            for one in self.rounding
        ]
        if self.fault is not None:
            found.append(self.fault_sentence())
        elif sum(one.images for one in self.rounding) == self.images:
            found.append("rounding turned a sign in every image, so that nothing can be said of what comes behind")
        else:
            found.append(
                f"the inputs of {len(self.compared)} binary layers and the output agree on {self.images} images"
                + (", but for that rounding" if self.rounding else "")
            )
        found += [f"layer {name}: {signs} signs of its kernel differ" for name, signs in self.wrong_kernels.items()]
        if self.left_out:
            found.append(f"not compared, as they cannot be reached one by one: {', '.join(self.left_out)}")
        return found

    def fault_sentence(self) -> str:
        """Where the fault is; there must be one."""
        one = self.fault
        assert one is not None
        after = f"behind layer {self.behind}, whose input agrees" if self.behind else "in front of all binary layers"
        if one.layer == _OUTPUT:
            return f"{_OUTPUT} differs in {one.images} images, and all signs agree: the cause lies {after}"
        return (
            f"layer {one.layer} is the first whose input differs: {100 * one.share:.2g} % of its signs in {one.images} "
            f"of {self.images} images, {one.near} of {one.signs} near their threshold; the cause lies {after}"
        )


def explain(
    model: keras.Model,
    converted: bytes,
    images: np.ndarray,
    preprocessing: Preprocessing | None = None,
    report: Callable[[str], None] = lambda line: None,
) -> Explanation:
    """Compares a Keras model with its conversion at every sign.

    Args:
        model: as given to the converter.
        converted: what it returned.
        images: float32 [N, S, S, C], preprocessed, N at least 1. A dozen will do, as a fault shows in most of them.
        preprocessing: that of `images`, where the converted network takes pixels; these are rounded to whole ones.
        report: takes lines of prose for the user.

    Raises:
        ConversionError: `converted` is no sound flatbuffer, or there are no images.
    """
    if not len(images):
        raise ConversionError("there are no images to compare the networks on", "Give at least one")
    conversion = look_up(model, converted)
    operators, wrong_kernels = _operators(conversion)
    signs = {one.layer.name: one for one in pre_activations(model)}
    probes = [(operator, signs[name]) for name, operator in operators.items() if name in signs]
    layers = (*conversion.layers.values(), *conversion.lost)
    left_out = tuple(layer.name for layer in layers if layer.name not in {one.layer.name for _, one in probes})
    inputs: np.ndarray = np.asarray(images, np.float32)
    pixels = None if preprocessing is None else whole_pixels(inputs, preprocessing.mean, preprocessing.std)
    if preprocessing is not None and pixels is not None:
        inputs = preprocessing.normalise(pixels)
    network = keras.Model(model.inputs, [one.tensor for _, one in probes] + [model.output])
    outputs = network(inputs, training=False)
    outputs = [tensor.numpy() for tensor in (outputs if isinstance(outputs, list) else [outputs])]
    if pixels is not None:
        inputs = pixels

    clean = np.ones(len(images), bool)
    compared: list[str] = []
    rounding: list[Difference] = []

    def found(fault: Difference | None) -> Explanation:
        behind = compared[-1] if compared else ""
        return Explanation(len(images), tuple(compared), left_out, tuple(rounding), fault, behind, wrong_kernels)

    for (operator, sign), values in zip(probes, outputs[:-1], strict=True):
        if not np.any(clean):
            break
        report(f"comparing the input of {sign.layer.name}")
        packed = operator.inputs[0]
        assert packed is not None
        words = LceInterpreter(with_output_tensor(converted, packed.index)).predict(inputs[clean])
        bits = _unpacked(words, values.shape[-1])
        difference, differing = _compare(sign, values[clean], _turned_back(bits, values[clean], sign, operator))
        if difference is not None and difference.near < difference.signs:
            return found(difference)
        compared.append(sign.layer.name)
        if difference is not None:
            rounding.append(difference)
            clean[np.flatnonzero(clean)[differing]] = False
    if np.any(clean):
        logits = LceInterpreter(converted).predict(inputs[clean])
        tolerance = TOLERANCE * float(np.median(np.abs(outputs[-1])))
        # Not a number is not within the tolerance either.
        within = np.abs(logits - outputs[-1][clean]) <= tolerance
        off = int(np.count_nonzero(~np.all(within, axis=tuple(range(1, within.ndim)))))
        if off:
            return found(Difference(_OUTPUT, off, int(np.count_nonzero(~within)), float(np.mean(~within)), 0))
    return found(None)


def images_to_explain(model: keras.Model, images: np.ndarray | None = None) -> np.ndarray:
    """A dozen of `images`, spread over them, and those that `threshold_images` makes of them.

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
    return np.concatenate([chosen, threshold_images(model, chosen)])


def require_no_fault(explanation: Explanation) -> None:
    """Raises `ConversionError` that names the first layer where more differs than rounding explains."""
    if explanation.fault is not None:
        kernels = [f"{signs} signs of {name}'s kernel differ" for name, signs in explanation.wrong_kernels.items()]
        raise ConversionError(
            "; ".join([explanation.fault_sentence(), *kernels]),
            "Look at the padding, the quantisers and the batch norm there; if they are plain, report it",
        )


def with_output_tensor(converted: bytes, index: int) -> bytes:
    """The flatbuffer with another of its tensors as its output, for as many bytes.

    Args:
        converted: a sound flatbuffer with one output.
        index: of the tensor in its graph.
    """
    assert len(read_model(converted).outputs) == 1
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
        sign.layer.name,
        int(np.count_nonzero(differing)),
        count,
        count / there.size,
        int(np.count_nonzero(flipped & near)),
    )
    return found, differing


def _unpacked(words: np.ndarray, channels: int) -> np.ndarray:
    """LCE's int32 [N, H, W, ceil(C / 32)] as bool [N, H, W, C], True for +1; its bits are set for -1."""
    octets = np.ascontiguousarray(words).view(np.uint8)
    return np.unpackbits(octets, axis=-1, count=channels, bitorder="little") == 0


def _operators(conversion: Conversion) -> tuple[dict[str, Operator], dict[str, int]]:
    """The operator of each binary layer, in the order in which they run; and which kernels differ, in how many signs.

    Kernels that are equal make the pairs (`look_up`). What is left over on both sides, of the same shape, is paired in
    the order in which it runs: a kernel with a wrong bit is equal to none.
    """
    operators = conversion.content.operators
    pairs = {place: layer.name for place, layer in conversion.layers.items()}
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
                pairs[place] = layer.name
                free.remove(place)
                wrong[layer.name] = int(np.count_nonzero(made ^ _turns(made, expected) != expected))
                break
    return {pairs[place]: operators[place] for place in sorted(pairs)}, wrong


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


__all__ = ["NEAR", "Difference", "Explanation", "explain", "images_to_explain", "require_no_fault"]
