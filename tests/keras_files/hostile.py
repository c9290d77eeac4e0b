"""Keras files that would run code, made by hand: a harmless model, and a layer of a stranger's in its configuration."""

from __future__ import annotations

import copy
import functools
import json
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py  # type: ignore[import-untyped]

from bssl_tf.backend import keras

Config = dict[str, Any]
SUFFIXES = (".h5", ".keras")


@functools.cache
def _harmless() -> keras.Model:
    image = keras.Input((28, 28, 1), name="image")
    x = keras.layers.Conv2D(4, 3, name="conv")(image)
    x = keras.layers.GlobalAveragePooling2D(name="pool")(x)
    return keras.Model(image, keras.layers.Dense(6, name="top")(x), name="teacher")


def operation(function: str, first: Any, **arguments: Any) -> Config:
    """A layer that calls a function of TensorFlow on constants alone."""
    return layer("TFOpLambda", {"function": function}, [["_CONSTANT_VALUE", -1, first, arguments]])


def layer(class_name: str, config: Config, nodes: list[Any] | None = None, **about: Any) -> Config:
    """A layer called `evil` of a functional model."""
    settings = {"name": "evil", "trainable": True, "dtype": "float32", **config}
    nodes = [[["image", 0, 0, {}]]] if nodes is None else nodes
    return {"class_name": class_name, "config": settings, "name": "evil", "inbound_nodes": nodes, **about}


def in_new_format(item: Any) -> Any:
    """A configuration as .keras files have it, with a module for each class."""
    if isinstance(item, list):
        return [in_new_format(one) for one in item]
    if not isinstance(item, dict):
        return item
    item = {key: in_new_format(value) for key, value in item.items()}
    if "class_name" in item and "module" not in item:
        op = item["class_name"] in ("TFOpLambda", "SlicingOpLambda")
        item |= {"module": "tf_keras.src.layers.core.tf_op_layer" if op else "keras.layers", "registered_name": None}
    return item


def write_model(path: Path, stranger: Config, change: Callable[[Config], None] = lambda config: None) -> Path:
    """A harmless teacher with one layer more, first after the image, in a file of the suffix's form."""
    _harmless().save(path)
    if path.suffix == ".h5":
        with h5py.File(path, "r+") as file:
            config = json.loads(file.attrs["model_config"])
            config["config"]["layers"].insert(1, copy.deepcopy(stranger))
            change(config)
            file.attrs["model_config"] = json.dumps(config)
        return path
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    config = json.loads(members["config.json"])
    config["config"]["layers"].insert(1, in_new_format(stranger))
    change(config)
    members["config.json"] = json.dumps(config).encode()
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return path


