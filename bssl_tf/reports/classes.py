"""The section of classes, from the answers that were kept: what is taken for what, how well each class is known."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from bssl_tf.evaluation.predictions import Predictions
from bssl_tf.evaluation.records import Evaluation
from bssl_tf.evaluation.statistics import confusion_matrix, wilson_interval
from bssl_tf.reports import figures
from bssl_tf.reports.document import Cell, Column, Figure, Group, Section, Table, lacking
from bssl_tf.reports.runs import Run, conditions
from bssl_tf.settings import FINE_TUNED

# More classes than these make a matrix that cannot be read, or a plot that is longer than a page.
_DRAWN, _LISTED = 30, 60
_CONFUSIONS = 10


def class_section(runs: Sequence[Run]) -> Section:
    """For each evaluated run the confusion matrix, the accuracy of each class, and the commonest confusions."""
    groups = []
    for place, run in enumerate(runs):
        if run.evaluation is not None and (found := headline_answers(run)) is not None:
            groups.append(Group(run.name, tuple(_blocks(run, run.evaluation, *found, f"classes-{place}"))))
    missing = lacking(
        [run.name for run in runs if run.evaluation is not None and headline_answers(run) is None],
        "the predictions for each test image are missing; evaluate again.",
    )
    about = (
        "Predictions for each test image by the network's own head if it was fine-tuned, else by the linear probe, or "
        "by the first protocol measured if there is none."
    )
    return Section("Classes", about if groups else "", tuple(groups), missing)


def headline_answers(run: Run) -> tuple[str, Predictions] | None:
    """The network's own head, the protocol of the verdict, or else the first with a single draw; and its answers."""
    if run.evaluation is None:
        return None
    answers = run.answers.get(run.evaluation.subject, {})
    for protocol in (FINE_TUNED, run.evaluation.verdict.protocol, "linear-probe", *answers):
        # The held-out protocol's are not test images.
        if protocol in answers and len(answers[protocol].predicted) == 1 and not protocol.endswith("held-out"):
            return protocol, answers[protocol]
    return None


def _blocks(run: Run, found: Evaluation, protocol: str, answers: Predictions, name: str) -> list[Figure | Table]:
    names = found.class_names
    counts = confusion_matrix(answers.truth, answers.predicted[0], len(names))
    what = f"{protocol} of the {found.subject}, {found.data}"
    behind = conditions([found.conditions], found.command or f"bssl-tf evaluate {run.given}")
    made: list[Figure | Table] = []
    if found.heads is not None:
        columns = (Column("class"), Column("test images"), Column("linear probe", "%", 1), Column("fine-tuned", "%", 1))
        rows = tuple((one.name, one.images, one.probe, one.fine_tuned) for one in found.heads.classes)
        made.append(Table(f"{name}-heads", "Linear probe before and fine-tuned network, by class", columns, rows))
    if len(names) <= _DRAWN:
        made.append(_matrix(counts, names, what, behind, f"{name}-matrix"))
    if len(names) <= _LISTED:
        made.append(_by_class(counts, names, what, behind, f"{name}-accuracy"))
    confusions = _confusions(counts, names)
    if confusions:
        columns = (Column("true class"), Column("taken for"), Column("images"), Column("share of the class", "%", 1))
        made.append(Table(f"{name}-confusions", "Most common confusions", columns, confusions))
    return made


def _matrix(counts: np.ndarray, names: Sequence[str], what: str, behind: str, name: str) -> Figure:
    totals = counts.sum(axis=1, keepdims=True)
    shares = 100 * counts / np.maximum(totals, 1)
    rows: tuple[tuple[Cell, ...], ...] = tuple(
        (names[place], *(int(count) for count in row)) for place, row in enumerate(counts)
    )
    right = int(np.trace(counts))
    return Figure(
        name=name,
        title="Confusion matrix",
        caption=f"Percent of each true class, {what}; n = {counts.sum()} test images. The diagonal is correct.",
        alt=f"Confusion matrix of {len(names)} classes; {right} of {counts.sum()} images are on the diagonal.",
        conditions=behind,
        draw=lambda: figures.matrix(name, shares, names),
        table=Table(name, "Images of each true class, by predicted class",
                    (Column("true class"), *(Column(one) for one in names)), rows),
    )  # fmt: skip


def _by_class(counts: np.ndarray, names: Sequence[str], what: str, behind: str, name: str) -> Figure:
    totals, right = counts.sum(axis=1), np.diag(counts)
    # Worst first: that is where labels and pictures are worth looking at.
    order = [int(one) for one in np.argsort(right / np.maximum(totals, 1), kind="stable") if totals[one]]
    spans = [wilson_interval(int(right[one]), int(totals[one])) for one in order]
    shares = [100 * float(right[one] / totals[one]) for one in order]
    columns = (Column("class"), Column("right", "%", 1), Column("95 % from", "%", 1), Column("95 % to", "%", 1),
               Column("test images"))  # fmt: skip
    rows = tuple(
        (names[one], share, span.low, span.high, int(totals[one]))
        for one, share, span in zip(order, shares, spans, strict=True)
    )
    series = [figures.Series(0, shares, list(map(float, range(len(order)))), [(span.low, span.high) for span in spans])]
    return Figure(
        name=name,
        title="Accuracy of each class",
        caption=f"Percent of its test images classified correctly, with 95 % intervals, {what}; n = {counts.sum()} "
        f"test images in {len(order)} classes, the worst at the top.",
        alt=f"Dot plot of {len(order)} classes, from {rows[0][0]} {shares[0]:.0f} % "
        f"to {rows[-1][0]} {shares[-1]:.0f} %.",
        conditions=behind,
        draw=lambda: figures.dots(name, [names[one] for one in order], series, "right (%)"),
        table=Table(name, "Accuracy of each class", columns, rows),
    )


def _confusions(counts: np.ndarray, names: Sequence[str]) -> tuple[tuple[str, str, int, float], ...]:
    wrong = counts.copy()
    np.fill_diagonal(wrong, 0)
    places = np.argsort(-wrong, axis=None, kind="stable")[:_CONFUSIONS]
    found = []
    for truth, predicted in zip(*np.unravel_index(places, wrong.shape), strict=True):
        count = int(wrong[truth, predicted])
        if count:
            found.append((names[truth], names[predicted], count, 100 * count / float(counts[truth].sum())))
    return tuple(found)
