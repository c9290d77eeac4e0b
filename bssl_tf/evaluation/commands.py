"""What `bssl-tf evaluate` does: features of the student and of its controls, both protocols, one table."""

from __future__ import annotations

import dataclasses
import shlex
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from bssl_tf.backend import configure, keras
from bssl_tf.config import DataConfig, PretrainConfig, from_dict, read_run_config
from bssl_tf.data.image_set import ImageSet
from bssl_tf.data.open import open_data
from bssl_tf.data.preprocessing import Preprocessing, evaluation_batches
from bssl_tf.environment import environment, resolved_threads
from bssl_tf.errors import BsslError, DataError, RunFolderError
from bssl_tf.evaluation.knn import knn_top1
from bssl_tf.evaluation.linear_probe import LinearProbe, fit_linear_probe, save_probe, top1
from bssl_tf.files import write_json
from bssl_tf.models.saved import load_weights, read_network
from bssl_tf.seeding import named_seed
from bssl_tf.teachers.teacher import load_teacher

NEIGHBOURS = 20
_BATCH = 256
_MAX_PIXEL_SIZE = 32
Report = Callable[[str], None]


@dataclass(frozen=True)
class Row:
    """One line of the table: what the features are, and both accuracies in percent."""

    features: str
    width: int
    knn_top1: float
    linear_probe_top1: float


@dataclass(frozen=True)
class Evaluation:
    """The table and its conditions; `epochs` is for each stage."""

    run: str
    data: str
    train_images: int
    test_images: int
    classes: int
    seed: int
    method: str
    backbone: str
    epochs: int
    conditions: dict[str, Any]
    rows: tuple[Row, ...]


def run_config(run: Path) -> PretrainConfig:
    """The configuration of a finished run of `bssl-tf pretrain`.

    Raises:
        RunFolderError: `run` is none, or is not finished.
    """
    content = read_run_config(run)
    if "method" not in content:
        raise RunFolderError(f"{run} is a teacher's run", "Give the run folder of a `bssl-tf pretrain`")
    if not (run / "student" / "network.json").is_file():
        raise RunFolderError(
            f"{run} is not finished", f"Finish it with `bssl-tf pretrain --out {shlex.quote(str(run))} --resume`"
        )
    return from_dict(PretrainConfig, content)


def evaluate(run: Path, overrides: dict[str, Any], *, report: Report) -> Evaluation:
    """Evaluates the student of `run` beside its controls and saves its probe and the table there.

    Args:
        run: a finished run of `bssl-tf pretrain`.
        overrides: settings of `DataConfig` for a labelled data set other than the one it was trained on.
        report: takes lines of prose for the user.

    Raises:
        DataError: the data set has no labels.
        BsslError: see `bssl_tf.errors`.
    """
    config = run_config(run)
    configure(resolved_threads(config.training.threads))
    network = read_network(run / "student")
    preprocessing = network.preprocessing
    fixed = {"image_size": preprocessing.image_size, "channels": preprocessing.channels}
    base = dataclasses.asdict(config.data)
    if "source" in overrides:
        # Another data set, wholly; how patient to be with it stays.
        base |= {"limit": 0, "data_dir": ""}
    data_config = from_dict(DataConfig, base | overrides | fixed, "data.")
    data = open_data(data_config, report, labels_needed=True)
    if data.train.labels is None:
        raise DataError(
            f"{data.name} has no labels, and evaluation needs some",
            "Pass --data with a labelled set, such as a folder with one sub-folder for each class",
        )
    if data.test is None or not len(data.test):
        raise DataError(
            f"{data.name} has too few images to hold some out for testing",
            "Add labelled images, about six for each class or more, or a folder test/ beside train/",
        )
    seed = config.training.seed
    keras.utils.set_random_seed(named_seed(seed, "student weights"))
    untrained = network.build()
    student = network.build()
    load_weights(run / "student", {"student": student})

    sources: list[tuple[str, Callable[[np.ndarray], np.ndarray]]] = [
        ("student", _features(student)),
        ("control: untrained student", _features(untrained)),
        ("control: raw pixels", _raw_pixels),
    ]
    teacher = _teacher_features(config, preprocessing, report)
    if teacher is not None:
        sources.append(("float teacher", teacher))

    rows, probe = [], None
    for name, features in sources:
        report(f"evaluating {name}")
        row, weights, bias = _evaluate_features(name, features, data.train, data.test, preprocessing, seed)
        rows.append(row)
        if probe is None:  # the student comes first, and its probe is the one that is kept
            # A class without a training image cannot be told; the device is not offered it.
            known = np.unique(data.train.labels)
            names = tuple(data.train.class_names[label] for label in known)
            probe = LinearProbe(weights[:, known], bias[known], names, row.linear_probe_top1, data_config)
    assert probe is not None
    save_probe(run / "probe", probe)
    evaluation = Evaluation(
        run=str(run),
        data=data.name,
        train_images=len(data.train),
        test_images=len(data.test),
        classes=len(data.train.class_names),
        seed=seed,
        method=config.method,
        backbone=config.backbone.name,
        epochs=config.training.epochs,
        conditions=environment(config.training.threads),
        rows=tuple(rows),
    )
    write_json(run / "evaluation.json", dataclasses.asdict(evaluation))
    return evaluation


def _raw_pixels(batch: np.ndarray) -> np.ndarray:
    """float32 [B, S, S, C] to [B, D]: averaged over squares down to 32 px or less, so that a probe can be fitted."""
    step = -(-batch.shape[1] // _MAX_PIXEL_SIZE)
    size = batch.shape[1] // step
    cut = batch[:, : size * step, : size * step]
    return cut.reshape(len(batch), size, step, size, step, -1).mean(axis=(2, 4)).reshape(len(batch), -1)


def _features(model: keras.Model) -> Callable[[np.ndarray], np.ndarray]:
    return lambda batch: model(batch, training=False).numpy()


def _teacher_features(
    config: PretrainConfig, preprocessing: Preprocessing, report: Report
) -> Callable[[np.ndarray], np.ndarray] | None:
    try:
        teacher = load_teacher(config.teacher, preprocessing, config.teacher_pixels)
    except BsslError as error:
        # The student stands without its teacher, which may have been moved away; its row is left out, aloud.
        report(f"no row for the teacher: {error.what}")
        return None
    return lambda batch: teacher.features(batch).numpy()


def _evaluate_features(
    name: str,
    features: Callable[[np.ndarray], np.ndarray],
    train: ImageSet,
    test: ImageSet,
    preprocessing: Preprocessing,
    seed: int,
) -> tuple[Row, np.ndarray, np.ndarray]:
    x, x_test = (
        np.concatenate([features(batch) for batch in evaluation_batches(images, preprocessing, _BATCH)])
        for images in (train, test)
    )
    y, y_test = train.require_labels(), test.require_labels()
    weights, bias = fit_linear_probe(x, y, len(train.class_names), seed=named_seed(seed, "probe"))
    row = Row(name, x.shape[1], knn_top1(x, y, x_test, y_test, NEIGHBOURS), top1(weights, bias, x_test, y_test))
    return row, weights, bias
