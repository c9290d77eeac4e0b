"""What a use case asks of a run folder that it is given."""

from __future__ import annotations

import shlex
from pathlib import Path

from bssl_tf import zoo
from bssl_tf.errors import ConfigError, RunFolderError
from bssl_tf.methods.registry import read_run
from bssl_tf.settings import FinetuneConfig, PretrainConfig, read_import, read_run_config


def run_config(run: Path) -> PretrainConfig | FinetuneConfig:
    """The configuration of a finished run of `bssl-tf pretrain` or `bssl-tf finetune`.

    Raises:
        RunFolderError: `run` is not one, or is not finished.
    """
    content = read_run_config(run)
    if content["command"] == "teacher":
        raise RunFolderError(f"{run} is a teacher's run", "Give the run folder of a `bssl-tf pretrain`")
    check_finished(run, "student", content["command"])
    if content["command"] == "finetune":
        return read_run(FinetuneConfig, content).sections
    return read_run(PretrainConfig, content).sections


def task_of(run: Path) -> str:
    """What the network of a run is for: the task of a fine-tuned one, `classification` of any other."""
    if not (run / "config.toml").is_file():
        return FinetuneConfig.task
    content = read_run_config(run)
    return str(content.get("task", FinetuneConfig.task)) if content["command"] == "finetune" else FinetuneConfig.task


def check_finished(run: Path, part: str, command: str) -> None:
    """Raises `RunFolderError` unless `run`, of `command`, has trained its `part`, `student` or `teacher`."""
    if not (run / part / "network.json").is_file():
        raise RunFolderError(
            f"{run} is not finished", f"Finish it with `bssl-tf {command} --out {shlex.quote(str(run))} --resume`"
        )


def start_part(name: str) -> tuple[Path, str]:
    """The folder with the network that fine-tuning starts from, and its name there, `student` or `teacher`.

    Args:
        name: a run folder, also of a teacher or of an imported one, or `zoo:NAME`.

    Raises:
        ConfigError: none is named.
        NetworkError: the zoo has none of that name.
        RunFolderError: it is not a run folder, or is not finished.
    """
    if not name:
        raise ConfigError(
            "no network is named to start from",
            "Give the run folder of a `bssl-tf pretrain`, zoo:NAME, or --student NAME for random weights",
        )
    if name.startswith(zoo.PREFIX):
        return zoo.find(name).folder, "student"
    run = Path(name)
    command = "teacher" if read_import(run) is not None else str(read_run_config(run)["command"])
    part = "teacher" if command == "teacher" else "student"
    check_finished(run, part, command)
    return run / part, part
