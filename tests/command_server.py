"""`bssl-tf` in a process of its own, without the seconds in which it imports TensorFlow.

`python -m tests.command_server` imports what training needs, runs none of it, and forks for each command. Tests of the
start itself, of signals and of installations start `python -m bssl_tf` as a user does.
"""

from __future__ import annotations

import atexit
import functools
import importlib
import json
import os
import pkgutil
import signal
import subprocess
import sys
import tempfile
import threading
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

import bssl_tf
import bssl_tf_converters

# Variables that Python, TensorFlow and the linker read when a process starts, so that a fork would not notice them.
_READ_AT_START = ("PYTHON", "TF_", "LD_", "CUDA_")


def _read_at_start() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if name.startswith(_READ_AT_START)}


class CommandServer:
    """The side of the tests."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[str] | None = None
        self._started_with: dict[str, str] = {}
        self._lock = threading.Lock()

    def run(self, arguments: list[str], timeout: float) -> subprocess.CompletedProcess[str]:
        """`bssl-tf ARGUMENTS` with this process's folder and environment, as `subprocess.run` would."""
        if self._process is not None and _read_at_start() != self._started_with:
            command = [sys.executable, "-m", "bssl_tf", *arguments]
            return subprocess.run(command, capture_output=True, text=True, timeout=timeout, check=False)
        with self._lock, tempfile.TemporaryDirectory() as folder:
            if self._process is None or self._process.poll() is not None:
                command = [sys.executable, "-m", "tests.command_server"]
                root = Path(__file__).parent.parent
                self._started_with = _read_at_start()
                self._process = subprocess.Popen(
                    command, cwd=root, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
                )
            assert self._process.stdin is not None and self._process.stdout is not None
            order = {
                "arguments": arguments,
                "environment": dict(os.environ),
                "folder": str(Path.cwd()),
                "output": folder,
                "timeout": timeout,
            }
            self._process.stdin.write(json.dumps(order) + "\n")
            self._process.stdin.flush()
            status = json.loads(self._process.stdout.readline())
            words = ["bssl-tf", *arguments]
            stdout, stderr = ((Path(folder) / name).read_text(encoding="utf-8") for name in ("stdout", "stderr"))
        if status is None:
            raise subprocess.TimeoutExpired(words, timeout, stdout, stderr)
        return subprocess.CompletedProcess(words, status, stdout, stderr)

    def close(self) -> None:
        """Ends the server."""
        if self._process is not None:
            self._process.communicate(timeout=60)


def end_with(program: Callable[[], object]) -> NoReturn:
    """Runs `program` in a fork and ends its process with the status that a process of its own would have.

    What the process it was forked from has to do at its end is left to that one.
    """
    status = 1
    try:
        program()
        status = 0
    except SystemExit as end:
        status = end.code if isinstance(end.code, int) else int(end.code is not None)
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


def _command(order: dict[str, Any]) -> None:
    for name, descriptor in (("stdout", 1), ("stderr", 2)):
        os.dup2(os.open(Path(order["output"]) / name, os.O_WRONLY | os.O_CREAT, 0o600), descriptor)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.environ.clear()
    os.environ.update(order["environment"])
    os.chdir(order["folder"])
    sys.argv = ["bssl-tf", *order["arguments"]]
    from bssl_tf.cli.main import main

    try:
        main()
    finally:
        atexit._run_exitfuncs()


def _serve() -> None:
    for package in (bssl_tf, bssl_tf_converters):
        for module in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
            if not module.name.endswith("__main__"):
                importlib.import_module(module.name)
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    for line in sys.stdin:
        order = json.loads(line)
        if (child := os.fork()) == 0:
            end_with(functools.partial(_command, order))
        alarm = threading.Timer(order["timeout"], os.kill, (child, signal.SIGKILL))
        alarm.start()
        _, status = os.waitpid(child, 0)
        late = alarm.finished.is_set()
        alarm.cancel()
        answers.write(json.dumps(None if late else os.waitstatus_to_exitcode(status)) + "\n")
        answers.flush()


if __name__ == "__main__":
    _serve()
