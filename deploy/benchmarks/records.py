"""The benchmark's file of records, one for each network that was timed; see `bssl_tf_deploy.record`."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from benchmarks.variants import VARIANTS
from bssl_tf_deploy.record import Network, Ratio, Record, Run

NAME = "runtime-bench"


@dataclass(frozen=True)
class Contestant:
    """A variant of a network, with one number of threads, as a record has it.

    Attributes:
        record: of the network.
        run: with that number of threads.
        variant: a key of `VARIANTS`, or `NETWORK float32` or `NETWORK int8` of one beside.
        figures: what was found.
    """

    record: Record
    run: Run
    variant: str
    figures: Network

    @property
    def network(self) -> str:
        return self.record.subject.network if self.record.subject else ""

    @property
    def machine(self) -> str:
        """With the instructions that our kernels used: without AVX-512 a processor is another one."""
        library = self.record.library
        return f"{self.record.machine}, {library.instructions}" if library else str(self.record.machine)

    @property
    def threads(self) -> int:
        return self.run.threads

    def ratio(self, other: str) -> Ratio | None:
        """How many times as long another variant takes; None where one of them was not timed."""
        return self.figures.ratios.get(other)


def newest(records: Iterable[Record]) -> list[Contestant]:
    """Those of the last run of each network, thread count and machine: figures of one row were taken in one session."""
    runs: dict[tuple[str, str, int], list[Contestant]] = {}
    for record in records:
        for run in record.runs:
            order = [name for name in VARIANTS if name in run.networks]
            order += [name for name in run.networks if name not in VARIANTS]
            found = [Contestant(record, run, name, run.networks[name]) for name in order]
            if found:
                runs[found[0].machine, found[0].network, run.threads] = found
    return [one for run in runs.values() for one in run]
