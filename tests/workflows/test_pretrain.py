"""Wrong settings end a run before it begins; a teacher need not be made for the student's images."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import bssl_tf
from bssl_tf.backend import keras
from bssl_tf.cli.summary import command as summary
from bssl_tf.errors import BsslError
from bssl_tf.files import read_json, read_records
from bssl_tf.models.saved import read_network
from bssl_tf.settings import read_run_config
from bssl_tf.workflows.evaluate import evaluate
from bssl_tf.workflows.pretrain import pretrain
from bssl_tf.workflows.train_teacher import train_teacher
from tests.teachers import onnx_models


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"method": "mocco"}, "Did you mean 'moco'"),
        ({"method": "moco", "stages": "two"}, "stages is 'two'"),
        ({"method": "moco", "teacher_cache_epochs": 2}, "moco has no teacher"),
        ({"method": "bssl", "bssl": {"classifier": "fixed"}}, "bssl.classifier is 'fixed'"),
        ({"method": "bssl", "bssl": {"feature_similarity": "none"}}, "bssl.feature_similarity is 'none'"),
        ({"method": "moco", "moco": {"queue_size": 100}}, "not a multiple"),
        ({"method": "moco", "training": {"optimizer": "lion"}}, "optimizer is 'lion'"),
        ({"method": "moco", "training": {"precision": "float8"}}, "precision is 'float8'"),
        ({"method": "moco", "training": {"probe_every": -1}}, "training.probe_every is -1"),
        ({"method": "moco", "teacher": "/somewhere"}, "teacher is set, but moco has no teacher"),
        ({"method": "moco", "moco": {"temperature": 0.0}}, "moco.temperature is 0.0"),
        ({"method": "byol", "byol": {"momentum": 1.5}}, "byol.momentum is 1.5"),
        ({"method": "byol", "byol": {"hidden_width": 0}}, "byol.hidden_width is 0"),
        ({"method": "swav", "swav": {"iterations": 0}}, "swav.iterations is 0"),
        ({"method": "swav", "swav": {"frozen_epochs": 5.0}, "training": {"epochs": 5}}, "swav.frozen_epochs is 5.0"),
        ({"method": "guided", "guided": {"queue_size": 100}}, "Try --set guided.queue_size=256"),
        ({"method": "guided", "guided": {"regression": 0, "similarity": 0}}, "are both 0. Set one of them above 0"),
        ({"method": "bssl", "bssl": {"balance_end": 2.0}}, "bssl.balance_end is 2.0"),
        ({"method": "s2bnn", "teacher_cache_epochs": 9, "training": {"epochs": 4}}, "there are 8 epochs"),
        ({"method": "s2bnn", "teacher_cache_epochs": -1}, "teacher_cache_epochs is -1. Give zero or more"),
        (
            {"method": "s2bnn", "s2bnn": {"contrastive": True, "contrastive_queue_size": 100}},
            "queue size 100 .* Try --set s2bnn.contrastive_queue_size=256",
        ),
        ({"method": "s2bnn", "bssl": {"classifier": "frozen"}}, r"\[bssl\] is not for method s2bnn.* --method bssl"),
        ({"method": "supervised", "supervised": {"rate": 1.0}}, "unknown setting supervised.rate"),
        ({"method": "moco", "moco": 3}, r"moco is 3, not a table. Write \[moco\]"),
        ({"method": 3}, "method is 3, which is not a str"),
        ({"method": "data"}, "method is 'data'"),
        ({"method": "moco", "mocco": {}}, "unknown setting mocco. Did you mean moco?"),
        ({"command": "teacher"}, "command is 'teacher'"),
        ({"method": "moco", "backbone": "quicknet"}, "backbone is 'quicknet', not a table"),
        ({"method": "moco", "backbone": {"name": "zoo:nothing"}}, "the zoo has no 'nothing'"),
    ],
)
def test_a_wrong_setting_is_refused_before_anything_is_loaded(
    settings: dict[str, object], message: str, tmp_path: Path
) -> None:
    with pytest.raises(BsslError, match=message):
        pretrain({"data": {"source": "/nowhere"}, **settings}, tmp_path / "run", resume=False)
    assert not (tmp_path / "run").exists()


def test_a_teacher_may_have_a_size_and_channels_of_its_own(
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A grey student of 28 px from an RGB teacher of 40 px: trained, recorded, named, and found again on resuming."""
    caplog.set_level(logging.INFO)
    # TensorFlow has started in this process already, so that threads cannot be set any more.
    for place in ("engine.preparation", "workflows.evaluate"):
        monkeypatch.setattr(f"bssl_tf.{place}.configure", lambda *arguments, **options: None)
    image = keras.layers.Input((40, 40, 3))
    features = keras.layers.GlobalAveragePooling2D()(keras.layers.Conv2D(8, 3, strides=2)(image))
    keras.Model(image, features).save(tmp_path / "teacher.keras")
    out = tmp_path / "run"
    training = {"epochs": 1, "batch_size": 32, "threads": 1, "probe_every": 0}
    settings: dict[str, object] = {
        "teacher": str(tmp_path / "teacher.keras"),
        "teacher_pixels": "imagenet",
        "data": {"source": "embedded", "limit": 64},
        "backbone": {"depth": 1},
        "training": training,
    }
    pretrain(settings, out, resume=False)
    assert "40 px, RGB, 8 features; views of 28 px are resampled to 40 px for it" in caplog.text
    assert read_network(out / "student").preprocessing.image_size == 28
    about = read_json(out / "teacher.json")
    assert (about["image_size"], about["channels"], about["features"], about["mean"][0]) == (40, 3, 8, 0.485)
    assert about["fingerprint"] == read_json(out / "environment.json")["fingerprints"]["teacher"]
    summary.main([str(out)], standalone_mode=False)
    assert f"{tmp_path / 'teacher.keras'}: 40 px, RGB, 8 features" in capsys.readouterr().out
    pretrain(settings, out, resume=True)
    found = evaluate(out, {}, protocols=["knn-20"], save=False)
    assert {row.features: row.width for row in found.rows}["float teacher"] == 8
    # The same model evaluated itself sees images of its own size.
    alone = evaluate(tmp_path / "teacher.keras", {"source": "embedded", "limit": 64, "channels": 3}, save=False)
    assert alone.data_settings.image_size == 40


