"""Opens a Keras 2 model of whatever form: .h5, .keras, SavedModel, or a network of larq-zoo by name.

A saved Keras model is a program: its configuration may name any function of TensorFlow, import any module, and carry
Python bytecode (in Lambda layers), and a SavedModel holds graphs beside. None of that is run here. The configuration,
which is JSON in each form, is read first; only layers of Keras, larq and those registered as `bssl_tf>NAME` are let
through, and of TensorFlow's functions only those that compute. Then Keras builds the model, and the weights are loaded
as numbers.
"""

from __future__ import annotations

import contextlib
import json
import logging
import tempfile
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import h5py  # type: ignore[import-untyped]

from bssl_tf.backend import keras, keras_safe_mode, keras_saved_metadata, lq
from bssl_tf.errors import BsslError, ConfigError, ConversionError
from bssl_tf.keras_files.weights import load_weights_file, require_fetched, require_whole

ZOO_PREFIX = "larq_zoo:"
# What `larq_zoo.preprocess_input` does to colours, of pixels from 0 to 1: all of its networks were trained on that.
ZOO_MEAN, ZOO_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
KERAS_2_HINT = "Build it with tf-keras: set TF_USE_LEGACY_KERAS=1 and use tf.keras, then save it again"
_MAX_CONFIG_BYTES = 64 * 2**20
_HINT = "Give a Keras 2 model: a run folder, FILE.h5, FILE.keras, a SavedModel folder, or larq_zoo:NAME"
# What TensorFlow ops in a functional model may be called (`tf.nn.relu(x)` becomes a layer of that name).
_COMPUTING = ("math.", "nn.", "__operators__.", "linalg.", "image.resize", "compat.v1.nn.", "compat.v1.math.")
_COMPUTING_OPS = {
    "abs", "add", "add_n", "broadcast_to", "cast", "clip_by_value", "concat", "compat.v1.pad", "compat.v1.transpose",
    "divide", "equal", "exp", "expand_dims", "gather", "greater", "greater_equal", "identity", "less", "less_equal",
    "matmul", "maximum", "minimum", "multiply", "negative", "ones_like", "pad", "pow", "reduce_max", "reduce_mean",
    "reduce_min", "reduce_sum", "repeat", "reshape", "reverse", "round", "shape", "sign", "slice", "split", "sqrt",
    "square", "squeeze", "stack", "stop_gradient", "strided_slice", "subtract", "tanh", "tile", "transpose", "unstack",
    "where", "zeros_like",
}  # fmt: skip
# larq's functions that may be a layer's activation, and the layers that do the same.
_QUANTIZERS = {
    "approx_sign": "ApproxSign",
    "ste_heaviside": "SteHeaviside",
    "ste_sign": "SteSign",
    "ste_tern": "SteTern",
    "swish_sign": "SwishSign",
}
_MODULES = ("keras", "tf_keras", "larq", "bssl_tf", "builtins")


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
    with _no_advice():
        if source.startswith(ZOO_PREFIX):
            model = _zoo_model(source.removeprefix(ZOO_PREFIX))
            if weights is not None:
                load_weights_file(model, weights)
            return model
        if weights is not None:
            raise ConfigError(f"{source} has weights of its own", f"--weights is for {ZOO_PREFIX}NAME; omit it")
        return _from_path(Path(source))


@contextlib.contextmanager
def _no_advice() -> Iterator[None]:
    """Without larq's advice on training, which it gives for every layer that it builds."""
    logger = logging.getLogger(lq.__name__)
    before = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(before)


def _from_path(path: Path) -> keras.Model:
    try:
        if path.is_dir():
            return _from_folder(path)
        if not path.is_file():
            raise ConversionError(f"there is no model at {path}", _HINT)
        require_fetched(path)
        if zipfile.is_zipfile(path):
            return _from_keras_file(path)
        if h5py.is_hdf5(path):
            return _from_h5(path)
    except BsslError:
        raise
    # Keras, h5py, protobuf and TensorFlow raise whatever they like for a damaged file.
    except Exception as error:
        raise ConversionError(f"{path} cannot be loaded ({_first_line(error)})", "Save the model again") from error
    raise ConversionError(f"{path} is not a Keras model", _HINT)


def _from_folder(folder: Path) -> keras.Model:
    if not (folder / "saved_model.pb").is_file():
        raise ConversionError(f"{folder} is neither a run folder nor a SavedModel", _HINT)
    for file in sorted(folder.rglob("*")):
        if file.is_file():
            require_fetched(file)
    if not (folder / "keras_metadata.pb").is_file():
        raise ConversionError(
            f"{folder} is a SavedModel without Keras 2's description of its layers [keras-3]",
            "Save the Keras 2 model itself, with model.save('FILE.h5') or model.save(FOLDER)",
        )
    metadata = keras_saved_metadata((folder / "keras_metadata.pb").read_bytes())
    root: dict[str, Any] = next((json.loads(node.metadata) for node in metadata.nodes if node.node_path == "root"), {})
    if root.get("class_name") not in ("Functional", "Sequential") or "config" not in root:
        raise ConversionError(
            f"{folder} holds graphs of a model written as a class, and not its layers",
            "Build it as keras.Model(input, output) or Sequential, load the weights, and save it again",
        )
    model = _build({"class_name": root["class_name"], "config": root["config"]}, str(folder))
    model.load_weights(str(folder / "variables" / "variables")).assert_existing_objects_matched().expect_partial()
    return model


