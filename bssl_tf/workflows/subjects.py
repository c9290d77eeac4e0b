"""What can be exported: the student of a run with its probe or head, or a Keras 2 classifier not trained here."""

from __future__ import annotations

import dataclasses
import logging
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bssl_tf.backend import keras
from bssl_tf.data.image_set import ImageSet
from bssl_tf.data.open import data_name, open_data
from bssl_tf.errors import ConfigError, ConversionError, MissingDataError
from bssl_tf.evaluation.linear_probe import load_probe
from bssl_tf.files import read_regular
from bssl_tf.keras_files.files import ZOO_PREFIX
from bssl_tf.keras_files.models import ZOO_MEAN, ZOO_STD
from bssl_tf.models.saved import load_weights, read_network
from bssl_tf.preprocessing import Preprocessing
from bssl_tf.settings import DataConfig, FinetuneConfig, PretrainConfig
from bssl_tf.tasks import find_task
from bssl_tf.tasks.fine_tuned import has_head, load_fine_tuned
from bssl_tf.tasks.task import Task
from bssl_tf.workflows.networks import open_network
from bssl_tf.workflows.run_folders import run_config
from bssl_tf_converters.lce.deployable import with_classifier
from bssl_tf_converters.lce.export import without_softmax
from bssl_tf_deploy.manifest import NetworkDescription, Training
from bssl_tf_deploy.tasks.classification import NAME, Probe, Table

_MAX_LABELS_BYTES = 1 << 24
_log = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class Subject:
    """A network and what its bundle states about it, apart from the conversion.

    Attributes:
        task: what the network is for.
        table: the task's part of the manifest, without what is measured in the conversion.
        model: from preprocessed images to the task's outputs.
        preprocessing: of images.
        image_set: labelled data of the task: what to compare on, and to choose golden inputs from.
        train: what to calibrate on; where it is `image_set`, there are no held-out images to measure accuracy on.
        network: how to build it.
        training: where its weights come from, if that was bssl-tf.
    """

    task: Task[Any]
    table: Any
    model: keras.Model
    preprocessing: Preprocessing
    image_set: Any
    train: Any
    network: NetworkDescription
    training: Training | None


def from_run(run: Path, data_dir: str | None) -> Subject:
    """The student of an evaluated run of `bssl-tf pretrain` with its linear probe, or of `finetune` with its head.

    Args:
        run: the run folder.
        data_dir: where TFDS keeps its data; None for where it was in the evaluation.

    Raises:
        RunFolderError: the run is not finished, or was not evaluated.
        DataError: its data set is not there.
    """
    config = run_config(run)
    if has_head(run):
        return _fine_tuned(run, config, data_dir)
    probe = load_probe(run / "probe")
    network = read_network(run / "student")
    student = network.build()
    load_weights(run / "student", {"student": student})
    source = probe.data.source
    again = f"bssl-tf evaluate {shlex.quote(str(run))} --data FOLDER"
    try:
        data = open_data(dataclasses.replace(probe.data, data_dir=data_dir or probe.data.data_dir), labels_needed=True)
    except MissingDataError as error:
        raise error.with_next_step(
            f"{run / 'probe/probe.json'} names it, relative to where the run was evaluated: `{again}` with its path"
        ) from error
    return Subject(
        find_task(NAME),
        Table(probe.class_names, Probe(data_name(source), probe.top1), None),
        with_classifier(student, probe.weights, probe.bias),
        network.preprocessing,
        data.test if data.test is not None and len(data.test) else data.train,
        data.train,
        NetworkDescription(network.backbone, network.arguments),
        Training(config.method, data_name(config.data.source), network.labels_used, config.training.seed),
    )


def _fine_tuned(run: Path, config: PretrainConfig | FinetuneConfig, data_dir: str | None) -> Subject:
    tuned, data_config = load_fine_tuned(run), config.data
    if tuned.float_twin:
        raise ConversionError(
            f"{run} is a float twin, which shows what a binary network loses", "Export the binary network"
        )
    try:
        data = tuned.task.open(
            dataclasses.replace(data_config, data_dir=data_dir or data_config.data_dir), validation=False
        )
    except MissingDataError as error:
        raise error.with_next_step(
            f"{run / 'config.toml'} names it, relative to where the run was started: export there"
        ) from error
    network = tuned.network
    return Subject(
        tuned.task,
        tuned.task.table(tuned.class_names, tuned.model),
        tuned.model,
        tuned.preprocessing,
        data.test if data.test is not None and len(data.test) else data.train,
        data.train,
        NetworkDescription(network.backbone, network.arguments),
        Training(config.method, data_name(data_config.source), network.labels_used, config.training.seed),
    )


def from_model(
    source: str,
    *,
    weights: str | Path | None,
    data: str | Path | None,
    data_dir: str | None,
    labels: str | Path | None,
    mean: Sequence[float] | None,
    std: Sequence[float] | None,
) -> Subject:
    """A Keras 2 classifier and the images it is for; see `bssl_tf.workflows.export.export`.

    Raises:
        ConfigError: no data set is named, or `labels`, `mean` or `std` do not fit the model.
        ConversionError: the model is not a classifier of square images.
    """
    if not data:
        raise ConfigError(
            f"{source} does not state what images it is for",
            "Pass --data FOLDER, --data tfds:NAME or --data embedded, and --mean and --std as in its training",
        )
    model = without_softmax(open_network(source, Path(weights) if weights else None))
    task = find_task(NAME)
    task.outputs(model)
    height, width, channels = model.input.shape[1:] if len(model.input.shape) == 4 else (0, 1, 0)
    if height != width or not height or channels not in (1, 3):
        raise ConversionError(
            f"{source} takes {list(model.input.shape)}, and bundles are for square images, grey or RGB",
            "Build the model for images [S, S, 1] or [S, S, 3] of a fixed size",
        )
    usual = (ZOO_MEAN, ZOO_STD) if source.startswith(ZOO_PREFIX) else ((0.0,), (1.0,))
    mean, std = (
        tuple(numbers) * channels if len(numbers) == 1 else tuple(numbers)
        for numbers in (mean or usual[0], std or usual[1])
    )
    try:
        preprocessing = Preprocessing(height, channels, mean, std)
    except ConfigError as error:
        raise ConfigError(
            error.what, "Give --mean and --std as in its training: one number, or one per channel"
        ) from error
    config = DataConfig(str(data), data_dir or "", image_size=height, channels=channels)
    splits = open_data(config, labels_needed=False)
    image_set = splits.test if splits.test is not None and len(splits.test) else splits.train
    names = _labels(labels, image_set, model.output.shape[-1])
    network = NetworkDescription(model.name, {})
    return Subject(task, Table(names, None, None), model, preprocessing, image_set, splits.train, network, None)


def _labels(file: str | Path | None, image_set: ImageSet, count: int) -> tuple[str, ...]:
    """One name for each class: out of the file, else the data's if there are as many, else numbers."""
    if file is None:
        if len(image_set.class_names) == count:
            return image_set.class_names
        return tuple(map(str, range(count)))
    try:
        text = read_regular(Path(file), _MAX_LABELS_BYTES).decode("utf-8")
        names = tuple(line.strip() for line in text.splitlines() if line.strip())
    except (OSError, ValueError) as error:
        cause = error.strerror if isinstance(error, OSError) else "it is not text in UTF-8"
        raise ConfigError(f"{file} cannot be read ({cause})", "Give a text file with one label per line") from error
    if len(names) != count:
        raise ConfigError(f"{file} has {len(names)} labels, and the model {count} classes", "Give one label per line")
    return names
