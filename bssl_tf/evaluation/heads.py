"""Which is better on held-out images: the fine-tuned network, or a linear probe on the network as it was before."""

from __future__ import annotations

import numpy as np

from bssl_tf.evaluation.predictions import Answers
from bssl_tf.evaluation.records import BEFORE, STUDENT, ClassScores, HeadComparison
from bssl_tf.evaluation.statistics import ALPHA, paired_difference
from bssl_tf.settings import FINE_TUNED

_PROBE = "linear-probe"
TUNED_BETTER, PROBE_BETTER, NOT_SHOWN = "fine-tuned", "linear probe", "not shown"


def compare_heads(answers: Answers, class_names: tuple[str, ...]) -> HeadComparison | None:
    """The comparison, by McNemar's exact test on the same test images; None where one of the two was not measured.

    Args:
        answers: of all subjects.
        class_names: of the test images.
    """
    tuned, probe = answers.get(STUDENT, {}).get(FINE_TUNED), answers.get(BEFORE, {}).get(_PROBE)
    if tuned is None or probe is None:
        return None
    found = paired_difference(tuned.correct[0], probe.correct[0])
    interval, p = found.interval(), found.p_value
    shown = p <= ALPHA
    outcome = (TUNED_BETTER if found.points > 0 else PROBE_BETTER) if shown else NOT_SHOWN
    head = {
        TUNED_BETTER: "The fine-tuned network is better than a linear probe on the network before",
        PROBE_BETTER: "A linear probe on the network before is better than the fine-tuned network",
        NOT_SHOWN: f"{tuned.images} test images do not show whether the fine-tuned network or a linear probe on the "
        "network before is better",
    }[outcome]
    sentence = (
        f"{head}: {tuned.accuracies[0]:.1f} % fine-tuned, {probe.accuracies[0]:.1f} % by the probe "
        f"({found.points:+.1f} points, 95 % interval {interval.low:+.1f} to {interval.high:+.1f}; paired test, "
        f"{'p < 0.001' if p < 0.001 else f'p = {p:.2g}'})."
    )
    classes = []
    for label, name in enumerate(class_names):
        of_class = tuned.truth == label
        if count := int(of_class.sum()):
            shares = [100 * float(np.mean(one.correct[0][of_class])) for one in (probe, tuned)]
            classes.append(ClassScores(name, count, *shares))
    return HeadComparison(outcome, found.points, interval, p, sentence, tuple(classes))