def strangers(folder: Path) -> dict[str, tuple[Config, str]]:
    """Layers that would touch `folder`, which has a file `victim` and a folder `kept`, with what is refused."""
    marker, victim, kept = (str(folder / name) for name in ("marker", "victim", "kept"))
    writes = operation("io.write_file", marker, contents="here")

    def convolution(**settings: Any) -> Config:
        return layer("Conv2D", {"filters": 2, "kernel_size": [1, 1], **settings})

    sequence = {"class_name": "Sequential", "config": {"name": "inner", "layers": [writes]}}
    graph = {
        "class_name": "Functional",
        "config": {
            "name": "inner",
            "layers": [
                layer("InputLayer", {"batch_input_shape": [None, 28, 28, 1], "name": "again"}, []) | {"name": "again"},
                writes,
            ],
            "input_layers": [["again", 0, 0]],
            "output_layers": [["again", 0, 0]],
        },
        "inbound_nodes": [[["image", 0, 0, {}]]],
        "name": "inner",
    }
    imported = {"class_name": "Dense", "config": {"units": 2}, "module": "antigravity", "registered_name": None}
    return {
        "write_file": (writes, "the function tf.io.write_file in layer evil"),
        "constants alone": (
            operation("math.add", [1.0], y=[2.0]),
            "the function tf.math.add of constants alone in layer evil",
        ),
        "copy": (operation("io.gfile.copy", victim, dst=marker), "the function tf.io.gfile.copy in layer evil"),
        "rename": (operation("io.gfile.rename", victim, dst=marker), "the function tf.io.gfile.rename in layer evil"),
        "rmtree": (operation("io.gfile.rmtree", kept), "the function tf.io.gfile.rmtree in layer evil"),
        "remove": (operation("io.gfile.remove", victim), "the function tf.io.gfile.remove in layer evil"),
        "makedirs": (operation("io.gfile.makedirs", marker), "the function tf.io.gfile.makedirs in layer evil"),
        "load_library": (operation("load_library", victim), "the function tf.load_library in layer evil"),
        "load_op_library": (operation("load_op_library", victim), "the function tf.load_op_library in layer evil"),
        "py_function": (operation("py_function", "os.system", inp=[marker], Tout="int32"), "tf.py_function in layer"),
        "numpy_function": (operation("numpy_function", "os.system", inp=[marker], Tout="int32"), "tf.numpy_function"),
        "raw op": (operation("raw_ops.WriteFile", marker, contents="here"), "tf.raw_ops.WriteFile in layer evil"),
        "print to a file": (
            operation("print", "here", output_stream=f"file://{marker}"),
            "the function tf.print in layer evil",
        ),
        "reads a vocabulary": (
            operation("nn.fixed_unigram_candidate_sampler", [[1]], vocab_file=victim),
            "the function tf.nn.fixed_unigram_candidate_sampler in layer evil",
        ),
        "keras utility": (
            operation("keras.utils.get_file", "marker", origin=f"file://{victim}", cache_dir=str(folder)),
            "the function tf.keras.utils.get_file in layer evil",
        ),
        "slicing": (
            layer(
                "SlicingOpLambda",
                {"function": "io.write_file"},
                [["_CONSTANT_VALUE", -1, marker, {"contents": "here"}]],
            ),
            "the function tf.io.write_file in layer evil",
        ),
        "node of a graph": (layer("TensorFlowOpLayer", {"node_def": "WriteFile"}), "TensorFlowOpLayer in layer evil"),
        "class method": (layer("ClassMethod", {"cls_symbol": "io.gfile.GFile"}), "object ClassMethod in layer evil"),
        "SavedModel inside": (layer("TFSMLayer", {"filepath": str(folder)}), "object TFSMLayer in layer evil"),
        "vocabulary": (layer("StringLookup", {"vocabulary": victim}), "object StringLookup in layer evil"),
        "module": (layer("Dense", {"units": 2}, module="antigravity"), "Dense of the module antigravity in layer evil"),
        "module of ours": (
            layer("Dense", {"units": 2}, module="bssl_tf.__main__"),
            "Dense of the module bssl_tf.__main__ in layer evil",
        ),
        "registered name": (
            layer("Dense", {"units": 2}, module="keras.layers", registered_name="Custom>Adam"),
            "Dense registered as Custom>Adam in layer evil",
        ),
        "in Sequential": (sequence | {"name": "inner", "inbound_nodes": graph["inbound_nodes"]}, "tf.io.write_file in"),
        "in a functional model": (graph, "the function tf.io.write_file in layer evil"),
        "in TimeDistributed": (layer("TimeDistributed", {"layer": writes}), "the function tf.io.write_file in layer"),
        "in Bidirectional": (
            layer("Bidirectional", {"layer": layer("LSTM", {"units": 2}), "backward_layer": writes}),
            "the function tf.io.write_file in layer evil",
        ),
        "in RNN": (layer("RNN", {"cell": imported}), "Dense of the module antigravity in layer evil"),
        "initializer": (convolution(kernel_initializer=writes), "the function tf.io.write_file in layer evil"),
        "initializer by module": (convolution(kernel_initializer=imported), "Dense of the module antigravity"),
        "regularizer": (convolution(kernel_regularizer=writes), "the function tf.io.write_file in layer evil"),
        "constraint": (convolution(kernel_constraint=writes), "the function tf.io.write_file in layer evil"),
        "activation": (convolution(activation=writes), "the function tf.io.write_file in layer evil"),
        "activation by module": (
            convolution(activation={"class_name": "function", "config": "system", "module": "os"}),
            "the function system in layer evil",
        ),
        "activation by name": (convolution(activation="deserialize"), "the activation deserialize in layer evil"),
        "initializer by name": (convolution(kernel_initializer="os"), "the kernel_initializer os in layer evil"),
        "types": (
            convolution(activation={"class_name": "__typespec__", "config": [], "spec_name": "x", "module": "os"}),
            "object __typespec__ in layer evil",
        ),
        "composite": (
            layer(
                "TFOpLambda",
                {"function": "math.add"},
                [[["image", 0, 0, {"y": {"class_name": "__tuple__", "items": [{"_TYPE": "COMPOSITE"}, "{}"]}}]]],
            ),
            "a sparse or ragged constant in layer evil",
        ),
    }
