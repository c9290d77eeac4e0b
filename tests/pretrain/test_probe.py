"""The look at a network while it trains: what it measures, when, and that training does not notice."""

from __future__ import annotations

import dataclasses
import hashlib
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bssl_tf.backend import keras
from bssl_tf.data.image_set import DataSplits, ImageSet
from bssl_tf.data.load import load_data
from bssl_tf.data.preprocessing import fit_preprocessing
from bssl_tf.engine.probe import Probe, make_probe
from bssl_tf.evaluation.protocols import FeatureBank, Subject, features_of, measure
from bssl_tf.files import read_records
from bssl_tf.models.binary_resnet import binary_resnet
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
