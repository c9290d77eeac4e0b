"""Does the converted network still say what the Keras network says?

Both compute in float32, with sums in another order. That is harmless until a pre-activation lies within rounding of
zero: then its sign may flip, and one flipped bit moves the logits by far more than rounding does.

Measured on `binary_resnet` with batch norm statistics from the embedded images, random scales and shifts, LCE 0.16 on
x86-64, differences over the median magnitude of the logits:

| pixels | binary layers | images | without a flip, up to | with one, up to | images with one | same best class |
|---|---|---|---|---|---|---|
| 28 | 3 | 2000 | 1e-5 | 0.13 | 0.1 % | 100 % |
| 28 | 6 | 2000 | 2e-5 | 0.8 | 0.3 % | 100 % |
| 28 | 12 (two seeds) | 2000 | 2e-5 | 1.6 | 0.9 % | 99.85 % |
| 28, trained (s2bnn) | 12 | 2000 | 6e-6 | 0.25 | 0.35 % | 100 % |
| 224 | 12 | 400 | 3e-5 | 0.6 | 10 % | 99.5 % |

No image fell between 1e-4 and 1e-3, and one between 1e-3 and 1e-2, so that a tolerance of 1e-3 tells the two apart.
Flips grow with the number of pre-activations (about 1 in 5 million here), so that a tight limit on their share would
depend on the network. A wrong padding, quantiser or kernel moves every image; hence the limit of one half.

Images are also made to be hard, with signs at their thresholds (`threshold_images`). There logits may differ, and only
what `explain` finds is asked for: every sign that differs first in an image is within rounding of its threshold.

A pre-activation of exactly 0, or -0, is +1 in Keras, in LCE and in our runtime. What makes it 0 may round to another
side, though. Where there are such ties (tests/converters/lce/test_explain.py, test_sign_thresholds.py):

- Behind a binary convolution, through batch norm, bias, scale, ReLU, PReLU and max pool, into signs only: none is left,
  by design. `folding.sign_thresholds` moves the threshold halfway between two whole sums, and all kernels, LCE's fast
  one and ours, say what Keras says, with or without padding with 0. Not folded, LCE's fast kernel for x86-64 misses 1
  tie in 5 where it pads with 0, as it multiplies and adds with one rounding instead of two.
- The same with a scale in the kernel (magnitude_aware_sign): Keras adds up scaled terms, misses what should be 0 in 4
  of 5 sums, and makes -1 of 2 in 5 (a batch norm of mean 0). Converted networks add whole numbers and make +1 of all.
- Behind a shortcut: the pre-activation is a sum of floats, and stays one. An exact tie there is luck, in Keras too:
  three terms f * 3, f * 4 and f * -7 are rounded one by one. Trained batch norms differ in f, and such sums do not
  cancel. Fresh ones all have the same f and mean 0.

That is why a network of random weights with shortcuts may be refused. larq-zoo's BinaryResNetE18 at 224 px has 30 exact
zeros an image in front of its second binary layer, of which LCE's fast kernel misses 1 in 80 and our runtime none; and
it has more sums that are 0 but for Keras's own rounding. After five layers a sign has turned in every image, in LCE and
in our runtime alike, and a random network makes other logits of one sign. With batch norms that are not fresh, the same
network turns 2 signs in 6 images up to there, and agrees. `explain` calls such signs rounding, and can say nothing of
what comes behind them; so refusing is right, and training is the way out.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from bssl_tf.backend import keras, tf
from bssl_tf.errors import ConversionError
from bssl_tf_converters.lce.checks.layers import activation_function, binary_layers, feeding

TOLERANCE = 1e-3
MIN_TOP1_AGREEMENT = 0.99
MIN_SHARE_WITHIN = 0.5
# Measured: 0.92 to 1.03, on four networks at 224 px with random weights.
MIN_SHARE_OF_CORRELATION = 0.8
# Float32 has 24 bits.
_HALVINGS = 24
_PAIRS = 2
_EXPLAIN = "See with --explain which layer is the first that differs; a quantiser or a padding is the usual cause"


@dataclass(frozen=True)
class Parity:
    """How two networks agree on the same images.

    Attributes:
        images: how many were compared.
        top1_agreement: share (0 to 1) with the same best class.
        max_abs_difference: between logits, over images and classes.
        median_abs_difference: between logits, over images and classes.
        share_within_tolerance: share of images (0 to 1) all of whose logits differ by no more than `tolerance`.
        tolerance: `TOLERANCE` times the median magnitude of the Keras logits, in units of logits.
    """

    images: int
    top1_agreement: float
    max_abs_difference: float
    median_abs_difference: float
    share_within_tolerance: float
    tolerance: float


def compare(keras_logits: np.ndarray, converted_logits: np.ndarray) -> Parity:
    """Compares logits of the same images.

    Args:
        keras_logits: float [N, K], N at least 1.
        converted_logits: float [N, K].

    Raises:
        ConversionError: shapes differ, there are no images, or a number is not finite.
    """
    if keras_logits.shape != converted_logits.shape or keras_logits.ndim != 2 or not keras_logits.size:
        raise ConversionError(
            f"Keras gives logits {list(keras_logits.shape)}, the converted network {list(converted_logits.shape)}",
            "Compare at least one image, and the network with its own conversion",
        )
    if not np.all(np.isfinite(keras_logits)) or not np.all(np.isfinite(converted_logits)):
        raise ConversionError("a network gives logits that are not finite", "Look at the weights it was trained to")
    difference = np.abs(keras_logits.astype(np.float64) - converted_logits)
    tolerance = TOLERANCE * float(np.median(np.abs(keras_logits)))
    return Parity(
        len(keras_logits),
        float(np.mean(np.argmax(keras_logits, axis=1) == np.argmax(converted_logits, axis=1))),
        float(np.max(difference)),
        float(np.median(difference)),
        float(np.mean(np.max(difference, axis=1) <= tolerance)),
        tolerance,
    )


def require(parity: Parity, hint: str = _EXPLAIN) -> None:
    """Refuses a conversion that does not agree.

    Args:
        parity: of the two networks.
        hint: the next step.

    Raises:
        ConversionError: top-1 agreement is below 0.99, or the share within tolerance below 0.5.
    """
    figures = (
        f"{100 * parity.top1_agreement:.2f} % of {parity.images} images have the same best class, "
        f"{100 * parity.share_within_tolerance:.2f} % have all logits within {parity.tolerance:.2g}, "
        f"the largest difference is {parity.max_abs_difference:.2g}"
    )
    if parity.top1_agreement < MIN_TOP1_AGREEMENT or parity.share_within_tolerance < MIN_SHARE_WITHIN:
        raise ConversionError(
            f"the converted network does not say what the Keras network says: {figures}",
            hint,
        )


def require_rounded(parity: Parity, keras_logits: np.ndarray, rounded: np.ndarray, converted: np.ndarray) -> None:
    """Refuses a conversion to int8 that rounding to int8 does not explain.

    TensorFlow and an interpreter round 1 number in 20,000 to different sides of a half, a step of int8 apart, and so
    flip signs: at 28 px in 1 image of 100, at 224 px in all of them, where the logits then differ as much as by int8
    itself. So a network that fails `require` must only be nearly as much like what TensorFlow rounds as that is like
    float32, by the correlation of logits. The same network without int8 has passed `require` before, which finds finer
    faults.

    Args:
        parity: of `rounded` and `converted`.
        keras_logits: float32 [N, K], of the network in float32.
        rounded: float32 [N, K], of the same rounded by TensorFlow.
        converted: float32 [N, K].

    Raises:
        ConversionError: it is not.
    """
    with np.errstate(invalid="ignore"):
        found, wanted = (np.corrcoef(rounded.ravel(), other.ravel())[0, 1] for other in (converted, keras_logits))
    if not found >= MIN_SHARE_OF_CORRELATION * wanted:
        require(parity, "Export it without int8, or calibrate on more images")


@dataclass(frozen=True, eq=False)
class PreActivation:
    """What a binary layer takes the signs of.

    Attributes:
        layer: the binary layer.
        tensor: of the Keras model, [B, H, W, C].
        quantizer: makes signs of it.
    """

    layer: Any
    tensor: Any
    quantizer: Callable[[Any], Any]

    def bits(self, values: np.ndarray) -> np.ndarray:
        """The signs of float `values`, bool, True for +1."""
        signs: np.ndarray = self.quantizer(tf.convert_to_tensor(values)).numpy()
        return signs >= 0


def pre_activations(model: keras.Model) -> list[PreActivation]:
    """Those of the binary layers of `model`, in its order; of layers in nested models and of shared layers, none."""
    binary, found = {id(layer) for layer in binary_layers(model)}, []
    for layer in model.layers:
        if id(layer) not in binary or len(layer.inbound_nodes) != 1 or not tf.is_tensor(layer.input):
            continue
        quantizer, tensor = getattr(layer, "input_quantizer", None), layer.input
        if quantizer is None:
            # A sign of its own in front.
            sources = feeding(layer)
            quantizer = activation_function(sources[0]) if len(sources) == 1 else None
            if quantizer is None or len(sources[0].inbound_nodes) != 1:
                continue
            tensor = sources[0].input
        found.append(PreActivation(layer, tensor, quantizer))
    return found


def threshold_images(model: keras.Model, images: np.ndarray, seed: int = 0) -> np.ndarray:
    """Images for which signs are hard to tell: what rounding can do to a network, it does here.

    - The darkest, the brightest and the mean colour of `images`, and zero, each even all over: all places of a map are
      equal, and zero makes all pre-activations of a network without biases exactly 0.
    - For the first, the middle and the last binary layer, up to two pairs of images on both sides of a threshold: on
      the line between two real images the last before, and the first behind, the place where a sign of that layer
      changes. They differ in the last bit of some pixels. In a later layer the cause may be a sign in front of it,
      which is at its threshold then.

    Args:
        model: with one input [B, S, S, C].
        images: float32 [N, S, S, C], real ones, N at least 1.
        seed: which pairs and which signs.

    Returns:
        float32 [M, S, S, C], M from 4 to 16.
    """
    rng, real = np.random.default_rng(seed), np.asarray(images, np.float32)
    axes = (0, 1, 2)
    colours = (real.min(axes), real.max(axes), real.mean(axes), np.zeros(real.shape[-1]))
    even = np.stack([np.broadcast_to(colour, real.shape[1:]) for colour in colours]).astype(np.float32)
    signs = pre_activations(model)
    chosen = {0, len(signs) // 2, len(signs) - 1} if signs else set()
    between = [_around_threshold(model, signs[place], real, rng) for place in sorted(chosen)]
    return np.concatenate([even, *between])


def _around_threshold(
    model: keras.Model, sign: PreActivation, images: np.ndarray, rng: np.random.Generator
) -> np.ndarray:
    """float32 [0 to 4, S, S, C]: images around the place where a sign changes between two of `images`."""
    network = keras.Model(model.inputs, sign.tensor)

    def bits(batch: np.ndarray) -> np.ndarray:
        return sign.bits(network(batch, training=False).numpy()).reshape(len(batch), -1)

    first, second = images[rng.integers(0, len(images), (2, _PAIRS))]
    low_bits, high_bits = bits(first), bits(second)
    differing = [np.flatnonzero(pair) for pair in low_bits != high_bits]
    usable = [place for place in range(_PAIRS) if len(differing[place])]
    if not usable:
        return images[:0]
    units = np.array([rng.choice(differing[place]) for place in usable])
    first, second, rows = first[usable], second[usable], np.arange(len(usable))
    start = low_bits[usable][rows, units]
    low, high = np.zeros(len(usable), np.float32), np.ones(len(usable), np.float32)

    def image(share: np.ndarray) -> np.ndarray:
        return first + (second - first) * share[:, np.newaxis, np.newaxis, np.newaxis]

    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        same = bits(image(middle))[rows, units] == start
        low, high = np.where(same, middle, low), np.where(same, high, middle)
    return np.concatenate([image(low), image(high)])
