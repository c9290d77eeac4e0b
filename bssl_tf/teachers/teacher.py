"""A frozen float teacher: features for joint classifier training, an embedding for distillation."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import logging
import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

# Registers our layers, which a saved model may have.
import bssl_tf.models.layers  # noqa: F401
from bssl_tf.backend import keras, tf
from bssl_tf.errors import ConfigError, ConversionError, NetworkError
from bssl_tf.keras_files.models import open_file
from bssl_tf.memory import bounded_variables
from bssl_tf.models.heads import mlp_head
from bssl_tf.models.saved import load_weights, read_network
from bssl_tf.preprocessing import MAX_IMAGE_SIZE, MIN_IMAGE_SIZE, Preprocessing
from bssl_tf.settings import read_run_config
from bssl_tf.teachers.inputs import NOTHING_SAID, ONNX_SUFFIX, TeacherInput, TeacherOptions
from bssl_tf.teachers.onnx_network import OnnxNetwork
from bssl_tf.teachers.place import check_place

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Teacher:
    """A backbone and its projection head, both in inference mode.

    Attributes:
        name: where it comes from, for records.
        backbone: [B, S, S, C] float32, normalised, to [B, D] features: a Keras model, or an `OnnxNetwork`.
        head: [B, D] to [B, E]; None where the model has none: then its features are the embedding.
        preprocessing: what the teacher was trained with; None when unknown, as with a plain Keras model.
        wanted: the images it was made for; None for just what it is given.
        views: the student's preprocessing, which made the images it is given; None for those that it wants.
        options: what the user said of it.
        labels_used: whose labels went into its weights, a clause; None for nobody's. See `models.saved.Network`.
    """

    name: str
    backbone: Any
    head: keras.Model | None
    preprocessing: Preprocessing | None
    wanted: TeacherInput | None = None
    views: Preprocessing | None = None
    options: TeacherOptions = NOTHING_SAID
    labels_used: str | None = None

    @property
    def feature_width(self) -> int:
        """D."""
        return int(self.backbone.output_shape[-1])

    @property
    def embedding_width(self) -> int:
        """E."""
        return int((self.head or self.backbone).output_shape[-1])

    def fingerprint(self) -> str:
        """SHA-256, in hex, over all weights and the normalisation; another teacher makes another student."""
        digest = hashlib.sha256(repr(self.preprocessing).encode())
        if self.options.pixels not in ("auto", "normalized"):
            digest.update(self.options.pixels.encode())
        if self.wanted is not None and self.views is not None and not self._sees_views_as_they_are():
            # Not always, so that runs of before it was possible can be resumed.
            digest.update(json.dumps(self.wanted.to_dict()).encode())
        if isinstance(self.backbone, OnnxNetwork):
            digest.update(self.backbone.fingerprint().encode())
            return digest.hexdigest()
        for model in (self.backbone, self.head):
            for weight in model.get_weights() if model is not None else ():
                digest.update(np.ascontiguousarray(weight).tobytes())
        return digest.hexdigest()

    def shared(self, student: Preprocessing) -> Preprocessing:
        """How the student's views are to be normalised: as those of a teacher trained here, if channels are the same.

        Both then see the same numbers, and where sizes are the same too nothing has to be converted.
        """
        own = self.preprocessing
        if own is None or own.channels != student.channels:
            return student
        return dataclasses.replace(student, mean=own.mean, std=own.std)

    def for_views(self, student: Preprocessing) -> Teacher:
        """The teacher for views that `student` describes. Raises `NetworkError` or `ConfigError`."""
        return dataclasses.replace(self, wanted=_wanted(self, student), views=student)

    @property
    def own_image_size(self) -> int:
        """The side, in pixels, that the teacher was built for; 0 where it takes any."""
        sides = self.backbone.input_shape[1:3] if len(self.backbone.input_shape) == 4 else ()
        return next((int(side) for side in sides if side), 0)

    def features(self, images: tf.Tensor) -> tf.Tensor:
        """[B, S, S, C], the student's views, to [B, D], without gradient."""
        if self.wanted is not None and self.views is not None:
            images = self.wanted.from_views(images, self.views)
        return tf.stop_gradient(self.backbone(images, training=False))

    def embed(self, images: tf.Tensor) -> tf.Tensor:
        """[B, S, S, C] to [B, E], without gradient, not normalised."""
        features = self.features(images)
        return features if self.head is None else tf.stop_gradient(self.head(features, training=False))

    def describe(self) -> dict[str, Any]:
        """For records: where it comes from, what it wants to see and what it gives."""
        about: dict[str, Any] = {"path": self.name, "features": self.feature_width, "labels_used": self.labels_used}
        if isinstance(self.backbone, OnnxNetwork):
            about |= self.backbone.describe()
        return about | (self.wanted.to_dict() if self.wanted is not None else {})

    def summary(self) -> str:
        """In one line, for a person: what it takes, what it gives, and what becomes of the views for it."""
        if self.wanted is None:
            return f"teacher {self.name}: {self.feature_width} features"
        size, channels = self.wanted.image_size, self.wanted.channels
        line = f"teacher {self.name}: {size} px, {_CHANNELS[channels]}, {self.feature_width} features"
        if self.views is None:
            return line
        if size != self.views.image_size:
            line += f"; views of {self.views.image_size} px are resampled to {size} px for it"
        if channels != self.views.channels:
            line += f"; {_CHANNELS[self.views.channels]} views are turned into {_CHANNELS[channels]}"
        return line

    def _sees_views_as_they_are(self) -> bool:
        assert self.wanted is not None and self.views is not None
        own, given = self.wanted, self.views
        return (own.image_size, own.channels) == (given.image_size, given.channels)


