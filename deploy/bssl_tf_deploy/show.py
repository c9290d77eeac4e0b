"""A record as lines of text, the same for every command that prints one."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from bssl_tf_deploy.record import BINARY, Latency, Network, Profile, Record, Run, Start, Sustained

# Title, and what stands below it; a column that is empty everywhere is omitted.
_COLUMNS: tuple[tuple[str, Callable[[Network, Latency, Start], float | None]], ...] = (
    ("load_ms", lambda network, latency, start: start.load_ms),
    ("first_ms", lambda network, latency, start: start.first_ms),
    ("p50_ms", lambda network, latency, start: latency.p50_ms),
    ("p90_ms", lambda network, latency, start: latency.p90_ms),
    ("p95_ms", lambda network, latency, start: latency.p95_ms),
    ("p99_ms", lambda network, latency, start: latency.p99_ms),
    ("mean_ms", lambda network, latency, start: latency.mean_ms),
    ("min_ms", lambda network, latency, start: latency.min_ms),
    ("spread_ms", lambda network, latency, start: latency.spread_ms),
)
_ARCHITECTURES = {"arm64": "aarch64", "android-arm64": "aarch64"}


def record_lines(record: Record) -> list[str]:
    """What was measured, with its conditions."""
    return [*_heads(record), *_state_lines(record), *table(record), *_comparison(record), *_foreign(record)]


def table(record: Record) -> list[str]:
    """The figures alone; with no times, none."""
    lines = [line for run in record.runs for line in _run_lines(run)]
    latencies = [network.latency for run in record.runs for network in run.networks.values() if network.latency]
    if any(latency.stable is False for latency in latencies):
        lines.append("?: the budget ended before the median was known to 1 %")
    for source, words in (("runtime", "profiled"), ("benchmark_model", "profiled by benchmark_model")):
        profiles = {run.threads: one for run in record.runs for one in run.profiles if one.source == source}
        if profiles:
            lines += operator_lines(profiles, words)
    return lines + _sustained_lines(record.sustained)


def _heads(record: Record) -> Iterator[str]:
    subject, machine = record.subject, record.machine
    if subject is not None:
        shape = f", input {list(subject.input_shape)}" if subject.input_shape else ""
        yield f"{machine.name}: {subject.network}{shape}, {machine}"
    if record.golden is not None:
        kernel = next((run.networks[BINARY].kernel for run in record.runs if BINARY in run.networks), "")
        if not kernel and record.library is not None and record.library.kernels:
            kernel = f"bssl-tf runtime {record.library.kernels[0]}"
        images = record.golden.images
        yield f"golden outputs: as expected for {images} images" + (f", from {kernel}" if kernel else "")
    words = [", ".join(f"{name} {version}" for name, version in record.versions.items())]
    words += [f"Python {machine.python}"] if machine.python else []
    if any(words):
        yield ", ".join(word for word in words if word)
    if machine.emulated:
        yield "emulated: answers are checked, times would mean nothing"
    for one in record.counts:
        yield (
            f"emulated: one image takes {one.instructions / 1e6:.3f} million instructions on {one.processor}, "
            f"{one.vector / 1e6:.3f} million of them vector ones"
        )


def _state_lines(record: Record) -> Iterator[str]:
    before, after = record.conditions.before, record.conditions.after
    if before and after and before.temperature_c is not None and after.temperature_c is not None:
        yield f"temperature before and after {before.temperature_c:.1f} and {after.temperature_c:.1f} °C"
    if before and before.governors:
        yield f"governor {'/'.join(before.governors)}"
    if after and after.throttled:
        yield "throttling: " + ", ".join(after.throttled)


def _run_lines(run: Run) -> Iterator[str]:
    timed = {name: network for name, network in run.networks.items() if network.latency is not None}
    cells = [
        (name, network, latency, network.start or Start())
        for name, network in timed.items()
        if (latency := network.latency) is not None
    ]
    kept = [(title, value) for title, value in _COLUMNS if any(value(*cell[1:]) is not None for cell in cells)]
    interval = any(latency.p50_low_ms is not None for _, _, latency, _ in cells)
    peak = any(start.peak_memory_kib is not None for *_, start in cells)
    wide = max([10, *map(len, run.networks)])
    yield (
        f"{'threads':>7} {'network':{wide}} {'KiB':>9} "
        + " ".join(f"{title:>9}" for title, _ in kept)
        + (f" {'95 % of p50':>19}" if interval else "")
        + f" {'calls':>6}"
        + (f" {'peak MiB':>8}" if peak else "")
        + "  kernel"
    )
    for name, network, latency, start in cells:
        values = " ".join(_figure(value(network, latency, start)) for _, value in kept)
        yield (
            f"{run.threads:7} {name:{wide}} {network.model_size_bytes / 1024:9.1f} {values}"
            + (f" {_interval(latency):>19}" if interval else "")
            + f" {latency.calls if latency.calls is not None else '':>6}"
            + (f" {start.peak_memory_kib / 1024:8.1f}" if start.peak_memory_kib is not None else " " * 9 * peak)
            + f"  {network.kernel}"
        )
    for name, network in run.networks.items():
        if network.refused is not None:
            yield f"{run.threads:7} {name:{wide}} refused: {network.refused}"


def _figure(value: float | None) -> str:
    return " " * 9 if value is None else f"{value:9.3f}"


def _interval(latency: Latency) -> str:
    if latency.p50_low_ms is None or latency.p50_high_ms is None:
        return ""
    return f"{latency.p50_low_ms:.3f} to {latency.p50_high_ms:.3f}" + ("?" if latency.stable is False else "")


def _comparison(record: Record) -> Iterator[str]:
    """The bundle's network beside the same architecture in float32 and int8, and beside others."""
    for run in record.runs:
        binary = run.networks.get(BINARY)
        words = []
        for name, other in run.networks.items():
            if other.role != "subject" and binary is not None and (ratio := speed_ratio(binary, other)) is not None:
                speed = f"{ratio:.2f} times faster" if ratio >= 1 else f"{1 / ratio:.2f} times slower"
                smaller = other.model_size_bytes / binary.model_size_bytes
                size = f"{smaller:.1f} times smaller" if smaller >= 1 else f"{1 / smaller:.1f} times larger"
                words.append(f"{speed} (median) and {size} than {'in ' * (other.role == 'stock')}{name}")
        if words:
            with_threads = f" with {run.threads} threads" if len(record.runs) > 1 else ""
            yield f"here the binary network is{with_threads} {', '.join(words)}"


