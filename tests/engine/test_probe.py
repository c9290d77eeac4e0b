"""The look at a network while it trains: what it measures, when, and that training does not notice."""

from __future__ import annotations

import dataclasses
import hashlib
import logging
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from bssl_tf.backend import keras
from bssl_tf.data.image_set import DataSplits, ImageSet
from bssl_tf.data.load import load_data
from bssl_tf.data.preprocessing import fit_preprocessing
from bssl_tf.engine.probe import Probe, make_probe
from bssl_tf.errors import ConfigError, DataError
from bssl_tf.evaluation.protocols import FeatureBank, Subject, features_of, measure
from bssl_tf.files import read_records
from bssl_tf.models.binary_resnet import binary_resnet
from bssl_tf.models.saved import Network
from bssl_tf.seeding import named_seed
from bssl_tf.settings import DataConfig, TrainingConfig
from bssl_tf.workflows.probing import hint_at_pretrained, probe_for
from tests.conftest import TINY_STUDENT

PACE = ("images_per_s", "seconds")


@pytest.fixture(scope="module")
def data() -> DataSplits:
    return load_data("embedded", image_size=28, limit=1200)


def probe_of(data: DataSplits) -> Probe:
    probe = make_probe("student", data, fit_preprocessing(data.train, 28), every=1)
    assert probe is not None
    return probe


def test_it_is_knn_of_a_part_and_asks_the_network_as_it_is_now(data: DataSplits) -> None:
    keras.utils.set_random_seed(3)
    network, probe = binary_resnet(28, 1, depth=1), probe_of(data)
    seen = []
    for scale in (1.0, 0.0):
        network.set_weights([scale * weight for weight in network.get_weights()])
        train, test = data.train.spread(1000), data.test.spread(500) if data.test else None
        assert test is not None
        bank = FeatureBank(Subject("", features_of(network)), train, test, fit_preprocessing(data.train, 28), 0)
        (expected,) = measure(bank, ["knn-20"])["knn-20"].accuracies
        found = probe.measure(network)
        # Batches are of other sizes, which may turn a bit of a sum; one test image is 0.2 %.
        assert found.pop("top1") == pytest.approx(expected, abs=0.5)
        assert found == {"probe": "knn-20", "train_images": 1000, "test_images": 500}
        seen.append(expected)
    assert abs(seen[0] - seen[1]) > 5


def test_a_network_that_gives_no_numbers_is_no_error(data: DataSplits) -> None:
    network = binary_resnet(28, 1, depth=1)
    network.set_weights([np.full_like(weight, np.nan) for weight in network.get_weights()])
    assert probe_of(data).measure(network)["top1"] is None


def test_without_labels_or_test_images_or_a_wish_there_is_none(data: DataSplits) -> None:
    preprocessing = fit_preprocessing(data.train, 28)

    def unlabelled(images: ImageSet | None) -> ImageSet:
        assert images is not None
        return dataclasses.replace(images, labels=None, class_names=())

    others = (
        dataclasses.replace(data, test=None),
        dataclasses.replace(data, train=unlabelled(data.train)),
        dataclasses.replace(data, test=unlabelled(data.test)),
    )
    assert all(make_probe("student", other, preprocessing, every=1) is None for other in others)
    assert make_probe("student", data, preprocessing, every=0) is None


@pytest.mark.slow
def test_a_run_with_it_ends_in_the_same_weights_and_is_resumed_with_the_same_records(
    tiny_teacher: Path, tmp_path: Path, bssl_tf: Callable[..., Any]
) -> None:
    runs = {}
    for every in (0, 1, 2):
        out = runs[every] = tmp_path / str(every)
        # Checkpoints behind epochs alone: the two newest are of the last stage.
        often = ("--set", "training.checkpoint_every_s=1000", "--set", f"training.probe_every={every}")
        done = bssl_tf("pretrain", "--out", out, "--teacher", tiny_teacher, *TINY_STUDENT, *often)
        assert done.returncode == 0, done.stderr
    expected = weights(runs[0])
    assert weights(runs[1]) == weights(runs[2]) == expected
    found = {every: records(run) for every, run in runs.items()}
    assert [[one["step"] for one in found[every] if "probe" in one] for every in runs] == [[], [4, 8, 12, 16], [8, 16]]
    assert all([one for one in found[every] if "probe" not in one] == found[0] for every in runs)
    assert len(found[0]) == 4

    # As if it had been killed behind the records of the last epoch, and before its checkpoint.
    cut = runs[1]
    shutil.rmtree(cut / "student")
    max((cut / "checkpoints").iterdir()).unlink()
    done = bssl_tf("pretrain", "--out", cut, "--resume")
    assert done.returncode == 0, done.stderr
    assert weights(cut) == expected
    assert records(cut) == found[1]


