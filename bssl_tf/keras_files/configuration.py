"""Builds a model from its configuration, a stranger's perhaps: what could run code is refused before Keras sees it.

A configuration names classes, modules and functions, and Keras imports and calls what is named: a module anywhere, any
class that somebody registered, any function of TensorFlow (`io.write_file` on constants runs while the model is built).
So each name is compared with what is known (`keras_files.vocabulary`, `keras_files.operations`), and the modules in the
file are replaced by those where the known classes are.
"""

from __future__ import annotations

import contextlib
import json
import logging
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from bssl_tf.backend import keras, keras_safe_mode, lq, op_layers
from bssl_tf.errors import ConversionError, UnknownPartError
from bssl_tf.keras_files.operations import OPERATIONS
from bssl_tf.keras_files.vocabulary import QUANTIZERS, known_classes, known_names
from bssl_tf.memory import bounded_variables

MAX_CONFIG_BYTES = 1 << 26
# A model in a model adds four.
_MAX_DEPTH = 100
# Keras 2 was first `keras`, then `tf_keras`.
_KERAS = ("keras", "tf_keras")
_OP_LAYERS = tuple(layer.__name__ for layer in op_layers())
_NUMBERS = ("bool", "int8", "uint8", "int16", "uint16", "int32", "int64", "float16", "bfloat16", "float32", "float64")
_HINT = "Save a model of Keras 2's layers with model.save"


def build_model(text: str | bytes, source: str) -> keras.Model:
    """The model that a configuration in JSON describes, with fresh weights.

    Args:
        text: the configuration: `class_name` and `config`, and in .keras files `module` and `registered_name`.
        source: the file, for messages.

    Raises:
        ConversionError: it names what is not known here, or is nested too deeply, or not that of a model.
        MemoryShortageError: its weights do not fit into the memory.
        Exception: what Keras raises where the settings of a layer are wrong.
    """
    if len(text) > MAX_CONFIG_BYTES:
        raise ConversionError(f"{source} has a configuration of {len(text):,} bytes, which is too long", _HINT)
    config = json.loads(text)
    if not isinstance(config, dict) or not isinstance(config.get("config"), (dict, list)):
        raise ConversionError(f"{source} does not describe a model", _HINT)
    config = _Reader(source, known_classes(), known_names()).read(config)
    with keras_safe_mode(), no_advice(), bounded_variables(source, "model"):
        if "module" in config:
            model = keras.utils.deserialize_keras_object(config)
        else:
            model = keras.models.model_from_config(config)
    if not isinstance(model, keras.Model):
        raise ConversionError(f"{source} describes a {type(model).__name__}, not a model", _HINT)
    return model


@contextlib.contextmanager
def no_advice() -> Iterator[None]:
    """Without larq's advice on training, which it gives for every layer that it builds."""
    logger = logging.getLogger(lq.__name__)
    before = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(before)