def speed_ratio(network: Network, other: Network) -> float | None:
    """How many times as long `other` takes as `network`, by their medians; None where one is not known."""
    own, its = network.latency, other.latency
    if own is None or its is None or not own.p50_ms or its.p50_ms is None:
        return None
    return its.p50_ms / own.p50_ms


def _foreign(record: Record) -> Iterator[str]:
    target = record.subject.target if record.subject else None
    if target is not None and record.runs and _ARCHITECTURES.get(target, target) != record.machine.architecture:
        yield (
            f"this machine is not {target}, which the bundle was exported for: there it will be faster or slower, by a "
            "different ratio"
        )


def operator_lines(profiles: dict[int, Profile], words: str = "profiled") -> list[str]:
    """Profiles of one network by the number of threads, as lines of text: one table.

    Args:
        profiles: at least one.
        words: how they were taken, for the table's head.
    """
    heads = [f"{threads} {'threads' if threads > 1 else 'thread'}" for threads in profiles]
    first, *others = profiles.values()
    # Other numbers of threads run the same operators; where they do not, they get a table of their own.
    same = [row.operator for row in first.rows]
    if any([row.operator for row in one.rows] != same for one in others):
        return [line for threads, one in profiles.items() for line in operator_lines({threads: one}, words)]
    title = f"operators, {words}"
    wide = max([len(title), *(len(_cut(row.operator)) for row in first.rows)])
    shares = any(row.share is not None for row in first.rows)
    lines = [
        f"{title:{wide}}  "
        + "  ".join(f"{'ms, ' + head:>14}" + (" share spread" if shares else "") for head in heads)
        + "  layer"
    ]
    for place, row in enumerate(first.rows):
        cells = [one.rows[place] for one in profiles.values()]
        figures = "  ".join(
            f"{cell.milliseconds:14.4f}" + (f" {cell.share or 0:5.1%} {cell.spread_ms or 0:6.4f}" if shares else "")
            for cell in cells
        )
        lines.append(f"{_cut(row.operator):{wide}}  {figures}  {row.layer or row.output}".rstrip())
    for head, one in zip(heads, profiles.values(), strict=True):
        if one.call_ms is not None and one.left_ms is not None and one.unwatched_ms is not None:
            lines.append(
                f"{head}: a call takes {one.call_ms:.4f} ms, {one.left_ms:+.4f} ms of it in no row, as medians do not "
                f"add up; unprofiled {one.unwatched_ms:.4f} ms; medians of {one.calls} calls"
            )
    return lines


def _cut(text: str) -> str:
    return text if len(text) <= 48 else text[:45] + "..."


def _sustained_lines(found: Sustained | None) -> list[str]:
    if found is None:
        return []
    first, last = found.windows[0], found.windows[-1]
    lines = [
        f"sustained {found.seconds:g} s, {found.threads} threads: median {first.p50_ms:.3f} ms in the first window, "
        f"{last.p50_ms:.3f} ms in the last" + (": it slowed down" if found.slower else "")
    ]
    if first.state.temperature_c is not None and last.state.temperature_c is not None:
        lines.append(f"temperature {first.state.temperature_c:.1f} to {last.state.temperature_c:.1f} °C")
    if found.throttled:
        lines.append("throttling: " + ", ".join(found.throttled))
    if found.energy_mj_per_inference is not None:
        lines.append(f"energy of the processor {found.energy_mj_per_inference:.3f} mJ per inference")
    return lines
