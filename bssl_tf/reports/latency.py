"""The section of latency: its distribution, by threads, by layer, over a run without a pause; and of emulated runs."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

from bssl_tf.reports import figures
from bssl_tf.reports.benchmarks import TimedNetwork
from bssl_tf.reports.document import Column, Figure, Key, Section, Table
from bssl_tf.reports.runs import Run, only
from bssl_tf_deploy.record import Sustained

MOST_LAYERS = 40
Timed = tuple[Run, TimedNetwork]


def latency_section(runs: Sequence[Run]) -> Section:
    timed = [(run, one) for run in runs for one in run.benchmarks]
    columns = (
        *(Column("run"), Column("bundle"), Column("network"), Column("where"), Column("machine"), Column("threads")),
        Column("kernel"),
        *(Column("first", "ms", 3), Column("fastest", "ms", 3), Column("p50", "ms", 3), Column("p90", "ms", 3)),
        *(Column("p99", "ms", 3), Column("interquartile range", "ms", 3), Column("peak memory", "MiB", 1)),
        *(
            Column("memory for the model", "MiB", 1),
            Column("model size", "KiB", 1),
            Column("calls"),
            Column("versions"),
            Column("command"),
        ),
    )
    rows = tuple(
        (run.name, one.bundle, one.title, one.record.machine.name, one.device, one.run.threads, one.network.kernel,
         one.start.first_ms, one.latency.min_ms, one.p50_ms, one.latency.p90_ms, one.latency.p99_ms,
         one.latency.spread_ms, one.peak_mib, one.added_mib, one.network.model_size_bytes / 1024, one.latency.calls,
         one.versions, one.command)
        for run, one in timed
    )  # fmt: skip
    blocks: list[Figure | Table] = []
    for number, conditions in enumerate(dict.fromkeys(one.conditions for _, one in timed)):
        blocks.append(_distribution([pair for pair in timed if pair[1].conditions == conditions], number))
    blocks += [_threads(timed)] if len({one.run.threads for _, one in timed}) > 1 else []
    for place, (run, one) in enumerate(timed):
        blocks += [_times(run, one, f"times-{place}")] if one.operators else []
        blocks += _sustained(run, one, one.sustained, f"sustained-{place}") if one.sustained else []
    missing = [] if timed else [f"Nothing was timed; run `bssl-tf bench {only(runs)}/BUNDLE`."]
    if timed and not any(one.operators for _, one in timed):
        missing.append(f"Times by layer were not measured; run `bssl-tf bench {only(runs)}/BUNDLE --operators`.")
    if timed and not any(one.sustained for _, one in timed):
        missing.append(
            f"Throttling was not measured; run `bssl-tf bench {only(runs)}/BUNDLE --device DEVICE --sustained 600`."
        )
    if timed and len({one.run.threads for _, one in timed}) == 1:
        missing.append(
            f"Latency by threads: everything was timed with {timed[0][1].run.threads}; run `bssl-tf bench "
            f"{only(runs)}/BUNDLE --threads 2` and so on."
        )
    return Section(
        "Latency",
        "One image at a time, including copying input and output, on the machine named. On another machine "
        "both the figures and their ratio differ." if timed else "",
        (*blocks, *([Table("latency", "Latency, every network", columns, rows)] if timed else []), *_emulated(runs)),
        tuple(missing),
    )  # fmt: skip


def _distribution(timed: Sequence[Timed], number: int) -> Figure:
    device, threads = timed[0][1].conditions
    name = f"latency-{number}"
    labels = _labels(timed)
    full = all(one.durations_ms for _, one in timed)
    table = Table(
        name, "Latency", (Column("network"), *(Column(q, "ms", 3) for q in ("fastest", "p50", "p90", "p99"))),
        tuple((label, one.latency.min_ms, one.p50_ms, one.latency.p90_ms, one.latency.p99_ms)
              for label, (_, one) in zip(labels, timed, strict=True)),
    )  # fmt: skip
    calls = sorted({str(one.latency.calls) for _, one in timed if one.latency.calls})
    how = (
        "Share of calls that took at most this long; further left is faster, steeper is steadier. The axis ends soon "
        "after the 99th percentile."
        if full
        else "Dot: median. Thick line: to the 90th percentile. Thin line: from the fastest call to the 99th."
    )
    series = [figures.Series(style, one.durations_ms, ()) for style, (_, one) in enumerate(timed)]
    values = [(one.latency.min_ms, one.p50_ms, one.latency.p90_ms, one.latency.p99_ms) for _, one in timed]
    return Figure(
        name=name,
        title=f"Latency on {where_timed(device, threads)}",
        caption=f"{how} Milliseconds for one image; n = {' or '.join(calls) or '?'} timed calls of each.",
        alt="Median milliseconds: " + "; ".join(
            f"{label} {one.p50_ms:.3g}" for label, (_, one) in zip(labels, timed, strict=True) if one.p50_ms is not None
        ) + ".",
        conditions=conditions_of([one for _, one in timed]),
        draw=lambda: figures.shares(name, series, "latency (ms)") if full
        else figures.ranges(name, labels, values, "latency (ms)"),
        table=table,
        keys=tuple(Key(label, style) for style, label in enumerate(labels)) if full else (),
    )  # fmt: skip


def _threads(timed: Sequence[Timed]) -> Figure:
    lines: dict[str, dict[int, float]] = {}
    for (_, one), label in zip(timed, _labels(timed), strict=True):
        if one.p50_ms is not None:
            lines.setdefault(label, {})[one.run.threads] = one.p50_ms
    counts = sorted({threads for line in lines.values() for threads in line})
    series = [figures.Series(i, sorted(line), [line[n] for n in sorted(line)]) for i, line in enumerate(lines.values())]
    columns = (Column("network"), *(Column(f"{n} thread{'s' if n > 1 else ''}", "ms", 3) for n in counts))
    return Figure(
        name="threads",
        title="Latency by threads",
        caption=f"Median milliseconds for one image; lower is better; n = {len(timed)} benchmarks.",
        alt="; ".join(f"{label}: {min(line.values()):.3g} ms at best" for label, line in lines.items()) + ".",
        conditions=conditions_of([one for _, one in timed]),
        draw=lambda: figures.curves("threads", series, "threads", "median latency (ms)"),
        table=Table("threads", "Threads", columns, tuple((k, *(v.get(n) for n in counts)) for k, v in lines.items())),
        keys=tuple(Key(label, style) for style, label in enumerate(lines)),
    )


def _times(run: Run, one: TimedNetwork, name: str) -> Figure:
    whole = sum(t.milliseconds for t in one.operators) or 1.0
    rows = tuple(
        (place, t.operator, t.layer or t.output, t.milliseconds, 100 * t.milliseconds / whole)
        for place, t in enumerate(one.operators)
    )
    shown = one.operators[:MOST_LAYERS]
    styles = [0 if "bconv" in t.operator.lower() else 1 for t in shown]
    columns = (
        Column("number"),
        Column("operators"),
        Column("layers"),
        Column("time", "ms", 4),
        Column("share", "%", 1),
    )
    return Figure(
        name=name,
        title=f"Time of each layer: {_name(run, one)}",
        caption=f"Median milliseconds of one image, in the order of execution; n = {len(rows)} operators or groups of "
        f"them that run as one{first_drawn(len(rows))}. Together {whole:.3g} ms, while profiled.",
        alt=f"Bar chart of milliseconds by layer, {whole:.3g} ms in all; the slowest: "
        + ", ".join(
            f"{row[2] or row[1]} {row[3]:.3g} ms" for row in sorted(rows, key=lambda row: row[3], reverse=True)[:3]
        )
        + ".",
        conditions=conditions_of([one]),
        draw=lambda: figures.bars(
            name,
            [layer_name(t.layer, t.operator) for t in shown],
            styles,
            [t.milliseconds for t in shown],
            "milliseconds",
        ),
        table=Table(name, "Time of each layer", columns, rows),
        keys=(Key("binary convolution, with what follows it", 0), Key("everything else", 1)),
    )


def _sustained(run: Run, one: TimedNetwork, found: Sustained, name: str) -> list[Figure]:
    """Latency, and where it is known temperature, over a run without a pause."""
    title = _name(run, one)
    windows = found.windows
    seconds = [window.start_s for window in windows]
    flags = [(), *(window.state.throttled or () for window in windows)]
    changes = [start for start, (before, now) in zip(seconds, itertools.pairwise(flags), strict=True) if now != before]
    seen = list(dict.fromkeys(flag for flag_list in flags for flag in flag_list))
    said = (
        f"Dashed lines: the machine's flags changed ({', '.join(seen)})." if seen
        else "The machine reported no throttling, or cannot report it."
    )  # fmt: skip
    if found.energy_mj_per_inference is not None:
        said += f" Energy of the whole processor: {found.energy_mj_per_inference:.3g} mJ per image."
    rows = tuple(
        (
            w.start_s,
            w.p50_ms,
            w.p90_ms,
            w.calls,
            w.state.temperature_c,
            w.state.clock_mhz,
            ", ".join(w.state.throttled or ()),
        )
        for w in windows
    )
    columns = (
        *(Column("begins", "s", 1), Column("p50", "ms", 4), Column("p90", "ms", 4), Column("calls")),
        *(Column("temperature", "°C", 1), Column("clock", "MHz", 0), Column("throttling")),
    )
    conditions = conditions_of([one])
    change = "it slowed down" if found.slower else "it did not slow down"
    series = [figures.Series(0, seconds, [window.p50_ms for window in windows])]
    series.append(figures.Series(1, seconds, [window.p90_ms for window in windows]))
    made = [
        Figure(
            name=name,
            title=f"Sustained load: {title}",
            caption=f"Milliseconds of one image in windows of a run without a pause; n = {len(windows)} windows; "
            f"{change}. {said}",
            alt=f"Line chart over {seconds[-1]:.3g} s: median {windows[0].p50_ms:.3g} ms at first, "
            f"{windows[-1].p50_ms:.3g} ms in the last window.",
            conditions=conditions,
            draw=lambda: figures.curves(name, series, "seconds", "latency (ms)", borders=changes),
            table=Table(name, "Sustained load", columns, rows),
            keys=(Key("median", 0), Key("90th percentile", 1)),
        )
    ]
    warm = [(one.start_s, celsius) for one in windows if (celsius := one.state.temperature_c) is not None]
    if warm:
        hot = figures.Series(0, [start for start, _ in warm], [celsius for _, celsius in warm])
        heat = f"{name}-temperature"
        made.append(
            Figure(
                name=heat,
                title=f"Temperature under sustained load: {title}",
                caption=f"The hottest sensor at the end of each window; n = {len(warm)} windows. {said}",
                alt=f"Line chart: {warm[0][1]:.3g} °C at first, {warm[-1][1]:.3g} °C in the last window.",
                conditions=conditions,
                draw=lambda: figures.curves(heat, [hot], "seconds", "temperature (°C)", borders=changes, zero=False),
                table=Table(heat, "Temperature", (columns[0], columns[4]), tuple(warm)),
            )
        )
    return made


def _emulated(runs: Sequence[Run]) -> list[Table]:
    columns = (
        *(Column("run"), Column("bundle"), Column("emulated processor"), Column("kernel"), Column("answers")),
        *(Column("instructions", "million", 3), Column("vector instructions", "million", 3), Column("command")),
    )
    rows = tuple(
        (run.name, one.bundle, one.processor, one.kernel, "as expected" if one.record.golden else "not compared",
         one.count.instructions / 1e6 if one.count else None, one.count.vector / 1e6 if one.count else None,
         one.record.command or "")
        for run in runs for one in run.emulated
    )  # fmt: skip
    title = "Emulated: answers and instruction counts for one image, no times"
    return [Table("emulated", title, columns, rows)] if rows else []


def _labels(timed: Sequence[Timed]) -> list[str]:
    """The network of each, and of run, bundle, machine and kernel what tells these apart.

    The kernel counts where one network was timed with several on one machine.
    """
    kernels: dict[tuple[str, ...], set[str]] = {}
    for run, one in timed:
        kernels.setdefault((run.name, one.bundle, one.name, one.device), set()).add(one.network.kernel)
    several = any(len(found) > 1 for found in kernels.values())
    parts = [(run.name, one.bundle, one.title, one.device, one.network.kernel if several else "") for run, one in timed]
    title = 2
    kept = [place for place in range(len(parts[0])) if place == title or len({part[place] for part in parts}) > 1]
    return [", ".join(part[place] for place in kept) for part in parts]


def _name(run: Run, one: TimedNetwork) -> str:
    return where_timed(f"{run.name}, {one.bundle}, {one.title}, {one.record.machine.name}", one.run.threads)


def layer_name(layer: str, operator: str) -> str:
    """What a bar is called: after the operator where no layer is known, or only the converter's own call."""
    return operator if not layer or layer.startswith("StatefulPartitionedCall") else layer


def first_drawn(count: int) -> str:
    """What a caption says of layers for which there is no room."""
    return f", the first {MOST_LAYERS} drawn" if count > MOST_LAYERS else ""


def where_timed(device: str, threads: int | None) -> str:
    """A machine and a number of threads in words."""
    return f"{device}, {threads} thread{'' if threads == 1 else 's'}" if threads else device


def conditions_of(timed: Sequence[TimedNetwork]) -> str:
    """Each machine once, with its numbers of threads, the versions, and every command."""
    threads: dict[str, list[int]] = {}
    for one in timed:
        threads.setdefault(one.device, []).append(one.run.threads)
    places = [
        f"{device}, {' and '.join(map(str, counts := sorted(set(found))))} thread{'s' * (counts != [1])}"
        for device, found in threads.items()
    ]
    versions = ", ".join(dict.fromkeys(one.versions for one in timed if one.versions)) or "versions not recorded"
    return "; ".join([*places, versions, *dict.fromkeys(one.command for one in timed if one.command)])
