"""Curves of a run in TensorBoard, Weights & Biases and MLflow, read back with their own libraries."""

from __future__ import annotations

import importlib.util
import logging
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from bssl_tf.backend import tf
from bssl_tf.engine import tracking
from bssl_tf.engine.configuration import configured
from bssl_tf.engine.run_folder import RunFolder
from bssl_tf.engine.tracking import tracked
from bssl_tf.errors import ConfigError
from bssl_tf.files import read_json, read_records
from bssl_tf.settings import PretrainConfig, TrainingConfig
from tests.conftest import TINY_TEACHER

_EPOCH = {"step": 4, "stage": "moco", "epoch": 1, "learning_rate": 0.5, "loss": 2.25, "images_per_s": 100.0}
_PROBE = {"step": 4, "stage": "moco", "epoch": 1, "probe": "knn-20", "top1": 62.5, "train_images": 8}


def run_folder(path: Path) -> RunFolder:
    return RunFolder.create(path, {"command": "pretrain", "method": "moco", "training": {"epochs": 2}}, {})


def curves(run: Path) -> dict[str, dict[int, float]]:
    """What TensorBoard shows: values by step of each scalar."""
    shown = EventAccumulator(str(run / tracking.EVENTS), size_guidance={"tensors": 0}).Reload()
    return {
        tag: {event.step: float(tf.make_ndarray(event.tensor_proto)) for event in shown.Tensors(tag)}
        for tag in shown.Tags()["tensors"]
    }


def test_tensorboard_shows_what_metrics_jsonl_has(tmp_path: Path, bssl_tf: Callable[..., Any]) -> None:
    run = tmp_path / "run"
    assert bssl_tf("teacher", "--out", run, *TINY_TEACHER).returncode == 0
    records = read_records(run / "metrics.jsonl")
    shown = curves(run)
    epochs = {record["step"]: record["loss"] for record in records if "probe" not in record}
    probes = {record["step"]: record["top1"] for record in records if "probe" in record}
    assert len(epochs) == 2 and probes
    assert shown["training/loss"] == pytest.approx(epochs)
    assert shown["probe/top1"] == pytest.approx(probes)


def test_steps_that_a_cut_made_a_run_repeat_are_shown_once(tmp_path: Path) -> None:
    run = run_folder(tmp_path / "run")
    with tracked(run, TrainingConfig()):
        run.record(_EPOCH)
        run.record(_EPOCH | {"step": 8, "loss": 1.5})
    run.rewind_metrics(4)
    with tracked(run, TrainingConfig()):
        run.record(_EPOCH | {"step": 8, "loss": 1.25})
        run.record(_PROBE | {"step": 8})
    assert curves(run.path)["training/loss"] == {4: 2.25, 8: 1.25}
    assert curves(run.path)["probe/top1"] == {8: 62.5}
    shown = EventAccumulator(str(run.path / tracking.EVENTS), size_guidance={"tensors": 0}).Reload()
    assert len(shown.Tensors("training/loss")) == 2
    assert run.listeners == []


def test_without_tensorboard_nothing_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = run_folder(tmp_path / "run")
    with tracked(run, TrainingConfig(tensorboard=False)):
        run.record(_EPOCH)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with tracked(run, TrainingConfig()):
        run.record(_EPOCH)
    assert not (run.path / tracking.EVENTS).exists()


@pytest.mark.parametrize("fails", ["open", "show", "close"])
def test_no_run_is_lost_for_its_curves(
    fails: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def act(name: str) -> None:
        if name == fails:
            raise ConnectionError("no route to host")

    def opened(run: RunFolder, records: object) -> tracking.Tracker:
        act("open")
        return tracking.Tracker(lambda step, numbers: act("show"), lambda finished: act("close"))

    monkeypatch.setitem(tracking._OPEN, "mlflow", opened)
    run = run_folder(tmp_path / "run")
    with caplog.at_level(logging.WARNING, "bssl_tf"), tracked(run, TrainingConfig(tensorboard=False, track="mlflow")):
        run.record(_EPOCH)
        run.record(_PROBE)
    assert len(read_records(run.metrics_path)) == 2
    assert [record.getMessage() for record in caplog.records] == [
        "mlflow no longer shows this run (ConnectionError: no route to host); training continues, and metrics.jsonl "
        "has all figures"
    ]


def test_the_end_of_a_run_is_told_from_a_cut(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ends: list[bool] = []
    monkeypatch.setitem(tracking._OPEN, "wandb", lambda run, records: tracking.Tracker(lambda *_: None, ends.append))
    run, config = run_folder(tmp_path / "run"), TrainingConfig(tensorboard=False, track="wandb")
    with tracked(run, config):
        pass
    with pytest.raises(KeyboardInterrupt), tracked(run, config):
        raise KeyboardInterrupt
    assert ends == [True, False]


def test_mlflow_offline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mlflow = pytest.importorskip("mlflow")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", (tmp_path / "mlruns").as_uri())
    run, config = run_folder(tmp_path / "run"), TrainingConfig(tensorboard=False, track="mlflow")
    with tracked(run, config):
        run.record(_EPOCH)
    name = read_json(run.path / "tracking.json")["mlflow"]
    client = mlflow.MlflowClient()
    assert client.get_run(name).info.status == "FINISHED"
    with tracked(run, config):
        run.record(_PROBE | {"step": 8})
    shown = client.get_run(name)
    assert shown.data.metrics["training/loss"] == 2.25
    assert [(m.step, m.value) for m in client.get_metric_history(name, "probe/top1")] == [(8, 62.5)]
    assert shown.info.run_name == "run" and read_json(run.path / "tracking.json") == {"mlflow": name}


def test_wandb_offline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_MODE", "offline")
    run, config = run_folder(tmp_path / "run"), TrainingConfig(tensorboard=False, track="wandb")
    with tracked(run, config):
        run.record(_EPOCH)
    time.sleep(1.1)  # folders are named by the second
    with tracked(run, config):
        run.record(_EPOCH | {"step": 8})
    name = read_json(run.path / "tracking.json")["wandb"]
    files = list((run.path / "wandb").glob(f"offline-run-*/run-{name}.wandb"))
    assert len(files) == 2 and any(b"training/loss" in file.read_bytes() for file in files)


def test_a_tool_that_is_not_installed_is_named_before_anything_is_done(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"'wandb', which is not installed. pip install 'bssl-tf\[wandb\]'"):
        configured(PretrainConfig, {"method": "moco", "training": {"track": "wandb"}}, tmp_path / "run")
