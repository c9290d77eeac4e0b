"""The sections of bundles, latency, and of accuracy against both."""

from __future__ import annotations

import shlex
from collections.abc import Sequence

from bssl_tf.reports import figures
from bssl_tf.reports.benchmarks import Latency
from bssl_tf.reports.document import Column, Figure, Group, Key, Section, Table, counted, lacking
from bssl_tf.reports.runs import Run, RunBundle, only

BINARY, FLOATS = "binary", ("float", "float32")
_MOST_LAYERS = 40
_STYLE_OF = {"binary": 0, "float": 1, "integer": 2, None: 3}
Timed = tuple[Run, Latency]


def speed_sections(runs: Sequence[Run]) -> list[Section]:
    """Trade-offs, bundles, latency; a teacher is not put on a device."""
    students = [run for run in runs if run.command == "pretrain"]
    if not students:
        return []
    return [_trade_offs(students), _bundle_section(students), _latency_section(students)]


def _trade_offs(runs: Sequence[Run]) -> Section:
    # A bundle of a Keras model that was not trained here knows no accuracy.
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
            if (one.bundle, one.variant) == (bundle.name, BINARY) and one.p50_ms is not None
        ]
        for device in dict.fromkeys(one.device for *_, one in timed):
            # With the fewest threads; more of them have a plot of their own.
            fewest = min(one.threads or 0 for *_, one in timed if one.device == device)
            same = [each for each in timed if (each[2].device, each[2].threads or 0) == (device, fewest)]
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
        "The best corner is top left: accurate, small, fast." if blocks else "",
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


