"""What `bssl-tf pretrain` does: a binary student, trained from a float teacher or by one of the baselines."""

from __future__ import annotations

import dataclasses
import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bssl_tf.backend import keras
from bssl_tf.data.open import data_name
from bssl_tf.data.preprocessing import fit_preprocessing
from bssl_tf.engine.configuration import configured, refuse_begun
from bssl_tf.engine.inputs import Inputs
from bssl_tf.engine.preparation import prepare
from bssl_tf.engine.stages import Stage
from bssl_tf.errors import NetworkError
from bssl_tf.files import write_json
from bssl_tf.methods.method import Ingredients
from bssl_tf.methods.recipe import Recipe
from bssl_tf.methods.registry import RunConfig
from bssl_tf.models.binarization import binarize
from bssl_tf.models.layers import built_for_replicas
from bssl_tf.models.precision import in_precision
from bssl_tf.models.saved import save_network
from bssl_tf.seeding import named_seed
from bssl_tf.settings import PretrainConfig
from bssl_tf.teachers.inputs import teacher_options
from bssl_tf.teachers.teacher import Teacher, check_teacher, load_teacher
from bssl_tf.workflows.probing import probe_for
from bssl_tf.workflows.student import Student, labels_of, open_student, settle_student
from bssl_tf.workflows.training import ReadyRun, chosen_for

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class _Ready(ReadyRun[PretrainConfig]):
    """With what is kept of the student and its teacher."""

    inputs: Inputs
    student: Student
    teacher: Teacher | None
    recipe: Recipe


def pretrain(
    settings: dict[str, Any],
    out: Path,
    *,
    resume: bool,
    budget: str | None = None,
    model: keras.Model | None = None,
) -> Path:
    """Trains a binary student: from a float teacher without labels, or with one of the baselines.

    Args:
        settings: tables of `PretrainConfig` and of its method; with `resume` they may only repeat what the run has, or
            name more epochs, for which training then continues.
        out: the run folder.
        resume: go on with the run in `out`, if there is one already.
        budget: how long it may take, such as `30m`, which then chooses what `settings` do not.
        model: the student of a Python program; its name in `settings` is `model:NAME`.

    Returns:
        `out/student`, where the trained network is saved.

    Raises:
        BsslError: see `bssl_tf.errors`; every message ends with what to do next.
    """
    ready = ready_to_pretrain(settings, out, resume=resume, budget=budget, model=model)
    config, teacher = ready.prepared.run.sections, ready.teacher
    with ready.prepared.opened_folder(ready.made_from, ready.labels_used) as folder:
        chief = ready.prepared.distribution.is_chief
        if chief:
            ready.student.save_start(out)
        if teacher is not None and chief:
            write_json(out / "teacher.json", teacher.describe() | {"fingerprint": ready.made_from["teacher"]})
        teacher_fingerprint = ready.made_from.get("teacher", "")
        inputs = ready.inputs_with_teacher(ready.recipe, config.teacher_cache_epochs, teacher_fingerprint)
        recipe = ready.train(folder, inputs)
        if chief:
            save_network(out / "student", ready.network, {"student": recipe.trained["student"]})
    return out / "student"


def ready_to_pretrain(
    settings: dict[str, Any],
    out: Path,
    *,
    resume: bool,
    budget: str | None = None,
    model: keras.Model | None = None,
) -> _Ready:
    """What `pretrain` with the same arguments would train. Writes nothing into `out`. Raises what that does."""
    refuse_begun(out, resume)
    if budget is not None:
        settings = chosen_for(
            budget,
            PretrainConfig,
            settings,
            out,
            lambda trial: ready_to_pretrain(trial, out, resume=resume, model=model),
            lambda trial: settle_student(trial, out, model)[0],
        )
    settings, model = settle_student(settings, out, model)
    configuration = configured(PretrainConfig, settings, out)
    if not (out / "config.toml").exists() and "teacher_cache_epochs" not in settings:
        _log_cache(configuration.sections.teacher_cache_epochs)
    if configuration.method.needs_teacher:
        try:
            check_teacher(configuration.sections.teacher, teacher_options(configuration.sections))
        except NetworkError as error:
            if not (out / "config.toml").exists():
                raise
            raise error.with_next_step("Put it back, or name its new place with --teacher") from error
    prepared = prepare(configuration, out)
    run, config, data = prepared.run, prepared.run.sections, prepared.data
    preprocessing = fit_preprocessing(data.train, config.data.image_size)
    made_from = {"data": data.train.fingerprint()}
    teacher = None
    if run.method.needs_teacher:
        with prepared.distribution.scope():
            teacher = load_teacher(config.teacher, preprocessing, teacher_options(config))
        # Teacher and student see the same crop, so a teacher trained here decides how it is normalised.
        preprocessing = teacher.shared(preprocessing)
        teacher = teacher.for_views(preprocessing)
        made_from["teacher"] = teacher.fingerprint()
        _log.info(teacher.summary())
    labels_used = _labels_used(run, teacher)
    student = open_student(config, preprocessing, out, model)
    if student.own:
        made_from["student"] = student.fingerprint()
    network = dataclasses.replace(student.network, labels_used=labels_used)
    stages = student.stages(config)

    def build(stage: Stage) -> Recipe:
        first = stage is stages[0]
        # What a later stage does not take over is drawn with another seed, not the same once more.
        names = ("student weights",) if first else ("student weights", stage.name)
        backbone = built_for_replicas(
            lambda: binarize(student.build(), weights=stage.binary_weights), named_seed(config.training.seed, *names)
        )
        backbone = in_precision(backbone, config.training.precision)
        classes = len(data.train.class_names)
        given = Ingredients(backbone, "student", teacher, classes, config.training, stage.epochs, first)
        return run.method.build(run.own, given)

    inputs = prepared.inputs(preprocessing)
    recipe = prepared.try_out(build, stages)
    probe = probe_for("student", network, config.training, config.data, data)
    return _Ready(prepared, network, made_from, labels_used, stages, build, inputs, probe, student, teacher, recipe)


def _log_cache(epochs: int) -> None:
    """Says that an ONNX teacher gets a cache that nobody asked for, if there is one."""
    if epochs:
        _log.info(
            f"an ONNX teacher is run once on the views of {epochs} epoch{'s' * (epochs > 1)}, and its outputs are "
            "kept; for fresh views in every epoch, at its speed, add --set teacher_cache_epochs=0"
        )


def _labels_used(run: RunConfig[PretrainConfig], teacher: Teacher | None) -> str | None:
    """Whose labels the student's weights owe something to, a clause; None for nobody's."""
    if run.labels_used is not None:  # a run that goes on keeps what it was begun with
        return run.labels_used or None
    config = run.sections
    found = [teacher.labels_used] if teacher is not None else []
    if run.method.needs_labels:
        found.append(f"the labels of {data_name(config.data.source)}")
    found.append(labels_of(config))
    return " and ".join(dict.fromkeys(clause for clause in found if clause)) or None
