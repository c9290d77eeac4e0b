"""What both kinds of training do before the first step: settings, data, warnings, the run folder."""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic

from bssl_tf.backend import configure
from bssl_tf.data.augmentation import PRESETS, Augmentation
from bssl_tf.data.image_set import DataSplits, ImageSet
from bssl_tf.data.open import open_data
from bssl_tf.data.views import steps_per_epoch
from bssl_tf.engine.configuration import refuse_begun
from bssl_tf.engine.device import CPU, choose_device
from bssl_tf.engine.distribution import Distribution, distribution_of
from bssl_tf.engine.inputs import Inputs, LabelledInputs
from bssl_tf.engine.run_folder import FollowersRunFolder, RunFolder
from bssl_tf.engine.stages import Stage
from bssl_tf.environment import environment, resolved_threads
from bssl_tf.errors import DataError, MissingDataError, RunFolderError
from bssl_tf.files import write_json
from bssl_tf.memory import bounded_variables, require_activations
from bssl_tf.methods.recipe import Recipe
from bssl_tf.methods.registry import AnySections, RunConfig
from bssl_tf.preprocessing import Preprocessing
from bssl_tf.settings import AugmentationConfig, DataConfig, check_choice, merge, read_run_config, write_config
from bssl_tf.tasks.task import Task

