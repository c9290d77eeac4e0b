"""What `bssl-tf evaluate` does: the student and its controls, each by every protocol that was asked for, one table."""

from __future__ import annotations

import dataclasses
import json
import shlex
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from bssl_tf.backend import configure, keras
from bssl_tf.data.open import open_data
from bssl_tf.environment import environment, resolved_threads
from bssl_tf.errors import BsslError, DataError, MissingDataError, RunFolderError
from bssl_tf.evaluation.linear_probe import LinearProbe, save_probe, top1
from bssl_tf.evaluation.protocols import (
    DEFAULT_PROTOCOLS,
    Bench,
    Subject,
    check_protocols,
    compiled,
    features_of,
    measure,
)
from bssl_tf.files import read_json, write_json
from bssl_tf.models.saved import load_weights, read_network
from bssl_tf.preprocessing import Preprocessing
from bssl_tf.seeding import named_seed
from bssl_tf.settings import DataConfig, PretrainConfig, command_of, from_dict, read_run_config
from bssl_tf.teachers.teacher import load_teacher

_MAX_PIXEL_SIZE = 32
_FEW_TEST_IMAGES = 30
Report = Callable[[str], None]


@dataclass(frozen=True)
class Row:
    """One line of the table: what the features are, and how well each protocol does with them.

    Attributes:
        features: whose.
        width: how many.
        scores: protocol -> top-1 in percent, one for each draw of it (a single one for most).
    """

    features: str
    width: int
    scores: dict[str, tuple[float, ...]]


@dataclass(frozen=True)
class Evaluation:
    """The table and its conditions; `epochs` is for each stage, `command` what the user called."""

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
    command: str
    rows: tuple[Row, ...]


def run_config(run: Path) -> PretrainConfig:
    """The configuration of a finished run of `bssl-tf pretrain`.

    Raises:
        RunFolderError: `run` is none, or is not finished.
    """
    content = read_run_config(run)
    if command_of(content) != "pretrain":
        raise RunFolderError(f"{run} is a teacher's run", "Give the run folder of a `bssl-tf pretrain`")
    if not (run / "student" / "network.json").is_file():
        raise RunFolderError(
            f"{run} is not finished", f"Finish it with `bssl-tf pretrain --out {shlex.quote(str(run))} --resume`"
        )
    return from_dict(PretrainConfig, content)


def evaluate(
    run: Path,
    overrides: dict[str, Any],
    *,
    report: Report,
    protocols: Sequence[str] = DEFAULT_PROTOCOLS,
    controls: bool = True,
    save: bool = True,
    command: str = "",
) -> Evaluation:
    """Evaluates the student of `run` beside its controls and saves its probe and the table there.

    Args:
        run: a finished run of `bssl-tf pretrain`.
        overrides: settings of `DataConfig` for a labelled data set other than the one it was trained on.
        report: takes lines of prose for the user.
        protocols: names of `bssl_tf.settings.PROTOCOLS`.
        controls: whether to measure the untrained student, raw pixels and the teacher too.
        save: whether the table, and the probe if there is one, replace those in `run`.
        command: for the record.

    Raises:
        ConfigError: a protocol is unknown.
        DataError: the data set has no labels.
        BsslError: see `bssl_tf.errors`.
    """
    check_protocols(protocols)
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
    try:
        data = open_data(data_config, labels_needed=True)
    except MissingDataError as error:
        if "source" in overrides:
            raise
        raise error.with_next_step(
            f"{run / 'config.toml'} names it, as seen from where the run was begun: pass --data with its place"
        ) from error
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
    if len(data.test) < _FEW_TEST_IMAGES:
        one = 100 / len(data.test)
        report(f"warning: with {len(data.test)} test images, one image more or less is {one:.1f} points of accuracy")
    seed = config.training.seed
    student = network.build()
    load_weights(run / "student", {"student": student})
    subjects = [Subject("student", features_of(student), student)]
    if controls:
        keras.utils.set_random_seed(named_seed(seed, "student weights"))
        untrained = network.build()
        subjects.append(Subject("control: untrained student", features_of(untrained), untrained))
        subjects.append(Subject("control: raw pixels", _raw_pixels))
        subjects += _teacher(config, preprocessing, report)

    rows = []
    for subject in subjects:
        report(f"evaluating {subject.name}")
        bench = Bench(subject, data.train, data.test, preprocessing, seed)
        scores = measure(bench, protocols)
        rows.append(Row(subject.name, bench.train_features.shape[1], scores))
        if save and subject is subjects[0] and bench.probe is not None:
            _save_probe(run, bench, data_config)
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
        command=command,
        rows=tuple(rows),
    )
    if save:
        path = run / "evaluation.json"
        before = read_json(path) if path.exists() else {}
        write_json(path, _merged(before, json.loads(json.dumps(dataclasses.asdict(evaluation)))))
    return evaluation


def _merged(before: dict[str, Any], now: dict[str, Any]) -> dict[str, Any]:
    """`now`, with what an earlier evaluation on the same data found by other protocols."""
    same = all(before.get(key) == now[key] for key in ("data", "train_images", "test_images"))
    if not same or not all("scores" in row for row in before["rows"]):
        return now
    scores = {row["features"]: row["scores"] for row in before["rows"]}
    rows = [row | {"scores": scores.pop(row["features"], {}) | row["scores"]} for row in now["rows"]]
    rest = [row for row in before["rows"] if row["features"] in scores]
    return now | {"rows": rows + rest}


def _save_probe(run: Path, bench: Bench, data: DataConfig) -> None:
    """Keeps the student's probe for export."""
    assert bench.probe is not None
    weights, bias = bench.probe
    # A class without a training image cannot be told; the device is not offered it.
    known = np.unique(bench.train_labels)
    names = tuple(bench.train.class_names[label] for label in known)
    accuracy = top1(weights, bias, bench.test_features, bench.test_labels)
    save_probe(run / "probe", LinearProbe(weights[:, known], bias[known], names, accuracy, data))


def _raw_pixels(batch: np.ndarray) -> np.ndarray:
    """float32 [B, S, S, C] to [B, D]: averaged over squares down to 32 px or less, so that a probe can be fitted."""
    step = -(-batch.shape[1] // _MAX_PIXEL_SIZE)
    size = batch.shape[1] // step
    cut = batch[:, : size * step, : size * step]
    return cut.reshape(len(batch), size, step, size, step, -1).mean(axis=(2, 4)).reshape(len(batch), -1)


def _teacher(config: PretrainConfig, preprocessing: Preprocessing, report: Report) -> list[Subject]:
    if not config.teacher:
        return []
    try:
        teacher = load_teacher(config.teacher, preprocessing, config.teacher_pixels)
    except BsslError as error:
        # The student stands without its teacher, which may have been moved away; its row is left out, aloud.
        report(f"no row for the teacher: {error.what}")
        return []
    return [Subject("float teacher", compiled(teacher.features))]
