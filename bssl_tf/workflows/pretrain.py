"""What `bssl-tf teacher` and `bssl-tf pretrain` do: data, networks, a recipe, the loop, the result on disk."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from bssl_tf import zoo
from bssl_tf.backend import configure, keras
from bssl_tf.data.augmentation import PRESETS, Augmentation
from bssl_tf.data.image_set import DataSplits
from bssl_tf.data.open import open_data
from bssl_tf.data.preprocessing import fit_preprocessing
from bssl_tf.data.views import steps_per_epoch
from bssl_tf.engine.loop import Inputs, train
from bssl_tf.engine.run_folder import RunFolder
from bssl_tf.engine.stages import STAGES, Stage
from bssl_tf.engine.teacher_cache import with_teacher_cache
from bssl_tf.environment import environment, resolved_threads
from bssl_tf.errors import ConfigError, DataError, MissingDataError, RunFolderError
from bssl_tf.files import read_json, write_json
from bssl_tf.methods.bssl import Bssl
from bssl_tf.methods.byol import Byol
from bssl_tf.methods.method import Method
from bssl_tf.methods.moco import Moco, check_queue
from bssl_tf.methods.s2bnn import ContrastiveS2bnn, S2bnn
from bssl_tf.methods.supervised import Supervised
from bssl_tf.methods.swav import Swav
from bssl_tf.models.binarization import binarize
from bssl_tf.models.saved import Network, load_weights, read_network, save_network
from bssl_tf.seeding import named_seed
from bssl_tf.settings import (
    METHODS,
    BackboneConfig,
    PretrainConfig,
    TeacherConfig,
    TrainingConfig,
    check_choice,
    command_of,
    differences,
    from_dict,
    merge,
    read_run_config,
)
from bssl_tf.teachers.teacher import Teacher, check_teacher, load_teacher
from bssl_tf.workflows.probing import hint_at_pretrained, probe_for

TEACHER_METHODS = ("moco", "byol")
_FEW_STEPS = 10
_EMBEDDED_SIZE, _DEFAULT_SIZE = 28, 224
Config = TypeVar("Config", TeacherConfig, PretrainConfig)
Report = Callable[[str], None]


def train_teacher(settings: dict[str, Any], out: Path, *, resume: bool, report: Report) -> Path:
    """Trains a float teacher without labels.

    Args:
        settings: tables of `TeacherConfig`; with `resume` they may only repeat what the run was begun with.
        out: the run folder.
        resume: go on with the run in `out`, if there is one already.
        report: takes lines of prose for the user.

    Returns:
        `out/teacher`, where backbone and projection head are saved.

    Raises:
        BsslError: see `bssl_tf.errors`; every message says what to do next.
    """
    config, data = _begin(TeacherConfig, "teacher", settings, out, resume, report)
    preprocessing = fit_preprocessing(data.train, config.data.image_size)
    network = Network(config.backbone.name, preprocessing, dict(config.backbone.arguments()))

    def build(stage: Stage) -> Method:
        keras.utils.set_random_seed(named_seed(config.training.seed, "teacher weights"))
        if config.method == "byol":
            return Byol(network.build(), config.byol, part="teacher")
        return _moco(config, network.build(), "teacher")

    stages = (Stage(config.method, False, config.training.epochs),)
    inputs = Inputs(data.train, preprocessing, _augmentation(config))
    _try_out(build, stages, inputs, config.training)
    hint_at_pretrained(config.data, len(data.train))
    probe = probe_for("teacher", network, config.training, config.data, data)
    run = _run_folder(out, config, {"data": data.train.fingerprint()}, len(data.train))
    with run.locked():
        method = train(run, stages, build, inputs, config.training, probe)
        backbone, head = method.trained["teacher"], method.trained["head"]
        norms = [layer for layer in head.layers if isinstance(layer, keras.layers.BatchNormalization)]
        widths = tuple(layer.units for layer in head.layers if isinstance(layer, keras.layers.Dense))
        network = dataclasses.replace(network, head=widths, head_batch_norm=bool(norms))
        save_network(out / "teacher", network, {"teacher": backbone, "head": head})
    return out / "teacher"


def pretrain(settings: dict[str, Any], out: Path, *, resume: bool, report: Report) -> Path:
    """Trains a binary student: from a float teacher without labels, or with one of the baselines.

    Args and errors as for `train_teacher`, with tables of `PretrainConfig`.

    Returns:
        `out/student`, where the binary backbone is saved.
    """
    config, data = _begin(PretrainConfig, "pretrain", settings, out, resume, report)
    preprocessing = fit_preprocessing(data.train, config.data.image_size)
    made_from = {"data": data.train.fingerprint()}
    teacher = None
    if METHODS[config.method]:
        teacher = load_teacher(config.teacher, preprocessing, config.teacher_pixels)
        # Teacher and student see the same crop, so a teacher trained here decides how it is normalised.
        preprocessing = teacher.preprocessing or preprocessing
        made_from["teacher"] = teacher.fingerprint()
    labels_used = _labels_used(config, teacher)
    network = Network(config.backbone.name, preprocessing, dict(config.backbone.arguments()), labels_used=labels_used)

    def build(stage: Stage) -> Method:
        # What a later stage does not take over is drawn anew, not once more the same.
        names = ("student weights",) if stage is stages[0] else ("student weights", stage.name)
        keras.utils.set_random_seed(named_seed(config.training.seed, *names))
        student = network.build()
        if config.initial:
            load_weights(zoo.find(config.initial.removeprefix(zoo.PREFIX)).folder, {"student": student})
        student = binarize(student, weights=stage.binary_weights)
        frozen_share = config.swav.frozen_epochs / stage.epochs if stage is stages[0] else 0.0
        return _method(config, student, teacher, len(data.train.class_names), frozen_share)

    stages = STAGES[config.stages](config.training.epochs)
    inputs = Inputs(data.train, preprocessing, _augmentation(config))
    method = _try_out(build, stages, inputs, config.training)
    probe = probe_for("student", network, config.training, config.data, data)
    run = _run_folder(out, config, made_from, len(data.train))
    with run.locked():
        if config.teacher_cache_epochs:
            inputs, seconds = with_teacher_cache(
                inputs, method, config.training, config.teacher_cache_epochs, made_from["teacher"], report
            )
            if not (out / "teacher_cache.json").exists():  # on resuming it is there already, and cost nothing
                write_json(out / "teacher_cache.json", {"seconds": round(seconds, 1)})
        method = train(run, stages, build, inputs, config.training, probe)
        save_network(out / "student", network, {"student": method.trained["student"]})
    return out / "student"


def _labels_used(config: PretrainConfig, teacher: Teacher | None) -> str | None:
    """Whose labels the student's weights owe something to, a clause; None for nobody's."""
    found = [teacher.labels_used] if teacher is not None else []
    if config.method == "supervised":
        found.append(f"the labels of {config.data.source}")
    if config.initial:
        found.append(read_network(zoo.find(config.initial.removeprefix(zoo.PREFIX)).folder).labels_used)
    return " and ".join(dict.fromkeys(clause for clause in found if clause)) or None


def _method(
    config: PretrainConfig, student: keras.Model, teacher: Teacher | None, classes: int, frozen_share: float
) -> Method:
    if teacher is None:
        if config.method == "moco":
            return _moco(config, student, "student")
        if config.method == "byol":
            return Byol(student, config.byol, part="student")
        if config.method == "swav":
            return Swav(student, config.swav, frozen_share=frozen_share)
        return Supervised(student, classes)
    if config.method == "bssl":
        return Bssl(student, teacher, config.bssl)
    if config.s2bnn.contrastive:
        size, seed = config.training.batch_size, named_seed(config.training.seed, "queue")
        return ContrastiveS2bnn(student, teacher, config.s2bnn, config.moco, batch_size=size, seed=seed)
    return S2bnn(student, teacher, config.s2bnn)


def _moco(config: TeacherConfig | PretrainConfig, backbone: keras.Model, part: str) -> Moco:
    queue_seed = named_seed(config.training.seed, "queue")
    return Moco(backbone, config.moco, part=part, batch_size=config.training.batch_size, seed=queue_seed)


def _begin(
    kind: type[Config], command: str, settings: dict[str, Any], out: Path, resume: bool, report: Report
) -> tuple[Config, DataSplits]:
    """Settles the configuration and loads the data; on resuming, both must be what the run was begun with."""
    settings = _from_zoo(settings)
    begun = (out / "config.toml").exists()
    if begun and not resume:
        raise RunFolderError(f"{out} already holds a run", "Add --resume to go on with it, or choose another --out")
    config = _resumed(kind, command, settings, out) if begun else settled(kind, settings)
    # All that needs no data is checked before the data, which may take an hour to decode.
    _check_training(config.training)
    _augmentation(config)
    _check_method(config)
    # Threads and determinism must be set before TensorFlow does anything, even for the data.
    configure(resolved_threads(config.training.threads), config.training.precision)
    try:
        data = open_data(config.data, labels_needed=config.method == "supervised")
    except MissingDataError as error:
        if not begun:
            raise
        raise error.with_next_step(
            f"{out / 'config.toml'} names it: go on in the folder where the run was begun, or put the images back"
        ) from error
    if config.method == "supervised" and data.train.labels is None:
        raise DataError(
            f"{data.name} has no labels, and supervised training needs them",
            "Pass --data with one sub-folder for each class, or choose a method that needs no labels",
        )
    report(f"{data.name}: {len(data.train)} training images, {config.data.image_size} px")
    if not begun:
        _warn_of_few_images(config, len(data.train), report)
        config = dataclasses.replace(config, data=dataclasses.replace(config.data, channels=data.train.channels))
    return config, data


def _from_zoo(settings: dict[str, Any]) -> dict[str, Any]:
    """A student called `zoo:NAME` is that network, beginning with its weights."""
    backbone = settings.get("backbone", {})
    name = backbone.get("name", "") if isinstance(backbone, dict) else ""
    if not isinstance(name, str) or not name.startswith(zoo.PREFIX):
        return settings
    from_dict(BackboneConfig, backbone, "backbone.")
    network = read_network(zoo.find(name.removeprefix(zoo.PREFIX)).folder)
    ours = dataclasses.asdict(BackboneConfig(network.backbone, **network.arguments))
    changed = [key for key, value in backbone.items() if key != "name" and value and value != ours[key]]
    if changed:
        raise ConfigError(f"{name} has a {changed[0]} of its own, {ours[changed[0]]}", f"Leave {changed[0]} away")
    # At another size some networks have other strides: the weights would fit and mean something else.
    p = network.preprocessing
    sizes = {"image_size": p.image_size, "channels": p.channels}
    data = settings.get("data", {})
    for key, value in sizes.items():
        if isinstance(data, dict) and data.get(key, value) not in (0, value):
            raise ConfigError(f"{name} is for {key} {value}, not {data[key]}", f"Leave data.{key} away")
    return merge(settings, {"backbone": ours, "initial": name, "data": sizes})


def _resumed(kind: type[Config], command: str, settings: dict[str, Any], out: Path) -> Config:
    content = read_run_config(out)
    begun_by = command_of(content)
    if begun_by != command:
        raise RunFolderError(
            f"{out} holds a run of `bssl-tf {begun_by}`", f"Go on with `bssl-tf {begun_by} --out {out} --resume`"
        )
    config = from_dict(kind, content)
    changed = differences(config, settings)
    if changed:
        raise ConfigError(
            f"--resume goes on with the run in {out}, but {changed[0]}",
            "Leave that setting away, or start another run with another --out",
        )
    return config


def settled(kind: type[Config], settings: dict[str, Any]) -> Config:
    """The configuration of a fresh run: `settings` over the method's defaults.

    BSSL, BYOL and SwAV train with warm-up and cosine decay, S2-BNN with linear decay, which is the general default.

    Raises:
        ConfigError: a setting is unknown or of the wrong type.
    """
    config = from_dict(kind, settings)
    if isinstance(config, TeacherConfig):
        own: dict[str, Any] = {"warmup_epochs": min(config.training.warmup_epochs, config.training.epochs / 10)}
        config = from_dict(kind, merge({"training": own}, settings))
    elif config.method in ("bssl", "byol", "swav"):
        # BSSL warms up for 10 of 200 epochs (section 5); a shorter run for as large a share.
        own = {"schedule": "cosine", "warmup_epochs": min(10.0, config.training.epochs / 20)}
        config = from_dict(kind, merge({"training": own}, settings))
    if config.training.schedule == "linear" and "warmup_epochs" not in settings.get("training", {}):
        config = dataclasses.replace(config, training=dataclasses.replace(config.training, warmup_epochs=0.0))
    if config.data.image_size:
        return config
    size = _EMBEDDED_SIZE if config.data.source == "embedded" else _DEFAULT_SIZE
    return dataclasses.replace(config, data=dataclasses.replace(config.data, image_size=size))


def _try_out(
    build: Callable[[Stage], Method], stages: tuple[Stage, ...], inputs: Inputs, training: TrainingConfig
) -> Method:
    """Finds what is wrong with networks and batch size before a run folder is made."""
    steps_per_epoch(len(inputs.images), training.batch_size)
    return build(stages[0])


def _augmentation(config: TeacherConfig | PretrainConfig) -> Augmentation:
    check_choice("augmentation.name", config.augmentation.name, PRESETS)
    return dataclasses.replace(PRESETS[config.augmentation.name], min_area=config.augmentation.min_area)


def _check_method(config: TeacherConfig | PretrainConfig) -> None:
    """What can be said of the method's settings before any data is there. Raises `BsslError`."""
    check_choice("method", config.method, TEACHER_METHODS if isinstance(config, TeacherConfig) else METHODS)
    _check_recipes(config)
    if isinstance(config, PretrainConfig):
        check_choice("stages", config.stages, STAGES)
        check_choice("bssl.classifier", config.bssl.classifier, ("joint", "frozen"))
        check_choice("bssl.feature_similarity", config.bssl.feature_similarity, ("outputs", "features", "off"))
        if config.teacher_cache_epochs < 0:
            raise ConfigError(f"teacher_cache_epochs is {config.teacher_cache_epochs}", "Give zero or more")
        epochs = 2 * config.training.epochs
        if config.teacher_cache_epochs > epochs:
            raise ConfigError(
                f"teacher_cache_epochs is {config.teacher_cache_epochs}, and there are {epochs} epochs",
                "Give fewer, or train longer",
            )
        if METHODS[config.method]:
            check_teacher(config.teacher, config.teacher_pixels)
        elif config.teacher_cache_epochs or config.teacher:
            setting = "teacher" if config.teacher else "teacher_cache_epochs"
            raise ConfigError(f"{setting} is set, and {config.method} has no teacher", "Leave it away")
    if _has_queue(config):
        check_queue(config.moco, config.training.batch_size)


