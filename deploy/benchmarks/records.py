"""The raw records of the benchmark, one line of JSON for each network, variant and thread count."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from bssl_tf.files import read_complete_records

# What every record holds at least. Times are milliseconds; ratios are objects, see `timing.ratio`: `ratio_to_lce` and
# `ratio_to` say how many times as long LCE or another variant takes, so that more is faster; `refused` says why there
# is no time, else null; `others_cores`, how many cores other processes kept busy; `time`, one for all of a run's
# records of a network; `runtime`, version, kernels and `isa` of our library, null where it was left out.
FIELDS = (
    *("network", "variant", "threads", "refused", "rounds", "calls_per_round", "median_ms", "p10_ms", "p90_ms"),
    *("ratio_to_lce", "ratio_to", "speedup_over_one_thread", "load_ms", "first_ms", "peak_mib", "model_bytes"),
    *("others_cores", "runtime", "budget_s", "command", "time", "machine", "commit", "python", "versions"),
)
NAME = "runtime-bench"


def load(path: Path) -> list[dict[str, Any]]:
    """The records in `path`, none when there is no such file.

    Raises:
        RunFolderError: a line is no record, or lacks one of `FIELDS`.
    """
    return read_complete_records(path, FIELDS, "Remove that line")


def newest(records: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """Those of the last run of each network, thread count and machine: figures of one row were taken in turns."""
    runs: dict[tuple[Any, ...], list[dict[str, Any]]] = {}
    for record in records:
        key = (record["machine"], record["network"], record["threads"])
        if key in runs and runs[key][0]["time"] == record["time"]:
            runs[key].append(record)
        else:
            runs[key] = [record]
    return [record for run in runs.values() for record in run]