_FEW_STEPS = 10
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Prepared(Generic[AnySections]):
    """A run whose settings are decided and whose data is there.

    Attributes:
        run: what was decided.
        data: its images.
        augmentation: what makes a view of one.
        out: its folder; `opened_folder` makes it.
        begun: whether a run was there before.
        distribution: the devices that train it.
        device: what they are, see `choose_device`.
    """

    run: RunConfig[AnySections]
    data: DataSplits
    augmentation: Augmentation
    out: Path
    begun: bool
    distribution: Distribution
    device: str

    def labelled_inputs(
        self, preprocessing: Preprocessing, task: Task[Any], unlabelled: ImageSet | None, ratio: int
    ) -> LabelledInputs:
        """What the loop feeds to a recipe that learns `task`."""
        return LabelledInputs(self.data.train, preprocessing, self.augmentation, task, unlabelled, ratio)

    def inputs(self, preprocessing: Preprocessing) -> Inputs:
        """What the loop feeds to the recipe."""
        return Inputs(self.data.train, preprocessing, self.augmentation, labels=self.run.method.needs_labels)

    def try_out(self, build: Callable[[Stage], Recipe], stages: Sequence[Stage], per_row: int = 1) -> Recipe:
        """Finds what is wrong with networks and batch size before a run folder is made; the first stage's recipe.

        Args:
            build, stages: as for `loop.train`.
            per_row: images that a row of a batch stands for.

        Raises:
            MemoryShortageError: the memory cannot hold them.
        """
        training = self.run.sections.training
        steps_per_epoch(len(self.data.train), training.batch_size)
        # Weight, gradient, and what the optimiser keeps of it.
        copies = 4 if training.optimizer == "adam" else 3
        with bounded_variables("training", "width, queue or head", copies), self.distribution.scope():
            recipe = build(stages[0])
        here = training.batch_size // max(1, len(self.distribution.workers))
        require_activations(recipe.trained.values(), recipe.views * per_row, here)
        return recipe

    @contextlib.contextmanager
    def opened_folder(self, made_from: dict[str, str], labels_used: str | None) -> Iterator[RunFolder]:
        """The run's folder, held against other processes; on resuming, what it is made from must be what it was.

        Args:
            made_from: fingerprints of `data`, and of the `validation` and `unlabelled` images, the `teacher` and a
                `student` that is not built afresh, where there are any.
            labels_used: whose labels the network learns from, a clause; None for nobody's.

        Raises:
            RunFolderError: the folder is taken, another process trains there, or the run was begun with other images,
                teacher, threads or devices.
            StorageError: it cannot be written.
            WorkerError: another worker has stopped.
        """
        # None of the workers may still look whether there is a run when the chief has made its folder.
        self.distribution.wait_for_all()
        if not self.distribution.is_chief:
            self.distribution.wait_for_all()
            yield FollowersRunFolder(self.out)
            return
        folder = RunFolder(self.out)
        # Held before anything is looked at: two commands that were started at once may both have found no run here.
        with folder.locked():
            if not self.begun:
                refuse_begun(self.out, resume=False)
            self._describe(made_from, labels_used)
            self.distribution.wait_for_all()
            yield folder

    def _describe(self, made_from: dict[str, str], labels_used: str | None) -> None:
        """Writes what the run is made of and from, or compares it with what was written."""
        config, images = self.run.sections, len(self.data.train)
        now = environment(config.training.threads) | {
            "fingerprints": made_from,
            "training_images": images,
            "devices": self.distribution.replicas,
            "device": self.device,
        }
        if not self.begun:
            recorded = dataclasses.replace(self.run, labels_used=labels_used or "").tables()
            RunFolder.create(self.out, recorded, now | {"config": recorded})
            return
        tables = self.run.tables()
        path = self.out / "environment.json"
        begun = RunFolder(self.out).environment()
        _check_same(begun, now, self.out, f"images of {config.data.source}")
        # Of a run that was begun before they were recorded, the settings of today.
        known = begun | {"config": begun.get("config", tables)}
        self._plan_longer(known)
        commit = now["commit"]
        if commit is not None and commit not in str(begun.get("commit")).split(", "):
            known["commit"] = f"{begun.get('commit')}, {commit}"
        if known != begun:
            write_json(path, known)
        # Where teacher and images are now.
        if read_run_config(self.out) != tables:
            write_config(self.out / "config.toml", tables)

    def _plan_longer(self, known: dict[str, Any]) -> None:
        """Records in `known`, of environment.json, from which step on the run has more epochs than before."""
        folder, epochs = RunFolder(self.out), self.run.sections.training.epochs
        planned = folder.planned_epochs()
        if epochs <= planned[-1][1]:
            return
        step = folder.newest_step()
        _log.info(f"training continues from step {step} with {epochs} epochs per stage in place of {planned[-1][1]}")
        if (self.out / "evaluation.json").exists():
            _log.warning(f"{self.out / 'evaluation.json'} is about the network of before; evaluate again afterwards")
        planned.append((step, epochs))
        known["planned_epochs"] = [{"step": step, "epochs": epochs} for step, epochs in planned]
        known["config"] = merge(known["config"], {"training": {"epochs": epochs}})


def prepare(
    run: RunConfig[AnySections], out: Path, open_labelled: Callable[[DataConfig], DataSplits] | None = None
) -> Prepared[AnySections]:
    """Configures TensorFlow and opens the data of a run that goes on, or is to be begun, in `out`.

    Args:
        run: see `configuration.configured`.
        out: the run folder.
        open_labelled: opens the data in place of `open_data`, for a task.

    Raises:
        BsslError: see `bssl_tf.errors`.
    """
    begun, config = (out / "config.toml").exists(), run.sections
    # All that needs no data is checked before the data, which may take an hour to decode.
    augmentation = augmentation_of(config.augmentation)
    training, labels = config.training, run.method.needs_labels
    # Device, threads and determinism must be set before TensorFlow does anything, even for the data.
    device = choose_device(training.device, training.distribute)
    configure(resolved_threads(training.threads), training.precision, deterministic=training.deterministic)
    distribution = distribution_of(
        training.distribute, training.batch_size, synchronized_batch_norm=training.synchronized_batch_norm
    )
    try:
        data = open_labelled(config.data) if open_labelled else open_data(config.data, labels_needed=labels)
    except MissingDataError as error:
        if not begun:
            raise
        raise error.with_next_step(
            f"{out / 'config.toml'} names it: resume in the folder where the run was started, put the images back, "
            "or name their new place with --data"
        ) from error
    if labels and open_labelled is None and data.train.labels is None:
        raise DataError(
            f"{data.name} has no labels, and {run.method.name} training needs them",
            "Pass --data with one sub-folder for each class, or choose a method that needs no labels",
        )
    streamed = data.train.loading == "streamed"
    way = ", streamed" * streamed
    _log.info(f"{data.name}: {len(data.train)} training images, {config.data.image_size} px{way}")
    if training.accumulate > 1:
        size = training.batch_size // training.accumulate
        _log.info(f"a step takes {training.accumulate} parts of {size} images; batch norm sees {size} at a time")
    if not begun:
        for line in few_images(run, len(data.train)):
            _log.warning(line)
        settled = dataclasses.replace(config.data, channels=data.train.channels)
        if streamed:
            settled = dataclasses.replace(settled, loading="streaming")
        run = dataclasses.replace(run, sections=dataclasses.replace(config, data=settled))
    return Prepared(run, data, augmentation, out, begun, distribution, device)