def _latency_figure(timed: Sequence[tuple[Run, RunBundle, Latency]], data: str, name: str) -> Figure:
    where = _where(*timed[0][2].conditions)
    rows = tuple((f"{run.name}, {one.bundle}", one.p50_ms or 0.0, bundle.top1 or 0.0) for run, bundle, one in timed)
    beside = {
        other.p50_ms
        for run, _, one in timed
        for other in run.benchmarks
        if other.variant in FLOATS and (other.bundle, other.conditions) == (one.bundle, one.conditions) and other.p50_ms
    }
    # One line for each float network; many would hide the points.
    references = sorted(beside) if len(beside) <= 3 else []
    floats = "" if not references else (
        f" Dashed: the float network of the same shape ({', '.join(f'{ms:.3g} ms' for ms in references)})."
    )  # fmt: skip
    return _trade_off(
        name, f"Accuracy against latency on {where}, {data}", Column("median latency", "ms", 3), rows,
        f"Median time of one image on {where}; n = {counted(len(rows), 'bundle')}.{floats}",
        _conditions([one for *_, one in timed]), references,
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
    """Top-1 of the linear probe against what it costs."""
    series = [figures.Series(style, [x], [y]) for style, (_, x, y) in enumerate(rows)]
    costs = [x for _, x, _ in rows if x > 0]
    log = bool(costs) and max(costs) > 30 * min(costs)
    return Figure(
        name=name,
        title=title,
        caption=f"Top-1 of the linear probe on test images, before conversion. {caption} Top left is best.",
        alt="Scatter plot: " + "; ".join(f"{row}: {x:.3g} {cost.unit}, {y:.1f} %" for row, x, y in rows) + ".",
        conditions=conditions,
        draw=lambda: figures.scatter(name, series, cost.title, "top-1 (%)", references=references, log=log),
        table=Table(name, title, (Column("bundle"), cost, Column("linear probe, top-1", "%", 2)), rows),
        keys=tuple(Key(row, style) for style, (row, _, _) in enumerate(rows)),
    )  # fmt: skip


def _bundle_section(runs: Sequence[Run]) -> Section:
    columns = (
        *(Column("run"), Column("bundle"), Column("target"), Column("model size", "KiB", 1)),
        *(Column("binary convolutions"), Column("float convolutions"), Column("dense")),
        *(Column("binary MACs", "million", 2), Column("float MACs", "million", 2)),
        *(Column("peak of activations", "KiB", 1), Column("operators")),
        *(Column("same class as Keras", "%", 2), Column("on images"), Column("largest difference", "logits")),
        *(Column("converted by"), Column("labels")),
    )
    rows = []
    for run in runs:
        for one in run.bundles:
            m, found = one.manifest, one.inspection
            rows.append((
                run.name, one.name, m.target, one.model_bytes / 1024,
                m.binary.binary_convolutions, m.binary.float_convolutions, m.binary.fully_connected,
                found.macs["binary"] / 1e6 if found else None, found.macs["float"] / 1e6 if found else None,
                found.peak_bytes / 1024 if found else None,
                ", ".join(f"{count} {name}" for name, count in sorted(m.operators.items())),
                100 * m.parity.top1_agreement, m.parity.images, m.parity.max_abs_difference,
                _versions(one), ", ".join(m.labels[:12]) + (" and more" if len(m.labels) > 12 else ""),
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
        "What goes onto the device: the converted network, checked against the one that was trained.",
        (table, *groups) if rows else (),
        () if rows else (f"There is none; run `bssl-tf export {only(runs)} --target arm64`.",),
    )


def _layers(bundle: RunBundle, name: str) -> Figure:
    assert bundle.inspection is not None
    kept = [one for one in bundle.inspection.operators if one.macs]
    rows = tuple((one.index, one.operator, one.layer, one.arithmetic, one.macs or 0) for one in kept)
    styles = [_STYLE_OF[one.arithmetic] for one in kept]
    kinds = list(dict.fromkeys(one.arithmetic for one in kept))
    columns = (Column("number"), Column("operator"), Column("layer"), Column("arithmetic"), Column("MACs"))
    shown = slice(_MOST_LAYERS)
    return Figure(
        name=name,
        title="Work of each layer",
        caption="Multiply-accumulates of one image, in the order of execution; "
        f"n = {len(kept)} operators that have any{_first(len(kept))}. A binary one is far faster than a float one.",
        alt="Bar chart of MACs by layer; " + ", ".join(
            f"{kind}: {sum(row[4] for row in rows if row[3] == kind) / 1e6:.2f} million" for kind in kinds) + ".",
        conditions=f"counted, not timed; bssl-tf inspect {shlex.quote(bundle.name)}; {_versions(bundle)}",
        draw=lambda: figures.bars(
            name, [one.layer or one.operator for one in kept[shown]], styles[shown],
            [(one.macs or 0) / 1e6 for one in kept[shown]], "million MACs",
        ),
        table=Table(name, "Work of each layer", columns, rows),
        keys=tuple(Key(str(kind), _STYLE_OF[kind]) for kind in kinds),
    )  # fmt: skip


def _latency_section(runs: Sequence[Run]) -> Section:
    timed = [(run, one) for run in runs for one in run.benchmarks]
    columns = (
        *(Column("run"), Column("bundle"), Column("network"), Column("machine"), Column("threads"), Column("kernel")),
        *(Column("first", "ms", 3), Column("fastest", "ms", 3), Column("p50", "ms", 3), Column("p90", "ms", 3)),
        *(Column("p99", "ms", 3), Column("interquartile range", "ms", 3), Column("peak memory", "MiB", 1)),
        *(Column("model size", "KiB", 1), Column("calls"), Column("versions"), Column("command")),
    )
    rows = tuple(
        (run.name, one.bundle, one.variant, one.device, one.threads, one.kernel, one.first_ms, one.min_ms, one.p50_ms,
         one.p90_ms, one.p99_ms, one.spread_ms, one.peak_mib,
         one.size_bytes / 1024 if one.size_bytes else None, one.repetitions, one.versions, one.command)
        for run, one in timed
    )  # fmt: skip
    blocks: list[Figure | Table] = []
    for number, conditions in enumerate(dict.fromkeys(one.conditions for _, one in timed)):
        blocks.append(_distribution([pair for pair in timed if pair[1].conditions == conditions], number))
    blocks += [_threads(timed)] if len({one.threads for _, one in timed if one.p50_ms}) > 1 else []
    blocks += [_times(run, one, f"times-{place}") for place, (run, one) in enumerate(timed) if one.operators]
    missing = [] if timed else [f"Nothing was timed; run `bssl-tf bench {only(runs)}/BUNDLE`."]
    if timed and not any(one.operators for _, one in timed):
        missing.append("There are no times of single layers: no benchmark here recorded them.")
    if timed and len({one.threads for _, one in timed}) == 1:
        missing.append(
            f"Latency by threads: all was timed with {timed[0][1].threads}; run `bssl-tf bench {only(runs)}/BUNDLE "
            "--threads 2` and so on."
        )
    return Section(
        "Latency",
        "One image at a time, with the copies of input and output, on the machine that is named. On another machine "
        "other figures hold, and another ratio." if timed else "",
        (*blocks, Table("latency", "Latency, every network", columns, rows)) if timed else (),
        tuple(missing),
    )  # fmt: skip


def _distribution(timed: Sequence[Timed], number: int) -> Figure:
    device, threads = timed[0][1].conditions
    name = f"latency-{number}"
    labels = [f"{run.name}, {one.bundle}, {one.variant}" for run, one in timed]
    full = all(one.durations_ms for _, one in timed)
    table = Table(
        name, "Latency", (Column("network"), *(Column(q, "ms", 3) for q in ("fastest", "p50", "p90", "p99"))),
        tuple((label, one.min_ms, one.p50_ms, one.p90_ms, one.p99_ms)
              for label, (_, one) in zip(labels, timed, strict=True)),
    )  # fmt: skip
    calls = sorted({str(one.repetitions) for _, one in timed if one.repetitions})
    how = (
        "Which share of the calls was at most so slow; further left is faster, steeper is steadier."
        if full
        else "Dot: median. Thick line: to the 90th percentile. Thin line: from the fastest call to the 99th."
    )
    series = [figures.Series(style, one.durations_ms, ()) for style, (_, one) in enumerate(timed)]
    values = [(one.min_ms, one.p50_ms, one.p90_ms, one.p99_ms) for _, one in timed]
    return Figure(
        name=name,
        title=f"Latency on {_where(device, threads)}",
        caption=f"{how} Milliseconds for one image; n = {' or '.join(calls) or '?'} timed calls of each.",
        alt="Median milliseconds: " + "; ".join(
            f"{label} {one.p50_ms:.3g}" for label, (_, one) in zip(labels, timed, strict=True) if one.p50_ms is not None
        ) + ".",
        conditions=_conditions([one for _, one in timed]),
        draw=lambda: figures.shares(name, series, "latency (ms)") if full
        else figures.ranges(name, labels, values, "latency (ms)"),
        table=table,
        keys=tuple(Key(label, style) for style, label in enumerate(labels)) if full else (),
    )  # fmt: skip


def _threads(timed: Sequence[Timed]) -> Figure:
    lines: dict[str, dict[int, float]] = {}
    for run, one in timed:
        if one.threads is not None and one.p50_ms is not None:
            label = f"{run.name}, {one.bundle}, {one.variant}, {one.device}"
            lines.setdefault(label, {})[one.threads] = one.p50_ms
    counts = sorted({threads for line in lines.values() for threads in line})
    series = [figures.Series(i, sorted(line), [line[n] for n in sorted(line)]) for i, line in enumerate(lines.values())]
    columns = (Column("network"), *(Column(f"{n} thread{'s' if n > 1 else ''}", "ms", 3) for n in counts))
    return Figure(
        name="threads",
        title="Latency by threads",
        caption=f"Median milliseconds for one image; lower is better; n = {len(timed)} benchmarks.",
        alt="; ".join(f"{label}: {min(line.values()):.3g} ms at best" for label, line in lines.items()) + ".",
        conditions=_conditions([one for _, one in timed]),
        draw=lambda: figures.curves("threads", series, "threads", "median latency (ms)"),
        table=Table("threads", "Threads", columns, tuple((k, *(v.get(n) for n in counts)) for k, v in lines.items())),
        keys=tuple(Key(label, style) for style, label in enumerate(lines)),
    )


def _times(run: Run, one: Latency, name: str) -> Figure:
    rows = tuple((place, t.operator, t.layer, t.milliseconds) for place, t in enumerate(one.operators))
    shown = one.operators[:_MOST_LAYERS]
    styles = [0 if "bconv" in t.operator.lower() else 1 for t in shown]
    return Figure(
        name=name,
        title=f"Time of each layer: {run.name}, {one.bundle}, {one.variant}",
        caption=f"Milliseconds of one image, in the order of execution; n = {len(rows)} operators{_first(len(rows))}.",
        alt=f"Bar chart of milliseconds by layer, {sum(row[3] for row in rows):.3g} ms in all.",
        conditions=_conditions([one]),
        draw=lambda: figures.bars(
            name, [t.layer or t.operator for t in shown], styles, [t.milliseconds for t in shown], "milliseconds"
        ),
        table=Table(
            name, "Time of each layer",
            (Column("number"), Column("operator"), Column("layer"), Column("time", "ms", 4)), rows,
        ),
        keys=(Key("binary convolution", 0), Key("everything else", 1)),
    )  # fmt: skip


def _first(count: int) -> str:
    return f", the first {_MOST_LAYERS} drawn" if count > _MOST_LAYERS else ""


def _where(device: str, threads: int | None) -> str:
    return f"{device}, {threads} thread{'' if threads == 1 else 's'}" if threads else device


def _versions(bundle: RunBundle) -> str:
    return ", ".join(f"{name} {version}" for name, version in sorted(bundle.manifest.created_by.items()))


def _conditions(timed: Sequence[Latency]) -> str:
    """Machine and versions once, and every command."""
    where = ", ".join(dict.fromkeys(_where(*one.conditions) for one in timed))
    versions = ", ".join(dict.fromkeys(one.versions for one in timed if one.versions)) or "versions not recorded"
    return "; ".join([where, versions, *dict.fromkeys(one.command for one in timed if one.command)])
