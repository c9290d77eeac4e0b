"""Several labels per image go the whole way: a listing, a fine-tuned network, its evaluation, a bundle that runs."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from bssl_tf.data.listing import labels_of_images
from bssl_tf.data.preprocessing import evaluation_views
from bssl_tf.errors import DataError
from bssl_tf.evaluation.multilabel import read_multilabel
from bssl_tf.files import read_records
from bssl_tf.settings import DataConfig
from bssl_tf.tasks.fine_tuned import load_fine_tuned
from bssl_tf.tasks.multilabel import MultiLabel
from bssl_tf.workflows.export import export
from bssl_tf_deploy import load
from bssl_tf_deploy.library import host_target


@pytest.fixture(scope="module")
def listing(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Noise with a bright top, a bright left side, both, or neither."""
    folder, rng = tmp_path_factory.mktemp("listed"), np.random.default_rng(0)
    lines = []
    for number in range(160):
        pixels = rng.integers(0, 100, (28, 28), np.uint8)
        labels = [name for name, chance in (("left", 0.5), ("top", 0.4)) if rng.random() < chance]
        if "top" in labels:
            pixels[:10] += 120
        if "left" in labels:
            pixels[10:, :10] += 120
        Image.fromarray(pixels).save(folder / f"{number:03}.png")
        lines.append(json.dumps({"file": f"{number:03}.png", "labels": labels}))
    path = folder / "labels.jsonl"
    path.write_text("\n".join(lines))
    return path


@pytest.fixture(scope="module")
def tuned(
    listing: Path, tiny_student: Path, tmp_path_factory: pytest.TempPathFactory, bssl_tf: Callable[..., Any]
) -> Path:
    out = tmp_path_factory.mktemp("multilabel") / "run"
    options = ["--task", "multilabel", "--data", listing, "--epochs", 8, "--threads", 1, "--batch-size", 16]
    options += ["--set", "validation=always"]
    # Mirror images would have the other side bright.
    options += ["--set", "augmentation.min_area=1.0", "--set", "augmentation.flip=false"]
    done = bssl_tf("finetune", tiny_student, "--out", out, *options)
    assert done.returncode == 0, done.stderr
    return out


@pytest.mark.slow
def test_it_learns_and_is_evaluated_label_by_label(tuned: Path, listing: Path, bssl_tf: Callable[..., Any]) -> None:
    records = read_records(tuned / "metrics.jsonl")
    assert {one["metric"] for one in records if "probe" in one} == {"map"}
    losses = [one["loss"] for one in records if "probe" not in one]
    assert losses[-1] < 0.9 * losses[0]
    done = bssl_tf("evaluate", tuned)
    assert done.returncode == 0, done.stderr
    found = read_multilabel(tuned)
    assert found is not None and found.sentence in done.stdout
    assert [one.name for one in found.labels] == ["left", "top"] and found.fine_tuned > 60
    # The precision is that of the network, on the images that were held out.
    task, model = MultiLabel(), load_fine_tuned(tuned)
    data = task.open(DataConfig(str(listing), image_size=28, channels=1), validation=False)
    assert data.test is not None and len(data.test) == found.test_images == 27
    measured = task.metrics(model.model, data.test, model.network.preprocessing)["map"]
    assert found.fine_tuned == pytest.approx(measured, abs=0.1)
    assert labels_of_images(data.test)[1].sum(axis=0).tolist() == [one.images for one in found.labels]
    for command in ("summary", "report"):
        done = bssl_tf(command, tuned)
        assert done.returncode == 0, done.stderr
        text = done.stdout if command == "summary" else (tuned / "report.html").read_text()
        assert found.sentence in text


@pytest.mark.slow
def test_the_bundle_gives_labels_and_the_outputs_of_keras(tuned: Path, listing: Path, tmp_path: Path) -> None:
    done = export(tuned, target=host_target(), out=tmp_path / "bundle")
    assert any(line.startswith("mean average precision on 27 test images: ") for line in done.text_lines())
    manifest = done.manifest
    assert (manifest.task, manifest.table.labels) == ("multilabel", ("left", "top"))
    assert manifest.table.accuracy.images == 27 and manifest.parity.agreement >= 0.96
    found = load_fine_tuned(tuned)
    data = MultiLabel().open(DataConfig(str(listing), image_size=28, channels=1), validation=False)
    assert data.test is not None
    views = evaluation_views(data.test, found.network.preprocessing, range(27))
    expected = found.model(views, training=False).numpy()
    predictor = load(tmp_path / "bundle", runtime="own")
    predictor.verify_golden()
    outputs = predictor.run_tensor(views)["logits"]
    within = np.max(np.abs(outputs - expected), axis=1) <= 1e-3 * np.max(np.abs(expected))
    assert np.count_nonzero(~within) <= 1
    files = sorted(listing.parent.glob("*.png"))[:8]
    answers, logits = predictor.answers(files), predictor.outputs(files)["logits"]
    for answer, row in zip(answers, logits, strict=True):
        found_labels = {name for name, one in zip(("left", "top"), row, strict=True) if one >= 0}
        assert {label for label, _ in answer} == found_labels
        scores = sorted((1 / (1 + np.exp(-row[row >= 0]))).tolist(), reverse=True)
        assert [score for _, score in answer] == pytest.approx(scores, abs=1e-6)
    readme = " ".join((tmp_path / "bundle" / "README.md").read_text().split())
    assert "which of 2 labels an image has" in readme and "Mean average precision of this model on 27" in readme


def test_data_of_another_kind_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="embedded is not a listing of images with their labels"):
        MultiLabel().open(DataConfig("embedded", image_size=28), validation=False)