def augmentation_of(config: AugmentationConfig) -> Augmentation:
    """Raises `ConfigError` for an unknown name, or an area that is out of range."""
    check_choice("augmentation.name", config.name, PRESETS)
    made = dataclasses.replace(PRESETS[config.name], min_area=config.min_area)
    return made if config.flip else dataclasses.replace(made, flip_probability=0.0)


def few_images(run: RunConfig[Any], images: int) -> list[str]:
    """Advice about settings for far larger data sets, such as the papers', with which nothing much would be learnt."""
    training = run.sections.training
    steps = images // training.batch_size
    if not steps:  # an error, a moment later
        return []
    lines = []
    # Labelled images are few, and seen in many epochs.
    if steps < _FEW_STEPS and not run.method.fine_tunes:
        smaller = max(8, 2 ** int(math.log2(max(images // _FEW_STEPS, 1))))
        less = f"pass --batch-size {smaller}, or " if smaller < training.batch_size else ""
        lines.append(
            f"an epoch has {steps} step{'s' * (steps > 1)} ({images} images in batches of {training.batch_size}), too "
            f"few to learn much; {less}add images (--preset demo is for short trainings)"
        )
    return [*lines, *run.method.advise(run.own, training, images)]


def _check_same(begun: dict[str, Any], now: dict[str, Any], out: Path, images: str) -> None:
    """Raises `RunFolderError` unless data, teacher, threads and devices are those that the run was begun with."""
    fingerprints = begun.get("fingerprints")
    parts = (
        ("data", images),
        ("validation", "validation images"),
        ("unlabelled", "images without labels"),
        ("teacher", "weights of the teacher"),
        ("student", "layers and weights of the student"),
    )
    for part, name in parts:
        known = fingerprints.get(part) if isinstance(fingerprints, dict) else None
        if part in now["fingerprints"] and known != now["fingerprints"][part]:
            raise RunFolderError(
                f"the {name} are not those with which the run in {out} was started",
                "Restore them, or start another run with another --out",
            )
    if begun.get("threads") != now["threads"]:
        raise RunFolderError(
            f"the run in {out} was started with {begun.get('threads')} threads, but now there are {now['threads']}",
            "Resume it where that many cores are free; sums are split by thread, so the result would differ",
        )
    if begun.get("devices", 1) != now["devices"]:
        raise RunFolderError(
            f"the run in {out} was started on {begun.get('devices', 1)} devices, but now there are {now['devices']}",
            "Resume it on that many; sums are split by device, so the result would differ",
        )
    if begun.get("device", CPU) != now["device"]:
        raise RunFolderError(
            f"the run in {out} was started on {begun.get('device', CPU)}, but this device is {now['device']}",
            "Resume it on one of that kind (--device); the order of sums depends on it, so the result would differ",
        )
