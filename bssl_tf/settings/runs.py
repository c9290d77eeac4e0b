"""The settings common to all runs; a method's own table is declared with the method, in `bssl_tf.methods`."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import tomli_w

from bssl_tf.errors import RunFolderError
from bssl_tf.files import write_text
from bssl_tf.settings.data import DataConfig
from bssl_tf.settings.imports import read_import
from bssl_tf.settings.reading import NotNegativeInt, PositiveInt, Table
from bssl_tf.settings.tables import read_toml
from bssl_tf.settings.training import AugmentationConfig, BackboneConfig, TrainingConfig

COMMANDS = ("teacher", "pretrain", "finetune")


@dataclass(frozen=True)
class TeacherConfig(Table):
    """A run of `bssl-tf teacher`.

    Attributes:
        command: the command that started the run.
        method: `moco`, `byol`, or another method that trains teachers.
    """

    command: Literal["teacher"] = "teacher"
    method: str = "moco"
    data: DataConfig = field(default_factory=DataConfig)
    backbone: BackboneConfig = field(default_factory=lambda: BackboneConfig("float_resnet"))
    augmentation: AugmentationConfig = field(default_factory=lambda: AugmentationConfig("moco_v2"))
    training: TrainingConfig = field(
        default_factory=lambda: TrainingConfig(schedule="cosine", warmup_epochs=1.0, learning_rate=1e-3)
    )


@dataclass(frozen=True)
class PretrainConfig(Table):
    """A run of `bssl-tf pretrain`.

    Attributes:
        command: the command that started the run.
        method: `s2bnn`, `bssl`, a baseline without a teacher (`moco`, `byol`, `swav`, `supervised`), or one provided by
            an installed package.
        stages: `progressive` binarises activations first and weights in a second stage; `direct`, both at once.
        teacher: a run folder of `bssl-tf teacher`, a saved Keras model (.keras or .h5), or an ONNX file.
        teacher_pixels: pixels of a saved model's input: `normalized` for (x - mean) / std of this data, `0..1`,
            `-1..1`, `0..255`, `imagenet`, `clip`, or MEAN/STD in units of pixel / 255, with commas between channels;
            `auto` for `normalized`, or for what an ONNX file shows.
        teacher_image_size: input size of a saved model that takes any, pixels per side; 0 for the student's.
        initial: `zoo:NAME` to start from the weights of that student; empty for random weights, of a saved Keras model
            for its own; `random` for random weights of a saved model as well.
        teacher_layout: axes of an ONNX file's input: `nchw`, `nhwc`, or `auto` for what it shows.
        teacher_output: tensor of an ONNX file that holds the features; empty to choose one.
        teacher_cache_epochs: repeat the views of this many epochs, and keep the teacher's outputs for them on disk;
            0 for fresh views in every epoch. With an ONNX teacher, 2 unless set.
    """

    command: Literal["pretrain"] = "pretrain"
    method: str = "s2bnn"
    stages: Literal["progressive", "direct"] = "progressive"
    teacher: str = ""
    teacher_pixels: str = "auto"
    teacher_image_size: NotNegativeInt = 0
    teacher_layout: str = "auto"
    teacher_output: str = ""
    initial: str = ""
    teacher_cache_epochs: NotNegativeInt = 0
    data: DataConfig = field(default_factory=DataConfig)
    backbone: BackboneConfig = field(default_factory=lambda: BackboneConfig("binary_resnet"))
    augmentation: AugmentationConfig = field(default_factory=AugmentationConfig)
    training: TrainingConfig = field(default_factory=TrainingConfig)


@dataclass(frozen=True)
class FinetuneConfig(Table):
    """A run of `bssl-tf finetune`.

    Attributes:
        command: the command that started the run.
        method: `finetune`, or a fine-tuning method of an installed package.
        task: what the network is trained for: `classification`, `multilabel`, `detection`, or a task of an installed
            package.
        student: the network to start from: a run folder of `bssl-tf pretrain` or `bssl-tf finetune`, `zoo:NAME`, or a
            float network, of `bssl-tf teacher`; empty for `backbone` with random weights.
        validation: whether images are held out to stop early and to keep the best weights: those of a folder `val/`
            next to `train/` and `test/`, or one training image in six of each class. `auto` holds out these only if
            they have 100 labels or more, since fewer do not show which epoch is the best; `always`; or `never`.
        batch_norm: `trained`; or `frozen`, which keeps its statistics and its weights, as small batches would spoil
            what many images made; `auto` freezes that of a float network that was trained before.
        teacher: a float network to distil from, as in `pretrain`, or a run of `bssl-tf finetune`; empty for none.
        unlabelled: images without labels, which the teacher labels softly; an epoch then goes through these.
        unlabelled_ratio: how many of them a batch has for each labelled image.
        teacher_cache_epochs: as in `pretrain`; without a teacher it has no effect.
        teacher_pixels: as in `pretrain`.
        teacher_image_size: as in `pretrain`.
        teacher_layout: as in `pretrain`.
        teacher_output: as in `pretrain`.
        data: labelled images; size and channels are the student's, but for the size of a detector.
        backbone: the student's, which cannot be changed; without one, the network that gets random weights.
        float_twin: nothing is quantised: the same layers in float, for as many epochs, to see what binary weights and
            activations cost. It is evaluated, and not exported.
    """

    command: Literal["finetune"] = "finetune"
    method: str = "finetune"
    task: str = "classification"
    student: str = ""
    validation: Literal["auto", "always", "never"] = "auto"
    batch_norm: Literal["auto", "trained", "frozen"] = "auto"
    teacher: str = ""
    unlabelled: str = ""
    unlabelled_ratio: PositiveInt = 3
    teacher_cache_epochs: NotNegativeInt = 0
    teacher_pixels: str = "auto"
    teacher_image_size: NotNegativeInt = 0
    teacher_layout: str = "auto"
    teacher_output: str = ""
    data: DataConfig = field(default_factory=DataConfig)
    backbone: BackboneConfig = field(default_factory=lambda: BackboneConfig(""))
    augmentation: AugmentationConfig = field(default_factory=lambda: AugmentationConfig("weak", 0.5))
    training: TrainingConfig = field(
        default_factory=lambda: TrainingConfig(epochs=60, batch_size=32, learning_rate=1e-3, probe_every=1, patience=15)
    )
    float_twin: bool = False


def read_run_config(run: Path) -> dict[str, Any]:
    """The tables of a run folder's config.toml; `command` is one of `COMMANDS`.

    Raises:
        RunFolderError: `run` is not a run folder, or its config.toml does not name the command that started it.
        ConfigError: the file is not TOML.
    """
    path = run / "config.toml"
    if not path.is_file() and read_import(run) is not None:
        raise RunFolderError(f"{run} holds an imported teacher, not a run", "Name a folder of `bssl-tf pretrain`")
    if not path.is_file():
        raise RunFolderError(f"{run} is not a run folder (it has no config.toml)", "Check the path")
    content = read_toml(path)
    if not content:
        raise RunFolderError(f"{path} is empty", "Restore it from a copy; the run's settings were in it")
    if content.get("command") not in COMMANDS:
        raise RunFolderError(
            f"{path} does not name the command that started the run",
            f"Write one of command = {', '.join(map(repr, COMMANDS))} at its top".replace("'", '"'),
        )
    return content


def write_config(path: Path, tables: dict[str, Any]) -> None:
    """Writes a run's tables, including defaults, as TOML. Raises `StorageError`."""
    write_text(path, tomli_w.dumps(tables))
