"""Training that is killed at random moments, for every method: each run must end in the weights of an unbroken one.

Every attempt is a fork of one process that has TensorFlow imported and has not used it yet, so that a kill costs the
seconds of training and not those of the import.
"""

from __future__ import annotations

import hashlib
import os
import random
import shutil
import signal
import sys
import time
import traceback
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bssl_tf.methods import registry
from tests.conftest import TINY_STUDENT, TINY_TEACHER

_BSSL = ("--set", "bssl.hidden_width=24", "--set", "bssl.output_width=24")
_CACHED = ("--set", "teacher_cache_epochs=1")
_QUEUE = ("--set", "moco.queue_size=64", "--set", "moco.embedding_width=16")
# What is trained: the command's own arguments; a teacher is put in where one is needed.
RUNS: dict[str, Sequence[str]] = {
    "moco teacher": ("teacher", "--method", "moco", *TINY_TEACHER),
    "byol teacher": ("teacher", "--method", "byol", *TINY_TEACHER[:-4]),
    "swav teacher": ("teacher", "--method", "swav", *TINY_TEACHER[:-4], "--set", "swav.prototypes=16"),
    "s2bnn": ("pretrain", "--method", "s2bnn", *TINY_STUDENT),
    "s2bnn, teacher cached": ("pretrain", "--method", "s2bnn", *TINY_STUDENT, *_CACHED),
    "bssl": ("pretrain", "--method", "bssl", *TINY_STUDENT, *_BSSL),
    "moco": ("pretrain", "--method", "moco", *TINY_STUDENT, *_QUEUE),
    "byol": ("pretrain", "--method", "byol", *TINY_STUDENT),
    "swav": ("pretrain", "--method", "swav", *TINY_STUDENT, "--set", "swav.prototypes=16"),
    "supervised": ("pretrain", "--method", "supervised", *TINY_STUDENT),
}
SIGNALS = (signal.SIGKILL, signal.SIGKILL, signal.SIGTERM)


@dataclass
class Outcome:
    """What happened to one run.

    Attributes:
        kills: attempts that a signal ended.
        stops: of these, by SIGTERM, after which the process ended by itself.
        failures: what must not happen, a line each.
    """

    run: str
    kills: int = 0
    stops: int = 0
    failures: list[str] = field(default_factory=list)


def _fork(arguments: Sequence[str], log: Path) -> int:
    """Starts `bssl-tf ARGUMENTS` in a fork; its output is appended to `log`."""
    pid = os.fork()
    if pid:
        return pid
    status = 1
    try:
        output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        os.dup2(output, 1)
        os.dup2(output, 2)
        from bssl_tf.cli.main import main

        sys.argv = ["bssl-tf", *arguments]
        main()
        status = 0
    except SystemExit as end:
        status = end.code if isinstance(end.code, int) else 1
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


def _wait(pid: int, seconds: float) -> int | None:
    """The wait status once the process has ended; None where it lasts longer."""
    end = time.monotonic() + seconds
    while True:
        done, status = os.waitpid(pid, os.WNOHANG)
        if done:
            return status
        if time.monotonic() >= end:
            return None
        time.sleep(0.02)


def _digest(run: Path) -> str:
    files = sorted([*run.glob("student/weights.safetensors"), *run.glob("teacher/weights.safetensors")])
    assert files, f"{run} holds no weights"
    return hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()


def _finished(run: Path) -> bool:
    return any((run / part / "network.json").exists() for part in ("student", "teacher"))


def kill_often(name: str, folder: Path, teacher: Path | None, kills: int, seed: int) -> Outcome:
    """Kills runs of one kind `kills` times in all; a run that ends is compared with an unbroken one and begun again.

    Args:
        name: of `RUNS`.
        folder: for the run folders.
        teacher: a finished teacher.
        kills: how often to kill.
        seed: draws the moments.
    """
    moments, outcome = random.Random(f"{name} {seed}"), Outcome(name)
    command, *rest = RUNS[name]
    arguments = [command, *rest]
    if command == "pretrain" and registry.find(rest[rest.index("--method") + 1]).needs_teacher:
        assert teacher is not None
        arguments += ["--teacher", str(teacher)]
    log = folder / "log.txt"
    whole = folder / "whole"
    began = time.monotonic()
    pid = _fork([*arguments, "--out", str(whole)], log)
    if _wait(pid, 600) != 0:
        outcome.failures.append(f"the unbroken run failed: {log.read_text()[-500:]}")
        return outcome
    duration, expected = time.monotonic() - began, _digest(whole)

    round_ = 0
    while outcome.kills < kills and not outcome.failures:
        run = folder / f"round{round_}"
        round_ += 1
        attempts = 0
        while not _finished(run):
            resume = (run / "config.toml").exists()
            words = [command, "--out", str(run), "--resume"] if resume else [*arguments, "--out", str(run)]
            mark = log.stat().st_size
            pid = _fork(words, log)
            attempts += 1
            # The last attempts are left alone, so that every run ends and can be compared.
            patience = 600.0 if outcome.kills >= kills or attempts > 12 else moments.uniform(0.1, 1.1 * duration)
            status = _wait(pid, patience)
            if status is None:
                chosen = moments.choice(SIGNALS)
                os.kill(pid, chosen)
                outcome.kills += 1
                outcome.stops += chosen is signal.SIGTERM
                status = _wait(pid, 30)
                if status is None:
                    os.kill(pid, signal.SIGKILL)
                    os.waitpid(pid, 0)
                    outcome.failures.append("did not end within 30 s of SIGTERM")
            elif status != 0:
                outcome.failures.append(f"status {status}: {log.read_text()[mark:][-500:]}")
            with log.open() as lines:
                lines.seek(mark)
                if "Traceback" in lines.read():
                    outcome.failures.append(f"a traceback: {log.read_text()[mark:][-800:]}")
            if outcome.failures:
                return outcome
        if _digest(run) != expected:
            outcome.failures.append(f"other weights after {attempts} attempts of {run.name}")
        shutil.rmtree(run)
    return outcome


def kill_all(folder: Path, kills: int, seed: int, only: Sequence[str] = ()) -> list[dict[str, Any]]:
    """`kill_often` for every kind of run, `kills` in all.

    Call it in a process that has imported TensorFlow and has run no op.
    """
    import bssl_tf.backend  # noqa: F401  (imported before the forks, on purpose)

    names = list(only or RUNS)
    teacher = folder / "teacher"
    log = folder / "teacher.txt"
    if _wait(_fork(["teacher", "--out", str(teacher), *TINY_TEACHER], log), 600) != 0:
        raise AssertionError(log.read_text())
    results = []
    for place, name in enumerate(names):
        room = folder / f"run{place}"
        room.mkdir()
        share = kills * (place + 1) // len(names) - kills * place // len(names)
        outcome = kill_often(name, room, teacher, share, seed)
        sys.stdout.write(f"{name}: {outcome.kills} kills, {len(outcome.failures)} failures\n")
        results.append({"run": name, "kills": outcome.kills, "by_sigterm": outcome.stops, "failures": outcome.failures})
        shutil.rmtree(room)
    return results