def _from_h5(path: Path) -> keras.Model:
    with h5py.File(path, "r") as file:
        config, version = file.attrs.get("model_config"), str(file.attrs.get("keras_version", "2"))
        if config is None:
            raise ConversionError(
                f"{path} holds weights but no model", "Build the model, load the weights, and save it with model.save"
            )
        _require_keras_2(version, path)
        require_whole(file, str(path))
        model = _build(json.loads(config), str(path))
    model.load_weights(str(path))
    return model


def _from_keras_file(path: Path) -> keras.Model:
    with zipfile.ZipFile(path) as archive, tempfile.TemporaryDirectory() as scratch:
        _require_keras_2(str(json.loads(_read(archive, "metadata.json")).get("keras_version", "2")), path)
        model = _build(json.loads(_read(archive, "config.json")), str(path))
        model.load_weights(archive.extract("model.weights.h5", scratch))
    return model


def _read(archive: zipfile.ZipFile, name: str) -> bytes:
    if archive.getinfo(name).file_size > _MAX_CONFIG_BYTES:
        raise ValueError(f"{name} is too large")
    return archive.read(name)


def _require_keras_2(version: str, path: Path) -> None:
    if not version.startswith("2."):
        raise ConversionError(f"{path} was saved by Keras {version[:20]} [keras-3]", KERAS_2_HINT)


def _build(config: Any, source: str) -> keras.Model:
    """The model that a configuration describes, with fresh weights."""
    config = _harmless(config, _known_classes(), source)
    with keras_safe_mode():
        if "module" in config:
            model = keras.utils.deserialize_keras_object(config)
        else:
            model = keras.models.model_from_config(config)
    if not isinstance(model, keras.Model):
        raise ConversionError(f"{source} describes a {type(model).__name__}, not a model", _HINT)
    return model


def _harmless(item: Any, known: set[str], source: str) -> Any:
    """`item` of a configuration, without what belongs to training; what could run code is refused."""
    if isinstance(item, list):
        return [_harmless(one, known, source) for one in item]
    if not isinstance(item, dict):
        return item
    name = item.get("class_name")
    if name == "__tuple__":
        return tuple(_harmless(one, known, source) for one in item["items"])
    if name == "TensorShape":
        return _harmless(item["items"], known, source)
    if name == "function":
        # Keras 2's own reader of .h5 does not read what its writer wrote of functions; their names it does.
        function = item.get("config")
        if not isinstance(function, str) or function not in {*_QUANTIZERS, *vars(keras.activations)}:
            raise _refusal(source, f"the function {str(function)[:60]}")
        return function
    if name is not None:
        _check_class(name, item, known, source)
    item = {key: _harmless(one, known, source) for key, one in item.items() if key != "compile_config"}
    if name == "Activation" and (activation := item["config"]["activation"]) in _QUANTIZERS:
        # To Keras the function's name is larq's alias of the class, which it would put in the function's place.
        config = {"name": item["config"]["name"], "dtype": item["config"].get("dtype")}
        item |= {"class_name": _QUANTIZERS[activation], "config": config}
        item |= {"module": "larq.quantizers", "registered_name": None} if "module" in item else {}
    return item


def _check_class(name: Any, item: dict[str, Any], known: set[str], source: str) -> None:
    settings = item.get("config")
    if name in ("Lambda", "__lambda__"):
        raise ConversionError(
            f"{source} has a Lambda layer, which is Python code inside the file, and is not run here",
            "Write it with layers, or with TensorFlow functions such as tf.nn.relu(x), and save the model again",
        )
    if not isinstance(name, str) or name not in known:
        raise _refusal(source, f"the layer or object {str(name)[:60]}")
    module = item.get("module") or "keras"
    if not isinstance(module, str) or module.partition(".")[0] not in _MODULES:
        raise _refusal(source, f"{name} of the module {str(module)[:60]}")
    if name in ("TFOpLambda", "SlicingOpLambda"):
        function = settings.get("function") if isinstance(settings, dict) else None
        if not isinstance(function, str) or not (function in _COMPUTING_OPS or function.startswith(_COMPUTING)):
            raise _refusal(source, f"the function tf.{str(function)[:60]}")


def _refusal(source: str, what: str) -> ConversionError:
    return ConversionError(
        f"{source} uses {what}, which is none of Keras 2, larq or bssl_tf that is known here",
        "Build the model from their layers; a custom layer can be converted from Python, with "
        "bssl_tf_converters.lce.export.convert_model",
    )


def _known_classes() -> set[str]:
    modules = (
        keras.layers,
        keras.initializers,
        keras.regularizers,
        keras.constraints,
        lq.layers,
        lq.quantizers,
        lq.constraints,
    )
    names = {name for module in modules for name, value in vars(module).items() if isinstance(value, type)}
    ours = {name for name in keras.utils.get_custom_objects() if name.startswith(("Larq>", "bssl_tf>"))}
    ours |= {name.partition(">")[2] for name in ours}
    return (names | ours | {"Functional", "Sequential", "Model", "TFOpLambda", "SlicingOpLambda", "Policy"}) - {
        "Lambda"
    }


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


def _first_line(error: Exception) -> str:
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)[:300]