def test_an_onnx_file_teaches_and_is_asked_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From Python, with the cache switched on; the same run without it sees the same numbers but for float16."""
    caplog.set_level(logging.INFO)
    for place in ("engine.preparation", "workflows.evaluate"):
        monkeypatch.setattr(f"bssl_tf.{place}.configure", lambda *arguments, **options: None)
    monkeypatch.setenv("BSSL_TF_CACHE", str(tmp_path / "cache"))
    network = onnx_models.Linear(np.random.default_rng(0), size=20, channels=3, width=5)
    path = onnx_models.save(tmp_path / "teacher.onnx", network.made())
    common: dict[str, Any] = {"out": tmp_path / "run", "teacher": path, "epochs": 1, "batch_size": 32, "depth": 1}
    common |= {"limit": 64, "settings": {"teacher_pixels": "imagenet", "training.probe_every": 0}}
    run = bssl_tf.pretrain("embedded", **common)
    assert "an ONNX teacher is run once on the views of 1 epoch," in caplog.text
    assert (run.path / "teacher_cache.json").exists() and len(list((tmp_path / "cache").glob("*.teacher.npy"))) == 1
    config = read_run_config(run.path)
    assert config["teacher_cache_epochs"] == 1
    about = read_json(run.path / "teacher.json")
    assert (about["format"], about["image_size"], about["layout"]) == ("onnx", 20, "nchw")
    assert "teacher.onnx does not record them" in str(read_network(run.network).labels_used)
    each = common | {"out": tmp_path / "each"}
    each["settings"] = common["settings"] | {"teacher_cache_epochs": 0}
    bssl_tf.pretrain("embedded", **each)
    losses = [read_records(tmp_path / name / "metrics.jsonl")[0]["loss"] for name in ("run", "each")]
    assert losses[0] == pytest.approx(losses[1], rel=1e-2)

    found = bssl_tf.evaluate(
        path, data="embedded", limit=64, teacher_pixels="imagenet", protocols=["knn-20"], save=False, image_size=28
    )
    assert [row.features for row in found.rows] == ["float teacher", "control: raw pixels"]
    assert (found.method, found.rows[0].width) == ("ONNX model", 5)
    beside = bssl_tf.evaluate(run, protocols=["knn-20"], save=False)
    assert {row.features: row.width for row in beside.rows}["float teacher"] == 5


def test_few_photos_are_told_before_they_are_decoded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "photos").mkdir()
    for name in ("a.jpg", "b.png"):
        (tmp_path / "photos" / name).touch()

    def decode(*arguments: object) -> None:
        raise BsslError(f"decoding, after {caplog.messages}", "")

    monkeypatch.setattr("bssl_tf.workflows.train_teacher.prepare", decode)
    caplog.set_level(logging.INFO)
    with pytest.raises(BsslError, match=r"after .*2 photos seldom teach one from scratch"):
        train_teacher({"data": {"source": str(tmp_path / "photos")}}, tmp_path / "run", resume=False)
