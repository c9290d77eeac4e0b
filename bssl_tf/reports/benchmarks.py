"""Records of `bssl-tf bench`, in old and new forms: a field that is missing, or of another type, is left out."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from bssl_tf.files import read_records
from bssl_tf.reports.fields import at, number, numbers, table, text, whole

# Where raw durations may stand, and how many of them make a millisecond.
_DURATIONS = {"durations_ms": 1, "durations_us": 1e3, "durations_ns": 1e6}
_OPERATOR_TIMES = ("p50_ms", "mean_ms", "ms")
SAME_IN_FLOAT32 = "same shape in float32"
# What is timed beside a bundle without being asked for; on this machine the float network has another name.
_BESIDE = {"float": SAME_IN_FLOAT32, "float32": SAME_IN_FLOAT32, "int8": "same shape in int8"}


@dataclass(frozen=True)
class OperatorTime:
    """What one operator takes of an inference: its name, the Keras layer that it came from, and milliseconds."""

    operator: str
    layer: str
    milliseconds: float


@dataclass(frozen=True)
class Window:
    """A part of a sustained run: when it began, how fast it was, and the machine's state at its end."""

    start_s: float
    p50_ms: float
    p90_ms: float | None
    repetitions: int | None
    temperature_c: float | None
    clock_mhz: float | None
    throttled: tuple[str, ...]


@dataclass(frozen=True)
class Sustained:
    """Calls without a pause.

    Attributes:
        windows: in their order; at least one.
        slower: whether the last was slower than the first by more than the record allows.
        energy_mj: millijoules for one image, of the whole processor; None where nobody counts them.
    """

    windows: tuple[Window, ...]
    slower: bool
    energy_mj: float | None


@dataclass(frozen=True)
class Latency:
    """One network, timed on one machine; figures in milliseconds, None where the record has none.

    Attributes:
        bundle: its folder's name.
        variant: `binary`, `float`, or whatever else was timed beside it.
        network: the same in words.
        where: `local`, or the device's name.
        device: the machine in words, and the device's name where it has one.
        threads: for one image.
        kernel: what computed, in words.
        durations_ms: every timed call, in order; empty where the record has summaries only.
        operators: empty where they were not timed.
        sustained: None where there was no such run with this number of threads.
        repetitions: timed calls.
        versions: of the packages that computed, in words.
        command: that gives the record again.
    """

    bundle: str
    variant: str
    network: str
    where: str
    device: str
    threads: int | None
    kernel: str
    first_ms: float | None
    min_ms: float | None
    p50_ms: float | None
    p90_ms: float | None
    p99_ms: float | None
    spread_ms: float | None
    peak_mib: float | None
    size_bytes: int | None
    durations_ms: tuple[float, ...]
    operators: tuple[OperatorTime, ...]
    sustained: Sustained | None
    repetitions: int | None
    versions: str
    command: str

    @property
    def conditions(self) -> tuple[str, int | None]:
        """What must be equal for two latencies to be compared."""
        return self.device, self.threads


@dataclass(frozen=True)
class Emulated:
    """A bundle on a processor that was emulated: answers, and what was counted for one image, but no times.

    Attributes:
        as_expected: whether the golden outputs came out.
        instructions: None where they were not counted; `vector` are part of them.
    """

    bundle: str
    processor: str
    kernel: str
    as_expected: bool
    instructions: int | None
    vector: int | None
    command: str


def read_emulated(folder: Path) -> list[Emulated]:
    """The newest record of each bundle, processor and kernel in the `bench*.jsonl` of a run folder, oldest first."""
    newest: dict[tuple[str, ...], Emulated] = {}
    for path in sorted(folder.glob("bench*.jsonl")):
        for record in read_records(path):
            if at(record, "emulated") is not True:
                continue
            one = Emulated(
                bundle=Path(text(record, "bundle")).name or "bundle",
                processor=text(record, "instructions", "processor") or _machine(table(record, "facts")),
                kernel=text(record, "kernel"),
                as_expected=at(record, "golden", "as_expected") is True,
                instructions=whole(record, "instructions", "instructions"),
                vector=whole(record, "instructions", "vector"),
                command=text(record, "command"),
            )
            key = (one.bundle, one.processor, one.kernel)
            newest.pop(key, None)
            newest[key] = one
    return list(newest.values())


def read_benchmarks(folder: Path) -> list[Latency]:
    """What was timed, the newest record of each bundle, network, machine and number of threads; oldest first.

    Args:
        folder: a run folder; its `bench*.jsonl` are read. Emulated runs give no times and are left out.
    """
    newest: dict[tuple[Any, ...], Latency] = {}
    for path in sorted(folder.glob("bench*.jsonl")):
        for record in read_records(path):
            if at(record, "emulated") is True:
                continue
            for latency in _latencies(record):
                key = (latency.bundle, latency.variant, *latency.conditions, latency.kernel)
                newest.pop(key, None)
                newest[key] = latency
    return list(newest.values())


