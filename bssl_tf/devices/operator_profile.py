"""Times by operator, from TensorFlow Lite's own `benchmark_model`, which knows our library as an external delegate.

A phone has no other way. On boards our runtime keeps times of its own (`bssl_tf_deploy.operators`); this one also says
what each of XNNPACK's operators takes, which lie between ours.
"""

from __future__ import annotations

import contextlib

from bssl_tf_deploy.record import OperatorTime, Profile


def profile_options(file: str) -> list[str]:
    """What makes `benchmark_model` write a profile to `file` on the device."""
    return ["--enable_op_profiling=true", "--op_profiling_output_mode=csv", f"--op_profiling_output_file={file}"]


def profile(csv: str) -> Profile:
    """The operators of a profile in the order they ran in, with the name of the tensor that each makes.

    A tensor's name begins with the Keras layer that it comes from. The first table that has names is read: "Run Order"
    of TensorFlow's `StatsCalculator` (node type, first, avg_ms, %, cdf%, mem KB, times called, name).
    """
    rows: list[OperatorTime] = []
    columns: list[str] = []
    for line in csv.splitlines():
        cells = [cell.strip() for cell in line.split(",")]
        if "node type" in cells and "name" in cells:
            if rows:
                break
            columns = cells
        elif columns and len(cells) == len(columns):
            row = dict(zip(columns, cells, strict=True))
            with contextlib.suppress(ValueError, KeyError):
                rows.append(OperatorTime(row["node type"], "", row["name"], mean_ms=float(row["avg_ms"])))
        elif rows:
            break
    return Profile("benchmark_model", tuple(rows))
