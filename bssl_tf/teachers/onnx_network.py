"""A frozen network in an ONNX file, run by ONNX Runtime on batches that come out of TensorFlow's graph."""

from __future__ import annotations

import difflib
import functools
import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np

from bssl_tf.backend import tf
from bssl_tf.errors import NetworkError, first_line
from bssl_tf.teachers.inputs import Constants, TeacherOptions
from bssl_tf.teachers.onnx_file import OnnxFile, read_onnx
from bssl_tf.teachers.onnx_reading import find_input, find_output, find_pixels, vectors_of
from bssl_tf_deploy.text import printable

# As many images as a vision transformer of 300 million weights has room for in a few GB.
_AT_ONCE = 16
# Of all tensors that are there at one time: a small file may ask for any number of bytes.
_MAX_MEMORY_BYTES = 1 << 33
_DEFAULT_SIZE = 224


class OnnxNetwork:
    """A network from images to features, in a form that a teacher takes as it takes a Keras model.

    Attributes:
        image: the input.
        output: name of the tensor that the features are made of.
        made: how, in a few words; "" where it is a vector for each image.
        constants: mean and std of pixel / 255 for the input; None for what the student's views are normalised by.
        input_shape: (None, S, S, C) with None for what is not fixed, whatever the layout.
        output_shape: (None, D).
    """

    def __init__(self, path: Path, options: TeacherOptions, image_size: int = 0) -> None:
        """Opens the file.

        Args:
            path: a .onnx file; its weights may lie in files beside it.
            options: what the model does not show itself.
            image_size: what a model that takes any size is run with first, pixels per side; 0 for 224.

        Raises:
            NetworkError: see `read_onnx` and `onnx_reading`; or ONNX Runtime cannot load or run it.
        """
        file = read_onnx(path)
        self.path = path
        self.image = find_input(file, options.layout)
        self.constants: Constants | None = options.constants()
        if options.pixels == "auto":
            self.constants = find_pixels(file, self.image)
        self._session = _session(file, options.output)
        size = self.image.image_size or options.image_size or image_size or _DEFAULT_SIZE
        channels = self.image.channels or 3
        found = self._probed(file, np.zeros((_AT_ONCE, size, size, channels), np.float32), options.output)
        self.output = find_output(file, found, options.output)
        try:
            vectors, self.made = vectors_of(found[self.output], self.image.layout)
        except ValueError as error:
            raise NetworkError(f"{path} gives {error}, not one vector for each image", "Name another output") from error
        if len(vectors) != (self.image.batch or _AT_ONCE) or not vectors.shape[1]:
            raise NetworkError(
                f"{path} gives {list(found[self.output].shape)} for {self.image.batch or _AT_ONCE} images, not one "
                "vector for each image",
                "Name another output with --teacher-output",
            )
        sides = (self.image.image_size or None,) * 2
        self.input_shape = (None, *sides, self.image.channels or None)
        self.output_shape = (None, vectors.shape[1])
        self._sha256 = file.sha256

    def __call__(self, images: tf.Tensor, training: bool = False) -> tf.Tensor:
        """[B, S, S, C] float32, normalised for the network, to [B, D] float32; also inside a graph."""
        features = tf.numpy_function(self.run, [images], tf.float32, stateful=False)
        features.set_shape([images.shape[0], self.output_shape[1]])
        return features

    def run(self, images: np.ndarray) -> np.ndarray:
        """The same on arrays, a few images at a time, or as many as the model takes."""
        at_once = self.image.batch or _AT_ONCE
        parts = []
        for start in range(0, len(images), at_once):
            part = images[start : start + at_once]
            count = len(part)
            if self.image.batch and count < at_once:
                part = np.concatenate([part, np.repeat(part[-1:], at_once - count, axis=0)])
            [values] = self._session.run([self.output], {self.image.name: self._laid_out(part)})
            parts.append(vectors_of(values, self.image.layout)[0][:count])
        return np.concatenate(parts) if parts else np.zeros((0, self.output_shape[1]), np.float32)

    def fingerprint(self) -> str:
        """SHA-256, in hex, over the file and all that was found or said of it."""
        about = [self._sha256, self.image.layout, self.image.bgr, self.output, self.made, self.constants]
        return hashlib.sha256(json.dumps(about).encode()).hexdigest()

    def describe(self) -> dict[str, Any]:
        """For records."""
        return {
            "format": "onnx",
            "input": self.image.name,
            "layout": self.image.layout,
            "output": self.output,
            "output_made": self.made,
        }

    def _laid_out(self, images: np.ndarray) -> np.ndarray:
        if self.image.bgr:
            images = images[..., ::-1]
        if self.image.layout == "nchw":
            images = images.transpose(0, 3, 1, 2)
        if self.image.dtype is np.uint8:
            images = np.rint(np.clip(images, 0, 255))
        return np.ascontiguousarray(images, self.image.dtype)

    def _probed(self, file: OnnxFile, images: np.ndarray, output: str) -> dict[str, np.ndarray]:
        """All outputs, or the one that was named, for as many images as will be run at once."""
        names = [output] if output else [one.name for one in self._session.get_outputs()]
        images = images[: self.image.batch or _AT_ONCE]
        if self.image.batch > len(images):
            images = np.repeat(images[:1], self.image.batch, axis=0)
        try:
            values = self._session.run(names, {self.image.name: self._laid_out(images)})
        # ONNX Runtime has a class for each of its errors, and none above them.
        except Exception as error:
            raise NetworkError(
                f"{file.path} does not run on images of {images.shape[1]} px ({_cause(error)})",
                "Add --set teacher_image_size=PX if it takes another size, or export it again",
            ) from error
        return {name: value for name, value in zip(names, values, strict=True) if isinstance(value, np.ndarray)}


