"""A run's curves in TensorBoard, Weights & Biases or MLflow, as it goes. They show what metrics.jsonl has, no more."""

from __future__ import annotations

import contextlib
import importlib.util
import logging
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from bssl_tf.backend import tf
from bssl_tf.engine.run_folder import RunFolder
from bssl_tf.files import read_json, read_records, write_json
from bssl_tf.settings import TrainingConfig, read_run_config

EVENTS = "tensorboard"
_PROJECT = "bssl-tf"
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Tracker:
    """A run as a tool shows it.

    Attributes:
        show: shows numbers by name, of a step.
        close: ends it; whether the run has come to its end.
    """

    show: Callable[[int, dict[str, float]], None]
    close: Callable[[bool], None]


@contextlib.contextmanager
def tracked(run: RunFolder, config: TrainingConfig) -> Iterator[None]:
    """What `run` records in the block is shown in the tools of `config` too.

    A tool that fails is named once and left out from then on: no run is lost for its curves.

    Args:
        run: opened, with the records of its checkpoint and no later ones.
        config: says which tools.
    """
    tools = {"tensorboard"} if config.tensorboard and importlib.util.find_spec("tensorboard") is not None else set()
    tools |= {config.track} - {"none"}
    opened: dict[str, Tracker] = {}
    for tool in sorted(tools):
        with _left_out_if_it_fails(tool, opened):
            opened[tool] = _OPEN[tool](run, read_records(run.metrics_path))

    def show(record: Mapping[str, Any]) -> None:
        for tool, tracker in list(opened.items()):
            with _left_out_if_it_fails(tool, opened):
                tracker.show(int(record["step"]), _numbers(record))

    run.listeners.append(show)
    finished = False
    try:
        yield
        finished = True
    finally:
        run.listeners.remove(show)
        for tool, tracker in list(opened.items()):
            with _left_out_if_it_fails(tool, opened):
                tracker.close(finished)


@contextlib.contextmanager
def _left_out_if_it_fails(tool: str, opened: dict[str, Tracker]) -> Iterator[None]:
    try:
        yield
    except Exception as error:  # of somebody else's library, over somebody's network
        opened.pop(tool, None)
        _log.warning(
            f"{tool} no longer shows this run ({type(error).__name__}: {error}); training continues, and metrics.jsonl "
            "has all figures"
        )


def _numbers(record: Mapping[str, Any]) -> dict[str, float]:
    group = "probe" if "probe" in record else "training"
    return {
        f"{group}/{name}": float(value)
        for name, value in record.items()
        if name != "step" and isinstance(value, (int, float)) and not isinstance(value, bool)
    }


def _open_tensorboard(run: RunFolder, records: Sequence[Mapping[str, Any]]) -> Tracker:
    """Event files are made anew from the records: TensorBoard shows steps twice that a cut made a run repeat."""
    folder = run.path / EVENTS
    for old in folder.glob("events.out.tfevents.*"):
        old.unlink()
    writer = tf.summary.create_file_writer(str(folder))

    def show(step: int, numbers: dict[str, float]) -> None:
        with writer.as_default(step=step):
            for name, value in numbers.items():
                tf.summary.scalar(name, value)
        writer.flush()

    _show_all(show, records)
    return Tracker(show, lambda finished: writer.close())


def _open_wandb(run: RunFolder, records: Sequence[Mapping[str, Any]]) -> Tracker:
    import wandb

    known = _run_id(run, "wandb")
    shown = wandb.init(
        project=os.environ.get("WANDB_PROJECT", _PROJECT),
        name=run.path.resolve().name,
        id=known,
        resume="allow" if known else None,
        dir=str(run.path),
        config=read_run_config(run.path),
        settings=wandb.Settings(console="off", silent=True),
    )

    def show(step: int, numbers: dict[str, float]) -> None:
        shown.log(numbers, step=step)

    if known is None:
        _keep_run_id(run, "wandb", shown.id)
        _show_all(show, records)
    return Tracker(show, lambda finished: shown.finish(exit_code=0 if finished else 1))


def _open_mlflow(run: RunFolder, records: Sequence[Mapping[str, Any]]) -> Tracker:
    from mlflow import MlflowClient

    client, known = MlflowClient(), _run_id(run, "mlflow")
    if known is None:
        project = os.environ.get("MLFLOW_EXPERIMENT_NAME", _PROJECT)
        there = client.get_experiment_by_name(project)
        experiment = there.experiment_id if there else client.create_experiment(project)
        name = client.create_run(experiment, run_name=run.path.resolve().name).info.run_id
    else:
        name = known
        client.update_run(name, status="RUNNING")

    def show(step: int, numbers: dict[str, float]) -> None:
        for key, value in numbers.items():
            client.log_metric(name, key, value, step=step)

    if known is None:
        _keep_run_id(run, "mlflow", name)
        for key, setting in _flat(read_run_config(run.path)):
            client.log_param(name, key, setting)
        _show_all(show, records)
    return Tracker(show, lambda finished: client.set_terminated(name, "FINISHED" if finished else "KILLED"))


_OPEN = {"tensorboard": _open_tensorboard, "wandb": _open_wandb, "mlflow": _open_mlflow}


def _show_all(show: Callable[[int, dict[str, float]], None], records: Sequence[Mapping[str, Any]]) -> None:
    for record in records:
        show(int(record["step"]), _numbers(record))


def _flat(tables: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in tables.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def _run_id(run: RunFolder, tool: str) -> str | None:
    path = run.path / "tracking.json"
    return str(found) if path.exists() and (found := read_json(path).get(tool)) else None


def _keep_run_id(run: RunFolder, tool: str, name: str) -> None:
    path = run.path / "tracking.json"
    write_json(path, (read_json(path) if path.exists() else {}) | {tool: name})
