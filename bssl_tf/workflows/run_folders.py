"""What a use case asks of a run folder that it is given."""

from __future__ import annotations

import shlex
from pathlib import Path

from bssl_tf.errors import RunFolderError
from bssl_tf.methods.registry import read_run
from bssl_tf.settings import PretrainConfig, read_run_config


def run_config(run: Path) -> PretrainConfig:
    """The configuration of a finished run of `bssl-tf pretrain`.

    Raises:
        RunFolderError: `run` is not one, or is not finished.
    """
    content = read_run_config(run)
    if content["command"] != "pretrain":
        raise RunFolderError(f"{run} is a teacher's run", "Give the run folder of a `bssl-tf pretrain`")
    check_finished(run, "student", "pretrain")
    return read_run(PretrainConfig, content).sections


def check_finished(run: Path, part: str, command: str) -> None:
    """Raises `RunFolderError` unless `run`, of `command`, has trained its `part`, `student` or `teacher`."""
    if not (run / part / "network.json").is_file():
        raise RunFolderError(
            f"{run} is not finished", f"Finish it with `bssl-tf {command} --out {shlex.quote(str(run))} --resume`"
        )
