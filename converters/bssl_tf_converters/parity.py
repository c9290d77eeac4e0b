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
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from bssl_tf.errors import ConversionError

TOLERANCE = 1e-3
MIN_TOP1_AGREEMENT = 0.99
MIN_SHARE_WITHIN = 0.5


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


def require(parity: Parity) -> None:
    """Refuses a conversion that does not agree.

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
            "Convert layer by layer to find the one that differs; a quantiser or a padding is the usual cause",
        )