@dataclass(frozen=True)
class _Reader:
    """Makes a configuration harmless: without what belongs to training, with known names only."""

    source: str
    classes: dict[str, list[type]]
    names: dict[str, frozenset[str]]

    def read(self, item: Any, layer: str = "", depth: int = 0) -> Any:
        """`item` for Keras.

        Args:
            item: of JSON.
            layer: the innermost named object around it, for messages.
            depth: how many lists and objects are around it.
        """
        if depth > _MAX_DEPTH:
            raise ConversionError(f"{self.source} has a configuration nested more than {_MAX_DEPTH} deep", _HINT)
        if isinstance(item, list):
            return [self.read(one, layer, depth + 1) for one in item]
        if not isinstance(item, dict):
            return item
        # Keras would decode the text beside this mark, which nobody has looked at.
        if "_TYPE" in item:
            raise self._refusal("a sparse or ragged constant", layer)
        if (name := item.get("class_name")) is None:
            return self._settings(item, layer, depth)
        settings = item.get("config")
        if isinstance(settings, dict) and isinstance(settings.get("name"), str):
            layer = settings["name"]
        if name in ("__tuple__", "TensorShape"):
            items = self.read(_list(item.get("items")), layer, depth + 1)
            return tuple(items) if name == "__tuple__" else items
        if name == "__ellipsis__":
            return ...
        if name in ("__tensor__", "__numpy__"):
            return self._constant(item, layer, depth)
        if name == "function":
            # Keras 2's own reader of .h5 does not read what its writer wrote of functions; their names it does.
            if not isinstance(settings, str) or settings not in self.names["activation"]:
                raise self._refusal(f"the function {printable(settings)}", layer)
            return settings
        return self._object(name, item, layer, depth)

    def _settings(self, item: dict[str, Any], layer: str, depth: int) -> dict[str, Any]:
        for key, value in item.items():
            known = self.names.get(key.rpartition("_")[2])
            if known is not None and isinstance(value, str) and value not in known:
                raise self._refusal(f"the {key} {printable(value)}", layer)
        return {key: self.read(one, layer, depth + 1) for key, one in item.items() if key != "compile_config"}

    def _constant(self, item: dict[str, Any], layer: str, depth: int) -> dict[str, Any]:
        settings = item.get("config")
        if not isinstance(settings, dict) or settings.get("dtype") not in _NUMBERS:
            raise self._refusal("a constant that is not of numbers", layer)
        value = self.read(_list(settings.get("value")), layer, depth + 1)
        return {"class_name": item["class_name"], "config": {"value": value, "dtype": settings["dtype"]}}

    def _object(self, name: Any, item: dict[str, Any], layer: str, depth: int) -> dict[str, Any]:
        kind = self._class(name, item, layer)
        item = self._settings(item, layer, depth)
        if kind.__name__ in _OP_LAYERS:
            self._check_operation(item, layer)
        settings = item.get("config")
        if issubclass(kind, keras.Model) and isinstance(settings, dict) and isinstance(settings.get("layers"), list):
            settings["layers"] = _Layers(settings["layers"], self.source, layer)
        if name == "Activation" and isinstance(settings, dict) and settings.get("activation") in QUANTIZERS:
            # To Keras the function's name is larq's alias of the class, which it would put in the function's place.
            kind = getattr(lq.quantizers, QUANTIZERS[settings["activation"]])
            item |= {"class_name": kind.__name__}
            item |= {"config": {"name": settings.get("name"), "dtype": settings.get("dtype")}}
        if "module" in item:
            registered = keras.utils.get_registered_name(kind)
            custom = keras.utils.get_registered_object(registered) is kind
            item |= {"class_name": kind.__name__, "module": kind.__module__}
            item |= {"registered_name": registered if custom else None}
        else:
            item.pop("registered_name", None)
        return item

    def _class(self, name: Any, item: dict[str, Any], layer: str) -> type:
        """The known class that `item` names."""
        if name in ("Lambda", "__lambda__"):
            raise ConversionError(
                f"{self.source} has a Lambda layer, which is Python code inside the file, and is not run here "
                f"(layer {printable(layer)})",
                "Write it with layers, or with TensorFlow functions such as tf.nn.relu(x), and save the model again",
            )
        if not isinstance(name, str) or name not in self.classes:
            raise self._refusal(f"the layer or object {printable(name)}", layer)
        module = item.get("module")
        kinds = self.classes[name]
        # An initializer is called Identity, and a layer.
        kind = next(
            (one for one in kinds if ("initializers" in one.__module__) == ("initializers" in str(module))), None
        )
        kind = kind or kinds[0]
        root = kind.__module__.partition(".")[0]
        allowed = _KERAS if root in _KERAS else (root,)
        if module is not None and not (isinstance(module, str) and module.partition(".")[0] in allowed):
            raise self._refusal(f"{name} of the module {printable(module)}", layer)
        registered = item.get("registered_name")
        if registered not in (None, name, kind.__name__, keras.utils.get_registered_name(kind)):
            raise self._refusal(f"{name} registered as {printable(registered)}", layer)
        return kind

    def _check_operation(self, item: dict[str, Any], layer: str) -> None:
        settings = item.get("config")
        function = settings.get("function") if isinstance(settings, dict) else None
        if not isinstance(function, str) or function not in OPERATIONS:
            raise self._refusal(f"the function tf.{printable(function)}", layer)
        # Keras makes such a layer of a tensor of the model. Of constants alone it would be computed at once.
        for node in _list(item.get("inbound_nodes")):
            if not _has_tensor(node):
                raise self._refusal(f"the function tf.{function} of constants alone", layer)

    def _refusal(self, what: str, layer: str) -> UnknownPartError:
        return UnknownPartError(
            f"{self.source} uses {what}{f' in layer {printable(layer)}' if layer else ''}, which is not a known part "
            "of Keras 2, larq or bssl_tf",
            "Build the model from their layers; a custom layer can be converted from Python, with "
            "bssl_tf_converters.lce.export.convert_model",
        )


class _Layers(list[Any]):
    """The layers of a model, which Keras goes through again and again until the inputs of all of them are there.

    It never ends where an input cannot come: from an output which no layer has, or round a circle.
    """

    def __init__(self, layers: list[Any], source: str, model: str) -> None:
        super().__init__(layers)
        nodes = [one.get("inbound_nodes") for one in layers if isinstance(one, dict)]
        # Each time but the first something is found; some more, for who only looks at the layers.
        self._left = 10 + sum(len(one) for one in nodes if isinstance(one, list))
        self._source, self._model = source, model

    def __iter__(self) -> Iterator[Any]:
        self._left -= 1
        if self._left < 0:
            raise ConversionError(
                f"{self._source} has layers in {printable(self._model)} whose inputs no layer gives, or that are "
                "inputs of each other",
                "Save the model again, from Keras 2",
            )
        return super().__iter__()


def _list(value: Any) -> Any:
    return [] if value is None else value


def _has_tensor(node: Any) -> bool:
    """Whether a node, or an argument in it, is the output of a layer: [its name, node, output]."""
    if isinstance(node, dict):
        return any(_has_tensor(one) for one in node.values())
    if not isinstance(node, (list, tuple)):
        return False
    if len(node) >= 3 and isinstance(node[0], str) and node[0] != "_CONSTANT_VALUE":
        return all(type(one) is int for one in node[1:3])
    return any(_has_tensor(one) for one in node)


def printable(value: Any) -> str:
    """Text from an untrusted file, for a message: one short line without control characters."""
    return "".join(letter if letter.isprintable() else "?" for letter in str(value)[:60])
