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


@dataclass(frozen=True)
class OperatorTime:
    """What one operator takes of an inference: its name, the Keras layer that it came from, and milliseconds."""

    operator: str
    layer: str
    milliseconds: float


@dataclass(frozen=True)
class Latency:
    """One network, timed on one machine; figures in milliseconds, None where the record has none.

    Attributes:
        bundle: its folder's name.
        variant: `binary`, `float`, or whatever else was timed beside it.
        device: the machine in words, and the device's name where it has one.
        threads: for one image.
        kernel: what computed, in words.
        durations_ms: every timed call, in order; empty where the record has summaries only.
        operators: empty where they were not timed.
        repetitions: timed calls.
        versions: of the packages that computed, in words.
        command: that gives the record again.
    """

    bundle: str
    variant: str
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
    repetitions: int | None
    versions: str
    command: str

    @property
    def conditions(self) -> tuple[str, int | None]:
        """What must be equal for two latencies to be compared."""
        return self.device, self.threads


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
    # Of a device there is a run for each number of threads, and operators for one of them, of the bundle's network.
    runs = at(record, "runs")
    if isinstance(runs, list):
        watched = table(record, "operators")
        parts = []
        for run in runs:
            networks = dict(table(run, "networks"))
            if "rows" in watched and watched.get("threads") == at(run, "threads"):
                networks["binary"] = table(networks, "binary") | {"operators": watched["rows"]}
            parts.append({**record, "threads": at(run, "threads"), "networks": networks})
    else:
        parts = [record]
    found = [
        _latency(part, str(name), one)
        for part in parts
        for name, one in table(part, "networks").items()
        if isinstance(one, dict)
    ]
    return [one for one in found if one.p50_ms is not None or one.durations_ms]


def _latency(record: Any, variant: str, one: dict[str, Any]) -> Latency:
    durations: tuple[float, ...] = ()
    for key, scale in _DURATIONS.items():
        durations = durations or tuple(value / scale for value in numbers(one, key))
    machine = text(record, "machine") or _machine(table(record, "facts")) or "a machine without a name"
    device = text(record, "device", "name")
    about = one | {"versions": table(record, "versions") | table(one, "versions")}
    return Latency(
        bundle=Path(text(record, "bundle")).name or "bundle",
        variant=variant,
        device=machine if device in ("", "local") else f"{device}: {machine}",
        threads=whole(one, "threads") or whole(record, "threads"),
        kernel=text(one, "kernel") or (text(record, "kernel") if variant == "binary" else ""),
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
        repetitions=whole(one, "repetitions") or whole(record, "repetitions") or len(durations) or None,
        versions=", ".join(f"{name} {version}" for name, version in table(about, "versions").items()),
        command=text(record, "command"),
    )


def _operators(one: dict[str, Any]) -> tuple[OperatorTime, ...]:
    listed = at(one, "operators")
    times = []
    for entry in listed if isinstance(listed, list) else ():
        took = _first(*(number(entry, key) for key in _OPERATOR_TIMES))
        if took is not None:
            operator = text(entry, "operator") or text(entry, "type") or "?"
            times.append(OperatorTime(operator, text(entry, "layer") or text(entry, "name"), took))
    return tuple(times)


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
