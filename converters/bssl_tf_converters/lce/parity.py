"""Does the converted network still agree with the Keras network?

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

A detector's outputs are maps, and its images are larger. At 320 px, with random weights, 5 of 16 images had a flip
somewhere (binary_resnet of depth 1), and 1 of 16 lost a quarter of its boxes by it. So it is enough there if each place
of the maps is within tolerance in half of the images (`least_share_of_a_place`), and agreement is counted by boxes.

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

from collections.abc import Callable, Mapping

import numpy as np

from bssl_tf.errors import ConversionError
from bssl_tf_deploy.golden import hides_faults, typical_magnitude
from bssl_tf_deploy.manifest import OutputParity, ParityFigures
from bssl_tf_deploy.tasks.classification import same_top1

TOLERANCE = 1e-3
MIN_AGREEMENT = 0.99
MIN_SHARE_WITHIN = 0.5
# Measured: 0.92 to 1.03, on four networks at 224 px with random weights.
MIN_SHARE_OF_CORRELATION = 0.8
Arrays = Mapping[str, np.ndarray]
Agree = Callable[[Arrays, Arrays], np.ndarray]
_EXPLAIN = "See with --explain which layer is the first that differs; a quantiser or a padding is the usual cause"


def compare(expected: Arrays, found: Arrays, agree: Agree = same_top1) -> ParityFigures:
    """Compares outputs of two networks for the same images.

    Args:
        expected: of the Keras network: by name, float [N, ...], N at least 1.
        found: of the converted one.
        agree: for each image whether two such give the same answer, bool [N].

    Returns:
        Tolerances are `TOLERANCE` times the typical magnitude of what is expected.

    Raises:
        ConversionError: names or shapes differ, there are no images, a number is not finite, or what is expected is so
            small or so alike that a wrong network could not be told from a right one.
    """
    shapes, others = ({name: list(array.shape) for name, array in arrays.items()} for arrays in (expected, found))
    count = {len(array) if array.ndim else 0 for array in expected.values()}
    if shapes != others or len(count) != 1 or not all(array.size for array in expected.values()):
        raise ConversionError(
            f"Keras gives {shapes}, the converted network {others}",
            "Compare at least one image, and the network with its own conversion",
        )
    if not all(np.all(np.isfinite(array)) for arrays in (expected, found) for array in arrays.values()):
        raise ConversionError("a network gives outputs that are not finite", "Look at the weights it was trained to")
    if reason := hides_faults([*expected.values()]):
        raise ConversionError(
            f"the outputs of the Keras network {reason}, so that nothing can be compared",
            "Check its weights, and that the images differ",
        )
    outputs, within = {}, np.ones(count.pop(), bool)
    for name, array in expected.items():
        difference = np.abs(array.astype(np.float64) - found[name])
        tolerance = TOLERANCE * typical_magnitude(array)
        outputs[name] = OutputParity(float(np.max(difference)), float(np.median(difference)), tolerance)
        within &= np.max(difference.reshape(len(array), -1), axis=1) <= tolerance
    return ParityFigures(len(within), float(np.mean(agree(expected, found))), float(np.mean(within)), outputs)


def require(
    parity: ParityFigures,
    hint: str = _EXPLAIN,
    *,
    least_agreement: float = MIN_AGREEMENT,
    share_of_places: float = 0.0,
) -> None:
    """Refuses a conversion that does not agree.

    Args:
        parity: of the two networks.
        hint: the next step.
        least_agreement: what the task wants, 0 to 1; one image may differ in any case, as one flip is no fault.
        share_of_places: see `least_share_of_a_place`.

    Raises:
        ConversionError: more images differ than the least agreement allows, or the share within tolerance is below
            0.5, of images and of some place in maps.
    """
    differences = ", ".join(
        f"{one.max_abs_difference:.2g} in {name} (tolerance {one.tolerance:.2g})"
        for name, one in parity.outputs.items()
    )
    figures = (
        f"{100 * parity.agreement:.2f} % of {parity.images} images have the same answer, "
        f"{100 * parity.share_within_tolerance:.2f} % have all outputs within tolerance, "
        f"the largest difference is {differences}"
    )
    within = max(parity.share_within_tolerance, share_of_places)
    # Of 60 images, one is more than one in a hundred.
    differing, allowed = (round(share * parity.images, 6) for share in (1 - parity.agreement, 1 - least_agreement))
    if differing > max(1, allowed) or within < MIN_SHARE_WITHIN:
        raise ConversionError(
            f"the converted network does not match the Keras network: {figures}",
            hint,
        )


def least_share_of_a_place(parity: ParityFigures, expected: Arrays, found: Arrays) -> float:
    """Of all places in outputs that are maps, [N, H, W, C], the least share of images that are within tolerance there.

    Maps of a large picture have a flipped sign somewhere in most images, and in each image at another place. A wrong
    padding moves the same places in all of them, and a wrong kernel moves all places. 0 where an output is not a map.
    """
    least = 1.0
    for name, array in expected.items():
        if array.ndim != 4:
            return 0.0
        within = np.abs(array.astype(np.float64) - found[name]).max(axis=3) <= parity.outputs[name].tolerance
        least = min(least, float(within.mean(axis=0).min()))
    return least


def require_rounded(parity: ParityFigures, expected: Arrays, rounded: Arrays, converted: Arrays) -> None:
    """Refuses a conversion to int8 that rounding to int8 does not explain.

    TensorFlow and an interpreter round 1 number in 20,000 to different sides of a half, a step of int8 apart, and so
    flip signs: at 28 px in 1 image of 100, at 224 px in all of them, where the outputs then differ as much as by int8
    itself. So a network that fails `require` must only be nearly as much like what TensorFlow rounds as that is like
    float32, by the correlation of each output. The same network without int8 has passed `require` before, which finds
    finer faults.

    Args:
        parity: of `rounded` and `converted`.
        expected: by name, float32 [N, ...], of the network in float32.
        rounded: the same rounded by TensorFlow.
        converted: of the converted network.

    Raises:
        ConversionError: it is not.
    """
    for name, array in rounded.items():
        with np.errstate(invalid="ignore"):
            found, wanted = (
                np.corrcoef(array.ravel(), other.ravel())[0, 1] for other in (converted[name], expected[name])
            )
        if not found >= MIN_SHARE_OF_CORRELATION * wanted:
            require(parity, "Export it without int8, or calibrate on more images")
