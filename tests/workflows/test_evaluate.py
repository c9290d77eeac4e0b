"""Teachers of every kind are evaluated as students are, and what a student's weights owe to labels follows it."""

from __future__ import annotations

import json
import logging
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from bssl_tf.backend import keras
from bssl_tf.data.load import load_data
from bssl_tf.data.preprocessing import fit_preprocessing
from bssl_tf.errors import ConfigError, NetworkError
from bssl_tf.evaluation.predictions import read_predictions
from bssl_tf.evaluation.records import RAW_PIXELS, TEACHER, as_record, belong_together, read_evaluation, untrained
from bssl_tf.files import read_json
from bssl_tf.models.saved import read_network
from bssl_tf.settings import Import, read_run_config, write_import
from bssl_tf.teachers.inputs import TeacherOptions
from bssl_tf.teachers.teacher import load_teacher
from bssl_tf.workflows.evaluable import find_evaluable
from bssl_tf.workflows.evaluate import evaluate
from tests.conftest import TINY_STUDENT
from tests.edited import edited

EMBEDDED = {"source": "embedded", "limit": 128}


@pytest.fixture(autouse=True)
def started(monkeypatch: pytest.MonkeyPatch) -> None:
    """TensorFlow has started in this process already, so that threads cannot be set any more."""
    monkeypatch.setattr("bssl_tf.workflows.evaluate.configure", lambda threads: None)


def test_a_teachers_run_is_measured_beside_its_controls(tiny_teacher: Path, tmp_path: Path) -> None:
    run = shutil.copytree(tiny_teacher, tmp_path / "run")
    found = evaluate(run, {})
    assert [row.features for row in found.rows] == [TEACHER, untrained(TEACHER), RAW_PIXELS]
    assert (found.subject, found.method, found.photos, found.labels_used) == (TEACHER, "moco", 128, None)
    assert found.verdict.sentence.split(":")[0].endswith(("teacher learned", "untrained", "anything", "raw pixels"))
    assert read_evaluation(run) == found and belong_together(found, read_predictions(run))
    assert not (run / "probe").exists()
    # The student's evaluation measures the same teacher on the same images.
    trained, fresh = found.rows[0], found.rows[1]
    assert trained.width == fresh.width and trained.scores != fresh.scores


def test_a_teachers_row_is_the_same_beside_a_student_and_alone(
    tiny_teacher: Path, tiny_student: Path, bssl_tf: Callable[..., Any]
) -> None:
    beside = read_evaluation(tiny_student)
    done = bssl_tf("evaluate", tiny_teacher, "--no-save", "--json")
    assert done.returncode == 0, done.stderr
    alone = json.loads(done.stdout)
    assert beside is not None and alone["rows"][0] == as_record(beside)["rows"][3]
    assert not (tiny_teacher / "evaluation.json").exists()


