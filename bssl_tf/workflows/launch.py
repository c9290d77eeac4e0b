"""What `bssl-tf launch` does: several workers of one run as processes of this machine, found on loopback."""

from __future__ import annotations

import collections
import contextlib
import json
import os
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Iterator, Sequence
from typing import IO, Any

from bssl_tf.errors import UsageError, WorkerError

_POLL_S = 0.1
# For the others, once one has failed: their step ends, or its failure reaches them.
_GRACE_S = 10.0
# For all, after Ctrl-C: the others may end while the chief still reports how to continue, or is in a longer step.
_SAVING_S = 120.0
_KEPT_LINES = 20


def launch(command: Sequence[str], workers: int) -> int:
    """Runs `command` once for each worker, with TF_CONFIG set for all, until every one has ended or one has failed.

    The chief, worker 0, writes where this process writes; of another one the last line is shown if it fails first.
    Ctrl-C and SIGTERM are passed on.

    Args:
        command: a program and its arguments.
        workers: how many, 2 or more.

    Returns:
        0, or the exit status of the first that failed: the chief's own, which has told why.

    Raises:
        UsageError: there are fewer than two workers, or the program cannot be started.
        WorkerError: a worker was killed, or one that is not the chief failed; `exit_status` is that worker's.
    """
    if workers < 2:
        raise UsageError(f"{workers} workers", "Give 2 or more, or run the command itself")
    addresses = _free_addresses(workers)
    processes: list[subprocess.Popen[str]] = []
    with _forwarded(processes) as stopped, contextlib.ExitStack() as stack:
        stack.callback(_end, processes)
        for number in range(workers):
            try:
                processes.append(_start(command, addresses, number))
            except OSError as error:
                raise UsageError(f"{command[0]} cannot be started ({error})", "Check its name and path") from error
        tails = [_Tail(process.stderr) for process in processes[1:] if process.stderr is not None]
        failed = _first_failure(processes)
        if failed is None:
            return 0
        if stopped:
            # A second signal would end the chief at once.
            _wait(processes, _SAVING_S)
            failed = 0 if processes[0].returncode else failed
        status = processes[failed].returncode
        _end(processes)
        if status > 0 and failed == 0:
            return status
        raise _failure(failed, status, tails)


def _free_addresses(count: int) -> list[str]:
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [f"127.0.0.1:{one.getsockname()[1]}" for one in sockets]


def _start(command: Sequence[str], addresses: Sequence[str], number: int) -> subprocess.Popen[str]:
    task = {"cluster": {"worker": list(addresses)}, "task": {"type": "worker", "index": number}}
    quiet: dict[str, Any] = {"stdout": subprocess.DEVNULL, "stderr": subprocess.PIPE} if number else {}
    # A group of its own each, so that Ctrl-C in a terminal arrives once.
    return subprocess.Popen(
        command,
        env=os.environ | {"TF_CONFIG": json.dumps(task)},
        text=True,
        errors="replace",
        start_new_session=True,
        **quiet,
    )


class _Tail:
    """The last lines of a stream, which is read so that whoever writes never waits."""

    def __init__(self, stream: IO[str]) -> None:
        self._lines: collections.deque[str] = collections.deque(maxlen=_KEPT_LINES)
        self._thread = threading.Thread(target=lambda: self._lines.extend(stream), daemon=True)
        self._thread.start()

    def text(self) -> str:
        self._thread.join(timeout=1.0)
        return "".join(self._lines).strip()


@contextlib.contextmanager
def _forwarded(processes: Sequence[subprocess.Popen[str]]) -> Iterator[list[int]]:
    """Passes on signals; gives those that have come."""
    stopped: list[int] = []

    def forward(signum: int, frame: Any) -> None:
        stopped.append(signum)
        for process in processes:
            if process.poll() is None:
                process.send_signal(signum)

    before = {number: signal.signal(number, forward) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stopped
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _first_failure(processes: Sequence[subprocess.Popen[str]]) -> int | None:
    """Waits; which of them failed first, None when all have ended well."""
    while True:
        statuses = [process.poll() for process in processes]
        # One that was killed is the cause where the others have noticed within the same moment.
        failed = sorted((number for number, status in enumerate(statuses) if status), key=lambda n: statuses[n] or 0)
        if failed:
            return failed[0]
        if None not in statuses:
            return None
        time.sleep(_POLL_S)


def _end(processes: Sequence[subprocess.Popen[str]]) -> None:
    """Lets those that still run end, then kills them."""
    running = [process for process in processes if process.poll() is None]
    for process in running:
        process.terminate()
    _wait(running, _GRACE_S)
    for process in running:
        if process.poll() is None:
            process.kill()
            process.wait()


def _wait(processes: Sequence[subprocess.Popen[str]], seconds: float) -> None:
    """Until all have ended, or for this long."""
    limit = time.monotonic() + seconds
    while any(process.poll() is None for process in processes) and time.monotonic() < limit:
        time.sleep(_POLL_S)


def _failure(number: int, status: int, tails: Sequence[_Tail]) -> WorkerError:
    step = "Start it again with --resume"
    if status < 0:
        name = signal.Signals(-status).name
        failure = WorkerError(f"worker {number} was killed by {name}, and the others were stopped", step)
        failure.exit_status = 128 - status
        return failure
    said = tails[number - 1].text()
    last = said.splitlines()[-1] if said else "it wrote nothing"
    failure = WorkerError(f"worker {number} ended with status {status} ({last}), and the others were stopped", step)
    failure.exit_status = status
    return failure
