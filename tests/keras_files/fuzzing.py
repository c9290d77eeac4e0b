"""Builds a model with each class and each function that Keras can name, and reports what that did to the system.

Run in a process of its own: an audit hook cannot be taken off.
"""

from __future__ import annotations

import inspect
import json
import os
import sys
from pathlib import Path
from typing import Any

from bssl_tf.backend import keras, lq
from bssl_tf.errors import ConversionError
from bssl_tf.keras_files.configuration import build_model
from bssl_tf.keras_files.operations import OPERATIONS
from bssl_tf.keras_files.vocabulary import known_classes
from tests.keras_files.hostile import Config, in_new_format, layer

_WATCHED = (
    "ctypes.dlopen", "ctypes.dlsym", "os.chmod", "os.exec", "os.fork", "os.link", "os.mkdir", "os.posix_spawn",
    "os.remove", "os.rename", "os.rmdir", "os.spawn", "os.symlink", "os.system", "os.truncate", "shutil.copyfile",
    "shutil.move", "shutil.rmtree", "socket.connect", "subprocess.Popen", "urllib.Request",
)  # fmt: skip
# TensorFlow writes the code of larq's layers and ours anew, for graphs, into a temporary file; nothing of it is the
# model's. And HDF5 is read by a process of its own first.
_EXPECTED = (("autograph/pyct/loader.py", ""), ("keras_files/files.py", "_comes_to_an_end"))


def expected() -> bool:
    """Whether what happens is done with any model, whatever is in it."""
    frame = inspect.currentframe()
    while frame is not None:
        code = frame.f_code
        if any(code.co_filename.endswith(file) and function in code.co_name for file, function in _EXPECTED):
            return True
        frame = frame.f_back
    return False


class Watch:
    """What happened since it was switched on."""

    def __init__(self) -> None:
        self.on = False
        self.effects: list[str] = []
        sys.addaudithook(self.note)

    def note(self, event: str, arguments: tuple[Any, ...]) -> None:
        if not self.on:
            return
        if event == "open":
            path, mode, flags = arguments
            writing = isinstance(flags, int) and flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC)
            if (writing or set(str(mode or "")) & set("wax+")) and not expected():
                self.effects.append(f"open {path}")
        elif event in _WATCHED and not expected():
            self.effects.append(f"{event} {str(arguments)[:100]}")


def functions() -> list[str]:
    """Every name that TensorFlow and Keras export."""
    from tensorflow.python.util import tf_export  # no public list

    tf_export.get_symbol_from_name("io.write_file")
    return sorted({*tf_export._NAME_TO_SYMBOL_MAPPING, *OPERATIONS})


def classes() -> list[str]:
    """Every class that Keras looks up by name."""
    from tf_keras.src.layers import serialization  # no public list

    serialization.populate_deserializable_objects()
    rooms: tuple[Any, ...] = (keras.layers, keras.initializers, keras.regularizers, keras.constraints)
    rooms += (keras.optimizers, keras.losses, keras.metrics, keras.models, lq.layers, lq.quantizers, lq.constraints)
    names = {name for room in rooms for name, value in vars(room).items() if isinstance(value, type)}
    names |= {*serialization.LOCAL.ALL_OBJECTS, *keras.utils.get_custom_objects(), "Lambda", "TFSMLayer"}
    return sorted(names | {"TensorFlowOpLayer", "ClassMethod", "InstanceMethod", "InstanceProperty", "DenseFeatures"})


def around(stranger: Config) -> Config:
    """A model of an image, the layer, and nothing else."""
    image = {"batch_input_shape": [None, 8, 8, 3], "dtype": "float32", "name": "image"}
    start = {"class_name": "InputLayer", "config": image, "name": "image", "inbound_nodes": []}
    ends: dict[str, Any] = {"input_layers": [["image", 0, 0]], "output_layers": [["evil", 0, 0]]}
    return {"class_name": "Functional", "config": {"name": "model", "layers": [start, stranger], **ends}}


def main(place: Path) -> None:
    """Prints the counts and what happened, as JSON."""
    os.chdir(place)
    watch = Watch()
    known, marker, victim = known_classes(), str(place / "marker"), str(place / "victim")
    counts = {f"{kind} {end}": 0 for kind in ("classes", "functions") for end in ("built", "failed", "refused")}
    passed: list[str] = []

    def attempt(kind: str, name: str, config: Config, expected: bool) -> None:
        before = sorted(place.iterdir())
        watch.on = True
        try:
            build_model(json.dumps(config), "FILE")
            end = "built"
        except ConversionError:
            end = "refused"
        except Exception:
            end = "failed"
        finally:
            watch.on = False
        counts[f"{kind} {end}"] += 1
        if not expected and end != "refused":
            passed.append(f"{kind} {name}")
        if sorted(place.iterdir()) != before:
            watch.effects.append(f"{kind} {name} changed {place}")

    for name in functions():
        nodes: list[list[Any]] = [["_CONSTANT_VALUE", -1, marker, {"contents": "here"}]]
        if name in OPERATIONS:
            nodes = [["image", 0, 0, arguments] for arguments in ({}, {"y": 2.0}, {"filename": victim, "name": marker})]
        for node in nodes:
            attempt("functions", name, around(layer("TFOpLambda", {"function": name}, [node])), name in OPERATIONS)
    settings: Config = {"units": 2, "filters": 2, "kernel_size": 1, "pool_size": 1, "filepath": victim}
    settings |= {
        "vocabulary": victim,
        "rate": 0.5,
        "padding": "valid",
        "activation": "linear",
        "function": "io.write_file",
    }
    for name in classes():
        expected = name in known and name not in ("TFOpLambda", "SlicingOpLambda")
        # Keras refuses settings that a class does not know.
        for some in ({}, {"units": 2}, {"filters": 2, "kernel_size": 1}, {"activation": "linear"}, settings):
            attempt("classes", name, around(layer(name, dict(some))), expected)
            attempt("classes", name, in_new_format(around(layer(name, dict(some)))), expected)
        nested = layer("Dense", {"units": 2, "kernel_initializer": {"class_name": name, "config": settings}})
        attempt("classes", name, around(nested), expected)
        attempt("classes", name, around(layer("TimeDistributed", {"layer": layer(name, {})})), expected)
    print(json.dumps({**counts, "effects": watch.effects, "not refused": sorted(set(passed))}))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