def _session(file: OnnxFile, output: str) -> Any:
    """The model in ONNX Runtime, with the tensor `output` among its outputs."""
    import onnxruntime

    _bound_memory()
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    # As many as TensorFlow's; they wait for each other's turn, so that neither should spin.
    options.intra_op_num_threads = tf.config.threading.get_intra_op_parallelism_threads()
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.add_session_config_entry("session.use_env_allocators", "1")
    # Otherwise the bytes may choose to be read as another format.
    options.add_session_config_entry("session.load_model_format", "ONNX")
    options.add_session_config_entry(
        "session.model_external_initializers_file_folder_path", str(file.path.resolve().parent)
    )
    try:
        return onnxruntime.InferenceSession(
            _with_output(file, output),
            options,
            providers=["CPUExecutionProvider"],
            # It would compute with constants while loading, without a bound on memory.
            disabled_optimizers=["ConstantFolding"],
        )
    except NetworkError:
        raise
    # As above.
    except Exception as error:
        raise NetworkError(
            f"ONNX Runtime cannot load {file.path} ({_cause(error)})", "Export it again, with another opset"
        ) from error


def _with_output(file: OnnxFile, name: str) -> bytes:
    """The model, serialised, with one more output if `name` is a tensor inside it. Raises `NetworkError`."""
    outputs = [one.name for one in file.model.graph.output]
    if not name or name in outputs:
        content: bytes = file.model.SerializeToString()
        return content
    known = [tensor for node in file.model.graph.node for tensor in node.output if tensor]
    if name not in known:
        near = difflib.get_close_matches(name, known, n=1)
        hint = f"Did you mean {near[0]}? " if near else ""
        raise NetworkError(
            f"{file.path} has no tensor {name!r}", f"{hint}Its outputs are {', '.join(outputs)}; --teacher-output NAME"
        )
    import onnx

    model = onnx.ModelProto()
    model.CopyFrom(file.model)
    model.graph.output.append(onnx.ValueInfoProto(name=name))
    content = model.SerializeToString()
    return content


@functools.cache
def _bound_memory() -> None:
    """Gives all sessions of this process one allocator with a limit."""
    import onnxruntime

    place = onnxruntime.OrtMemoryInfo(
        "Cpu", onnxruntime.OrtAllocatorType.ORT_ARENA_ALLOCATOR, 0, onnxruntime.OrtMemType.DEFAULT
    )
    # 1: grow by what is asked for, not by doubling.
    limit = onnxruntime.OrtArenaCfg({"max_mem": _MAX_MEMORY_BYTES, "arena_extend_strategy": 1})
    onnxruntime.create_and_register_allocator(place, limit)


def _cause(error: Exception) -> str:
    return printable(first_line(error).removeprefix("[ONNXRuntimeError] : "))
