"""The benchmarks of a run folder: its `bench*.jsonl`, records of `bssl_tf_deploy.record`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bssl_tf.bench_records import parse_benchmarks
from bssl_tf_deploy.record import Count, Latency, Network, OperatorTime, Record, Run, Start, Sustained


@dataclass(frozen=True)
class TimedNetwork:
    """One network of a record's run: timed on one machine with one number of threads.

    Attributes:
        name: in the record; `binary` is the bundle's own.
        network: its figures.
    """

    record: Record
    run: Run
    name: str
    network: Network

    @property
    def latency(self) -> Latency:
        """Its figures; `read_benchmarks` returns no network without any."""
        assert self.network.latency is not None
        return self.network.latency

    @property
    def start(self) -> Start:
        return self.network.start or Start()

    @property
    def bundle(self) -> str:
        """Name of the bundle's folder."""
        return _bundle(self.record)

    @property
    def title(self) -> str:
        """The network in words."""
        return f"same shape in {self.name}" if self.network.role == "stock" else self.name

    @property
    def is_float_of_the_shape(self) -> bool:
        """Whether it is the bundle's architecture in float32, made for comparison."""
        return self.network.role == "stock" and self.name == "float32"

    @property
    def device(self) -> str:
        """The machine in words, and the device's name where it has one."""
        machine = self.record.machine
        return str(machine) if machine.name == "local" else f"{machine.name}: {machine}"

    @property
    def p50_ms(self) -> float | None:
        return self.latency.p50_ms

    @property
    def peak_mib(self) -> float | None:
        """The most that was resident, in MiB."""
        kib = self.start.peak_memory_kib
        return None if kib is None else kib / 1024

    @property
    def added_mib(self) -> float | None:
        """By how much that lies above what was resident before the model."""
        start = self.start
        if start.added_memory_mib is not None or start.peak_memory_kib is None or start.memory_before_kib is None:
            return start.added_memory_mib
        return (start.peak_memory_kib - start.memory_before_kib) / 1024

    @property
    def durations_ms(self) -> tuple[float, ...]:
        """Every timed call, in order; empty where they were not kept."""
        return tuple(nanoseconds / 1e6 for nanoseconds in self.latency.durations_ns)

    @property
    def operators(self) -> tuple[OperatorTime, ...]:
        """The bundle's own, by our runtime where it kept times; empty where nobody did, and for other networks."""
        profiles = sorted(self.run.profiles, key=lambda one: one.source != "runtime")
        return profiles[0].rows if profiles and self.network.role == "subject" else ()

    @property
    def sustained(self) -> Sustained | None:
        """Calls of the bundle's own network without a pause, with this number of threads."""
        found = self.record.sustained
        return found if found and self.network.role == "subject" and found.threads == self.run.threads else None

    @property
    def versions(self) -> str:
        return ", ".join(f"{name} {version}" for name, version in self.record.versions.items())

    @property
    def command(self) -> str:
        return self.record.command or ""

    @property
    def conditions(self) -> tuple[str, int]:
        """What must be equal for two latencies to be compared: the machine and the number of threads."""
        return self.device, self.run.threads


@dataclass(frozen=True)
class Emulated:
    """A bundle on a processor that was emulated: answers, and what was counted for one image, but no times.

    Attributes:
        count: None where nothing was counted.
    """

    record: Record
    count: Count | None

    @property
    def bundle(self) -> str:
        return _bundle(self.record)

    @property
    def processor(self) -> str:
        return self.count.processor if self.count else str(self.record.machine)

    @property
    def kernel(self) -> str:
        """Of our library, the one in use."""
        counted = self.count.kernels if self.count else None
        kernels = counted or (self.record.library.kernels if self.record.library else ())
        return kernels[0] if kernels else ""


def read_benchmarks(folder: Path) -> tuple[list[TimedNetwork], list[Emulated], list[str]]:
    """What was measured, the newest of each kind; oldest first.

    Args:
        folder: a run folder; its `bench*.jsonl` are read.

    Returns:
        What was timed, the newest record of each bundle, network, machine, number of threads and kernel; what was
        emulated, the newest of each bundle, processor and kernel; and what is wrong with lines that are not records.

    Raises:
        RunFolderError: a file cannot be read.
    """
    timed: dict[tuple[Any, ...], TimedNetwork] = {}
    emulated: dict[tuple[Any, ...], Emulated] = {}
    faults: list[str] = []
    for path in sorted(folder.glob("bench*.jsonl")):
        records, wrong = parse_benchmarks(path)
        faults += wrong
        for record in records:
            for one in _timed(record):
                key = (one.bundle, one.name, *one.conditions, one.network.kernel)
                timed.pop(key, None)
                timed[key] = one
            if record.machine.emulated:
                for other in [Emulated(record, count) for count in record.counts or (None,)]:
                    place = (other.bundle, other.processor, other.kernel)
                    emulated.pop(place, None)
                    emulated[place] = other
    return list(timed.values()), list(emulated.values()), faults


def _timed(record: Record) -> list[TimedNetwork]:
    found = [TimedNetwork(record, run, name, one) for run in record.runs for name, one in run.networks.items()]
    # A benchmark_model of an older version prints no median, and nothing here can be drawn without one.
    return [one for one in found if one.network.latency is not None and one.network.latency.p50_ms is not None]


def _bundle(record: Record) -> str:
    return Path(record.subject.bundle or "").name if record.subject else ""
