"""What `bssl-tf finetune` does: the whole of a pretrained network, trained with labels for a task.

    RUN/start/          the network that it starts from, so that the other run is not needed any more
    RUN/teacher_head/   of a run with a teacher: the classifier that was fitted on its features

Nothing here knows what the task is; see `bssl_tf.tasks`.
"""

from __future__ import annotations

import dataclasses
import hashlib
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bssl_tf.data.image_set import ImageSet
from bssl_tf.data.open import data_name, open_data
from bssl_tf.engine.configuration import configured, refuse_begun
from bssl_tf.engine.loop import named_variables
from bssl_tf.engine.preparation import Prepared, prepare
from bssl_tf.engine.probe import Validation
from bssl_tf.engine.run_folder import RunFolder
from bssl_tf.engine.stages import STAGES, Stage, in_float
from bssl_tf.errors import ConfigError
from bssl_tf.methods.method import Ingredients
from bssl_tf.methods.recipe import Recipe
from bssl_tf.models.binarization import binary_layers
from bssl_tf.models.layers import built_for_replicas, freeze_batch_norm
from bssl_tf.models.precision import in_precision
from bssl_tf.seeding import named_seed
from bssl_tf.settings import FinetuneConfig, read_run_config
from bssl_tf.tasks import find_task
from bssl_tf.tasks.fine_tuned import save_fine_tuned
from bssl_tf.tasks.task import Purpose, Task
from bssl_tf.workflows.distilling import Taught, taught_by
from bssl_tf.workflows.start import Start, from_random, settle_start
from bssl_tf.workflows.training import ReadyRun, chosen_for

_log = logging.getLogger(__name__)
# The standard error of a share of 100 is five points at most.
_LEAST_LABELS = 100


@dataclass(frozen=True)
class _Ready(ReadyRun[FinetuneConfig]):
    """With the task, what is kept of what it starts from and its teacher, and the recipe of its first stage."""

    task: Task[Any]
    start: Start
    taught: Taught | None
    probe: Validation | None
    recipe: Recipe


def finetune(settings: dict[str, Any], out: Path, *, resume: bool, budget: str | None = None) -> Path:
    """Trains the whole network of a pretrained student with labels.

    Args:
        settings: tables of `FinetuneConfig` and of its method; with `resume` they may only repeat what the run has, or
            name more epochs, for which training then continues.
        out: the run folder.
        resume: go on with the run in `out`, if there is one already.
        budget: how long it may take, such as `30m`, which then chooses the epochs.

    Returns:
        `out/student`, where the trained backbone is saved; its head is in `out/head`.

    Raises:
        BsslError: see `bssl_tf.errors`; every message ends with what to do next.
    """
    ready = ready_to_finetune(settings, out, resume=resume, budget=budget)
    with ready.prepared.opened_folder(ready.made_from, ready.labels_used) as folder:
        chief = ready.prepared.distribution.is_chief
        if chief:
            ready.start.save(out)
            if ready.taught is not None:
                ready.taught.save(out)
        inputs = None
        if ready.taught is not None:
            epochs = ready.prepared.run.sections.teacher_cache_epochs
            inputs = ready.inputs_with_teacher(ready.recipe, epochs, ready.taught.fingerprint())
        recipe = ready.train(folder, inputs)
        if chief:
            if ready.probe is not None:
                _take_best(folder, recipe, ready.probe)
            names = ready.task.class_names(ready.prepared.data.train)
            model, backbone = recipe.trained["student"], ready.start.build()
            twin = not ready.stages[-1].binary_activations
            seen = ready.inputs.preprocessing
            save_fine_tuned(out, ready.task, names, ready.network, model, backbone, seen, float_twin=twin)
    return out / "student"


