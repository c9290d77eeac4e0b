"""What `bssl-tf evaluate` does: a network and its controls, each by every protocol that was chosen, and a verdict."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from bssl_tf.backend import configure
from bssl_tf.data.image_set import DataSplits, ImageSet
from bssl_tf.data.open import open_data
from bssl_tf.data.preprocessing import fit_preprocessing
from bssl_tf.environment import environment, resolved_threads
from bssl_tf.errors import BsslError, ConfigError, DataError, MissingDataError, RunFolderError
from bssl_tf.evaluation.heads import compare_heads
from bssl_tf.evaluation.linear_probe import LinearProbe, save_probe
from bssl_tf.evaluation.predictions import Answers, read_predictions, write_predictions
from bssl_tf.evaluation.protocols import (
    DEFAULT_PROTOCOLS,
    FeatureBank,
    Subject,
    check_protocols,
    compiled,
    measure,
    raw_pixels,
)
from bssl_tf.evaluation.records import (
    RAW_PIXELS,
    STUDENT,
    TEACHER,
    Evaluation,
    SubjectScores,
    belong_together,
    read_evaluation,
    write_evaluation,
)
from bssl_tf.evaluation.verdict import Facts, make_verdict
from bssl_tf.preprocessing import Preprocessing
from bssl_tf.settings import FINE_TUNED, DataConfig, read_settings
from bssl_tf.teachers.inputs import NOTHING_SAID, TeacherOptions
from bssl_tf.teachers.teacher import load_teacher
from bssl_tf.workflows.evaluable import Evaluable, find_evaluable

_FEW_TEST_IMAGES = 30
_log = logging.getLogger(__name__)


def evaluate(
    run: Path,
    overrides: dict[str, Any],
    *,
    protocols: Sequence[str] = DEFAULT_PROTOCOLS,
    controls: bool = True,
    save: bool = True,
    teacher: TeacherOptions = NOTHING_SAID,
    command: str = "",
) -> Evaluation:
    """Evaluates a student or a teacher beside its controls, and saves the table, the answers and a student's probe.

    Args:
        run: a finished run of `bssl-tf pretrain`, `finetune` or `teacher`, a folder of `bssl-tf import-teacher`, or a
            saved Keras model, beside which nothing is saved.
        overrides: settings of `DataConfig` for a labelled data set other than the one it was trained on; `image_size`
            is for a saved model alone.
        protocols: names of `bssl_tf.settings.PROTOCOLS`.
        controls: whether to measure the untrained network, raw pixels and a student's teacher too.
        save: whether the table, the answers, and the probe if there is one, replace those in `run`.
        teacher: what a saved model does not say itself.
        command: for the record.

    Raises:
        ConfigError: a protocol is unknown, or there is no data set to measure on.
        DataError: the data set has no labels.
        BsslError: see `bssl_tf.errors`.
    """
    check_protocols(protocols)
    found = find_evaluable(run, teacher, image_size=overrides.get("image_size", 0))
    configure(resolved_threads(found.threads))
    data_config = _data_config(found, overrides)
    try:
        data = open_data(data_config, labels_needed=True)
    except MissingDataError as error:
        if "source" in overrides:
            raise
        raise error.with_next_step(
            f"{run / 'config.toml'} names it, relative to where the run was started: pass --data with its path"
        ) from error
    test = _checked(data)
    preprocessing = found.preprocessing or fit_preprocessing(data.train, data_config.image_size)
    subjects = found.subjects(preprocessing, controls)
    if FINE_TUNED in protocols and not found.has_head:
        raise ConfigError(f"the protocol {FINE_TUNED} is for a run of `bssl-tf finetune`", "Omit it")
    if found.has_head and tuple(protocols) == DEFAULT_PROTOCOLS:
        protocols = (FINE_TUNED, *DEFAULT_PROTOCOLS)
    for subject in subjects:
        if subject.head is not None and (strange := set(subject.head.class_names) - set(test.class_names)):
            _log.warning(
                f"the fine-tuned network's own answers are not measured: {data.name} lacks its class {min(strange)}"
            )
    if controls:
        subjects += [Subject(RAW_PIXELS, raw_pixels), *_teacher(*found.teacher, preprocessing)]

    rows: list[SubjectScores] = []
    answers: Answers = {}
    for subject in subjects:
        _log.info(f"evaluating {subject.name}")
        bank = FeatureBank(subject, data.train, test, preprocessing, found.seed)
        answers[subject.name] = measure(bank, protocols)
        rows.append(SubjectScores.of(subject.name, bank.train_features.shape[1], answers[subject.name], bank.solution))
        # A fine-tuned network is exported with its own head.
        if save and subject.name == STUDENT and bank.linear_probe is not None and not found.has_head:
            _save_probe(run, bank, answers[STUDENT]["linear-probe"].accuracies[0], data_config)
    facts = Facts(str(run), found.photos, preprocessing.image_size, found.pretrained, found.origin)
    evaluation = Evaluation(
        run=str(run),
        subject=found.name,
        data=data.name,
        data_settings=data_config,
        train_images=len(data.train),
        test_images=len(test),
        test_fingerprint=test.fingerprint(),
        train_fingerprint=data.train.fingerprint(),
        classes=len(data.train.class_names),
        class_names=data.train.class_names,
        seed=found.seed,
        method=found.method,
        backbone=found.backbone,
        epochs=found.epochs,
        photos=found.photos,
        labels_used=found.labels_used,
        conditions=environment(found.threads),
        command=command,
        rows=tuple(rows),
        verdict=make_verdict(found.name, answers, facts),
        heads=compare_heads(answers, test.class_names),
    )
    if save and found.folder:
        saved = _save(run, evaluation, answers, facts)
        evaluation = dataclasses.replace(evaluation, verdict=saved.verdict, heads=saved.heads)
    elif save:
        _log.info(f"{run} is a file, so the evaluation is not saved; --record keeps it")
    return evaluation


def _data_config(found: Evaluable, overrides: dict[str, Any]) -> DataConfig:
    """The labelled data: what the network was trained on, with `overrides`."""
    base = dataclasses.asdict(found.data)
    if "source" in overrides:
        # Another data set, wholly; how patient to be with it stays.
        base |= {"limit": 0, "data_dir": "", "loading": "auto"}
    elif not found.data.source:
        raise ConfigError(f"{found.path} does not name the data to measure it on", "Pass --data with a labelled set")
    if found.preprocessing is None:
        return read_settings(DataConfig, base | overrides | {"image_size": found.image_size()}, "data.")
    fixed = {"image_size": found.preprocessing.image_size, "channels": found.preprocessing.channels}
    if overrides.get("image_size", fixed["image_size"]) != fixed["image_size"]:
        raise ConfigError(f"{found.path} takes images of {fixed['image_size']} px", "Omit --image-size")
    return read_settings(DataConfig, base | overrides | fixed, "data.")


def _checked(data: DataSplits) -> ImageSet:
    """The test images. Raises `DataError` where there are none, or no labels."""
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
        _log.warning(f"with {len(data.test)} test images, one image more or less is {one:.1f} points of accuracy")
    return data.test


def _save(run: Path, now: Evaluation, answers: Answers, facts: Facts) -> Evaluation:
    """Saves `now` and `answers`, with what an earlier evaluation on the same images found, and returns all of it.

    Other protocols and rows that were measured before stay in the run; the verdict is about all of them together.
    """
    try:
        before = read_evaluation(run)
        old = read_predictions(run) if before is not None else {}
        if before is not None and not (before.same_images(now) and belong_together(before, old)):
            before = None
    except RunFolderError as error:
        _log.info(f"the previous evaluation is not kept: {error.what}")
        before = None
    if before is not None:
        rows = {row.features: row for row in before.rows} | {row.features: row for row in now.rows}
        answers = {name: old.get(name, {}) | answers.get(name, {}) for name in rows}
        solutions = {name: row.linear_probe for name, row in rows.items()}
        solutions |= {row.features: row.linear_probe for row in before.rows if solutions[row.features] is None}
        now = dataclasses.replace(
            now,
            rows=tuple(SubjectScores.of(n, row.width, answers[n], solutions[n]) for n, row in rows.items()),
            verdict=make_verdict(now.subject, answers, facts),
            heads=compare_heads(answers, now.class_names),
        )
    # In this order a killed process leaves predictions that fit nothing, which is found out on reading.
    write_predictions(run, answers)
    write_evaluation(run, now)
    return now


def _save_probe(run: Path, bank: FeatureBank, accuracy: float, data: DataConfig) -> None:
    """Keeps the student's probe for export."""
    assert bank.linear_probe is not None
    weights, bias = bank.linear_probe
    # A class without a training image cannot be told; the device is not offered it.
    known = np.unique(bank.train_labels)
    names = tuple(bank.train.class_names[label] for label in known)
    save_probe(run / "probe", LinearProbe(weights[:, known], bias[known], names, accuracy, data))


def _teacher(path: str, options: TeacherOptions, preprocessing: Preprocessing) -> list[Subject]:
    if not path:
        return []
    try:
        teacher = load_teacher(path, preprocessing, options)
    except BsslError as error:
        # The student stands without its teacher, which may have been moved away; its row is missing, aloud.
        _log.info(f"no row for the teacher: {error.what}")
        return []
    return [Subject(TEACHER, compiled(teacher.features))]