def test_a_saved_keras_model_is_measured_and_its_labels_are_not_known(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    model = keras.Sequential(
        [keras.Input((28, 28, 1)), keras.layers.Conv2D(4, 3, strides=2), keras.layers.GlobalAveragePooling2D()]
    )
    model.save(tmp_path / "model.keras")
    caplog.set_level(logging.INFO)
    found = evaluate(
        tmp_path / "model.keras",
        EMBEDDED | {"image_size": 28},
        teacher=TeacherOptions("0..1"),
        protocols=["knn-20"],
    )
    assert [row.features for row in found.rows] == [TEACHER, untrained(TEACHER), RAW_PIXELS]
    assert found.labels_used is not None and "not known" in found.labels_used
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model.keras"]
    assert "the evaluation is not saved; --record keeps it" in caplog.text
    with pytest.raises(ConfigError, match=r"does not name the data .* Pass --data"):
        evaluate(tmp_path / "model.keras", {})
    # As a student of 20 px would see them, resampled for the model.
    smaller = evaluate(tmp_path / "model.keras", EMBEDDED | {"image_size": 20}, protocols=["knn-20"], save=False)
    assert smaller.data_settings.image_size == 20 and "views of 20 px are resampled to 28 px" in caplog.text


def test_an_imported_teacher_is_measured_with_its_labels_named(tiny_teacher: Path, tmp_path: Path) -> None:
    """As `bssl-tf import-teacher` leaves it: teacher/ and import.json, without config.toml."""
    shutil.copytree(tiny_teacher / "teacher", tmp_path / "teacher")
    write_import(tmp_path, Import("efficientnet_lite0", "x.pth", "0" * 64, labels_used=True, bssl_tf="0.1.0"))
    described = read_json(tmp_path / "teacher" / "network.json") | {"labels_used": "ImageNet's labels (x)"}
    (tmp_path / "teacher" / "network.json").write_text(edited(described))
    found = find_evaluable(tmp_path)
    assert (found.labels_used, found.pretrained, found.photos) == ("ImageNet's labels (x)", True, None)
    result = evaluate(tmp_path, EMBEDDED, protocols=["knn-20"])
    assert (result.labels_used, result.method) == ("ImageNet's labels (x)", "imported (efficientnet_lite0)")
    assert "--pretrained" not in result.verdict.next_step
    with pytest.raises(ConfigError, match="takes images of 28 px"):
        evaluate(tmp_path, EMBEDDED | {"image_size": 32})


def test_an_imported_teacher_is_summarised_reported_and_checked(
    tiny_teacher: Path, tmp_path: Path, bssl_tf: Callable[..., Any]
) -> None:
    folder = tmp_path / "imported"
    shutil.copytree(tiny_teacher / "teacher", folder / "teacher")
    described = read_json(folder / "teacher" / "network.json") | {"labels_used": "ImageNet's labels (x)"}
    (folder / "teacher" / "network.json").write_text(edited(described))
    write_import(folder, Import("efficientnet_lite0", "x.pth", "0" * 64, labels_used=True, bssl_tf="0.1.0"))
    done = bssl_tf("summary", folder)
    assert done.returncode == 0, done.stderr
    assert "a teacher, imported (efficientnet_lite0); next: " in done.stdout and "with the help of" in done.stdout
    evaluate(folder, EMBEDDED, protocols=["knn-20"])
    done = bssl_tf("summary", folder)
    assert re.search(r"^float teacher +\d+ +\d", done.stdout, re.M)
    assert "Trained with the help of ImageNet's labels (x)." in done.stdout
    done = bssl_tf("report", folder)
    assert done.returncode == 0, done.stderr
    page = (folder / "report.html").read_text()
    assert "imported is a float teacher (imported (efficientnet_lite0)), trained with the help of" in page
    assert "no finished epoch" not in page and "Views</h2>" not in page
    done = bssl_tf("check", folder, "--no-convert")
    assert (done.returncode, "nothing-binary" in done.stdout) == (0, True), done.stderr
    assert "nothing-binary" in bssl_tf("check", tiny_teacher, "--no-convert").stdout
    done = bssl_tf("export", folder, "--target", "arm64")
    assert done.returncode == 5 and "holds an imported teacher, not a run. Name a folder of" in done.stderr
    (folder / "import.json").write_text(edited({"format": 3}))
    for command in ("summary", "report", "evaluate"):
        done = bssl_tf(command, folder)
        assert done.returncode == 5 and "import.json does not describe an imported teacher" in done.stderr


def test_labels_behind_a_teacher_are_behind_its_student(tiny_teacher: Path, tiny_student: Path, tmp_path: Path) -> None:
    """The label of a network is handed on by `load_teacher` and does not change its fingerprint."""
    from bssl_tf.methods.registry import read_run
    from bssl_tf.settings import PretrainConfig
    from bssl_tf.workflows.pretrain import _labels_used

    teacher_folder = shutil.copytree(tiny_teacher, tmp_path / "teacher-run")
    train = load_data("embedded", image_size=28, limit=128).train
    plain = load_teacher(str(teacher_folder), fit_preprocessing(train, 28))
    described = read_json(teacher_folder / "teacher" / "network.json") | {"labels_used": "ImageNet's labels"}
    (teacher_folder / "teacher" / "network.json").write_text(edited(described))
    labelled = load_teacher(str(teacher_folder), fit_preprocessing(train, 28))
    assert plain.fingerprint() == labelled.fingerprint()
    assert (plain.labels_used, labelled.labels_used) == (None, "ImageNet's labels")
    config = read_run(PretrainConfig, {})
    assert _labels_used(config, plain) is None and read_network(tiny_student / "student").labels_used is None
    assert _labels_used(config, labelled) == "ImageNet's labels"
    supervised = read_run(PretrainConfig, {"method": "supervised", "data": {"source": "/home/somebody/photos/"}})
    assert _labels_used(supervised, None) == "the labels of photos"
    described["labels_used"] = 3
    (teacher_folder / "teacher" / "network.json").write_text(edited(described))
    with pytest.raises(NetworkError, match="labels_used is of type int"):
        read_network(teacher_folder / "teacher")


def test_a_run_records_the_labels_behind_its_teacher_in_its_configuration(
    tiny_teacher: Path, tiny_student: Path, tmp_path: Path, bssl_tf: Callable[..., Any]
) -> None:
    teacher, run = shutil.copytree(tiny_teacher, tmp_path / "teacher"), tmp_path / "run"
    about = teacher / "teacher" / "network.json"
    about.write_text(edited(read_json(about) | {"labels_used": "ImageNet's labels"}))
    done = bssl_tf("pretrain", "--out", run, "--teacher", teacher, *TINY_STUDENT, "--epochs", "1")
    assert done.returncode == 0, done.stderr
    assert [read_run_config(one)["labels_used"] for one in (tiny_teacher, tiny_student, run)] == [
        *("", "", "ImageNet's labels"),
    ]
    # What a run was begun with stays, and one from before this was recorded takes it from its teacher.
    about.write_text(edited(read_json(about) | {"labels_used": "somebody's labels"}))
    config, line = run / "config.toml", 'labels_used = "ImageNet\'s labels"'
    kept = config.read_text()
    assert line in kept
    for text, expected in ((kept, "ImageNet's labels"), (kept.replace(line, ""), "somebody's labels")):
        config.write_text(text)
        done = bssl_tf("pretrain", "--out", run, "--resume")
        assert done.returncode == 0, done.stderr
        assert read_network(run / "student").labels_used == expected
    config.write_text(kept.replace(line, "labels_used = 3"))
    done = bssl_tf("pretrain", "--out", run, "--resume")
    assert done.returncode == 3 and "labels_used is 3, which is not a string" in done.stderr
    done = bssl_tf("pretrain", "--out", tmp_path / "other", "--set", "labels_used=nobody", *TINY_STUDENT)
    assert done.returncode == 3 and "labels_used is what the run records, not a setting" in done.stderr