def ready_to_finetune(settings: dict[str, Any], out: Path, *, resume: bool, budget: str | None = None) -> _Ready:
    """What `finetune` with the same arguments would train. Writes nothing into `out`. Raises what that does."""
    refuse_begun(out, resume)
    if budget is not None:
        settings = chosen_for(
            budget, FinetuneConfig, settings, out, lambda trial: ready_to_finetune(trial, out, resume=resume)
        )
    task = _task(settings, out)
    settings, start = settle_start(settings, out, resizes=task.resizes)
    configuration = configured(FinetuneConfig, settings, out)
    wanted = configuration.sections
    if wanted.training.probe_data:
        raise ConfigError(
            "training.probe_data is set, and fine-tuning validates on images of its own data",
            "Omit it; to choose them, put them into val/ next to train/ and test/",
        )
    if wanted.data.image_width and not task.resizes:
        raise ConfigError(f"a network for {task.name} sees squares", "Omit --image-width")
    if wanted.teacher and not task.distils:
        raise ConfigError(f"the task {task.name} does not learn from a teacher", "Omit --teacher")
    prepared = prepare(configuration, out, lambda data: task.open(data, validation=wanted.validation != "never"))
    prepared, held_out, made_from = _held_out(prepared, task)
    unlabelled = _unlabelled(wanted, [prepared.data.test, held_out])
    run, config, labelled = prepared.run, prepared.run.sections, prepared.data.train
    if start is None:
        start = from_random(config, task.fit_preprocessing(labelled, config.data.image_size))
    preprocessing = dataclasses.replace(
        start.network.preprocessing, image_size=config.data.image_size, image_width=config.data.image_width
    )
    made_from["student"] = start.fingerprint()
    if unlabelled is not None:
        made_from["unlabelled"] = unlabelled.fingerprint()
    taught = None
    if config.teacher:
        with prepared.distribution.scope():
            taught = taught_by(config, preprocessing, labelled, unlabelled, held_out, out)
        made_from["teacher"] = taught.teacher.fingerprint()
    clauses = [start.network.labels_used, f"the labels of {data_name(config.data.source)}"]
    clauses.append(taught.teacher.labels_used if taught is not None else None)
    # A run that goes on keeps what it was begun with.
    labels_used = run.labels_used or _joined(clauses)
    network = dataclasses.replace(start.network, labels_used=labels_used)
    outputs = taught.outputs if taught is not None else None
    classes, counts = task.class_names(labelled), task.class_counts(labelled)
    purpose = Purpose(task, classes, counts, outputs, preprocessing.height, preprocessing.width)
    # Latent weights of a student were trained as binary ones already; random ones are binarised in two stages.
    epochs = config.training.epochs
    stages = (Stage("finetune", True, epochs),) if config.student else STAGES["progressive"](epochs)
    if config.float_twin:
        stages = in_float(sum(stage.epochs for stage in stages))

    def build(stage: Stage) -> Recipe:
        backbone = built_for_replicas(start.build, named_seed(config.training.seed, "student weights"))
        backbone = in_precision(backbone, config.training.precision)
        if config.batch_norm == "frozen" or (
            config.batch_norm == "auto" and config.student and not binary_layers(backbone)
        ):
            freeze_batch_norm(backbone)
        first, binary = stage is stages[0], stage.binary_weights
        given = Ingredients(
            backbone,
            "student",
            None,
            len(classes),
            config.training,
            stage.epochs,
            first,
            purpose,
            binary,
            stage.binary_activations,
        )
        return run.method.build(run.own, given)

    inputs = prepared.labelled_inputs(preprocessing, task, unlabelled, config.unlabelled_ratio)
    recipe = prepared.try_out(build, stages, inputs.per_row)
    every = config.training.probe_every
    validation = Validation(task, held_out, preprocessing, every) if every and held_out is not None else None
    return _Ready(
        prepared, network, made_from, labels_used, stages, build, inputs, validation, task, start, taught, recipe
    )


def _joined(clauses: Sequence[str | None]) -> str:
    """The clauses with "and" between, without those that others contain: a fine-tuned teacher has the same labels."""
    kept = list(dict.fromkeys(clause for clause in clauses if clause))
    # As wholes: "the labels of a" is no part of "the labels of ab".
    return " and ".join(
        one for one in kept if not any(f" and {one} and " in f" and {other} and " for other in kept if other != one)
    )


def _task(settings: dict[str, Any], out: Path) -> Task[Any]:
    """That of a run that continues, else the one in the settings. Raises `ConfigError`."""
    begun = read_run_config(out) if (out / "config.toml").exists() else {}
    return find_task(str(begun.get("task") or settings.get("task") or FinetuneConfig.task))


def _unlabelled(config: FinetuneConfig, tested_on: Sequence[ImageSet | None]) -> ImageSet | None:
    """The images that the teacher alone labels, without those to test on; None where there are none."""
    if not config.unlabelled:
        return None
    data = open_data(dataclasses.replace(config.data, source=config.unlabelled), labels_needed=False)
    images = data.train
    # Streamed sets would be decoded for it.
    tests = [one for one in tested_on if one is not None and isinstance(one.images, np.ndarray)]
    if tests and isinstance(images.images, np.ndarray):
        known = {_digest(image) for one in tests for image in one.images}
        kept = [place for place, image in enumerate(images.images) if _digest(image) not in known]
        if left := len(images) - len(kept):
            _log.info(f"{data.name}: left out {left} image{'s' * (left > 1)} that the network is tested on")
            images = images.subset(kept)
    _log.info(f"{data.name}: {len(images)} images without labels")
    return images


def _digest(image: NDArray[np.uint8]) -> bytes:
    return hashlib.sha256(np.ascontiguousarray(image).data).digest()


def _held_out(
    prepared: Prepared[FinetuneConfig], task: Task[Any]
) -> tuple[Prepared[FinetuneConfig], Any, dict[str, str]]:
    """The run with what it is to learn from; what to stop by, None for nothing; and fingerprints of both."""
    data, made_from = prepared.data, {"data": prepared.data.train.fingerprint()}
    wanted = prepared.run.sections.validation
    if wanted == "never":
        return prepared, None, made_from
    if data.validation is not None and len(data.validation):
        made_from["validation"] = data.validation.fingerprint()
        kept: Any = data.validation
    else:
        train_part, kept = task.held_out(data.train, named_seed(prepared.run.sections.training.seed, "validation"))
        # Of an image there may be several, or of a task without classes none.
        labels = max(len(kept), int(task.class_counts(kept).sum())) if len(kept) else 0
        if labels < (_LEAST_LABELS if wanted == "auto" else 1):
            _log.info(
                f"training learns from all {len(data.train)} images and ends after its last epoch: of fewer than "
                f"{6 * _LEAST_LABELS} labels, too few are held out to show which epoch is the best"
            )
            return prepared, None, made_from
        data = dataclasses.replace(data, train=train_part)
    _log.info(f"{len(data.train)} images to learn from, {len(kept)} to stop early by")
    return dataclasses.replace(prepared, data=data), kept, made_from


def _take_best(folder: RunFolder, recipe: Recipe, validation: Validation) -> None:
    """Puts the weights of the best probe in the place of the last ones."""
    found = folder.best()
    if found is None:
        return
    step, tensors = found
    for name, variable in named_variables(recipe.trained).items():
        variable.assign(tensors[name])
    _log.info(f"kept the weights of step {step}: {folder.described(step)} of {validation.images} validation images")
