"""One record of what was measured, whoever measures it: a machine, a device, a phone, an emulator, the benchmarks.

`bssl-tf bench`, `bssl-tf bench --device`, `bssl-tf-deploy bench` and `measure`, `make bench` and the instruction counts
write it, a line of JSON each; every reader takes it strictly. All keys are always there: what was not measured, or what
a machine does not report, is null or empty, and never guessed. Times are milliseconds for one image.
"""

from __future__ import annotations

import dataclasses
import json
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from bssl_tf_deploy.figures import (
    Agreement,
    Count,
    Graph,
    KernelSpeed,
    Latency,
    Loop,
    Network,
    OperatorTime,
    Profile,
    Ratio,
    Role,
    Run,
    Start,
    State,
    Sustained,
    Window,
)
from bssl_tf_deploy.strict import StrictError, expect, parse

__all__ = [
    "BINARY",
    "FORMAT",
    "Agreement",
    "Conditions",
    "Count",
    "Golden",
    "Graph",
    "KernelSpeed",
    "Latency",
    "Loop",
    "Machine",
    "Network",
    "OperatorTime",
    "Profile",
    "Ratio",
    "Record",
    "Role",
    "Run",
    "RuntimeLibrary",
    "Start",
    "State",
    "Subject",
    "Sustained",
    "Window",
    "now",
]

FORMAT = 1
# The name of a bundle's own network among those that are timed with it.
BINARY = "binary"


@dataclass(frozen=True)
class Machine:
    """What computed.

    Attributes:
        name: `local`, or the device's name.
        address: of the device; `local` for the machine that wrote the record.
        processor: the processor's name, the board's on ARM, the model's of a phone.
        cores: that a process may use.
        system: `Linux`, `Android 14`.
        architecture: `x86_64`, `aarch64`.
        kernel: the system's release.
        python: version; null where none was used.
        glibc: version; "" for another C library.
        memory_mib: all there is.
        emulated: answers are right, and times mean nothing: there are none.
    """

    name: str
    address: str
    processor: str
    cores: int | None
    system: str
    architecture: str
    kernel: str | None = None
    python: str | None = None
    glibc: str | None = None
    memory_mib: int | None = None
    emulated: bool = False

    def __str__(self) -> str:
        """In words, such as "AMD EPYC, 2 cores, Linux x86_64"."""
        cores = f"{self.cores} cores" if self.cores else ""
        return ", ".join(part for part in (self.processor, cores, f"{self.system} {self.architecture}") if part)

    @classmethod
    def of(cls, facts: Mapping[str, Any], name: str = "local", address: str = "local") -> Machine:
        """A machine with these facts (`bssl_tf_deploy.conditions.facts`)."""
        return cls(
            name=name,
            address=address,
            processor=str(facts["processor"]),
            cores=facts["cores"],
            system=str(facts["system"]),
            architecture=str(facts["machine"]),
            kernel=facts.get("kernel"),
            python=facts.get("python"),
            glibc=facts.get("glibc"),
            memory_mib=facts.get("memory_total_mib"),
        )


@dataclass(frozen=True)
class Conditions:
    """How it was measured.

    Attributes:
        before: the machine's state.
        after: the same at the end.
        warmup_calls: untimed calls of each network, where their number was given.
        budget_s: seconds of timed calls, where the time was given.
        others_cores: how many cores other processes kept busy, in the mean.
    """

    before: State | None = None
    after: State | None = None
    warmup_calls: int | None = None
    budget_s: float | None = None
    others_cores: float | None = None


@dataclass(frozen=True)
class Subject:
    """What was measured.

    Attributes:
        network: its name: the backbone, or what the benchmark calls it.
        bundle: the bundle's folder; null where it was not one.
        bundle_sha256: of its manifest.json, which has the hashes of all other files.
        target: what the bundle was exported for.
        input_shape: of one image, with the batch.
    """

    network: str
    bundle: str | None = None
    bundle_sha256: str | None = None
    target: str | None = None
    input_shape: tuple[int, ...] | None = None


@dataclass(frozen=True)
class RuntimeLibrary:
    """Our runtime library.

    Attributes:
        version: of the library.
        kernels: that this processor can run, those in use first.
        isa: the kernels that were asked for; `auto` unless someone chose.
    """

    version: str
    kernels: tuple[str, ...]
    isa: str = "auto"

    @property
    def instructions(self) -> str:
        """What its kernels compute with, for instance `avx2`."""
        return self.kernels[0].partition("_")[0] if self.isa == "auto" and self.kernels else self.isa


@dataclass(frozen=True)
class Golden:
    """The golden inputs gave the golden outputs; where they do not, there is no record.

    Attributes:
        images: how many.
        threads: the numbers of threads they were run with.
    """

    images: int
    threads: tuple[int, ...]


@dataclass(frozen=True)
class Record:
    """What was measured, and what a figure must not travel without.

    Attributes:
        command: that gives the record again; null where it is not known.
        commit: of the sources, with `+` where files differ from it; null where there are none or it is not known.
        time: when the measurement began, UTC, as 2026-01-02T03:04:05Z; null where it is not known.
        note: what else a reader has to know; "" for nothing.
        machine: what computed.
        versions: of the packages and tools that took part.
        subject: null where nothing but kernels was measured.
        library: null where our runtime did not take part.
        conditions: of the measurement.
        golden: null where there were no golden outputs to compare.
        runs: one for each number of threads; empty where nothing was timed.
        sustained: null where there was none.
        counts, loops, kernels: see their classes.
        format: of the record; this code writes and reads `FORMAT`.
    """

    command: str | None
    commit: str | None
    time: str | None
    machine: Machine
    versions: dict[str, str]
    subject: Subject | None = None
    note: str = ""
    library: RuntimeLibrary | None = None
    conditions: Conditions = Conditions()
    golden: Golden | None = None
    runs: tuple[Run, ...] = ()
    sustained: Sustained | None = None
    counts: tuple[Count, ...] = ()
    loops: tuple[Loop, ...] = ()
    kernels: tuple[KernelSpeed, ...] = ()
    format: int = FORMAT

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return dataclasses.asdict(self)

    def to_json(self, indent: int | None = None) -> str:
        """One line of JSON, or with `indent` several."""
        return json.dumps(self.to_dict(), indent=indent, sort_keys=True)

    @classmethod
    def from_dict(cls, content: object) -> Record:
        """The reverse of `to_dict`.

        Raises:
            StrictError: another format, a missing or unknown key, a wrong type, or values that contradict each other;
                the message names the first.
        """
        version = content.get("format") if isinstance(content, dict) else None
        if type(version) is not int or version != FORMAT:
            raise StrictError(f"it is in format {version!r:.40}, and this version of bssl-tf reads {FORMAT}")
        record = parse(cls, content, "record")
        expect(not (record.machine.emulated and record.runs), "record.runs", "empty, as it is of an emulated machine")
        for place, run in enumerate(record.runs):
            for name, network in run.networks.items():
                where = f"record.runs[{place}].networks.{name:.60}"
                expect((network.refused is None) == (network.latency is not None), where, "either timed or refused")
        expect(
            record.sustained is None or len(record.sustained.windows) > 0, "record.sustained.windows", "a list of any"
        )
        return record


def now() -> str:
    """The time as records have it."""
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
