"""What a run is configured to be: the user's settings over the method's defaults, and what does not go together."""

from __future__ import annotations

import dataclasses
import importlib.util
import json
import re
from pathlib import Path
from typing import Any

from bssl_tf.engine.run_folder import RunFolder, refuse_taken
from bssl_tf.errors import ConfigError, RunFolderError
from bssl_tf.methods.method import Method, Schedule
from bssl_tf.methods.registry import LABELS_USED, RunConfig, Sections, names_for, read_run
from bssl_tf.settings import (
    FinetuneConfig,
    PretrainConfig,
    TeacherConfig,
    TrainingConfig,
    check_choice,
    differences,
    first_difference,
    merge,
    read_run_config,
)

_DEVICE = re.compile(r"auto|cpu|gpu(:[0-9]{1,4})?")
_EMBEDDED_SIZE, _DEFAULT_SIZE = 28, 224
# May change while a run is stopped: where things lie, which have a fingerprint, which device of its kind it is, and
# what no weight depends on.
MOVABLE = (
    *("teacher", "unlabelled", "data.source", "data.data_dir", "data.download"),
    *("training.checkpoint_every_s", "training.device", "training.tensorboard", "training.track"),
)
# As in the measured comparison, results/teacher-cache.jsonl.
_ONNX_CACHE_EPOCHS = 2


def configured(kind: type[Sections], settings: dict[str, Any], out: Path) -> RunConfig[Sections]:
    """What the run in `out` is to be: what it was begun with, or what a fresh one has with `settings`; checked.

    Args:
        kind: of which command the run is.
        settings: tables of `kind`, and of the method; those of a run that goes on may only repeat what it has, but for
            those in `MOVABLE` and for more epochs.
        out: the run folder.

    Raises:
        ConfigError: a setting is unknown, of the wrong type, out of range, or is not that of the run in `out`, or that
            run's config.toml was edited.
        RunFolderError: `out` holds a run of another command.
    """
    run = _resumed(kind, settings, out) if (out / "config.toml").exists() else settled(kind, settings)
    _check(run)
    return run


def refuse_begun(out: Path, resume: bool) -> None:
    """Raises `RunFolderError` where `out` holds a run already that is not to be resumed, or something else."""
    if not (out / "config.toml").exists():
        refuse_taken(out)
    elif not resume:
        raise RunFolderError(f"{out} already holds a run", "Add --resume to continue it, or choose another --out")


def settled(kind: type[Sections], settings: dict[str, Any]) -> RunConfig[Sections]:
    """The configuration of a fresh run: `settings` over the method's defaults.

    Raises:
        ConfigError: a setting is unknown, of the wrong type or out of range.
    """
    if LABELS_USED in settings:
        raise ConfigError(f"{LABELS_USED} is what the run records, not a setting", "Omit it")
    run = read_run(kind, settings)
    epochs = run.sections.training.epochs
    if isinstance(run.sections, TeacherConfig):
        # Teachers are trained alike, whatever their method; a short run warms up for a tenth of it.
        training = run.sections.training
        schedule = Schedule(training.schedule, training.warmup_epochs, warmup_one_in=10)
    else:
        schedule = run.method.schedule
    run = read_run(kind, merge({"training": schedule.settings(epochs)}, settings))
    sections = run.sections
    if sections.training.schedule == "linear" and "warmup_epochs" not in settings.get("training", {}):
        training = dataclasses.replace(sections.training, warmup_epochs=0.0)
        sections = dataclasses.replace(sections, training=training)
    if isinstance(sections, PretrainConfig) and "teacher_cache_epochs" not in settings:
        sections = _asked_once(sections)
    if not sections.data.image_size:
        size = _EMBEDDED_SIZE if sections.data.source == "embedded" else _DEFAULT_SIZE
        sections = dataclasses.replace(sections, data=dataclasses.replace(sections.data, image_size=size))
    return dataclasses.replace(run, sections=sections)


def _asked_once(config: PretrainConfig) -> PretrainConfig:
    """With a cache for an ONNX teacher, which cannot run inside the graph and may be slow."""
    if not config.teacher.endswith(".onnx"):
        return config
    return dataclasses.replace(config, teacher_cache_epochs=min(_ONNX_CACHE_EPOCHS, config.training.epochs))