def _latencies(record: Any) -> list[Latency]:
    # Of a device there is a run for each number of threads.
    runs = at(record, "runs")
    parts = [{**record, **run} for run in runs if isinstance(run, dict)] if isinstance(runs, list) else [record]
    found = []
    for part in parts:
        for name, one in table(part, "networks").items():
            if isinstance(one, dict):
                found.append(_latency(part, str(name), one | (_watched(record, part) if name == "binary" else {})))
    return [one for one in found if one.p50_ms is not None or one.durations_ms]


def _watched(record: Any, part: dict[str, Any]) -> dict[str, Any]:
    """What is known of the bundle's network with the number of threads of `part`: `operators` and `sustained`."""
    found = {}
    # Our runtime's of this part, else what benchmark_model said of the whole record, for one number of threads.
    for profile in (table(record, "operators"), table(part, "operators")):
        if "rows" in profile and profile.get("threads") == at(part, "threads"):
            found["operators"] = profile["rows"]
    sustained = table(record, "sustained")
    if sustained.get("threads") == at(part, "threads"):
        found["sustained"] = sustained
    return found


def _latency(record: Any, variant: str, one: dict[str, Any]) -> Latency:
    durations: tuple[float, ...] = ()
    for key, scale in _DURATIONS.items():
        durations = durations or tuple(value / scale for value in numbers(one, key))
    machine = text(record, "machine") or _machine(table(record, "facts")) or "a machine without a name"
    device = text(record, "device", "name") or "local"
    command = text(record, "command")
    about = one | {"versions": table(record, "versions") | table(one, "versions")}
    return Latency(
        bundle=Path(text(record, "bundle")).name or "bundle",
        variant=variant,
        # A model that the user put beside the bundle keeps the name that it was given.
        network=variant if f"--beside {variant}=" in command else _BESIDE.get(variant, variant),
        where=device,
        device=machine if device == "local" else f"{device}: {machine}",
        threads=whole(one, "threads") or whole(record, "threads"),
        kernel=text(one, "kernel") or _kernel(text(record, "kernel"), variant),
        first_ms=number(one, "first_ms"),
        min_ms=number(one, "min_ms"),
        p50_ms=_first(number(one, "p50_ms"), number(one, "median_ms"), _quantile(durations, 0.5)),
        p90_ms=_first(number(one, "p90_ms"), _quantile(durations, 0.9)),
        p99_ms=_first(number(one, "p99_ms"), _quantile(durations, 0.99)),
        spread_ms=number(one, "spread_ms"),
        peak_mib=_first(
            number(one, "memory_mib"), None if (kib := number(one, "peak_memory_kib")) is None else kib / 1024
        ),
        size_bytes=whole(one, "model_size_bytes") or whole(one, "model_bytes"),
        durations_ms=durations,
        operators=_operators(one),
        sustained=_sustained(table(one, "sustained")),
        repetitions=whole(one, "repetitions") or whole(record, "repetitions") or len(durations) or None,
        versions=", ".join(f"{name} {version}" for name, version in table(about, "versions").items()),
        command=command,
    )


def _kernel(of_record: str, variant: str) -> str:
    """What computed, as a device's record has it: "ours, the rest XNNPACK", and the networks beside are all rest."""
    return of_record if variant == "binary" else of_record.partition("the rest ")[2]


def _operators(one: dict[str, Any]) -> tuple[OperatorTime, ...]:
    listed = at(one, "operators")
    times = []
    for entry in listed if isinstance(listed, list) else ():
        took = _first(*(number(entry, key) for key in _OPERATOR_TIMES))
        if took is not None:
            operator = text(entry, "operator") or text(entry, "type") or "?"
            times.append(OperatorTime(operator, text(entry, "layer") or text(entry, "name"), took))
    return tuple(times)


def _sustained(found: dict[str, Any]) -> Sustained | None:
    windows = []
    listed = at(found, "windows")
    for one in listed if isinstance(listed, list) else ():
        start, p50 = number(one, "start_s"), number(one, "p50_ms")
        if start is not None and p50 is not None:
            flags = at(one, "throttled")
            windows.append(
                Window(
                    start,
                    p50,
                    number(one, "p90_ms"),
                    whole(one, "repetitions"),
                    number(one, "temperature_c"),
                    number(one, "clock_mhz"),
                    tuple(map(str, flags)) if isinstance(flags, list) else (),
                )
            )
    if not windows:
        return None
    return Sustained(tuple(windows), at(found, "slower") is True, number(found, "energy_mj_per_inference"))


def _machine(facts: dict[str, Any]) -> str:
    """A device's machine in the words of `bssl_tf_deploy.benchmark.machine`."""
    cores = whole(facts, "cores")
    system = f"{text(facts, 'system')} {text(facts, 'machine')}".strip()
    return ", ".join(part for part in (text(facts, "processor"), f"{cores} cores" if cores else "", system) if part)


def _first(*values: float | None) -> float | None:
    return next((value for value in values if value is not None), None)


def _quantile(values: tuple[float, ...], share: float) -> float | None:
    """As `bssl_tf_deploy.benchmark` does it: the median may lie between two values, other quantiles were measured."""
    if not values:
        return None
    return float(np.quantile(values, share, method="linear" if share == 0.5 else "higher"))