_CHANNELS = {1: "grey", 3: "RGB"}


def load_teacher(path: str, preprocessing: Preprocessing, options: TeacherOptions = NOTHING_SAID) -> Teacher:
    """Loads a teacher for views that `preprocessing` describes.

    Args:
        path: a run folder of `bssl-tf teacher` or `bssl-tf finetune`; a Keras model saved as .keras, .h5 or SavedModel
            (see `keras_files.models.open_file`); or an ONNX file (see `teachers.onnx_network`).
        preprocessing: the student's. A teacher of another size, other channels or constants gets the views converted;
            see `teachers.inputs`.
        options: what the model does not say itself.

    Raises:
        RunFolderError: the run folder is incomplete.
        NetworkError: the file is not a model, would run code on loading, or does not take square images.
        ConfigError: an option does not fit the teacher.
    """
    return open_teacher(path, options, preprocessing.image_size).for_views(preprocessing)


def open_teacher(path: str, options: TeacherOptions = NOTHING_SAID, image_size: int = 0) -> Teacher:
    """The teacher, before it is known what views it will be given; see `load_teacher`.

    `image_size` is their likely size, for a first run of a model that takes any.
    """
    check_teacher(path, options)
    location = Path(path)
    keras_file = not location.is_dir() or (location / "saved_model.pb").exists()
    if location.suffix == ONNX_SUFFIX and not location.is_dir():
        return _from_onnx(location, options, image_size)
    teacher = _from_keras(location) if keras_file else _from_run(location)
    _require_vectors(teacher)
    return dataclasses.replace(teacher, options=options)


def _from_run(folder: Path) -> Teacher:
    command = str(read_run_config(folder)["command"]) if (folder / "config.toml").exists() else "teacher"
    # A fine-tuned network gives its features; its head is for its own classes.
    part = "student" if command == "finetune" else "teacher"
    saved = folder / part
    if not (saved / "network.json").exists():
        hint = "Train one with `bssl-tf teacher`, or check --teacher"
        if command == "pretrain":
            hint = f"{folder} is the run of a student; give that of a `bssl-tf teacher` or `bssl-tf finetune`"
        elif (folder / "config.toml").exists():
            hint = f"Finish it with `bssl-tf {command} --out {shlex.quote(str(folder))} --resume`"
        raise NetworkError(f"{folder} holds no trained teacher", hint)
    network = read_network(saved)
    backbone = network.build()
    parts = {part: backbone}
    if network.head:
        width = backbone.output_shape[-1]
        with bounded_variables(str(saved), "head"):
            parts["head"] = mlp_head("head", width, network.head, use_batch_norm=network.head_batch_norm)
    load_weights(saved, parts)
    return Teacher(str(folder), backbone, parts.get("head"), network.preprocessing, labels_used=network.labels_used)