def _resumed(kind: type[Sections], settings: dict[str, Any], out: Path) -> RunConfig[Sections]:
    tables = read_run_config(out)
    command, wanted = tables["command"], kind().command
    if command != wanted:
        raise RunFolderError(
            f"{out} holds a run of `bssl-tf {command}`", f"Continue with `bssl-tf {command} --out {out} --resume`"
        )
    begun = RunFolder(out).environment()
    # Written first when a run was made longer.
    planned = [one["epochs"] for one in begun.get("planned_epochs", ())]
    training = tables.get("training")
    if isinstance(training, dict) and training.get("epochs") in planned:
        tables = merge(tables, {"training": {"epochs": planned[-1]}})
    run = read_run(kind, tables)
    _check_unedited(run, begun, out)
    changed = {
        name: (old, new)
        for name, (old, new) in differences(run.tables(), settings).items()
        if name not in MOVABLE and not (name == "training.epochs" and isinstance(new, int) and new > old)
    }
    if changed:
        raise ConfigError(
            f"--resume continues the run in {out}, but {first_difference(changed)}",
            "Omit that setting, or start another run with another --out",
        )
    # What is left of `settings` is how long to train, and where things are now: fingerprints tell whether they are the
    # same.
    return read_run(kind, merge(tables, settings))


def _check_unedited(run: RunConfig[Any], environment: dict[str, Any], out: Path) -> None:
    """Raises `ConfigError` where config.toml does not say what it said when the run was begun."""
    begun = environment.get("config")
    if not isinstance(begun, dict):  # begun before this was recorded
        return
    # As JSON keeps them.
    now = json.loads(json.dumps(run.tables()))
    for name, (old, new) in differences(begun, now).items():
        # What is not there was brought by a later version of bssl-tf.
        if name not in MOVABLE and old is not None:
            raise ConfigError(
                f"{out / 'config.toml'} was changed since the run was started: {name} was {old!r} and is {new!r} now",
                f"Set it back, or start another run with another --out; only {', '.join(MOVABLE)} may change",
            )


def _check(run: RunConfig[Any]) -> None:
    """What can be found wrong before any data is there, beyond what each setting's own type refuses."""
    _check_warmup(run.sections.training)
    _check_parts(run.sections.training)
    device = run.sections.training.device
    if not _DEVICE.fullmatch(device):
        raise ConfigError(f"training.device is {device!r}", "Choose auto, cpu, gpu, or gpu:N such as gpu:0")
    track = run.sections.training.track
    if track != "none" and importlib.util.find_spec(track) is None:
        raise ConfigError(
            f"training.track is {track!r}, which is not installed", f"pip install 'bssl-tf[{track}]', or omit it"
        )
    command = run.sections.command
    if command == "teacher" or run.method.fine_tunes != (command == "finetune"):
        check_choice("method", run.method.name, names_for(command))
    if run.sections.data.image_width and command != "finetune":
        raise ConfigError("data.image_width is set, and what is trained here sees squares", "Omit it")
    if not isinstance(run.sections, TeacherConfig):
        _check_teacher_cache(run.sections, run.method)
    if isinstance(run.sections, FinetuneConfig) and run.sections.unlabelled and not run.sections.teacher:
        raise ConfigError(
            "unlabelled images are named, and no teacher to label them", "Name one with --teacher, or omit --unlabelled"
        )
    run.method.check(run.own, run.sections.training)


def _check_parts(training: TrainingConfig) -> None:
    parts, batch = training.accumulate, training.batch_size
    if batch % parts:
        raise ConfigError(
            f"a batch of {batch} does not split evenly into training.accumulate = {parts} parts",
            f"Try --batch-size {-(-batch // parts) * parts}",
        )
    for name, wished in (("accumulate", parts > 1), ("xla", training.xla)):
        if wished and training.distribute != "none":
            raise ConfigError(
                f"training.{name} is {getattr(training, name)}, which is for one device, and training.distribute is "
                f"{training.distribute!r}",
                "Omit one of them",
            )


def _check_warmup(training: TrainingConfig) -> None:
    if training.warmup_epochs and training.schedule == "linear":
        raise ConfigError("training.warmup_epochs needs the schedule cosine", "Add --set training.schedule=cosine")
    if training.warmup_epochs >= training.epochs:
        raise ConfigError(
            f"training.warmup_epochs is {training.warmup_epochs:g}, of {training.epochs} epochs in all",
            "Add --set training.warmup_epochs=0, or train longer",
        )


def _check_teacher_cache(sections: PretrainConfig | FinetuneConfig, method: Method) -> None:
    epochs = 2 * sections.training.epochs
    if sections.teacher_cache_epochs > epochs:
        raise ConfigError(
            f"teacher_cache_epochs is {sections.teacher_cache_epochs}, but there are {epochs} epochs",
            "Give fewer, or train longer",
        )
    if isinstance(sections, FinetuneConfig):  # for which a teacher is optional
        return
    if not method.needs_teacher and (sections.teacher_cache_epochs or sections.teacher):
        setting = "teacher" if sections.teacher else "teacher_cache_epochs"
        raise ConfigError(f"{setting} is set, but {method.name} has no teacher", "Omit it")
