"""Opens a network of any form: a run folder of ours, or a Keras 2 model from elsewhere."""

from __future__ import annotations

from pathlib import Path

# Registers our layers, which a saved model may have.
import bssl_tf.models.layers  # noqa: F401
from bssl_tf.backend import keras
from bssl_tf.errors import ConfigError
from bssl_tf.evaluation.linear_probe import load_probe
from bssl_tf.keras_files.models import open_model
from bssl_tf.models.saved import load_weights, read_network
from bssl_tf.settings import read_import, read_run_config
from bssl_tf.tasks.fine_tuned import has_head, load_fine_tuned
from bssl_tf.teachers.teacher import open_teacher
from bssl_tf.workflows.run_folders import run_config
from bssl_tf_converters.lce.deployable import with_classifier


def open_network(source: str, weights: Path | None = None) -> keras.Model:
    """The network that `source` names, with its weights.

    Args:
        source: a run folder of `bssl-tf pretrain` (its student, with the linear probe on top if there is one) or
            of `bssl-tf finetune` (with its head), a teacher's run or an imported teacher, or what
            `bssl_tf.keras_files.models.open_model` takes.
        weights: a weights file for a network of larq-zoo, which has random ones without.

    Raises:
        ConfigError: `weights` for a model that has its own.
        ConversionError: there is no such model, it is not a Keras 2 model, it would run code, or it is damaged.
        RunFolderError: a run folder is not finished or damaged.
    """
    folder = Path(source)
    imported = read_import(folder) is not None
    if not imported and not (folder / "config.toml").is_file():
        return open_model(source, weights)
    if weights is not None:
        raise ConfigError(f"{source} has weights of its own", "--weights is for larq_zoo:NAME; omit it")
    if imported or read_run_config(folder)["command"] == "teacher":
        return open_teacher(source).backbone
    run_config(folder)
    if has_head(folder):
        return load_fine_tuned(folder).model
    student = read_network(folder / "student").build()
    load_weights(folder / "student", {"student": student})
    if not (folder / "probe").is_dir():
        return student
    probe = load_probe(folder / "probe")
    return with_classifier(student, probe.weights, probe.bias)
