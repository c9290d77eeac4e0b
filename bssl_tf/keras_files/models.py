"""Opens a Keras 2 model of whatever form: .h5, .keras, SavedModel, or a network of larq-zoo by name.

A saved Keras model is a program: its configuration may name any function of TensorFlow, import any module, and carry
Python bytecode (in Lambda layers), and a SavedModel holds graphs beside. None of that is run here, whatever the model
is for: a teacher, a network to check or to export. The configuration, which is JSON in each form, is read first (see
`keras_files.configuration`); then Keras builds the model, and the weights are loaded as numbers.
"""

from __future__ import annotations

import json
import math
import shlex
import tempfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import h5py  # type: ignore[import-untyped]

from bssl_tf.backend import keras, keras_saved_metadata
from bssl_tf.errors import BsslError, ConfigError, ConversionError, first_line
from bssl_tf.files import read_regular
from bssl_tf.keras_files.configuration import MAX_CONFIG_BYTES, build_model, no_advice, printable
from bssl_tf.keras_files.files import (
    MODEL_HINT,
    ZOO_PREFIX,
    attribute,
    open_archive,
    open_hdf5,
    read_member,
    require_bounded,
    require_fetched,
    require_folder,
    require_there,
    unpack_member,
)
from bssl_tf.keras_files.weights import load_weights_file

T = TypeVar("T")
# What `larq_zoo.preprocess_input` does to colours, of pixels from 0 to 1: all of its networks were trained on that.
ZOO_MEAN, ZOO_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
KERAS_2_HINT = "Build it with tf-keras: set TF_USE_LEGACY_KERAS=1 and use tf.keras, then save it again"


def open_model(source: str, weights: Path | None = None) -> keras.Model:
    """The model that `source` names, with its weights.

    Args:
        source: a file .h5, .hdf5 or .keras; a folder with a SavedModel of Keras 2; or `larq_zoo:` and a network's
            name.
        weights: a weights file for a network of larq-zoo, which has random ones without; see `keras_files.weights`.

    Raises:
        ConfigError: `weights` for a model that has its own.
        ConversionError: there is no such model, it is not a Keras 2 model, it would run code, or it is damaged.
    """
    with no_advice():
        if source.startswith(ZOO_PREFIX):
            model = _zoo_model(source.removeprefix(ZOO_PREFIX))
            if weights is not None:
                load_weights_file(model, weights)
            return model
        if weights is not None:
            raise ConfigError(f"{source} has weights of its own", f"--weights is for {ZOO_PREFIX}NAME; omit it")
        return open_file(Path(source))


def open_file(path: Path) -> keras.Model:
    """The model in a file .h5, .hdf5 or .keras, or in the folder of a SavedModel.

    Raises:
        ConversionError: see `open_model`.
    """
    return _opened(path, _from_folder, _from_keras_file, _from_h5)


def input_shape(path: Path) -> tuple[int | None, ...]:
    """The shape of one input of the model in a file or folder, without the batch; () where it does not show.

    The model is not built, and TensorFlow computes nothing.

    Raises:
        ConversionError: see `open_model`.
    """
    return _opened(
        path,
        lambda place: _input_shape(json.loads(_config_of_folder(place))),
        lambda place: _input_shape(json.loads(_config_of_keras_file(place))),
        lambda place: _input_shape(json.loads(_config_of_h5(place))),
    )


def _opened(
    path: Path, folder: Callable[[Path], T], keras_file: Callable[[Path], T], h5_file: Callable[[Path], T]
) -> T:
    """What the function for a model of this form makes of it."""
    try:
        if path.is_dir():
            return folder(path)
        require_there(path)
        if path.suffix == ".onnx":
            raise ConversionError(
                f"{path} is an ONNX model, and LCE converts Keras 2 models",
                f"It can teach one: `bssl-tf pretrain --teacher {shlex.quote(str(path))} --data ... --out ...`",
            )
        require_fetched(path)
        if zipfile.is_zipfile(path):
            return keras_file(path)
        if h5py.is_hdf5(path):
            return h5_file(path)
    except BsslError:
        raise
    # Keras, h5py, protobuf and TensorFlow raise whatever they like for a damaged file.
    except Exception as error:
        raise ConversionError(f"{path} cannot be loaded ({first_line(error)})", "Save the model again") from error
    raise ConversionError(f"{path} is not a Keras model", "Save a Keras 2 model again, with model.save('FILE.h5')")


