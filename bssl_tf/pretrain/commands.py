"""What `bssl-tf teacher` and `bssl-tf pretrain` do: data, networks, a recipe, the loop, the result on disk."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from bssl_tf.backend import configure, keras
from bssl_tf.config import (
    DataConfig,
    PretrainConfig,
    TeacherConfig,
    TrainingConfig,
    check_choice,
    differences,
    from_dict,
    read_toml,
)
from bssl_tf.data.augmentation import PRESETS, Augmentation
from bssl_tf.data.image_set import DataSplits
from bssl_tf.data.open import open_data
from bssl_tf.data.preprocessing import Preprocessing
from bssl_tf.environment import environment
from bssl_tf.errors import ConfigError, RunFolderError
from bssl_tf.files import read_json
from bssl_tf.models.binarization import binarize
from bssl_tf.models.saved import Network, save_network
from bssl_tf.pretrain.bssl import Bssl
from bssl_tf.pretrain.loop import Inputs, train
from bssl_tf.pretrain.method import Method
from bssl_tf.pretrain.moco import Moco
from bssl_tf.pretrain.run_folder import RunFolder
from bssl_tf.pretrain.s2bnn import S2bnn
from bssl_tf.pretrain.stages import Stage, progressive_binarization
from bssl_tf.seeding import named_seed
from bssl_tf.teachers.teacher import Teacher, load_teacher

METHODS = ("s2bnn", "bssl")
Config = TypeVar("Config", TeacherConfig, PretrainConfig)
Report = Callable[[str], None]


def train_teacher(settings: dict[str, Any], out: Path, *, resume: bool, report: Report) -> Path:
    """Trains a float teacher with MoCo v2.

    Args:
        settings: tables of `TeacherConfig`; with `resume` they may only repeat what the run was begun with.
        out: the run folder.
        resume: go on with the run in `out`.
        report: takes lines of prose for the user.

    Returns:
        `out/teacher`, where backbone and projection head are saved.

    Raises:
        BsslError: see `bssl_tf.errors`; every message says what to do next.
    """
    config, data = _begin(TeacherConfig, settings, out, resume, report)
    preprocessing = Preprocessing.fit(data.train, config.data.image_size)
    network = Network(
        config.backbone.name,
        preprocessing,
        dict(config.backbone.arguments()),
        (0, config.moco.embedding_width),
        config.moco.head_batch_norm,
    )

    def build(stage: Stage) -> Method:
        keras.utils.set_random_seed(named_seed(config.training.seed, "teacher weights"))
        queue_seed = named_seed(config.training.seed, "queue")
        return Moco(network.build(), config.moco, batch_size=config.training.batch_size, seed=queue_seed)

    stages = (Stage("moco", False, config.training.epochs),)
    inputs = Inputs(data.train, preprocessing, _augmentation(config))
    run = _run_folder(out, config, data, resume)
    with run.locked():
        method = train(run, stages, build, inputs, config.training)
        backbone, head = method.trained.values()
        network = dataclasses.replace(network, head=(backbone.output_shape[-1], config.moco.embedding_width))
        save_network(out / "teacher", network, {"teacher": backbone, "head": head})
    return out / "teacher"


def pretrain(settings: dict[str, Any], out: Path, *, resume: bool, report: Report) -> Path:
    """Trains a binary student from a float teacher, without labels.

    Args and errors as for `train_teacher`, with tables of `PretrainConfig`.

    Returns:
        `out/student`, where the binary backbone is saved.
    """
    config, data = _begin(PretrainConfig, settings, out, resume, report)
    check_choice("method", config.method, METHODS)
    fitted = Preprocessing.fit(data.train, config.data.image_size)
    teacher = load_teacher(config.teacher, fitted, config.teacher_pixels)
    # Teacher and student see the same crop, so a teacher trained here decides how it is normalised.
    preprocessing = teacher.preprocessing or fitted
    network = Network(config.backbone.name, preprocessing, dict(config.backbone.arguments()))

    def build(stage: Stage) -> Method:
        keras.utils.set_random_seed(named_seed(config.training.seed, "student weights"))
        student = binarize(network.build(), weights=stage.binary_weights)
        return _method(config, student, teacher)

    inputs = Inputs(data.train, preprocessing, _augmentation(config))
    run = _run_folder(out, config, data, resume)
    with run.locked():
        method = train(run, progressive_binarization(config.training.epochs), build, inputs, config.training)
        save_network(out / "student", network, {"student": method.trained["student"]})
    return out / "student"


def _method(config: PretrainConfig, student: keras.Model, teacher: Teacher) -> Method:
    if config.method == "bssl":
        return Bssl(student, teacher, config.bssl)
    return S2bnn(student, teacher, config.s2bnn)


def _begin(
    kind: type[Config], settings: dict[str, Any], out: Path, resume: bool, report: Report
) -> tuple[Config, DataSplits]:
    """Settles the configuration and loads the data; on resuming, both must be what the run was begun with."""
    if resume:
        RunFolder.open(out)
        config = from_dict(kind, read_toml(out / "config.toml"))
        changed = differences(config, settings)
        if changed:
            raise ConfigError(
                f"--resume goes on with the run in {out}, but {changed[0]}",
                "Leave that setting away, or start another run with another --out",
            )
    else:
        config = from_dict(kind, settings)
        if (out / "config.toml").exists():
            raise RunFolderError(f"{out} already holds a run", "Add --resume to go on with it, or choose another --out")
        config = dataclasses.replace(config, data=_with_size(config.data))
    _check_training(config.training)
    # Threads and determinism must be set before TensorFlow does anything, even for the data.
    configure(config.training.threads)
    data = open_data(config.data, report)
    report(f"{data.name}: {len(data.train)} training images, {config.data.image_size} px")
    if not resume:
        config = dataclasses.replace(config, data=dataclasses.replace(config.data, channels=data.train.channels))
    return config, data


def _with_size(data: DataConfig) -> DataConfig:
    if data.image_size:
        return data
    return dataclasses.replace(data, image_size=28 if data.source == "embedded" else 224)


def _augmentation(config: TeacherConfig | PretrainConfig) -> Augmentation:
    check_choice("augmentation.name", config.augmentation.name, PRESETS)
    return dataclasses.replace(PRESETS[config.augmentation.name], min_area=config.augmentation.min_area)


def _check_training(training: TrainingConfig) -> None:
    check_choice("schedule", training.schedule, ("linear", "cosine"))
    for name in ("epochs", "batch_size", "learning_rate", "checkpoint_every_s"):
        if not getattr(training, name) > 0:
            raise ConfigError(f"training.{name} is {getattr(training, name)}", "Give a value above zero")
    for name in ("warmup_epochs", "seed", "threads"):
        if getattr(training, name) < 0:
            raise ConfigError(f"training.{name} is {getattr(training, name)}", "Give zero or more")


def _run_folder(out: Path, config: TeacherConfig | PretrainConfig, data: DataSplits, resume: bool) -> RunFolder:
    fingerprint = data.train.fingerprint()
    if not resume:
        record = environment(config.training.threads) | {"data": {"name": data.name, "fingerprint": fingerprint}}
        return RunFolder.create(out, config, record)
    begun = read_json(out / "environment.json")
    if begun.get("data", {}).get("fingerprint") != fingerprint:
        raise RunFolderError(
            f"the images of {config.data.source} are not those that the run in {out} was begun with",
            "Restore them, or start another run with another --out",
        )
    if begun.get("threads") != environment(config.training.threads)["threads"]:
        raise RunFolderError(
            f"the run in {out} was begun with {begun.get('threads')} threads, and this machine has another number",
            "Resume it on a machine with as many cores; sums are split by thread, so the result would differ",
        )
    return RunFolder.open(out)
