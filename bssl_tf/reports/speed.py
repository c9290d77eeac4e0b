"""The sections of bundles, and of accuracy against their size and latency."""

from __future__ import annotations

import shlex
from collections.abc import Sequence

from bssl_tf.reports import figures
from bssl_tf.reports.benchmarks import TimedNetwork
from bssl_tf.reports.document import Column, Figure, Group, Key, Section, Table, counted, lacking
from bssl_tf.reports.latency import MOST_LAYERS, conditions_of, first_drawn, latency_section, layer_name, where_timed
from bssl_tf.reports.runs import Run, RunBundle, only
from bssl_tf_deploy.manifest import Manifest
from bssl_tf_deploy.record import BINARY
from bssl_tf_deploy.tasks import find_task
from bssl_tf_deploy.tasks.classification import Table as ClassifierTable

_STYLE_OF = {"binary": 0, "float": 1, "integer": 2, None: 3}


def speed_sections(runs: Sequence[Run]) -> list[Section]:
    """Trade-offs, bundles, latency; a teacher is not put on a device."""
    students = [run for run in runs if run.of_student]
    if not students:
        return []
    return [_trade_offs(students), _bundle_section(students), latency_section(students)]


def _trade_offs(runs: Sequence[Run]) -> Section:
    # A bundle whose model was not measured on labelled images has no accuracy to draw.
    points = [(run, bundle) for run in runs for bundle in run.bundles if bundle.top1 is not None]
    blocks: list[Figure | Table] = []
    # Accuracies on other data, and latencies on another machine, are not to be compared: a plot for each.
    for data in dict.fromkeys(one.data for _, one in points):
        here = [(run, one) for run, one in points if one.data == data]
        blocks.append(_size_figure(here, data, f"size-{len(blocks)}"))
        timed = [
            (run, bundle, one)
            for run, bundle in here
            for one in run.benchmarks
            if (one.bundle, one.name) == (bundle.name, BINARY)
        ]
        for device in dict.fromkeys(one.device for *_, one in timed):
            # With the fewest threads; more of them have a plot of their own.
            fewest = min(one.run.threads for *_, one in timed if one.device == device)
            same = [each for each in timed if each[2].conditions == (device, fewest)]
            blocks.append(_latency_figure(same, data, f"latency-against-{len(blocks)}"))
    missing = (
        *lacking(
            [run.name for run in runs if not run.bundles],
            f"no bundle, so no size and no latency; run `bssl-tf export {only(runs)} --target arm64`.",
        ),
        *lacking(
            [run.name for run in runs if run.bundles and not run.benchmarks],
            f"not timed; run `bssl-tf bench {only(runs)}/BUNDLE`.",
        ),
    )
    return Section(
        "Accuracy against size and latency",
        "The best corner is the top left: accurate, small and fast." if blocks else "",
        tuple(blocks),
        missing,
    )


def _size_figure(points: Sequence[tuple[Run, RunBundle]], data: str, name: str) -> Figure:
    rows = tuple((f"{run.name}, {one.name}", one.model_bytes / 1024, one.top1 or 0.0) for run, one in points)
    made = ", ".join(dict.fromkeys(_versions(one) for _, one in points))
    return _trade_off(
        name, f"Accuracy against model size, {data}", Column("model size", "KiB", 1), rows,
        f"Bytes of model.tflite; n = {counted(len(rows), 'bundle')}.", f"{made}; bssl-tf export RUN",
    )  # fmt: skip


def _latency_figure(timed: Sequence[tuple[Run, RunBundle, TimedNetwork]], data: str, name: str) -> Figure:
    machine = where_timed(*timed[0][2].conditions)
    rows = tuple((f"{run.name}, {one.bundle}", one.p50_ms or 0.0, bundle.top1 or 0.0) for run, bundle, one in timed)
    beside = {
        other.p50_ms
        for run, _, one in timed
        for other in run.benchmarks
        if other.is_float_of_the_shape
        and (other.bundle, other.conditions) == (one.bundle, one.conditions)
        and other.p50_ms
    }
    # One line for each float network; many would hide the points.
    references = sorted(beside) if len(beside) <= 3 else []
    floats = "" if not references else (
        f" Dashed: the float network of the same shape ({', '.join(f'{ms:.3g} ms' for ms in references)})."
    )  # fmt: skip
    return _trade_off(
        name, f"Accuracy against latency on {machine}, {data}", Column("median latency", "ms", 3), rows,
        f"Median time of one image on {machine}; n = {counted(len(rows), 'bundle')}.{floats}",
        conditions_of([one for *_, one in timed]), references,
    )  # fmt: skip


