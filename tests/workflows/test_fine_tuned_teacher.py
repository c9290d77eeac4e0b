"""A float teacher is fine-tuned with labels as a student is, and teaches a student what it has learned."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bssl_tf.backend import keras
from bssl_tf.errors import NetworkError
from bssl_tf.files import read_json
from bssl_tf.models.binarization import named_weights
from bssl_tf.models.layers import freeze_batch_norm
from bssl_tf.models.saved import read_network
from bssl_tf.tasks.fine_tuned import load_fine_tuned
from bssl_tf.teachers.teacher import open_teacher
from bssl_tf.workflows.finetune import _joined, finetune, ready_to_finetune
from bssl_tf.workflows.report import report

DATA = {"source": "embedded", "limit": 64}


@pytest.fixture(autouse=True)
def started(monkeypatch: pytest.MonkeyPatch) -> None:
    """TensorFlow has started in this process already, so that threads cannot be set any more."""
    monkeypatch.setattr("bssl_tf.engine.preparation.configure", lambda *_, **__: None)


def settings(start: Path, **others: Any) -> dict[str, Any]:
    training = {"epochs": 1, "batch_size": 32, "threads": 1}
    return {"student": str(start), "data": DATA, "training": training, **others}


def statistics(model: keras.Model) -> dict[str, np.ndarray]:
    return {name: weight.numpy() for name, weight in named_weights(model).items() if "moving" in name}


@pytest.fixture(scope="module")
def tuned(tiny_teacher: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("tuned_teacher") / "run"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("bssl_tf.engine.preparation.configure", lambda *_, **__: None)
        finetune(settings(tiny_teacher), out, resume=False)
    return out


def test_its_weights_are_trained_and_its_batch_norm_is_not(tiny_teacher: Path, tuned: Path) -> None:
    before, found = open_teacher(str(tiny_teacher)), load_fine_tuned(tuned)
    assert not found.network.head and len(found.class_names) == 10
    assert found.network.labels_used == "the labels of embedded"
    theirs, ours = (
        {name: weight.numpy() for name, weight in named_weights(model).items()}
        for model in (before.backbone, found.backbone)
    )
    assert theirs.keys() == ours.keys() and any("moving" in name for name in ours)
    for name, weight in ours.items():
        of_batch_norm = name.rsplit("/", 1)[-1] in ("gamma", "beta", "moving_mean", "moving_variance")
        assert np.array_equal(weight, theirs[name]) == of_batch_norm, name


def test_a_report_calls_it_what_it_is(tuned: Path) -> None:
    assert "| fine-tuned float network |" in report(tuned, format="markdown").content


def test_batch_norm_can_be_trained(tiny_teacher: Path, tmp_path: Path) -> None:
    finetune(settings(tiny_teacher, batch_norm="trained"), tmp_path / "run", resume=False)
    before = statistics(open_teacher(str(tiny_teacher)).backbone)
    assert all(not np.array_equal(before[k], v) for k, v in statistics(load_fine_tuned(tmp_path / "run").model).items())


def test_that_of_a_student_is_trained_unless_it_is_to_be_frozen(tiny_student: Path, tmp_path: Path) -> None:
    for wanted, trained in (("auto", True), ("frozen", False)):
        ready = ready_to_finetune(settings(tiny_student, batch_norm=wanted), tmp_path / "run", resume=False)
        network = ready.build(ready.stages[0]).trained["student"]
        norms = [one for one in network.submodules if isinstance(one, keras.layers.BatchNormalization)]
        assert norms and all(one.trainable == trained for one in norms)


def test_batch_norm_of_models_within_models_is_frozen() -> None:
    inner = keras.Sequential([keras.layers.Input((4,)), keras.layers.BatchNormalization()])
    outer = keras.Sequential([keras.layers.Input((4,)), inner, keras.layers.Dense(2)])
    freeze_batch_norm(outer)
    start = [weight.numpy() for weight in inner.weights]
    outer(np.random.default_rng(0).normal(3, 2, (8, 4)), training=True)
    assert all(np.array_equal(a, b.numpy()) for a, b in zip(start, inner.weights, strict=True))
    assert len(outer.trainable_variables) == 2


def test_it_teaches_with_its_features(tiny_student: Path, tuned: Path, tmp_path: Path) -> None:
    teacher = open_teacher(str(tuned))
    assert teacher.head is None and teacher.preprocessing == read_network(tuned / "student").preprocessing
    wanted = settings(tiny_student, teacher=str(tuned), unlabelled="embedded", unlabelled_ratio=1)
    finetune(wanted, tmp_path / "run", resume=False)
    assert read_json(tmp_path / "run/teacher.json")["fingerprint"] == ready_fingerprint(wanted, tmp_path)
    # The labels are the same, and are named once.
    assert read_network(tmp_path / "run/student").labels_used == "the labels of embedded"


def ready_fingerprint(wanted: dict[str, Any], tmp_path: Path) -> str:
    taught = ready_to_finetune(wanted, tmp_path / "other", resume=False).taught
    assert taught is not None
    return taught.teacher.fingerprint()


def test_a_student_is_not_taken_for_a_teacher(tiny_student: Path) -> None:
    with pytest.raises(NetworkError, match="holds no trained teacher") as caught:
        open_teacher(str(tiny_student))
    assert "the run of a student" in caught.value.next_step


def test_labels_are_named_once() -> None:
    assert _joined([None, "the labels of a", "ImageNet's labels and the labels of a"]) == (
        "ImageNet's labels and the labels of a"
    )
    assert _joined(["ImageNet's labels", "the labels of a", None]) == "ImageNet's labels and the labels of a"
    assert _joined(["the labels of a", "the labels of a"]) == "the labels of a"
    # Another data set, whose name begins alike.
    other = "ImageNet's labels and the labels of ab"
    assert _joined([None, "the labels of a", other]) == f"the labels of a and {other}"