def _config_of_folder(folder: Path) -> str:
    if not (folder / "saved_model.pb").exists():
        raise ConversionError(f"{folder} is neither a run folder nor a SavedModel", MODEL_HINT)
    require_folder(folder)
    if not (folder / "keras_metadata.pb").exists():
        raise ConversionError(
            f"{folder} is a SavedModel without Keras 2's description of its layers [keras-3]",
            "Save the Keras 2 model itself, with model.save('FILE.h5') or model.save(FOLDER)",
        )
    metadata = keras_saved_metadata(read_regular(folder / "keras_metadata.pb", MAX_CONFIG_BYTES))
    root: dict[str, Any] = next((json.loads(node.metadata) for node in metadata.nodes if node.node_path == "root"), {})
    if root.get("class_name") not in ("Functional", "Sequential") or "config" not in root:
        raise ConversionError(
            f"{folder} holds graphs of a model written as a class, and not its layers",
            "Build it as keras.Model(input, output) or Sequential, load the weights, and save it again",
        )
    return json.dumps({"class_name": root["class_name"], "config": root["config"]})


def _from_folder(folder: Path) -> keras.Model:
    model = build_model(_config_of_folder(folder), str(folder))
    model.load_weights(str(folder / "variables" / "variables")).assert_existing_objects_matched().expect_partial()
    return model


def _config_of_h5(path: Path) -> str:
    with open_hdf5(path, str(path)) as file:
        config = attribute(file, "model_config", MAX_CONFIG_BYTES)
        if config is None:
            raise ConversionError(
                f"{path} holds weights but no model", "Build the model, load the weights, and save it with model.save"
            )
        _require_keras_2(str(attribute(file, "keras_version", MAX_CONFIG_BYTES) or "2."), path)
    return str(config)


def _from_h5(path: Path) -> keras.Model:
    model = build_model(_config_of_h5(path), str(path))
    if model.weights:
        load_weights_file(model, path)
    return model


def _config_of_keras_file(path: Path) -> bytes:
    with open_archive(path) as archive:
        about = json.loads(read_member(archive, "metadata.json", MAX_CONFIG_BYTES))
        _require_keras_2(str(about.get("keras_version", "2.")), path)
        return read_member(archive, "config.json", MAX_CONFIG_BYTES)


def _from_keras_file(path: Path) -> keras.Model:
    model = build_model(_config_of_keras_file(path), str(path))
    with open_archive(path) as archive, tempfile.TemporaryDirectory() as scratch:
        # An optimizer keeps up to three numbers more for each weight, of eight bytes at most.
        limit = 32 * model.count_params() + (1 << 26)
        weights = unpack_member(archive, "model.weights.h5", Path(scratch), limit)
        require_bounded(weights, str(path), max((math.prod(one.shape) for one in model.weights), default=1))
        model.load_weights(weights)
    return model


def _input_shape(config: Any) -> tuple[int | None, ...]:
    """Of the first layer that states one, as Keras' classes of models describe themselves."""
    settings = config.get("config") if isinstance(config, dict) else None
    layers = settings.get("layers") if isinstance(settings, dict) else settings
    for layer in layers if isinstance(layers, list) else ():
        own = layer.get("config") if isinstance(layer, dict) else None
        shape = (own.get("batch_input_shape") or own.get("batch_shape")) if isinstance(own, dict) else None
        if isinstance(shape, dict):
            shape = shape.get("items")
        if isinstance(shape, list) and all(side is None or type(side) is int for side in shape):
            return tuple(shape[1:])
    return ()


def _require_keras_2(version: str, path: Path) -> None:
    if not version.startswith("2."):
        raise ConversionError(f"{path} was saved by Keras {printable(version[:20])} [keras-3]", KERAS_2_HINT)


def zoo_networks() -> dict[str, Callable[..., keras.Model]]:
    """The networks of larq-zoo by name; none where it is not installed."""
    try:
        import larq_zoo
    except ImportError:
        return {}
    rooms = vars(larq_zoo.sota) | vars(larq_zoo.literature)
    return {name: value for name, value in rooms.items() if name[0].isupper() and not name.endswith("Factory")}


def _zoo_model(name: str) -> keras.Model:
    networks = zoo_networks()
    if not networks:
        raise ConversionError("larq-zoo is not installed", "Install it with `pip install 'bssl-tf[zoo]'`")
    if name not in networks:
        raise ConversionError(f"larq_zoo has no network {name!r}", f"Choose one of {', '.join(sorted(networks))}")
    # Downloads nothing.
    return networks[name](weights=None)
