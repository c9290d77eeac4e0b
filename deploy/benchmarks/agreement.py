"""How closely two interpreters agree on the same images: as `bssl_tf_converters.lce.parity`, and one for maps."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from bssl_tf_converters.lce.parity import MIN_SHARE_WITHIN, compare

# A flipped sign moves all logits of its image, but of a map of features only the few values around it (six
# convolutions of 3x3 reach 11 of 56 px a side, 4 % of the map); a wrong padding moves a wide rim, a wrong kernel all.
_MIN_SHARE_OF_VALUES = 0.9


@dataclass(frozen=True)
class Agreement:
    """How two outputs agree.

    Attributes:
        max_difference: the largest, over images and values.
        tolerance: difference that rounding may make, from the median magnitude of the reference.
        share_of_images: share (0 to 1) of images all of whose values are within `tolerance`.
        share_of_values: share (0 to 1) of values within `tolerance`.
    """

    max_difference: float
    tolerance: float
    share_of_images: float
    share_of_values: float

    def fault(self, min_share_of_images: float = MIN_SHARE_WITHIN) -> str | None:
        """What is wrong; None where enough images, or nearly all values, are within tolerance.

        Args:
            min_share_of_images: the least share (0 to 1) that is enough.
        """
        if self.share_of_images >= min_share_of_images or self.share_of_values >= _MIN_SHARE_OF_VALUES:
            return None
        return (
            f"up to {self.max_difference:.2g} apart, {100 * self.share_of_images:.0f} % of images and "
            f"{100 * self.share_of_values:.1f} % of values within {self.tolerance:.2g}"
        )


def agreement(reference: np.ndarray, found: np.ndarray) -> Agreement:
    """Compares outputs of the same images, float [N, V], N at least 1.

    Raises:
        ConversionError: shapes differ, or a number is not finite.
    """
    parity = compare({"output": reference}, {"output": found})
    [output] = parity.outputs.values()
    within = np.abs(reference.astype(np.float64) - found) <= output.tolerance
    return Agreement(output.max_abs_difference, output.tolerance, parity.share_within_tolerance, float(np.mean(within)))