def weights(run: Path) -> str:
    return hashlib.sha256((run / "student" / "weights.safetensors").read_bytes()).hexdigest()


def records(run: Path) -> list[dict[str, Any]]:
    """Without what depends on the machine's mood."""
    return [{k: v for k, v in one.items() if k not in PACE} for one in read_records(run / "metrics.jsonl")]


def test_labelled_images_of_ones_own_are_measured_with_what_there_is_to_beat(
    data: DataSplits, caplog: pytest.LogCaptureFixture
) -> None:
    """The run's own images need no labels; seeds of training are set afterwards, so that its weights are the same."""
    caplog.set_level(logging.INFO)
    network = Network("binary_resnet", fit_preprocessing(data.train, 28), {"depth": 1})
    config = DataConfig("embedded", image_size=28, channels=1, limit=1200)
    unlabelled = DataSplits(data.name, dataclasses.replace(data.train, labels=None, class_names=()), None)
    assert probe_for("student", network, TrainingConfig(), config, unlabelled) is None
    training = TrainingConfig(probe_data="embedded")
    probe = probe_for("student", network, training, config, unlabelled)
    assert probe is not None and probe.every == training.probe_every
    untrained, pixels = caplog.messages[-2:]
    assert untrained.startswith("untrained: knn-20 ") and pixels.startswith("raw pixels: knn-20 ")
    keras.utils.set_random_seed(named_seed(0, "probe's untrained network"))
    measured = probe.measure(network.build())
    assert measured["train_images"] == 1000 and measured["test_images"] == 500
    # The same weights give the same line, and it is logged.
    assert caplog.messages[-1].removeprefix("student: ") == untrained.removeprefix("untrained: ")
    assert f"{measured['top1']:.1f} %" in untrained and "500 test images" in untrained
    with pytest.raises(ConfigError, match=r"training\.patience is set, but there are no probes"):
        patient = dataclasses.replace(training, probe_data="", patience=3)
        probe_for("student", network, patient, config, unlabelled)
    with pytest.raises(ConfigError, match="probe_every is 0"):
        probe_for("student", network, dataclasses.replace(training, probe_every=0), config, unlabelled)


def test_probe_data_without_labels_is_one_clear_line(data: DataSplits, tmp_path: Path) -> None:
    for index in range(12):
        Image.fromarray(data.train.images[index, ..., 0]).save(tmp_path / f"{index}.png")
    network = Network("binary_resnet", fit_preprocessing(data.train, 28), {"depth": 1})
    config = DataConfig("embedded", image_size=28, channels=1)
    with pytest.raises(DataError, match="has no labels, or too few images"):
        probe_for("student", network, TrainingConfig(probe_data=str(tmp_path)), config, data)
    with pytest.raises(DataError, match="does not exist"):
        probe_for("student", network, TrainingConfig(probe_data=str(tmp_path / "none")), config, data)


def test_few_photos_are_told_of_a_pretrained_teacher(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    hint_at_pretrained(DataConfig("photos", image_size=64), 50_000)
    hint_at_pretrained(DataConfig("embedded", image_size=28), 10_000)
    assert caplog.messages == []
    hint_at_pretrained(DataConfig("photos", image_size=64), 4303)
    [hint] = caplog.messages
    assert "4,303 photos" in hint and "bssl-tf teacher --pretrained --image-size 64" in hint
    assert "trained with ImageNet's labels" in hint
