"""A frozen float teacher: features for joint classifier training, an embedding for distillation."""

from __future__ import annotations

import hashlib
import shlex
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

# Registers our layers, which a saved model may have.
import bssl_tf.models.layers  # noqa: F401
from bssl_tf.backend import keras, tf
from bssl_tf.errors import ConversionError, NetworkError
from bssl_tf.keras_files.models import open_file
from bssl_tf.models.heads import mlp_head
from bssl_tf.models.saved import load_weights, read_network
from bssl_tf.preprocessing import Preprocessing
from bssl_tf.settings import check_choice


@dataclass(frozen=True)
class Teacher:
    """A backbone and its projection head, both in inference mode.

    Attributes:
        name: where it comes from, for records.
        backbone: [B, S, S, C] float32, normalised, to [B, D] features.
        head: [B, D] to [B, E]; None where the model has none: then its features are the embedding.
        preprocessing: what the teacher was trained with; None when unknown, as with a plain Keras model.
        pixel_range: what the model wants instead of normalised pixels, if anything; see `load_teacher`.
        pixels: undoes the normalisation accordingly.
        labels_used: whose labels went into its weights, a clause; None for nobody's. See `models.saved.Network`.
    """

    name: str
    backbone: keras.Model
    head: keras.Model | None
    preprocessing: Preprocessing | None
    pixel_range: str = "normalized"
    pixels: Callable[[tf.Tensor], tf.Tensor] = tf.identity
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
        if self.pixel_range != "normalized":
            digest.update(self.pixel_range.encode())
        for model in (self.backbone, self.head):
            for weight in model.get_weights() if model is not None else ():
                digest.update(np.ascontiguousarray(weight).tobytes())
        return digest.hexdigest()

    def features(self, images: tf.Tensor) -> tf.Tensor:
        """[B, S, S, C] to [B, D], without gradient."""
        return tf.stop_gradient(self.backbone(self.pixels(images), training=False))

    def embed(self, images: tf.Tensor) -> tf.Tensor:
        """[B, S, S, C] to [B, E], without gradient, not normalised."""
        features = self.features(images)
        return features if self.head is None else tf.stop_gradient(self.head(features, training=False))


# What a saved Keras model may want its pixels to be: name -> (scale, shift) applied to pixel / 255.
PIXEL_RANGES = {"0..1": (1.0, 0.0), "-1..1": (2.0, -1.0), "0..255": (255.0, 0.0)}


def load_teacher(path: str, preprocessing: Preprocessing, pixel_range: str = "normalized") -> Teacher:
    """Loads a teacher for images of the student's data.

    Args:
        path: a run folder of `bssl-tf teacher`, or a Keras model saved as .keras, .h5 or
            SavedModel; see `keras_files.models.open_file`.
        preprocessing: fitted on the student's data. A teacher trained here brings its own constants.
        pixel_range: what a saved Keras model was trained on: `normalized` for (x - mean) / std of this data, or a
            key of `PIXEL_RANGES`.

    Raises:
        RunFolderError: the run folder is incomplete.
        NetworkError: the file is not a model, would run code on loading, or takes another shape of image.
    """
    check_teacher(path, pixel_range)
    location = Path(path)
    pixels = _pixels(preprocessing, pixel_range)
    keras_file = not location.is_dir() or (location / "saved_model.pb").exists()
    teacher = _from_keras(location, pixel_range, pixels) if keras_file else _from_run(location)
    wanted = (preprocessing.image_size, preprocessing.image_size, preprocessing.channels)
    _check_shapes(teacher, wanted)
    return teacher


def _from_run(folder: Path) -> Teacher:
    saved = folder / "teacher"
    if not (saved / "network.json").exists():
        hint = "Train one with `bssl-tf teacher`, or check --teacher"
        if (folder / "config.toml").exists():
            hint = f"Finish it with `bssl-tf teacher --out {shlex.quote(str(folder))} --resume`"
        raise NetworkError(f"{folder} holds no trained teacher", hint)
    network = read_network(saved)
    backbone = network.build()
    parts = {"teacher": backbone}
    if network.head:
        width = backbone.output_shape[-1]
        parts["head"] = mlp_head("head", width, network.head, use_batch_norm=network.head_batch_norm)
    load_weights(saved, parts)
    return Teacher(str(folder), backbone, parts.get("head"), network.preprocessing, labels_used=network.labels_used)


def check_teacher(path: str, pixel_range: str) -> None:
    """What can be said before any data is there. Raises `NetworkError` or `ConfigError`."""
    if not path:
        raise NetworkError("no teacher was named", "Train one with `bssl-tf teacher`, then pass --teacher FOLDER")
    if not Path(path).exists():
        raise NetworkError(f"there is no teacher at {path}", "Train one with `bssl-tf teacher`, or check --teacher")
    check_choice("teacher_pixels", pixel_range, ("normalized", *PIXEL_RANGES))


def _pixels(preprocessing: Preprocessing, pixel_range: str) -> Callable[[tf.Tensor], tf.Tensor]:
    if pixel_range == "normalized":
        return tf.identity
    scale, shift = PIXEL_RANGES[pixel_range]
    mean, std = (np.asarray(values, np.float32) for values in (preprocessing.mean, preprocessing.std))
    return lambda images: (images * std + mean) * scale + shift


def _from_keras(path: Path, pixel_range: str, pixels: Callable[[tf.Tensor], tf.Tensor]) -> Teacher:
    if path.is_file() and path.suffix not in (".keras", ".h5", ".hdf5"):
        raise NetworkError(
            f"{path} is neither a run folder nor a .keras or .h5 file",
            "Save the model with model.save('teacher.keras')",
        )
    try:
        model = open_file(path)
    except ConversionError as error:
        # Nothing is converted; a teacher that cannot be read has the exit status of every other.
        raise NetworkError(error.what, error.next_step) from error
    model.trainable = False
    return Teacher(str(path), model, None, None, pixel_range, pixels, unknown_labels(path))


def unknown_labels(path: Path) -> str:
    """What `labels_used` is for a saved Keras model, a clause for "trained with the help of ..."."""
    return f"labels, if any, that are not known (the saved Keras model {path.name} does not record them)"


def _check_shapes(teacher: Teacher, wanted: tuple[int, int, int]) -> None:
    model = teacher.backbone
    single = isinstance(model.input_shape, tuple) and isinstance(model.output_shape, tuple)
    if not single or len(model.output_shape) != 2 or model.output_shape[-1] is None:
        raise NetworkError(
            f"teacher {teacher.name} gives {model.output_shape}, not one vector for each image",
            "Cut it after its pooled features",
        )
    taken = tuple(model.input_shape[1:])
    if len(taken) != 3 or any(have not in (None, want) for have, want in zip(taken, wanted, strict=True)):
        raise NetworkError(
            f"teacher {teacher.name} takes images {list(taken)}, the student's are {list(wanted)}",
            "Use the same --image-size and --channels for both",
        )
