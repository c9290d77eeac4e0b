"""What `bssl-tf teacher` does: a float teacher, trained without labels."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

from bssl_tf.backend import keras
from bssl_tf.data.open import count_images, data_name
from bssl_tf.data.preprocessing import fit_preprocessing
from bssl_tf.engine.configuration import configured, refuse_begun
from bssl_tf.engine.preparation import prepare
from bssl_tf.engine.stages import Stage
from bssl_tf.methods.method import Ingredients
from bssl_tf.methods.recipe import Recipe
from bssl_tf.models.layers import built_for_replicas
from bssl_tf.models.precision import in_precision
from bssl_tf.models.saved import Network, save_network
from bssl_tf.seeding import named_seed
from bssl_tf.settings import TeacherConfig
from bssl_tf.workflows.probing import hint_at_pretrained, probe_for
from bssl_tf.workflows.training import ReadyRun, chosen_for


def train_teacher(settings: dict[str, Any], out: Path, *, resume: bool, budget: str | None = None) -> Path:
    """Trains a float teacher without labels.

    Args:
        settings: tables of `TeacherConfig` and of its method; with `resume` they may only repeat what the run has, or
            name more epochs, for which training then continues.
        out: the run folder.
        resume: go on with the run in `out`, if there is one already.
        budget: how long it may take, such as `30m`, which then chooses what `settings` do not.

    Returns:
        `out/teacher`, where the trained network is saved.

    Raises:
        BsslError: see `bssl_tf.errors`; every message ends with what to do next.
    """
    ready = ready_to_train_teacher(settings, out, resume=resume, budget=budget)
    with ready.prepared.opened_folder(ready.made_from, ready.labels_used) as folder:
        recipe = ready.train(folder)
        backbone, head = recipe.trained["teacher"], recipe.trained["head"]
        norms = [layer for layer in head.layers if isinstance(layer, keras.layers.BatchNormalization)]
        widths = tuple(layer.units for layer in head.layers if isinstance(layer, keras.layers.Dense))
        network = dataclasses.replace(ready.network, head=widths, head_batch_norm=bool(norms))
        if ready.prepared.distribution.is_chief:
            save_network(out / "teacher", network, {"teacher": backbone, "head": head})
    return out / "teacher"


def ready_to_train_teacher(
    settings: dict[str, Any], out: Path, *, resume: bool, budget: str | None = None
) -> ReadyRun[TeacherConfig]:
    """What `train_teacher` with the same arguments would train. Writes nothing into `out`. Raises what that does."""
    refuse_begun(out, resume)
    if budget is not None:
        settings = chosen_for(
            budget, TeacherConfig, settings, out, lambda trial: ready_to_train_teacher(trial, out, resume=resume)
        )
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
        classes = len(data.train.class_names)
        backbone = built_for_replicas(network.build, named_seed(config.training.seed, "teacher weights"))
        backbone = in_precision(backbone, config.training.precision)
        given = Ingredients(backbone, "teacher", None, classes, config.training, stage.epochs, True)
        return run.method.build(run.own, given)

    prepared.try_out(build, stages)
    if counted is None:
        hint_at_pretrained(config.data, len(data.train))
    probe = probe_for("teacher", network, config.training, config.data, data)
    made_from, inputs = {"data": data.train.fingerprint()}, prepared.inputs(preprocessing)
    return ReadyRun(prepared, network, made_from, labels_used, stages, build, inputs, probe)
