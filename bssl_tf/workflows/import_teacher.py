"""Makes a teacher folder of a published float checkpoint."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from bssl_tf import __version__
from bssl_tf.backend import keras
from bssl_tf.models.heads import mlp_head
from bssl_tf.models.saved import Network, save_network
from bssl_tf.settings import Import, write_import
from bssl_tf.workflows.import_options import settle_options
from bssl_tf_converters.checkpoints.teacher_formats import FORMATS
from bssl_tf_converters.checkpoints.teacher_weights import (
    Weight,
    installed_checkpoint,
    not_of_format,
    read_teacher_weights,
)
from bssl_tf_deploy.system_errors import system_errors

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class ImportedTeacher:
    """A teacher folder, for `pretrain`.

    Attributes:
        path: the folder.
        network: the folder in it with backbone and head.
        labels_used: whether its weights were trained with labels.
    """

    path: Path
    network: Path
    labels_used: bool

    def __fspath__(self) -> str:
        return str(self.path)


@system_errors()
def import_teacher(
    format: str, checkpoint: str | Path | None = None, *, out: str | Path, image_size: int = 224
) -> ImportedTeacher:
    """Makes a teacher folder, for `bssl-tf pretrain --teacher`, from a published checkpoint.

    Writes `out/teacher` (see `bssl_tf.models.saved`) and `out/import.json`: format, the file's name and SHA-256, and
    whether labels were used.

    Args:
        format: a key of `bssl_tf_converters.checkpoints.teacher_formats.FORMATS`.
        checkpoint: the file; None, for `efficientnet_lite0` only, for the one in the installed package.
        out: a new or empty folder.
        image_size: input size of the teacher, pixels per side; a student may have another.

    Raises:
        ConfigError: the format is unknown, or the image size is out of range.
        NetworkError: the checkpoint is missing, damaged, or not of this format; or the package is not installed.
        RunFolderError: `out` is taken.
        StorageError: `out` cannot be written.
    """
    name, out = format.replace("-", "_"), Path(out)
    preprocessing = settle_options(name, out, image_size, checkpoint)
    form = FORMATS[name]
    labels_used = f"ImageNet's labels ({name})" if form.labels_used else None
    network = Network(form.backbone, preprocessing, dict(form.sizes), form.head, form.head_batch_norm, labels_used)
    source = Path(checkpoint) if checkpoint else installed_checkpoint(name)
    _log.info(f"reading {source.name}")
    weights = read_teacher_weights(name, source)
    parts = {"teacher": network.build()}
    _fill(parts["teacher"], weights.backbone, source, name)
    if form.head:
        width = parts["teacher"].output_shape[-1]
        parts["head"] = mlp_head("head", width, form.head, use_batch_norm=form.head_batch_norm)
        _fill(parts["head"], weights.head, source, name)
    save_network(out / "teacher", network, parts)
    write_import(out, Import(name, source.name, weights.sha256, form.labels_used, __version__))
    if form.labels_used:
        _log.info("these weights were trained with ImageNet's labels: state this with every figure for their students")
    return ImportedTeacher(out, out / "teacher", form.labels_used)


def _fill(model: keras.Model, weights: dict[str, list[Weight]], source: Path, name: str) -> None:
    """Gives every layer of `model` its weights; raises `NetworkError` for one that is missing or does not fit."""
    with_weights = [layer for layer in model.layers if layer.weights]
    assert {layer.name for layer in with_weights} == set(weights), "a format names every layer of its network"
    for layer in with_weights:
        for weight, variable in zip(weights[layer.name], layer.weights, strict=True):
            shape = tuple(variable.shape)
            if weight.values.shape != shape:
                raise not_of_format(
                    source,
                    name,
                    f"tensor {weight.source!r} gives layer {layer.name} weights of shape {list(weight.values.shape)}, "
                    f"not {list(shape)}",
                )
        layer.set_weights([np.asarray(weight.values) for weight in weights[layer.name]])
