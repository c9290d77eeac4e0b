"""What a comparison layer by layer found, as data and in words."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass

from bssl_tf.errors import ConversionError

# A sign counts as near its threshold if moving the pre-activation by NEAR times the layer's root mean square turns it;
# see `explain`.
NEAR = 1e-4
OUTPUT = "the output"


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
        left_out: binary layers that were not compared -> why.
        rounding: layers where signs differ in some images, all of them near their thresholds.
        fault: the first layer where signs differ that are not near; or the output, where it differs although all signs
            of all binary layers agree.
        unexplained: the output, where it differs and a binary layer was not compared: that may be rounding or a fault.
        behind: the last layer in front of the fault whose input agrees; empty if there is none.
        output_images: for how many images the output was compared: those in which no sign was turned.
        wrong_kernels: layers whose kernels differ in the flatbuffer: name -> how many signs of the kernel.
    """

    images: int
    compared: tuple[str, ...]
    left_out: dict[str, str]
    rounding: tuple[Difference, ...]
    fault: Difference | None
    unexplained: Difference | None
    behind: str
    output_images: int
    wrong_kernels: dict[str, int]

    def lines(self) -> list[str]:
        """In words, a line each."""
        found = [
            f"layer {one.layer}: {one.signs} signs differ in {one.images} of {self.images} images, all of them within "
            f"{NEAR:g} of their threshold: rounding, not a fault"
            for one in self.rounding
        ]
        if self.fault is not None:
            found.append(self.fault_sentence())
        else:
            found += self._without_fault()
        found += [f"layer {name}: {signs} signs of its kernel differ" for name, signs in self.wrong_kernels.items()]
        names: dict[str, list[str]] = defaultdict(list)
        for name, why in self.left_out.items():
            names[why].append(name)
        return [*found, *(f"not compared, because {why}: {', '.join(those)}" for why, those in names.items())]

    def _without_fault(self) -> list[str]:
        count = len(self.compared)
        inputs = f"the input{'s' * (count != 1)} of {count} binary layer{'s' * (count != 1)}"
        but = ", except for that rounding" if self.rounding else ""
        if self.unexplained is not None:
            one = self.unexplained
            agree = f"{inputs} agree{'s' * (count == 1)}" if count else "no binary layer was compared"
            return [
                f"{OUTPUT} differs in {one.images} of {self.output_images} images; {agree}{but}. Whether that is "
                "rounding is unknown, because not every binary layer was compared"
            ]
        if not self.output_images:
            return ["rounding flipped a sign in every image, so nothing is known about what comes after it"]
        if count:
            return [f"{inputs} and the output agree on {self.images} images{but}"]
        return [f"the output agrees on {self.images} images; no binary layer was compared"]

    def fault_sentence(self) -> str:
        """Where the fault is; there must be one."""
        one = self.fault
        assert one is not None
        where = f"after layer {self.behind}, whose input agrees" if self.behind else "before all binary layers"
        if one.layer == OUTPUT:
            if not self.compared:
                return f"{OUTPUT} differs in {one.images} images, and there is no binary layer"
            agree = "the signs that enter all binary layers agree"
            return f"{OUTPUT} differs in {one.images} images, and {agree}: the cause lies {where}"
        return (
            f"layer {one.layer} is the first whose input differs: {100 * one.share:.2g} % of its signs in {one.images} "
            f"of {self.images} images, {one.near} of {one.signs} near their threshold; the cause lies {where}"
        )


def require_no_fault(explanation: Explanation) -> None:
    """Raises `ConversionError` that names the first layer where more differs than rounding explains."""
    if explanation.fault is not None:
        kernels = [f"{signs} signs of {name}'s kernel differ" for name, signs in explanation.wrong_kernels.items()]
        raise ConversionError(
            "; ".join([explanation.fault_sentence(), *kernels]),
            "Look at the padding, the quantisers and the batch norm there; if these are standard, report it",
        )
