"""Training that is killed at random moments, for every method: each run must end in the weights of an unbroken one.

Every attempt is a fork of one process that has all modules imported and has not used TensorFlow yet, so that a kill
costs the seconds of training and not those of the imports. A third of the kills come at any time; the others come as
the run folder changes, where files are half written, as most of so short a run is the preparation of its steps.
"""

from __future__ import annotations

import dataclasses
import hashlib
import importlib
import os
import random
import shutil
import signal
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bssl_tf.errors import Interrupted
from bssl_tf.methods import registry
from tests.command_server import end_with
from tests.conftest import TINY_STUDENT, TINY_TEACHER

_BSSL = ("--set", "bssl.hidden_width=24", "--set", "bssl.output_width=24")
_CACHED = ("--set", "teacher_cache_epochs=1")
_QUEUE = ("--set", "moco.queue_size=64", "--set", "moco.embedding_width=16")
# What is trained: the command's own arguments; a teacher is put in where one is needed.
RUNS: dict[str, Sequence[str]] = {
    "moco teacher": ("teacher", "--method", "moco", *TINY_TEACHER),
    "byol teacher": ("teacher", "--method", "byol", *TINY_TEACHER[:-4]),
    "s2bnn": ("pretrain", "--method", "s2bnn", *TINY_STUDENT),
    "s2bnn, teacher cached": ("pretrain", "--method", "s2bnn", *TINY_STUDENT, *_CACHED),
    "bssl": ("pretrain", "--method", "bssl", *TINY_STUDENT, *_BSSL),
    "guided": ("pretrain", "--method", "guided", *TINY_STUDENT, "--set", "guided.queue_size=64"),
    "moco": ("pretrain", "--method", "moco", *TINY_STUDENT, *_QUEUE),
    "byol": ("pretrain", "--method", "byol", *TINY_STUDENT),
    "swav": ("pretrain", "--method", "swav", *TINY_STUDENT, "--set", "swav.prototypes=16"),
    "supervised": ("pretrain", "--method", "supervised", *TINY_STUDENT),
}
# Longer, and with more files written, than those that other tests train.
_LONGER = ("--epochs", "4", "--set", "training.checkpoint_every_s=0.2")
SIGNALS = (signal.SIGKILL, signal.SIGKILL, signal.SIGTERM)
# What a fork would import by itself, each time.
_MODULES = ("backend", "cli.main", "cli.pretrain", "cli.teacher", "workflows.pretrain", "workflows.train_teacher")
_ENDS_S = 60.0
_WHOLE_S = 600.0
_MOST_ATTEMPTS = 12
_AT_ANY_TIME = 1 / 3
# About as often as the files of a whole run change: a few times before the first step, and at each checkpoint.
_MOST_CHANGES = 24
_LOOK_S = 0.001


@dataclass
class Outcome:
    """What happened to one run.

    Attributes:
        kind: what was trained.
        kills: attempts that a signal ended.
        stops: of these, by SIGTERM, after which the process ended by itself.
        resumed: of these, how many found a checkpoint of the attempt before.
        ended: runs that reached their end, and were compared with an unbroken one.
        failures: what must not happen, a line each.
    """

    kind: str
    kills: int = 0
    stops: int = 0
    resumed: int = 0
    ended: int = 0
    failures: list[str] = field(default_factory=list)


def _command() -> None:
    from bssl_tf.cli.main import main

    main()


def _fork(arguments: Sequence[str], log: Path, program: Callable[[], None] = _command) -> int:
    """Starts `bssl-tf ARGUMENTS` in a fork; its output is appended to `log`, and its caches lie next to that."""
    sys.stdout.flush()
    sys.stderr.flush()
    pid = os.fork()
    if pid:
        return pid

    def run() -> None:
        output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        os.dup2(output, 1)
        os.dup2(output, 2)
        # Not those of a test, which keep what is printed for themselves.
        sys.stdout, sys.stderr = (open(number, "w", closefd=False) for number in (1, 2))  # noqa: SIM115
        os.environ["BSSL_TF_CACHE"] = str(log.with_name("cache"))
        sys.argv = ["bssl-tf", *arguments]
        program()

    end_with(run)


def _wait(pid: int, seconds: float, stop: Callable[[], bool] = lambda: False) -> int | None:
    """The exit status once the process has ended, less the signal that ended it; None where it lasts longer."""
    end = time.monotonic() + seconds
    while time.monotonic() < end and not stop():
        done, status = os.waitpid(pid, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status)
        time.sleep(_LOOK_S)
    return None


def _end(pid: int, chosen: signal.Signals) -> str:
    """Sends a signal, and waits for the end; what is wrong with it."""
    os.kill(pid, chosen)
    status = _wait(pid, _ENDS_S)
    if status is None:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        return f"did not end within {_ENDS_S:g} s of {chosen.name}"
    # It may have come to its end before the signal.
    return "" if status in (0, -chosen, Interrupted.exit_status) else f"ended with {status} after {chosen.name}"


