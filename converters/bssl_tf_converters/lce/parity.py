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

Images are also made to be hard, with signs at their thresholds (`signs.hard_images`). There logits may differ, and only
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

from dataclasses import dataclass

import numpy as np

from bssl_tf.errors import ConversionError

TOLERANCE = 1e-3
MIN_TOP1_AGREEMENT = 0.99
MIN_SHARE_WITHIN = 0.5
# Measured: 0.92 to 1.03, on four networks at 224 px with random weights.
MIN_SHARE_OF_CORRELATION = 0.8
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
