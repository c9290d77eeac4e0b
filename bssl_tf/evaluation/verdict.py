"""Whether a network learned anything: one sentence from paired tests on the same test images, and what to do next.

The subject is compared with the same network untrained and with raw pixels, by McNemar's exact test, adjusted for
being two comparisons by Holm's method. Not significant is not the same as equal: the sentence gives the interval of
the difference, and with few test images the next step is to label more.
"""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from typing import Literal

from bssl_tf.evaluation.predictions import Answers
from bssl_tf.evaluation.records import RAW_PIXELS, Comparison, Verdict, untrained
from bssl_tf.evaluation.statistics import ALPHA, holm, paired_difference, wilson_interval

# Fewer photos than this seldom teach a teacher from scratch what a pretrained one knows already.
PHOTOS_FOR_AN_OWN_TEACHER = 50_000
# What the sentence rests on, the first that was measured; each has one draw.
_PROTOCOLS = ("linear-probe", "knn-20", "linear-probe-sgd", "knn-200", "finetune-10%", "finetune-1%")
# A gain of this many points that is not significant may be real: then too few test images are the trouble.
_WORTH_MORE_LABELS = 5.0
LEARNED, NOT_ABOVE_PIXELS, NOT_SHOWN, UNKNOWN = "learned", "not above pixels", "not shown", "unknown"
# A network of a run, of `bssl-tf import-teacher`, or a Keras file. Nobody trains the last two longer.
Origin = Literal["trained here", "imported", "saved model"]


@dataclass(frozen=True)
class Facts:
    """What advice depends on.

    Attributes:
        run: the folder that was evaluated, as a command takes it.
        photos: images that it was trained on without labels; None where that is not known.
        image_size: pixels per side.
        pretrained: whether it, or its teacher, came from weights that were not trained here.
        origin: where the network itself comes from.
    """

    run: str
    photos: int | None
    image_size: int
    pretrained: bool
    origin: Origin = "trained here"


def make_verdict(subject: str, answers: Answers, facts: Facts) -> Verdict:
    """The verdict about `subject`, a key of `answers`, beside its controls there."""
    own, plain = answers[subject], answers.get(untrained(subject), {})
    who = f"the {subject.removeprefix('float ')}"
    protocol = next((name for name in _PROTOCOLS if name in own and name in plain), None)
    if protocol is None:
        again, lacking = f"Run `bssl-tf evaluate {shlex.quote(facts.run)}`", "its controls were not measured"
        if plain:
            lacking = f"that requires one of the protocols {', '.join(_PROTOCOLS)}"
        step = f"{again} with --protocol {_PROTOCOLS[0]}" if plain else f"{again} without --no-controls"
        return Verdict(UNKNOWN, "", f"Whether {who} learned anything is not known: {lacking}.", step, ())
    comparisons = _comparisons(subject, protocol, answers)
    gain, over_pixels = comparisons[0], comparisons[1] if len(comparisons) > 1 else None
    measured = own[protocol]
    if not _above(gain):
        outcome = NOT_SHOWN
        worse = gain.p_value <= ALPHA
        head = (
            f"{who} is worse than untrained"
            if worse
            else f"{measured.images} test images do not show that {who} learned anything"
        )
        step = _next_steps(gain, facts, measured.images)
    elif over_pixels is not None and not _above(over_pixels):
        outcome = NOT_ABOVE_PIXELS
        worse = over_pixels.p_value <= ALPHA
        head = f"{who} learned, but is {'worse' if worse else 'not shown to be better'} than raw pixels"
        step = _next_steps(over_pixels, facts, measured.images)
    else:
        outcome, head, step = LEARNED, f"{who} learned", ""
    interval = wilson_interval(int(measured.correct[0].sum()), measured.images)
    sentence = (
        f"{head[0].upper()}{head[1:]}: {protocol} {measured.accuracies[0]:.1f} % (95 % interval {interval.low:.1f} to "
        f"{interval.high:.1f}, {measured.images} test images), {' and '.join(map(_against, comparisons))}."
    )
    return Verdict(outcome, protocol, sentence, step, comparisons)


def _comparisons(subject: str, protocol: str, answers: Answers) -> tuple[Comparison, ...]:
    names = [name for name in (untrained(subject), RAW_PIXELS) if protocol in answers.get(name, {})]
    own = answers[subject][protocol].correct[0]
    found = [paired_difference(own, answers[name][protocol].correct[0]) for name in names]
    adjusted = holm([one.p_value for one in found])
    return tuple(
        Comparison(name, one.points, one.interval(), p) for name, one, p in zip(names, found, adjusted, strict=True)
    )


def _above(one: Comparison) -> bool:
    return one.points > 0 and one.p_value <= ALPHA


def _against(one: Comparison) -> str:
    name = one.control.removeprefix("control: ").replace("untrained", "the untrained")
    p = "p < 0.001" if one.p_value < 0.001 else f"p = {one.p_value:.2g}"
    interval = f"{one.interval.low:+.1f} to {one.interval.high:+.1f}"
    # Of the interval alone 0 may be outside where the adjusted p is not below 0.05: the reader has to know why.
    return f"{one.points:+.1f} points against {name} ({interval}; paired test, adjusted {p})"


def _next_steps(one: Comparison, facts: Facts, images: int) -> str:
    """What to change, and whether the test images are too few to tell."""
    step = _next_step(facts)
    if one.p_value <= ALPHA:
        return step
    if one.points >= _WORTH_MORE_LABELS:
        return f"Label more images: a gain of {one.points:.1f} points may be chance with only {images} test images"
    if one.interval.high < _WORTH_MORE_LABELS or "label more images" in step:
        return step
    gain = f"even a gain of {one.interval.high:.0f} points may not show"
    return f"{step}. Or label more images: with {images} for testing, {gain}"


def _next_step(facts: Facts) -> str:
    if facts.origin == "saved model":
        return (
            "Check that `--pixels` and `--image-size` are those that it was trained with, or label more images to fit "
            "the probe on"
        )
    if facts.origin == "imported":
        return (
            f"Import it again for larger images (`--image-size`, now {facts.image_size}), or label more images to fit "
            "the probe on"
        )
    if facts.pretrained:
        return (
            "Give `bssl-tf pretrain` more epochs, more photos like those to be classified, or larger images "
            f"(`--image-size` of teacher and student, now {facts.image_size})"
        )
    if facts.photos is None or facts.photos < PHOTOS_FOR_AN_OWN_TEACHER:
        return pretrained_advice(facts.image_size, facts.photos)
    return "Train longer, or choose another method or a larger network; then evaluate again"


def pretrained_advice(image_size: int, photos: int | None) -> str:
    """The advice to take a pretrained teacher, with its command and what it means for claims."""
    few = f"fewer than {PHOTOS_FOR_AN_OWN_TEACHER:,}" if photos is None else f"{photos:,}"
    size = max(image_size, 32)
    return (
        f"Take a pretrained teacher, since {few} photos seldom teach one from scratch: `bssl-tf teacher --pretrained "
        f"--image-size {size} --out runs/pretrained`, then `bssl-tf pretrain --preset demo --teacher runs/pretrained "
        f"--channels 3 --image-size {size}` (its weights were trained with ImageNet's labels)"
    )
