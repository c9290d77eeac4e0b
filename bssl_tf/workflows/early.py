"""What can be found wrong before TensorFlow is loaded, which takes seconds: names, folders, sizes.

Commands call these first. The use cases check all of it again, by the same functions, and what is left.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from bssl_tf import zoo
from bssl_tf.data.load import check_arguments
from bssl_tf.data.open import check_data
from bssl_tf.engine.configuration import configured, refuse_begun
from bssl_tf.keras_files.files import ZOO_PREFIX, require_there
from bssl_tf.methods.registry import Sections
from bssl_tf.models.place import START, check_student, require_named
from bssl_tf.models.registry import check_backbone
from bssl_tf.settings import PROTOCOLS, FinetuneConfig, TeacherConfig, check_choice, read_import, read_run_config
from bssl_tf.teachers.place import check_place
from bssl_tf.workflows.export_options import settle_options
from bssl_tf.workflows.run_folders import check_finished, start_part, task_of

_ANY_SIZE = 224
# Other tasks may take files of other kinds, such as boxes, which they know themselves.
_OF_IMAGES = ("classification", "multilabel")


def before_training(kind: type[Sections], settings: dict[str, Any], out: Path, *, resume: bool) -> None:
    """Raises what the use case of `kind` would for settings, names and folders that cannot be right."""
    refuse_begun(out, resume)
    if kind is FinetuneConfig:
        _before_finetuning(settings, out)
        return
    backbone = settings.get("backbone")
    name = backbone.get("name") if isinstance(backbone, dict) else None
    if isinstance(name, str) and name.startswith(zoo.PREFIX):
        zoo.find(name.removeprefix(zoo.PREFIX))
        # The network of the zoo takes its place, which `pretrain` reads.
        settings = {key: value for key, value in settings.items() if key != "backbone"}
    run = configured(kind, settings, out)
    if kind is TeacherConfig:
        check_backbone(run.sections.backbone.name)
    # A run that goes on has kept its student.
    elif not (out / START / "network.json").exists():
        if (out / "config.toml").exists():
            require_named(run.sections.backbone.name, name if isinstance(name, str) else "", out)
        check_student(run.sections.backbone.name)
    # Of a run that goes on, who opens data and teacher knows what to do where they are not there any more.
    if not (out / "config.toml").exists():
        if run.method.needs_teacher:
            check_place(getattr(run.sections, "teacher", ""))
        check_data(run.sections.data)
        if run.sections.training.probe_data:
            check_data(dataclasses.replace(run.sections.data, source=run.sections.training.probe_data))


def _before_finetuning(settings: dict[str, Any], out: Path) -> None:
    config = configured(FinetuneConfig, settings, out).sections
    # A run that goes on has kept its student; where data and teacher are gone, who opens them knows what to do.
    if not (out / "config.toml").exists():
        if config.student or not config.backbone.name:
            start_part(config.student)
        else:
            check_backbone(config.backbone.name)
        if config.teacher:
            check_place(config.teacher)
        if config.task in _OF_IMAGES or not config.data.source:
            check_data(config.data)
        if config.unlabelled:
            check_data(dataclasses.replace(config.data, source=config.unlabelled))


def before_evaluating(run: Path, overrides: dict[str, Any], protocols: Iterable[str]) -> None:
    """Raises what `evaluate` would for protocols, folders and sizes that cannot be right."""
    for name in protocols:
        check_choice("the protocol", name, PROTOCOLS)
    if not run.is_file() and not (run / "saved_model.pb").exists() and read_import(run) is None:
        command = read_run_config(run)["command"]
        check_finished(run, "teacher" if command == "teacher" else "student", command)
    if (source := overrides.get("source")) and task_of(run) in _OF_IMAGES:
        size, share = overrides.get("image_size", _ANY_SIZE), overrides.get("max_unreadable_share", 0.0)
        check_arguments(source, size or _ANY_SIZE, None, share, overrides.get("limit") or None)


def before_exporting(
    model: str,
    *,
    target: str,
    out: str | None,
    overwrite: bool,
    input: str,
    int8: bool,
    calibrate: int | None,
    explain: bool,
    postprocess: str,
    data: str | None,
    heads: Mapping[str, Path],
    **others: object,
) -> None:
    """Raises what `export` would for options, folders and models that cannot be right."""
    of_model = {"data": data} | {name: others.get(name) for name in ("weights", "labels", "mean", "std")}
    settle_options(
        model,
        target=target,
        out=out,
        overwrite=overwrite,
        input=input,
        int8=int8,
        calibrate=calibrate,
        explain=explain,
        postprocess=postprocess,
        of_model=of_model,
        heads=heads,
    )
    if data is not None:
        check_arguments(data, _ANY_SIZE, None, 0.0, None)


def before_checking(model: str) -> None:
    """Raises what `check` would for a model that is not there."""
    if not model.startswith(ZOO_PREFIX):
        require_there(Path(model))