def _has_queue(config: TeacherConfig | PretrainConfig) -> bool:
    contrastive = isinstance(config, PretrainConfig) and config.method == "s2bnn" and config.s2bnn.contrastive
    return config.method == "moco" or contrastive


def _warn_of_few_images(config: TeacherConfig | PretrainConfig, images: int, report: Report) -> None:
    """Tells of settings for far larger data sets, such as the papers', with which nothing much would be learnt."""
    batch_size, queue_size = config.training.batch_size, config.moco.queue_size
    steps = images // batch_size
    if not steps:  # an error, a moment later
        return
    if steps < _FEW_STEPS:
        smaller = max(8, 2 ** int(math.log2(max(images // _FEW_STEPS, 1))))
        less = f"pass --batch-size {smaller}, or " if smaller < batch_size else ""
        report(
            f"warning: an epoch has {steps} step{'s' * (steps > 1)} ({images} images in batches of {batch_size}), and "
            f"little is learnt in so few; {less}add images (--preset demo is for short trainings)"
        )
    if _has_queue(config) and queue_size > images:
        fitting = max(1, images // 2 // batch_size) * batch_size
        report(
            f"warning: MoCo's queue of {queue_size} is longer than the {images} images, so that earlier views of an "
            f"image count as other images; pass --set moco.queue_size={fitting}"
        )


def _check_recipes(config: TeacherConfig | PretrainConfig) -> None:
    """Ranges of what the recipes are made of. Raises `ConfigError`."""
    recipes = [
        (name, getattr(config, name)) for name in ("moco", "byol", "s2bnn", "bssl", "swav") if hasattr(config, name)
    ]
    for section, recipe in recipes:
        for key, value in dataclasses.asdict(recipe).items():
            if (
                key in ("temperature", "epsilon")
                or key.endswith(("_width", "_size"))
                or key in ("prototypes", "iterations")
            ):
                if not value > 0:
                    raise ConfigError(f"{section}.{key} is {value}", "Give a value above zero")
            elif key in ("momentum", "classifier_rate") or key.startswith("balance_"):
                if not 0 <= value <= 1:
                    raise ConfigError(f"{section}.{key} is {value}", "Give a value from 0 to 1")
            elif key == "frozen_epochs" and not 0 <= value < config.training.epochs:
                hint = f"Give less than the {config.training.epochs} epochs of a stage"
                if config.method == "swav":
                    raise ConfigError(f"swav.frozen_epochs is {value}", hint)


def _check_training(training: TrainingConfig) -> None:
    check_choice("schedule", training.schedule, ("linear", "cosine"))
    check_choice("optimizer", training.optimizer, ("adam", "sgd"))
    check_choice("precision", training.precision, ("float32", "bfloat16"))
    for name in ("epochs", "batch_size", "learning_rate", "checkpoint_every_s"):
        if not getattr(training, name) > 0:
            raise ConfigError(f"training.{name} is {getattr(training, name)}", "Give a value above zero")
    for name in ("warmup_epochs", "weight_decay", "seed", "threads", "probe_every"):
        if getattr(training, name) < 0:
            raise ConfigError(f"training.{name} is {getattr(training, name)}", "Give zero or more")
    if training.warmup_epochs and training.schedule == "linear":
        raise ConfigError("training.warmup_epochs is for the schedule cosine", "Add --set training.schedule=cosine")
    if training.warmup_epochs >= training.epochs:
        raise ConfigError(
            f"training.warmup_epochs is {training.warmup_epochs:g} of {training.epochs} in all",
            "Add --set training.warmup_epochs=0, or train longer",
        )


def _run_folder(out: Path, config: Any, made_from: dict[str, str], images: int) -> RunFolder:
    """The run's folder; on resuming, what the run is made from must be what it was. `images` are those to train on."""
    now = environment(config.training.threads) | {"fingerprints": made_from, "training_images": images}
    commit = now["commit"]
    if not (out / "config.toml").exists():
        return RunFolder.create(out, config, now)
    begun = read_json(out / "environment.json")
    fingerprints = begun.get("fingerprints")
    for part, name in (("data", f"images of {config.data.source}"), ("teacher", "weights of the teacher")):
        known = fingerprints.get(part) if isinstance(fingerprints, dict) else None
        if part in made_from and known != made_from[part]:
            raise RunFolderError(
                f"the {name} are not those that the run in {out} was begun with",
                "Restore them, or start another run with another --out",
            )
    if begun.get("threads") != now["threads"]:
        raise RunFolderError(
            f"the run in {out} was begun with {begun.get('threads')} threads, and now there are {now['threads']}",
            "Resume it where as many cores are free; sums are split by thread, so the result would differ",
        )
    if commit is not None and commit not in str(begun.get("commit")).split(", "):
        write_json(out / "environment.json", begun | {"commit": f"{begun.get('commit')}, {commit}"})
    return RunFolder(out)