def _trade_off(
    name: str,
    title: str,
    cost: Column,
    rows: tuple[tuple[str, float, float], ...],
    caption: str,
    conditions: str,
    references: Sequence[float] = (),
) -> Figure:
    """Top-1 of the converted models against what they cost."""
    series = [figures.Series(style, [x], [y]) for style, (_, x, y) in enumerate(rows)]
    costs = [x for _, x, _ in rows if x > 0]
    log = bool(costs) and max(costs) > 30 * min(costs)
    return Figure(
        name=name,
        title=title,
        caption=f"Top-1 of the converted model itself, on the test images of its export. {caption} Top left is best.",
        alt="Scatter plot: " + "; ".join(f"{row}: {x:.3g} {cost.unit}, {y:.1f} %" for row, x, y in rows) + ".",
        conditions=conditions,
        draw=lambda: figures.scatter(name, series, cost.title, "top-1 (%)", references=references, log=log),
        table=Table(name, title, (Column("bundle"), cost, Column("top-1 of the bundle", "%", 2)), rows),
        keys=tuple(Key(row, style) for style, (row, _, _) in enumerate(rows)),
    )  # fmt: skip


def _bundle_section(runs: Sequence[Run]) -> Section:
    columns = (
        *(Column("run"), Column("bundle"), Column("target"), Column("model size", "KiB", 1)),
        *(Column("binary convolutions"), Column("float convolutions"), Column("dense in float")),
        *(Column("int8 convolutions and dense"), Column("binary MACs", "million", 2)),
        *(Column("float MACs", "million", 2), Column("integer MACs", "million", 2)),
        *(Column("peak activations", "KiB", 1), Column("operators")),
        *(Column("top-1 agreement with Keras", "%", 2), Column("on images"), Column("largest difference")),
        *(Column("temperature", "", 3), Column("calibration error without it", "%", 2)),
        *(Column("calibration error with it", "%", 2), Column("converted by"), Column("labels")),
    )
    rows = []
    for run in runs:
        for one in run.bundles:
            m, found = one.manifest, one.inspection
            rows.append((
                run.name, one.name, m.target, one.model_bytes / 1024,
                m.binary.binary_convolutions, m.binary.float_convolutions, m.binary.fully_connected,
                m.binary.int8_operators,
                *(found.macs[kind] / 1e6 if found else None for kind in ("binary", "float", "integer")),
                found.peak_bytes / 1024 if found else None,
                ", ".join(f"{count} {name}" for name, count in sorted(m.operators.items())),
                100 * m.parity.agreement, m.parity.images,
                max(output.max_abs_difference for output in m.parity.outputs.values()),
                *_calibration(m), _versions(one), find_task(m.task).report_cell(m),
            ))  # fmt: skip
    table = Table("bundles", "Bundles", columns, tuple(rows), turned=True)
    groups = [
        Group(f"{run.name}, {one.name}", (_layers(one, f"macs-{place}-{at}"),))
        for place, run in enumerate(runs)
        for at, one in enumerate(run.bundles)
        if one.inspection and any(operator.macs for operator in one.inspection.operators)
    ]
    return Section(
        "Bundles",
        "The files for the device: the converted network, checked against the trained one.",
        (table, *groups) if rows else (),
        () if rows else (f"There are no bundles yet; run `bssl-tf export {only(runs)} --target arm64`.",),
    )


def _layers(bundle: RunBundle, name: str) -> Figure:
    assert bundle.inspection is not None
    kept = [one for one in bundle.inspection.operators if one.macs]
    rows = tuple((one.index, one.operator, one.layer, one.arithmetic, one.macs or 0) for one in kept)
    styles = [_STYLE_OF[one.arithmetic] for one in kept]
    kinds = list(dict.fromkeys(one.arithmetic for one in kept))
    columns = (Column("number"), Column("operator"), Column("layer"), Column("arithmetic"), Column("MACs"))
    shown = slice(MOST_LAYERS)
    return Figure(
        name=name,
        title="Work of each layer",
        caption="Multiply-accumulates of one image, in the order of execution; "
        f"n = {len(kept)} operators that have any{first_drawn(len(kept))}. "
        "Binary ones are far faster than float ones.",
        alt="Bar chart of MACs by layer; " + ", ".join(
            f"{kind}: {sum(row[4] for row in rows if row[3] == kind) / 1e6:.2f} million" for kind in kinds) + ".",
        conditions=f"counted, not timed; bssl-tf inspect {shlex.quote(bundle.name)}; {_versions(bundle)}",
        draw=lambda: figures.bars(
            name, [layer_name(one.layer, one.operator) for one in kept[shown]], styles[shown],
            [(one.macs or 0) / 1e6 for one in kept[shown]], "million MACs",
        ),
        table=Table(name, "Work of each layer", columns, rows),
        keys=tuple(Key(str(kind), _STYLE_OF[kind]) for kind in kinds),
    )  # fmt: skip


def _calibration(manifest: Manifest) -> tuple[float | None, float | None, float | None]:
    """The temperature, and the expected calibration error without it and with it, percent; where they are known."""
    found = manifest.table.calibration if isinstance(manifest.table, ClassifierTable) else None
    return (found.temperature, found.ece_percent_before, found.ece_percent_after) if found else (None, None, None)


def _versions(bundle: RunBundle) -> str:
    return ", ".join(f"{name} {version}" for name, version in sorted(bundle.manifest.created_by.items()))