def check_teacher(path: str, options: TeacherOptions = NOTHING_SAID) -> None:
    """What can be said before any data is there. Raises `NetworkError` or `ConfigError`."""
    check_place(path)
    options.check()


def _from_keras(path: Path) -> Teacher:
    if path.is_file() and path.suffix not in (".keras", ".h5", ".hdf5"):
        raise NetworkError(
            f"{path} is neither a run folder nor a .keras, .h5 or .onnx file",
            "Save the model with model.save('teacher.keras')",
        )
    try:
        model = open_file(path)
    except ConversionError as error:
        # Nothing is converted; a teacher that cannot be read has the exit status of every other.
        raise NetworkError(error.what, error.next_step) from error
    model.trainable = False
    return Teacher(str(path), model, None, None, labels_used=unknown_labels(path))


def _from_onnx(path: Path, options: TeacherOptions, image_size: int) -> Teacher:
    network = OnnxNetwork(path, options, image_size)
    if network.made:
        _log.info(f"the features of {path} are {network.made}, output {network.output}")
    return Teacher(str(path), network, None, None, options=options, labels_used=unknown_labels(path))


def unknown_labels(path: Path) -> str:
    """What `labels_used` is for a saved model, a clause for "trained with the help of ..."."""
    return f"labels, if any, that are not known (the saved model {path.name} does not record them)"


def _require_vectors(teacher: Teacher) -> None:
    """Raises `NetworkError` for a model that does not make one vector of one image."""
    model = teacher.backbone
    single = isinstance(model.input_shape, tuple) and isinstance(model.output_shape, tuple)
    if not single or len(model.output_shape) != 2 or model.output_shape[-1] is None:
        raise NetworkError(
            f"teacher {teacher.name} gives {model.output_shape}, not one vector for each image",
            "Cut it after its pooled features",
        )


def _wanted(teacher: Teacher, student: Preprocessing) -> TeacherInput:
    """The images that the teacher was made for. Raises `NetworkError` or `ConfigError`."""
    options = teacher.options
    taken = tuple(teacher.backbone.input_shape[1:])
    height, width, channels = taken if len(taken) == 3 else (0, 0, 0)
    sides = {side for side in (height, width) if side is not None}
    if len(sides) > 1 or channels not in (None, 1, 3) or not sides <= set(range(MIN_IMAGE_SIZE, MAX_IMAGE_SIZE + 1)):
        raise NetworkError(
            f"teacher {teacher.name} takes {list(taken)}, not square images of 1 or 3 channels",
            f"Build it for [S, S, 1] or [S, S, 3], S from {MIN_IMAGE_SIZE} to {MAX_IMAGE_SIZE}",
        )
    size = next(iter(sides), 0)
    if options.image_size and size not in (0, options.image_size):
        raise ConfigError(
            f"teacher {teacher.name} takes images of {size} px, and teacher_image_size is {options.image_size}",
            "Omit teacher_image_size",
        )
    own = TeacherInput(size or options.image_size or student.image_size, channels or student.channels)
    if isinstance(teacher.backbone, OnnxNetwork):
        return own.with_pixels(teacher.backbone.constants, options.pixels)
    if options.layout != "auto" or options.output:
        raise ConfigError(
            f"teacher_layout and teacher_output are for ONNX files, and {teacher.name} is not one", "Omit them"
        )
    if teacher.preprocessing is None:
        return own.with_pixels(options.constants(), options.pixels)
    if options.constants() is not None:
        raise ConfigError(
            f"teacher_pixels is {options.pixels}, and {teacher.name} knows its own", "Omit teacher_pixels"
        )
    return TeacherInput.of(teacher.preprocessing)
