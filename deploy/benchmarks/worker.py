"""One task in a process of its own: `python -m benchmarks.worker TASK JSON`. Its answer is JSON on standard output."""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.networks import network
from bssl_tf.errors import BsslError, RuntimeUnavailableError


def call(task: str, **arguments: Any) -> Any:
    """Runs a task in a fresh process.

    Args:
        task: `convert`, `time` or `probe`.
        arguments: what JSON can say; `name` is the network's.

    Raises:
        RuntimeUnavailableError: the process failed; the message is its own, and all it printed chained below.
    """
    folder = str(Path(__file__).parent.parent)
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([folder, *filter(None, [os.getenv("PYTHONPATH")])])}
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.worker", task, json.dumps(arguments)],
        capture_output=True,
        text=True,
        errors="replace",
        env=environment,
        check=False,
    )
    if done.returncode:
        lines = [line for line in done.stderr.splitlines() if line.strip()]
        how = f"signal {-done.returncode}" if done.returncode < 0 else f"status {done.returncode}"
        said = lines[-1] if lines else "no message"
        raise RuntimeUnavailableError(
            f"the process for {task} of {arguments.get('name')} ended by {how}: {said}", "Run the benchmark again"
        ) from RuntimeError(done.stderr)
    return json.loads(done.stdout.splitlines()[-1])


def _convert(name: str, cache: str) -> Any:
    from benchmarks.conversion import convert_missing

    return convert_missing(Path(cache), network(name))


def _time(name: str, cache: str, library: str | None, threads: list[int], **settings: Any) -> Any:
    from benchmarks.session import time_network

    found = time_network(network(name), Path(cache), library=_path(library), threads=tuple(threads), **settings)
    return dataclasses.asdict(found)


def _probe(name: str, cache: str, library: str | None, **settings: Any) -> Any:
    from benchmarks.probe import probe

    return dataclasses.asdict(probe(network(name), Path(cache), library=_path(library), **settings))


def _path(text: str | None) -> Path | None:
    return Path(text) if text else None


_TASKS: dict[str, Callable[..., Any]] = {"convert": _convert, "time": _time, "probe": _probe}


def main() -> None:
    """Runs the task of the command line; an error that a user can act on is one line on standard error."""
    task, arguments = sys.argv[1:]
    try:
        answer = _TASKS[task](**json.loads(arguments))
    except BsslError as error:
        print(error, file=sys.stderr)
        sys.exit(error.exit_status)
    print(json.dumps(answer))


if __name__ == "__main__":
    main()
