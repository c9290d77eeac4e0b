"""The whole run of faults, recorded: `python -m tests.faults [--kills 200] [--mutants 10000] [--record FILE]`.

A mutant's number is its seed, so `python -m tests.faults.mutations KIND ORIGINALS NUMBER 1` repeats a failure.
"""

from __future__ import annotations

import argparse
import concurrent.futures
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from bssl_tf.environment import environment
from bssl_tf.files import append_record
from tests.faults.kills import RUNS, kill_all
from tests.faults.mutations import KINDS
from tests.faults.originals import cached_originals

_AT_ONCE = 500


def _batch(kind: str, originals: Path, first: int, count: int) -> dict[str, Any]:
    words = [sys.executable, "-m", "tests.faults.mutations", kind, str(originals), str(first), str(count)]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    if done.returncode:
        cause = f"{first} to {first + count - 1}: the process ended with {done.returncode}: {done.stderr[-300:]}"
        return {"kind": kind, "mutants": count, "outcomes": {}, "failures": [cause], "slowest_s": 0.0, "grown_mib": 0.0}
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def read_all(originals: Path, mutants: int, workers: int, kinds: list[str]) -> list[dict[str, Any]]:
    """Mutants of every kind, `mutants` of each."""
    results = []
    with concurrent.futures.ThreadPoolExecutor(workers) as pool:
        for kind in kinds:
            began = time.monotonic()
            firsts = range(0, mutants, _AT_ONCE)
            parts = list(pool.map(lambda f: _batch(kind, originals, f, min(_AT_ONCE, mutants - f)), firsts))  # noqa: B023
            outcomes: dict[str, int] = {}
            for part in parts:
                for name, count in part["outcomes"].items():
                    outcomes[name] = outcomes.get(name, 0) + count
            failures = [failure for part in parts for failure in part["failures"]]
            results.append(
                {
                    "kind": kind,
                    "mutants": sum(part["mutants"] for part in parts),
                    "outcomes": outcomes,
                    "failures": failures,
                    "slowest_s": max(part["slowest_s"] for part in parts),
                    "grown_mib": max(part["grown_mib"] for part in parts),
                    "seconds": round(time.monotonic() - began, 1),
                }
            )
            sys.stdout.write(f"{kind}: {outcomes}, {len(failures)} failures {failures[:3]}\n")
            sys.stdout.flush()
    return results


def read_large_files(originals: Path, kinds: list[str]) -> list[dict[str, Any]]:
    """Large files of every kind, in little memory; in a process of its own, as this one has used TensorFlow."""
    words = [sys.executable, "-m", "tests.faults.limits", str(originals), *kinds]
    done = subprocess.run(words, stdout=subprocess.PIPE, text=True, check=False)
    found = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    assert found, f"the process ended with {done.returncode}"
    return [
        one | {"failures": [f"{one['kind']}, {one['specimen']}: {one['outcome']}"] * ("FAILED" in one["outcome"])}
        for one in found
    ]


def main() -> int:
    """Runs everything and appends the counts to the record; the status is 1 where anything failed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--mutants", type=int, default=10_000, help="of each kind")
    parser.add_argument("--kind", action="append", choices=list(KINDS), help="only these kinds of file")
    parser.add_argument("--run", action="append", choices=list(RUNS), help="only these kinds of run")
    parser.add_argument("--large", action=argparse.BooleanOptionalAction, default=True, help="read large files too")
    parser.add_argument("--seed", type=int, default=0, help="draws the moments of the kills")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--originals", type=Path, help="where the sound files are kept")
    parser.add_argument("--record", type=Path)
    given = parser.parse_args()
    facts = environment(1)
    with tempfile.TemporaryDirectory() as folder:
        room = Path(folder)
        # First, while this process has not used TensorFlow.
        kills = kill_all(room, given.kills, given.seed, given.run or ()) if given.kills else []
        place = given.originals or room / "originals"
        originals = cached_originals(place) if given.mutants or given.large else place
        mutations = (
            read_all(originals, given.mutants, given.workers, given.kind or list(KINDS)) if given.mutants else []
        )
        large = read_large_files(originals, given.kind or []) if given.large else []
    if given.record:
        command = f"python -m tests.faults --kills {given.kills} --mutants {given.mutants} --seed {given.seed}"
        append_record(
            given.record, {"command": command, "kills": kills, "mutations": mutations, "large": large, **facts}
        )
    return int(any(result["failures"] for result in [*kills, *mutations, *large]))


if __name__ == "__main__":
    sys.exit(main())
