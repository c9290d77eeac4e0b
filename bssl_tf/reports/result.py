"""What a report opens with: the verdict on each run, its accuracy, the latency and the size of what was exported."""

from __future__ import annotations

from collections.abc import Sequence

from bssl_tf.evaluation.statistics import wilson_interval
from bssl_tf.evaluation.verdict import LEARNED, NOT_SHOWN
from bssl_tf.reports.benchmarks import TimedNetwork
from bssl_tf.reports.document import Cell, Column, Headline, KeyFigure, Section, Table
from bssl_tf.reports.fields import text
from bssl_tf.reports.latency import where_timed
from bssl_tf.reports.runs import Run, RunBundle
from bssl_tf.settings import FINE_TUNED
from bssl_tf_deploy.record import BINARY

_COLUMNS = (
    *(Column("run"), Column("verdict"), Column("next step"), Column("top-1", "%", 2), Column("95 % from", "%", 2)),
    *(Column("95 % to", "%", 2), Column("test images"), Column("bundle"), Column("top-1 of the bundle", "%", 2)),
    *(Column("test images of the bundle"), Column("model size", "KiB", 1), Column("median latency", "ms", 3)),
    *(Column("timed on"), Column("weights trained with")),
)


def result_section(runs: Sequence[Run]) -> Section:
    """A headline for each run."""
    return Section("Result", "", tuple(_headline(run, f"result-{place}") for place, run in enumerate(runs)))


def _headline(run: Run, name: str) -> Headline:
    bundle, timed = _shown_bundle(run)
    found = run.evaluation
    sentence, next_step, tone = "", "", ""
    figures: list[KeyFigure] = []
    cells: list[Cell] = [None] * 4
    if found is not None:
        sentence, next_step = found.verdict.sentence, found.verdict.next_step
        tone = {LEARNED: "good", NOT_SHOWN: "bad"}.get(found.verdict.outcome, "")
        row = found.row(found.subject)
        if found.heads is not None:
            sentence = f"{sentence} {found.heads.sentence}"
        protocol = found.verdict.protocol or next(iter(found.rows[0].scores))
        if FINE_TUNED in found.rows[0].scores:
            protocol = FINE_TUNED
        if row is not None and protocol in row.scores:
            interval, mean = row.intervals[protocol], row.mean(protocol)
            figures.append(
                KeyFigure(
                    f"Accuracy of the {found.subject}",
                    f"{mean:.1f} %",
                    f"{protocol}, 95 % interval {interval.low:.1f} to {interval.high:.1f}, "
                    f"n = {found.test_images} test images of {found.data}"
                    + (f"; trained with the help of {found.labels_used}" if found.labels_used else ""),
                )
            )
            cells = [mean, interval.low, interval.high, found.test_images]
    elif run.multilabel is not None:
        sentence = run.multilabel.sentence
    elif (boxes := run.detection) is not None:
        sentence = boxes.sentence
        for label, value in (("AP50", boxes.ap50), ("AP", boxes.ap)):
            figures.append(KeyFigure(label, f"{value:.1f} %", f"n = {boxes.test_images} test images of {boxes.data}"))
    elif run.finished:
        sentence, next_step = "Not evaluated yet.", f"`bssl-tf evaluate {run.given}`"
    else:
        sentence, next_step = "Not finished.", f"`bssl-tf {run.command} --out {run.given} --resume`"
    of_bundle: list[Cell] = [None] * 6
    if bundle is not None:
        figures += _of_bundle(bundle, timed)
        of_bundle = [bundle.name, bundle.top1, bundle.top1_images, bundle.model_bytes / 1024]
        of_bundle += [timed.p50_ms, where_timed(*timed.conditions)] if timed else [None, None]
    labels_used = found.labels_used if found is not None else text(run.settings, "labels_used") or None
    row_of = (run.name, sentence, next_step.replace("`", ""), *cells, *of_bundle, labels_used)
    table = Table(name, f"{run.name}: result", _COLUMNS, (row_of,), turned=True)
    return Headline(f"{run.name}: {sentence}", next_step, tone, tuple(figures), table)


def _shown_bundle(run: Run) -> tuple[RunBundle | None, TimedNetwork | None]:
    """The first bundle that was timed, with its time for the fewest threads; else the first bundle."""
    for bundle in run.bundles:
        timed = [one for one in run.benchmarks if (one.bundle, one.name) == (bundle.name, BINARY)]
        if timed:
            return bundle, min(timed, key=lambda one: one.run.threads)
    return (run.bundles[0] if run.bundles else None), None


def _of_bundle(bundle: RunBundle, timed: TimedNetwork | None) -> list[KeyFigure]:
    figures = []
    if bundle.top1 is not None and bundle.top1_images:
        interval = wilson_interval(round(bundle.top1 / 100 * bundle.top1_images), bundle.top1_images)
        figures.append(
            KeyFigure(
                f"Accuracy of {bundle.name}",
                f"{bundle.top1:.1f} %",
                f"the converted model, 95 % interval {interval.low:.1f} to {interval.high:.1f}, "
                f"n = {bundle.top1_images} test images of {bundle.data}",
            )
        )
    figures.append(KeyFigure("Size", f"{bundle.model_bytes / 1024:.1f} KiB", f"model.tflite of {bundle.name}"))
    if timed is not None:
        figures.append(
            KeyFigure(
                "Latency",
                f"{timed.p50_ms:.3g} ms",
                f"median of one image, {bundle.name} on {where_timed(*timed.conditions)}"
                + (f", n = {timed.latency.calls} calls" if timed.latency.calls else ""),
            )
        )
    return figures
