"""Networks of one's own: a builder in a Python file, a saved Keras model, a model in memory.

A run keeps such a network as its description in Keras's own terms, JSON that the door for Keras files reads without
running any code (`keras_files.configuration`), so that a run needs neither the file nor whoever wrote it, and may come
from a stranger. What such a description cannot hold are layers of classes that are neither Keras's, larq's nor ours:
they are code. Networks that need them come as a package, by an entry point (`models.registry`).
"""

from __future__ import annotations

import contextlib
import importlib.util
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

# Registers our layers, which a network may have.
import bssl_tf.models.layers  # noqa: F401
from bssl_tf.backend import keras
from bssl_tf.errors import BsslError, ConversionError, NetworkError, UnknownPartError, first_line
from bssl_tf.keras_files.configuration import build_model
from bssl_tf.keras_files.models import input_shape, open_file
from bssl_tf.models.features import require_features
from bssl_tf.models.place import kind_of, split_code
from bssl_tf.models.registry import GROUP, call_builder

_PACKAGE = (
    "Compose it from layers and quantisers of Keras and larq, or offer the network as a package with an entry point "
    f"{GROUP} (guide, Students), whose code may run wherever it is installed"
)
_IMAGES = 2


def open_own(name: str, image_size: int, channels: int, arguments: dict[str, Any]) -> keras.Model:
    """The network that `name` means (see `models.place`), which a file's builder makes for images of this size.

    Raises:
        NetworkError: there is none, or it is not one.
        ConfigError: an argument is out of range.
    """
    if kind_of(name) == "code":
        file, function = split_code(name)
        with _importable(file.resolve().parent):
            return call_builder(_builder(file, function), name, image_size, channels, arguments)
    return open_saved(name)


def open_saved(name: str) -> keras.Model:
    """The model in a file or folder, with its weights; no code in it is run. Raises `NetworkError`."""
    with _as_network():
        return open_file(Path(name))


def saved_shape(name: str) -> tuple[int | None, ...]:
    """The shape of the images that the model in a file or folder takes; () where it does not show.

    It is not built, for which TensorFlow must have been set up. Raises `NetworkError`.
    """
    with _as_network():
        return input_shape(Path(name))


@contextlib.contextmanager
def _as_network() -> Iterator[None]:
    """Nothing is converted here: what cannot be read has the exit status of every other network."""
    try:
        yield
    except UnknownPartError as error:
        raise NetworkError(error.what, _PACKAGE) from error
    except ConversionError as error:
        raise NetworkError(error.what, error.next_step) from error


def describe(model: keras.Model, name: str, image_size: int, channels: int) -> dict[str, Any]:
    """The layers of `model` for images of this size, as JSON that `build_described` takes.

    A copy is built from it and compared, so that what was lost on the way is found before training, not after.

    Raises:
        NetworkError: it is not a network, or cannot be described without code.
    """
    require_features(model, name)
    try:
        config = json.loads(model.to_json())
    except (NotImplementedError, TypeError, ValueError) as error:
        raise NetworkError(f"{name} cannot be described as a list of layers ({first_line(error)})", _PACKAGE) from error
    layers = {"class_name": config["class_name"], "config": config["config"]}
    if layers["class_name"] != "Sequential":
        # A subclass that was built by its input and output; the comparison shows whether it does more than they say.
        layers["class_name"] = "Functional"
    _fix_size(layers, image_size, channels)
    copy = build_described(layers, name)
    require_features(copy, name, (image_size, image_size, channels))
    if [tuple(weight.shape) for weight in copy.weights] != [tuple(weight.shape) for weight in model.weights]:
        raise NetworkError(f"{name} has weights that do not belong to its layers", _PACKAGE)
    copy.set_weights(model.get_weights())
    images = np.random.default_rng(0).standard_normal((_IMAGES, image_size, image_size, channels)).astype(np.float32)
    ours, theirs = (one(images, training=False).numpy() for one in (copy, model))
    if not np.allclose(ours, theirs, rtol=1e-3, atol=1e-4, equal_nan=True):
        raise NetworkError(f"{name} computes something else than its layers, as Keras describes them", _PACKAGE)
    return layers


def build_described(layers: dict[str, Any], name: str) -> keras.Model:
    """The network that `layers` describe, with fresh weights; no code is run, whoever wrote them.

    Raises:
        NetworkError: they describe what is not known here, or nothing at all.
    """
    try:
        with _as_network():
            return build_model(json.dumps(layers), name)
    except BsslError:
        raise
    # Keras raises whatever it likes for settings of layers that do not fit together.
    except Exception as error:
        raise NetworkError(
            f"{name} cannot be built from its layers ({first_line(error)})", "Restore its file"
        ) from error


def _fix_size(layers: dict[str, Any], image_size: int, channels: int) -> None:
    """Gives the input of a network that takes images of any size the size that it is trained for."""
    for layer in layers["config"]["layers"]:
        if layer["class_name"] == "InputLayer":
            layer["config"]["batch_input_shape"] = [None, image_size, image_size, channels]


def _builder(file: Path, function: str) -> Any:
    """The function, after running the file: the user's own, named on purpose."""
    # No other module has this name.
    spec = importlib.util.spec_from_file_location(f"bssl_tf student {file.stem}", file.resolve())
    if spec is None or spec.loader is None or not file.is_file():
        raise NetworkError(f"there is no file {file}", "Check --student FILE.py:FUNCTION")
    module = importlib.util.module_from_spec(spec)
    # Where dataclasses and others look for the module of a class.
    sys.modules[spec.name] = module
    try:
        spec.loader.exec_module(module)
    except Exception as error:  # whatever the user's code raises
        del sys.modules[spec.name]
        raise NetworkError(
            f"{file} cannot be run ({type(error).__name__}: {first_line(error)})",
            "Correct it; --debug before the command shows where",
        ) from error
    found = getattr(module, function, None)
    if not callable(found):
        raise NetworkError(f"{file} has no function {function}", "Check --student FILE.py:FUNCTION")
    return found


@contextlib.contextmanager
def _importable(folder: Path) -> Iterator[None]:
    """What lies next to the file can be imported by it, as if Python had been started with it."""
    sys.path.insert(0, str(folder))
    try:
        yield
    finally:
        with contextlib.suppress(ValueError):
            sys.path.remove(str(folder))
