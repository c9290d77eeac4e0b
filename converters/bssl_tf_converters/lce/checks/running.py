"""Checks of what interpreters make of a converted network: stock kernels have faults of their own."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from bssl_tf_converters.lce.checks.findings import RUNNING, Note, register

# A fault moves every image, a sign turned by rounding only some (see `parity`); int8 turns more of them.
_MARGIN = 0.5


@dataclass(frozen=True)
class Answer:
    """How one interpreter agrees with Keras.

    Attributes:
        interpreter: which, in words.
        own: whether bundles run in it.
        share_within: share of images (0 to 1) all of whose outputs are within tolerance.
    """

    interpreter: str
    own: bool
    share_within: float


@dataclass(frozen=True)
class Answers:
    """What several interpreters make of the same converted network and images.

    Attributes:
        model: its name.
        images: how many were shown to all of them.
        answers: of each.
    """

    model: str
    images: int
    answers: tuple[Answer, ...]

    @property
    def best(self) -> Answer:
        """That of the interpreter that agrees best, the first of several."""
        return max(self.answers, key=lambda one: one.share_within)

    def is_off(self, answer: Answer) -> bool:
        """Whether another interpreter is right where this one is not; where none is, the network is at fault."""
        return answer.share_within <= self.best.share_within - _MARGIN


@register(RUNNING, "own-interpreter", "error")
def own_interpreter(answers: Answers) -> Iterator[Note]:
    """The interpreter that runs bundles disagrees with Keras, while another interpreter agrees with it."""
    for one in answers.answers:
        if one.own and answers.is_off(one):
            yield Note(
                "",
                f"{_sentence(one, answers)}, so that bundles would give wrong numbers",
                "Write the float layers in another way: a stride no larger than the kernel, or another padding",
            )


@register(RUNNING, "other-interpreter", "warning")
def other_interpreter(answers: Answers) -> Iterator[Note]:
    """One of LCE's interpreters disagrees with Keras; another one, in which bundles run, is used instead."""
    asked = any(one.own for one in answers.answers)
    bundles = "bundles run in another" if asked else "the interpreter that runs bundles cannot be run here"
    for one in answers.answers:
        if not one.own and answers.is_off(one):
            yield Note("", _sentence(one, answers), f"The numbers of the latter are used; {bundles}")


def _sentence(one: Answer, answers: Answers) -> str:
    return (
        f"{one.interpreter} gives different numbers for {answers.model} from Keras, in "
        f"{100 * (1 - one.share_within):.0f} % of {answers.images} images, and {answers.best.interpreter} gives Keras's"
    )
