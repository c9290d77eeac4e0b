"""Loads a model in a fresh process and reports how long that and the first call took, and how much memory it needed.

    python -m bssl_tf_deploy.start '{"model": FILE, "threads": 1, "library": FILE|null, "inputs": [[SHAPE, TYPE]]}'

One model a process: what a second one finds in memory and caches is no start. The result is a line of JSON.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from bssl_tf_deploy.errors import RuntimeUnavailableError
from bssl_tf_deploy.quiet import captured_output

_CALLS = 5
_TIMEOUT_S = 600


def start_in_fresh_process(job: dict[str, Any]) -> dict[str, Any]:
    """What `start` returns for `job` (see the top of this file), from another process.

    Raises:
        RuntimeUnavailableError: it does not run there.
    """
    command = [sys.executable, "-m", "bssl_tf_deploy.start", json.dumps(job)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_TIMEOUT_S, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise RuntimeUnavailableError(
            f"a fresh process does not run the model ({type(error).__name__})", "Free memory and try again"
        ) from error
    if done.returncode != 0:
        said = (done.stderr.strip() or f"exit status {done.returncode}").splitlines()[-1]
        raise RuntimeUnavailableError(f"a fresh process does not run the model ({said})", "Free memory and try again")
    made: dict[str, Any] = json.loads(done.stdout)
    return made


def start(make: Callable[[], Any], inputs: Sequence[np.ndarray]) -> dict[str, Any]:
    """Times of one start.

    Args:
        make: makes an interpreter, to be timed.
        inputs: what it is called with.

    Returns:
        `load_ms`, `first_ms`, and where the system tells (/proc/self/status) `peak_memory_kib`, the most that was
        resident, and `memory_before_kib`, what Python, numpy and LiteRT took before the model.
    """
    before = _peak_kib()
    began = time.perf_counter_ns()
    interpreter = make()
    loaded = time.perf_counter_ns()
    interpreter.run(inputs)
    first = time.perf_counter_ns()
    for _ in range(_CALLS):
        interpreter.run(inputs)
    peak = _peak_kib()
    memory = {} if before is None else {"memory_before_kib": before, "peak_memory_kib": peak}
    return {"load_ms": (loaded - began) / 1e6, "first_ms": (first - loaded) / 1e6, **memory}


def _peak_kib() -> int | None:
    # Not getrusage: that begins with what the process had that started this one.
    try:
        lines = Path("/proc/self/status").read_text(encoding="ascii", errors="replace").splitlines()
    except OSError:
        return None
    return next((int(line.split()[1]) for line in lines if line.startswith("VmHWM:")), None)


def main() -> None:
    """The command line; for `start_in_fresh_process`."""
    from bssl_tf_deploy import litert

    job = json.loads(sys.argv[1])
    library = Path(job["library"]) if job["library"] else None
    model = Path(job["model"]).read_bytes()
    with captured_output():
        litert._stock()  # loaded before the clock starts: it is the same for all models
        inputs = [np.zeros(shape, dtype) for shape, dtype in job["inputs"]]
        found = start(lambda: litert.LiteRtInterpreter(model, job["threads"], library), inputs)
    print(json.dumps(found))


if __name__ == "__main__":
    main()
