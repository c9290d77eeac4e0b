"""What `bssl-tf teacher` does: a float teacher, trained without labels."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bssl_tf.backend import keras
from bssl_tf.data.open import count_images, data_name
from bssl_tf.data.preprocessing import fit_preprocessing
from bssl_tf.engine.budget import within_budget
from bssl_tf.engine.configuration import configured, refuse_begun
from bssl_tf.engine.forecast import Forecast, forecast
from bssl_tf.engine.inputs import Inputs
from bssl_tf.engine.loop import train
from bssl_tf.engine.preparation import Prepared, prepare
from bssl_tf.engine.probe import Probe
from bssl_tf.engine.profile import Profile, profile
from bssl_tf.engine.stages import Stage, plans_of
from bssl_tf.engine.tracking import EVENTS
from bssl_tf.methods.method import Ingredients
from bssl_tf.methods.recipe import Recipe
from bssl_tf.models.layers import with_replica_batch_norm
from bssl_tf.models.precision import in_precision
from bssl_tf.models.saved import Network, save_network
from bssl_tf.seeding import named_seed
from bssl_tf.settings import TeacherConfig
from bssl_tf.workflows.probing import hint_at_pretrained, probe_for

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class _Ready:
    """A run that could begin: all that it needs is there and fits together."""

    prepared: Prepared[TeacherConfig]
    network: Network
    labels_used: str | None
    stages: tuple[Stage, ...]
    build: Callable[[Stage], Recipe]
    inputs: Inputs
    probe: Probe | None


def train_teacher(settings: dict[str, Any], out: Path, *, resume: bool) -> Path:
    """Trains a float teacher without labels.

    Args:
        settings: tables of `TeacherConfig` and of its method; with `resume` they may only repeat what the run has, or
            name more epochs, for which training then continues.
        out: the run folder.
        resume: go on with the run in `out`, if there is one already.

    Returns:
        `out/teacher`, where the trained network is saved.

    Raises:
        BsslError: see `bssl_tf.errors`; every message ends with what to do next.
    """
    ready = _make_ready(settings, out, resume=resume)
    prepared, training = ready.prepared, ready.prepared.run.sections.training
    with prepared.opened_folder({"data": prepared.data.train.fingerprint()}, ready.labels_used) as folder:
        plans = plans_of(ready.stages, training.epochs, folder.planned_epochs())
        recipe = train(
            folder, ready.stages, ready.build, ready.inputs, training, ready.probe, prepared.distribution, plans
        )
        backbone, head = recipe.trained["teacher"], recipe.trained["head"]
        norms = [layer for layer in head.layers if isinstance(layer, keras.layers.BatchNormalization)]
        widths = tuple(layer.units for layer in head.layers if isinstance(layer, keras.layers.Dense))
        network = dataclasses.replace(ready.network, head=widths, head_batch_norm=bool(norms))
        if prepared.distribution.is_chief:
            save_network(out / "teacher", network, {"teacher": backbone, "head": head})
    return out / "teacher"


def budget_teacher(settings: dict[str, Any], out: Path, *, resume: bool, budget: str) -> dict[str, Any]:
    """Settings with which `train_teacher` takes about as long as `budget` says; what `settings` hold stays.

    Args:
        settings, out, resume: as for `train_teacher`; a run that goes on was planned when it began.
        budget: `30m`, `1h30m`, `90s`.

    Raises:
        BsslError: see `train_teacher`, and `bssl_tf.engine.budget`.
    """
    if (out / "config.toml").exists():
        return settings

    def count(trial: dict[str, Any]) -> int:
        return len(prepare(configured(TeacherConfig, trial, out), out).data.train)

    def measure(trial: dict[str, Any]) -> Forecast:
        return forecast_teacher(trial, out, resume=resume)

    chosen, line = within_budget(TeacherConfig, settings, budget, count, measure)
    _log.info(line)
    return chosen


def forecast_teacher(settings: dict[str, Any], out: Path, *, resume: bool) -> Forecast:
    """What `train_teacher` with the same arguments would take. Writes nothing into `out`.

    Raises:
        BsslError: see `train_teacher`.
    """
    ready = _make_ready(settings, out, resume=resume)
    training, devices = ready.prepared.run.sections.training, ready.prepared.distribution
    return forecast(ready.build, ready.stages, ready.inputs, training, ready.probe, devices)


def profile_teacher(settings: dict[str, Any], out: Path, *, resume: bool, steps: int) -> Profile:
    """Where the time of a step of `train_teacher` with the same arguments goes. Writes a trace into `out` only.

    Raises:
        BsslError: see `train_teacher`.
    """
    ready = _make_ready(settings, out, resume=resume)
    training, devices = ready.prepared.run.sections.training, ready.prepared.distribution
    return profile(ready.build, ready.stages, ready.inputs, training, devices, steps, out / EVENTS)


def _make_ready(settings: dict[str, Any], out: Path, *, resume: bool) -> _Ready:
    refuse_begun(out, resume)
    configuration = configured(TeacherConfig, settings, out)
    # Before the images are decoded, which may take an hour, where a look at the folder can tell.
    counted = count_images(configuration.sections.data)
    hint_at_pretrained(configuration.sections.data, counted)
    prepared = prepare(configuration, out)
    run, config, data = prepared.run, prepared.run.sections, prepared.data
    preprocessing = fit_preprocessing(data.train, config.data.image_size)
    labels_used = f"the labels of {data_name(config.data.source)}" if run.method.needs_labels else None
    network = Network(config.backbone.name, preprocessing, dict(config.backbone.arguments()), labels_used=labels_used)
    stages = (Stage(run.method.name, False, config.training.epochs),)

    def build(stage: Stage) -> Recipe:
        keras.utils.set_random_seed(named_seed(config.training.seed, "teacher weights"))
        classes = len(data.train.class_names)
        backbone = in_precision(with_replica_batch_norm(network.build()), config.training.precision)
        given = Ingredients(backbone, "teacher", None, classes, config.training, stage.epochs, True)
        return run.method.build(run.own, given)

    prepared.try_out(build, stages)
    if counted is None:
        hint_at_pretrained(config.data, len(data.train))
    probe = probe_for("teacher", network, config.training, config.data, data)
    return _Ready(prepared, network, labels_used, stages, build, prepared.inputs(preprocessing), probe)