def _changes(run: Path, count: int) -> Callable[[], bool]:
    """Whether the files of a run have changed `count` times since the first look."""
    seen, last = -1, frozenset[str]()

    def changed() -> bool:
        nonlocal seen, last
        now = frozenset(str(path) for path in run.rglob("*"))
        if now != last:
            seen, last = seen + 1, now
        return seen >= count

    changed()
    return changed


def _digest(run: Path) -> str:
    files = sorted([*run.glob("student/weights.safetensors"), *run.glob("teacher/weights.safetensors")])
    assert files, f"{run} holds no weights"
    return hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()


def _finished(run: Path) -> bool:
    return any((run / part / "network.json").exists() for part in ("student", "teacher"))


def kill_often(
    name: str, arguments: Sequence[str], folder: Path, kills: int, seed: int, program: Callable[[], None] = _command
) -> Outcome:
    """Kills runs of one kind `kills` times in all; a run that ends is compared with an unbroken one and begun again.

    Args:
        name: for the outcome.
        arguments: of the command, less the run folder.
        folder: for the run folders.
        kills: how often to kill.
        seed: draws the moments.
        program: what is run, by `sys.argv`.
    """
    moments, outcome = random.Random(f"{name} {seed}"), Outcome(name)
    log, whole = folder / "log.txt", folder / "whole"
    began = time.monotonic()
    if _wait(_fork([*arguments, "--out", str(whole)], log, program), _WHOLE_S) != 0:
        outcome.failures.append(f"the unbroken run failed: {log.read_text()[-500:]}")
        return outcome
    duration, expected = time.monotonic() - began, _digest(whole)

    while outcome.kills < kills and not outcome.failures:
        run, attempts = folder / f"round{outcome.ended}", 0
        # Or only the first round would be killed while a cache is being filled.
        shutil.rmtree(log.with_name("cache"), ignore_errors=True)
        while not _finished(run) and not outcome.failures:
            words = [arguments[0], "--resume"] if (run / "config.toml").exists() else [*arguments]
            resumed = any(run.glob("checkpoints/step-*"))
            mark = log.stat().st_size
            pid = _fork([*words, "--out", str(run)], log, program)
            attempts += 1
            # The last attempts are left alone, so that every run ends and can be compared.
            if outcome.kills >= kills or attempts > _MOST_ATTEMPTS:
                status = _wait(pid, _WHOLE_S)
            elif moments.random() < _AT_ANY_TIME:
                status = _wait(pid, moments.uniform(0, 1.1 * duration))
            else:
                status = _wait(pid, 2 * duration, _changes(run, moments.randrange(1, _MOST_CHANGES)))
            if status is None:
                chosen = moments.choice(SIGNALS)
                outcome.kills += 1
                outcome.stops += chosen is signal.SIGTERM
                outcome.resumed += resumed
                status = 0
                outcome.failures += filter(None, [_end(pid, chosen)])
            said = log.read_bytes()[mark:].decode("utf-8", "replace")
            if status != 0:
                outcome.failures.append(f"status {status}: {said[-500:]}")
            if "Traceback" in said or "error[unexpected]" in said:
                outcome.failures.append(f"a traceback: {said[-800:]}")
        outcome.ended += 1
        if not outcome.failures and _digest(run) != expected:
            outcome.failures.append(f"other weights after {attempts} attempts of {run.name}")
        shutil.rmtree(run, ignore_errors=True)
    return outcome


def kill_all(folder: Path, kills: int, seed: int, names: Sequence[str]) -> Iterator[dict[str, Any]]:
    """`kill_often` for these kinds of run, `kills` in all.

    Call it in a process that has run no op of TensorFlow.
    """
    for module in _MODULES if names else ():
        importlib.import_module(f"bssl_tf.{module}")
    teacher = folder / "teacher"
    for place, name in enumerate(names):
        arguments = [*RUNS[name], *_LONGER]
        if arguments[0] == "pretrain" and registry.find(arguments[arguments.index("--method") + 1]).needs_teacher:
            arguments += ["--teacher", str(teacher)]
            log = folder / "teacher.txt"
            if (
                not teacher.exists()
                and _wait(_fork(["teacher", "--out", str(teacher), *TINY_TEACHER], log), _WHOLE_S) != 0
            ):
                raise AssertionError(log.read_text())
        room = folder / f"run{place}"
        room.mkdir()
        share = kills * (place + 1) // len(names) - kills * place // len(names)
        began = os.times()
        outcome = kill_often(name, arguments, room, share, seed)
        ended = os.times()
        # Of processors: another program may run next to this one.
        seconds = round(ended.children_user + ended.children_system - began.children_user - began.children_system, 1)
        yield {**dataclasses.asdict(outcome), "processor_s": seconds}
        shutil.rmtree(room)
