"""Whether two interpreters give the same outputs but for rounding."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from bssl_tf_deploy.bundle import Bundle
from bssl_tf_deploy.errors import BundleError
from bssl_tf_deploy.golden import GOLDEN_TOLERANCE, ONE_MAY_DIFFER_IN, typical_magnitude
from bssl_tf_deploy.tasks import find_task


class Agreement:
    """A tally of images whose outputs were compared, in constant memory.

    Args:
        bundle: whose golden outputs say what size numbers have.

    Attributes:
        images: how many were compared.
        largest: the largest difference between two numbers.
    """

    def __init__(self, bundle: Bundle) -> None:
        self._bundle = bundle
        self._tolerances = [GOLDEN_TOLERANCE * typical_magnitude(golden) for golden in bundle.golden_outputs]
        self._off = 0
        self._fault = ""
        self.images = 0
        self.largest = 0.0

    def add(self, found: Sequence[np.ndarray], expected: Sequence[np.ndarray]) -> None:
        """Counts images in, from two lists of outputs [B, ...]."""
        shapes, wanted = ([list(array.shape) for array in arrays] for arrays in (found, expected))
        if shapes != wanted:
            self._fault = self._fault or f"they have shapes {shapes}, not {wanted}"
            return
        # Rounding makes none, so not even one image may have them.
        if not all(np.all(np.isfinite(array)) for array in (*found, *expected)):
            self._fault = self._fault or "they hold numbers that are not finite"
            return
        off = np.zeros(len(expected[0]), bool)
        manifest = self._bundle.manifest
        found = find_task(manifest.task).arranged(found, expected, manifest)
        for one, other, tolerance in zip(found, expected, self._tolerances, strict=True):
            differences = np.max(np.abs(one - other).reshape(len(one), -1), axis=1)
            off |= differences > tolerance
            self.largest = float(np.max([self.largest, *differences]))
        self._off += int(np.count_nonzero(off))
        self.images += len(off)

    def fault(self) -> str:
        """How they differ by more than rounding explains; empty if they do not."""
        if self._fault or self._off <= self.images // ONE_MAY_DIFFER_IN:
            return self._fault
        outputs = self._bundle.manifest.outputs
        limits = [f"{limit:.2g} in {about.name}" for about, limit in zip(outputs, self._tolerances, strict=True)]
        return f"{self._off} of {self.images} differ by more than {' or '.join(limits)}"

    def require(self) -> None:
        """Raises `BundleError` where two interpreters do not agree."""
        if fault := self.fault():
            raise BundleError(
                f"two interpreters of {self._bundle.path} do not agree: {fault}",
                "Rely on neither; a value within rounding of zero may flip in one image, so try more images",
            )
