"""The whole run of faults, recorded: `python -m tests.faults [--kills 200] [--mutants 10000] [--record FILE]`.

Each kind is a record of its own, appended when it is done; what has one of the same code, without failures, is omitted,
so that a run that was stopped continues. A mutant's number is its seed, so
`python -m tests.faults.mutations KIND ORIGINALS NUMBER 1` repeats a failure.
"""

from __future__ import annotations

import argparse
import concurrent.futures
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from bssl_tf.environment import environment
from bssl_tf.files import append_record, read_records
from tests.faults.kills import RUNS, kill_all
from tests.faults.limits import EVERY
from tests.faults.mutations import KINDS
from tests.faults.originals import cached_originals

# A process needs seconds to begin.
_AT_ONCE = 2000


def mutants_of(kind: str, mutants: int) -> int:
    """How many of a kind are read where so many are asked for."""
    return mutants // 10 if KINDS[kind].slow else mutants


def _batch(kind: str, originals: Path, first: int, count: int) -> dict[str, Any]:
    words = [sys.executable, "-m", "tests.faults.mutations", kind, str(originals), str(first), str(count)]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    if done.returncode:
        cause = f"{first} to {first + count - 1}: the process ended with {done.returncode}: {done.stderr[-300:]}"
        return {"kind": kind, "mutants": count, "outcomes": {}, "failures": [cause], "slowest_s": 0.0, "grown_mib": 0.0}
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def read_all(originals: Path, mutants: int, workers: int, kinds: list[str]) -> Iterator[dict[str, Any]]:
    """Mutants of every kind, `mutants` of each that is not slow."""
    with concurrent.futures.ThreadPoolExecutor(workers) as pool:
        for kind in kinds:
            began = time.monotonic()
            wanted = mutants_of(kind, mutants)
            firsts = range(0, wanted, _AT_ONCE)
            parts = list(pool.map(lambda f: _batch(kind, originals, f, min(_AT_ONCE, wanted - f)), firsts))  # noqa: B023
            outcomes: dict[str, int] = {}
            for part in parts:
                for name, count in part["outcomes"].items():
                    outcomes[name] = outcomes.get(name, 0) + count
            yield {
                "kind": kind,
                "mutants": sum(part["mutants"] for part in parts),
                "outcomes": outcomes,
                "failures": [failure for part in parts for failure in part["failures"]],
                "slowest_s": max(part["slowest_s"] for part in parts),
                "grown_mib": max(part["grown_mib"] for part in parts),
                "seconds": round(time.monotonic() - began, 1),
            }


def read_large_files(originals: Path, kinds: list[str]) -> Iterator[dict[str, Any]]:
    """Large files of every kind, in little memory; in a process of its own, as this one has used TensorFlow."""
    for kind in kinds:
        words = [sys.executable, "-m", "tests.faults.limits", str(originals), kind]
        done = subprocess.run(words, stdout=subprocess.PIPE, text=True, check=False)
        found = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
        failures = [f"{one['specimen']}: {one['outcome']}" for one in found if "FAILED" in one["outcome"]]
        failures += [] if found else [f"the process ended with {done.returncode}"]
        yield {"kind": kind, "specimens": found, "failures": failures}


class _Record:
    """What is done: the records of this code in a file, and those of this run."""

    def __init__(self, file: Path | None, about: dict[str, Any]) -> None:
        self._file, self._about = file, about
        self.failed = False
        self._done = [
            one
            for one in (read_records(file) if file else ())
            if one["commit"] == about["commit"] and not one["failures"]
        ]

    def lacks(self, part: str, counts: dict[str, int]) -> list[str]:
        """Which kinds have no record of at least so many kills or mutants."""
        done = [(one["kind"], one.get(part, 0)) for one in self._done if one["part"] == part]
        return [kind for kind, count in counts.items() if not any(kind == k and n >= count for k, n in done)]

    def keep(self, part: str, found: Iterable[dict[str, Any]]) -> None:
        """Appends each result when it is there."""
        for one in found:
            self.failed |= bool(one["failures"])
            counts = {name: value for name, value in one.items() if name not in ("failures", "specimens")}
            sys.stdout.write(f"{part}: {counts}, {len(one['failures'])} failures {one['failures'][:3]}\n")
            sys.stdout.flush()
            if self._file:
                append_record(self._file, {"part": part, **one, **self._about})


def main() -> int:
    """Runs everything and appends the counts to the record; the status is 1 where anything failed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--mutants", type=int, default=10_000, help="of each kind")
    parser.add_argument("--kind", action="append", choices=sorted(KINDS | EVERY), help="only these kinds of file")
    parser.add_argument("--run", action="append", choices=list(RUNS), help="only these kinds of run")
    parser.add_argument("--large", action=argparse.BooleanOptionalAction, default=True, help="read large files too")
    parser.add_argument("--seed", type=int, default=0, help="draws the moments of the kills")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--originals", type=Path, help="where the sound files are kept")
    parser.add_argument("--record", type=Path)
    given = parser.parse_args()
    command = f"python -m tests.faults --kills {given.kills} --mutants {given.mutants} --seed {given.seed}"
    record = _Record(given.record, {"command": command, **environment(1)})
    with tempfile.TemporaryDirectory() as folder:
        room = Path(folder)
        # First, while this process has not used TensorFlow.
        if given.kills:
            runs = given.run or list(RUNS)
            lacking = record.lacks("kills", dict.fromkeys(runs, given.kills // len(runs)))
            record.keep("kills", kill_all(room, given.kills * len(lacking) // len(runs), given.seed, lacking))
        place = given.originals or room / "originals"
        wanted = [kind for kind in given.kind or KINDS if kind in KINDS and given.mutants]
        large = [kind for kind in given.kind or EVERY if kind in EVERY and given.large]
        kinds = record.lacks("mutants", {kind: mutants_of(kind, given.mutants) for kind in wanted})
        large = record.lacks("large", dict.fromkeys(large, 0))
        originals = cached_originals(place) if kinds or large else place
        record.keep("mutants", read_all(originals, given.mutants, given.workers, kinds))
        record.keep("large", read_large_files(originals, large))
    return int(record.failed)


if __name__ == "__main__":
    sys.exit(main())
