"""The one door to Larq Compute Engine (LCE): its converter and its interpreter."""

from __future__ import annotations

import importlib.util
import platform
import sys
import tempfile
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

import numpy as np
import tflite

from bssl_tf.errors import BundleError, ConversionError, RuntimeUnavailableError, first_line
from bssl_tf.preprocessing import Preprocessing
from bssl_tf_converters.tflite.model import Tensor, read_model
from bssl_tf_deploy.forks import never_end, watch
from bssl_tf_deploy.manifest import Quantization
from bssl_tf_deploy.quiet import captured_output, with_output

if TYPE_CHECKING:
    from bssl_tf_converters.lce.folding.graph import Graph

# Our targets, and what LCE calls them. Its "arm" is its general one: it lays out weights for the kernels that both
# its ARM and its portable code use. The name is kept apart because a bundle also says where it is meant to run.
TARGETS = {"arm64": "arm", "x86_64": "arm", "android-arm64": "arm"}

INPUT_NAME = "image"
OUTPUT_NAME = "logits"

_WRAPPER = "larq_compute_engine.tflite.python.interpreter_wrapper_lite"


def convert(
    model: Any,
    target: str,
    *,
    preprocessing: Preprocessing | None = None,
    fold: bool = True,
    calibration: np.ndarray | None = None,
    int8_ends: bool = False,
    outputs: Sequence[str] | None = None,
) -> bytes:
    """Converts a Keras model with LCE.

    Args:
        model: a `keras.Model` with one float32 input [B, H, W, C] of known H, W, C.
        target: a key of `TARGETS`.
        preprocessing: given, the converted network takes raw pixels, uint8 [1, H, W, C], and normalises them itself;
            folded, that is a cast and one sum on the image, or the cast alone where the first convolution does not pad.
        fold: rewrite the graph first, so that what is constant costs nothing; see `bssl_tf_converters.lce.folding`.
            Outputs change by rounding only.
        calibration: images as the network takes them (before int8); given, float operators become int8, see
            `bssl_tf_converters.lce.int8`.
        int8_ends: with `calibration`, the network also takes and gives int8; not with `preprocessing`.
        outputs: names for the model's outputs, in its order; None for `default_names`.

    Returns:
        A TFLite flatbuffer for batches of one, with input `image` and `outputs` in its signature; see `output_names`
        for the order that they have there.

    Raises:
        ConversionError: LCE is not installed, cannot be used here, or cannot convert the model, or `preprocessing` is
            for other images.
    """
    graph = inference_graph(
        model, preprocessing=preprocessing, fold=fold, calibration=calibration, int8_ends=int8_ends, outputs=outputs
    )
    return convert_graph(graph, model.name, target, int8_ends=int8_ends)


def inference_graph(
    model: Any,
    *,
    preprocessing: Preprocessing | None = None,
    fold: bool = True,
    calibration: np.ndarray | None = None,
    int8_ends: bool = False,
    outputs: Sequence[str] | None = None,
) -> Graph:
    """What goes to LCE: the graph from `image` to `outputs`, with variables as constants; see `convert`."""
    from bssl_tf.backend import tf
    from bssl_tf_converters.lce import folding, int8
    from bssl_tf_converters.lce.folding.reading import read_graph

    outputs = outputs or default_names(model)
    shape = _input_shape(model, len(outputs))
    if preprocessing is not None and shape != (preprocessing.height, preprocessing.width, preprocessing.channels):
        raise ConversionError(
            f"{model.name} takes images {list(shape)}, but the preprocessing makes others",
            "Give the preprocessing that the network was trained with",
        )

    def infer(image: Any) -> dict[str, Any]:
        if preprocessing is not None:
            image = (tf.cast(image, tf.float32) / 255.0 - preprocessing.mean) / preprocessing.std
        return tf.nest.flatten(model(image, training=False))

    pixel = tf.float32 if preprocessing is None else tf.uint8
    signature = [tf.TensorSpec((1, *shape), pixel, name=INPUT_NAME)]
    with captured_output() as output:
        try:
            graph = read_graph(tf.function(infer, input_signature=signature).get_concrete_function(), outputs)
            if fold:
                folding.fold(graph)
        # Keras and TensorFlow raise whatever they like for a model that they cannot take.
        except Exception as error:
            raise _refused(model.name, error) from with_output(error, output())
    if calibration is not None:
        int8.quantize(graph, calibration, ends=int8_ends)
    return graph


def convert_graph(graph: Graph, name: str, target: str, *, int8_ends: bool = False) -> bytes:
    """Converts an inference graph with LCE.

    LCE's own entry for Keras models falls back, with no more than a warning, to a second conversion when the first
    fails, which hides the reason. Here only the inference graph, with its variables as constants, goes to LCE as a
    SavedModel, so there is nothing to fall back to. (Saving the Keras model takes 5 times as long as all the rest, most
    of it for training.) The result depends on the model only: the same weights give the same bytes.

    Args:
        graph: from `inference_graph`.
        name: of the model, for errors.
        target: a key of `TARGETS`.
        int8_ends: input and output, which the graph rounds to int8, are int8.

    Raises:
        ConversionError: as of `convert`.
    """
    from bssl_tf.backend import tf
    from bssl_tf_converters.lce.folding.writing import write_saved_model

    if target not in TARGETS:
        raise ConversionError(f"there is no target {target!r}", f"Choose one of {', '.join(TARGETS)}")
    with captured_output() as output:
        try:
            import larq_compute_engine
        except ImportError as error:
            raise ConversionError(
                _unavailable("converter", error),
                "Export on an x86-64 machine or a Mac with `pip install larq-compute-engine`; "
                "the bundle can be copied here",
            ) from with_output(error, output())
        dtype = tf.int8 if int8_ends else tf.float32
        try:
            with tempfile.TemporaryDirectory() as folder:
                saved = Path(folder) / "inference"
                write_saved_model(graph, saved)
                converted: bytes = larq_compute_engine.convert_saved_model(
                    saved, target=TARGETS[target], inference_input_type=dtype, inference_output_type=dtype
                )
        # MLIR too.
        except Exception as error:
            raise _refused(name, error) from with_output(error, output())
    if int8_ends:
        made = read_model(converted)
        if any(tensor.dtype != "int8" for tensor in (*made.inputs, *made.outputs)):
            raise ConversionError(
                f"LCE leaves input or output of {name} in float", "Export it with --input float32 --int8"
            )
    return converted


def _refused(name: str, error: Exception) -> ConversionError:
    return ConversionError(f"LCE cannot convert {name} ({first_line(error)})", "See what it printed with --debug")


class LceInterpreter:
    """LCE's interpreter, one image at a time, with its fastest binary kernel (indirect_bgemm).

    LCE's default kernel is slower than its own reference and is not offered. Loads no TensorFlow.

    LCE trusts its input. What is not a TFLite model is refused here, but a model garbled in a subtler way may still
    crash the process (5 of 400 with random bytes changed), so give it only bytes whose hash was checked.

    Args:
        model: a TFLite flatbuffer as `convert` makes it.
        threads: threads for one image, at least 1.
        xnnpack: float operators by XNNPACK, which is faster and has a fault (`interpreters`); else by TFLite's own
            kernels.

    Attributes:
        name: `lce`; this and what follows as in `bssl_tf_deploy.runtime.Runtime`.
        kernel: what computes, in words.
        versions: of LCE.
        input_quantizations: how each input stands for real numbers; None where it is not int8.
        output_quantizations: of each output.

    Raises:
        RuntimeUnavailableError: LCE is not installed or cannot be loaded.
        ConversionError: `model` is not a valid TFLite flatbuffer.
        BundleError: LCE refuses it.
    """

    name = "lce"

    def __init__(self, model: bytes, threads: int = 1, *, xnnpack: bool = True) -> None:
        self._threads, self._xnnpack, self._is_the_parents = threads, xnnpack, False
        self.kernel = f"LCE indirect_bgemm, the rest {'XNNPACK' if xnnpack else 'TFLite'}"
        # LCE trusts what it is given: bytes that are cut short crash the process.
        summary = read_model(model)
        wrapper = _interpreter_wrapper()
        self.versions = {"larq-compute-engine": metadata.version("larq-compute-engine")}
        with captured_output() as output:
            try:
                self._interpreter = wrapper.LiteInterpreter(model, threads, False, True, xnnpack)
            except RuntimeError as error:
                raise BundleError(
                    f"LCE's interpreter does not take this model ({first_line(error)})", "Export it again"
                ) from with_output(error, output())
        # The interpreter reads the flatbuffer where it lies.
        self._model = model
        made = self._interpreter
        self._ends = (summary.inputs, summary.outputs)
        self.input_quantizations = _quantizations(summary.inputs, made.input_scales, made.input_zero_points)
        self.output_quantizations = _quantizations(summary.outputs, made.output_scales, made.output_zero_points)
        if threads > 1:
            watch(self)

    def leave_to_the_parent(self) -> None:
        """In a child of fork, which makes an interpreter of its own when it needs one; see `bssl_tf_deploy.forks`."""
        self._is_the_parents = True
        never_end(self._interpreter)

    def run(self, inputs: Sequence[np.ndarray]) -> list[np.ndarray]:
        """The model's outputs in its order, float32 [B, ...], also of those that are int8.

        Args:
            inputs: for each input of the model, in its order, [B, ...] of its type. B may be 0.

        Raises:
            ValueError: there are more or fewer inputs, one has another type or shape, or not as many rows.
        """
        if self._is_the_parents:
            LceInterpreter.__init__(self, self._model, self._threads, xnnpack=self._xnnpack)
        taken, given = self._ends
        if len(inputs) != len(taken):
            raise ValueError(f"there are {len(inputs)} inputs, the network takes {len(taken)}")
        count = len(inputs[0])
        for array, tensor in zip(inputs, taken, strict=True):
            if array.dtype != tensor.dtype or array.shape != (count, *tensor.shape[1:]):
                raise ValueError(
                    f"an input is {array.dtype} {list(array.shape)}, the network takes {tensor.dtype} "
                    f"{['B', *tensor.shape[1:]]}"
                )
        ready = [np.ascontiguousarray(array) for array in inputs]
        rows = [self._interpreter.predict([array[i : i + 1] for array in ready]) for i in range(count)]
        outputs = [np.zeros((0, *tensor.shape[1:]), tensor.dtype) for tensor in given]
        if rows:
            outputs = [np.concatenate(column) for column in zip(*rows, strict=True)]
        return [
            array if quantization is None else quantization.floats(array)
            for array, quantization in zip(outputs, self.output_quantizations, strict=True)
        ]

    def predict(self, batch: np.ndarray) -> np.ndarray:
        """`run` for a model of one input and one output. Raises `ValueError`: it has more, or see `run`."""
        [output] = self.run([batch])
        return output


def default_names(model: Any) -> tuple[str, ...]:
    """Names for the outputs of a model that nobody named: `logits`, or where there are several `output0` and so on."""
    count = len(model.outputs)
    return (OUTPUT_NAME,) if count == 1 else tuple(f"output{number}" for number in range(count))


def output_names(converted: bytes) -> tuple[str, ...]:
    """The names of a converted network's outputs, in the order in which interpreters give them."""
    model = tflite.Model.GetRootAsModel(converted, 0)
    signature, places = model.SignatureDefs(0), model.Subgraphs(0).OutputsAsNumpy()
    pairs = [signature.Outputs(index) for index in range(signature.OutputsLength())]
    named = {pair.TensorIndex(): pair.Name().decode() for pair in pairs}
    return tuple(named[int(place)] for place in places)


def _input_shape(model: Any, outputs: int) -> tuple[int, ...]:
    shapes = [tuple(tensor.shape) for tensor in model.inputs]
    if len(shapes) != 1 or len(model.outputs) != outputs:
        raise ConversionError(
            f"{model.name} has {len(shapes)} inputs and {len(model.outputs)} outputs",
            f"Give it one input and {outputs} output{'s' if outputs > 1 else ''}",
        )
    shape = shapes[0][1:]
    if None in shape:
        # LCE would silently make them 1.
        raise ConversionError(f"{model.name} takes images of any size {list(shape)}", "Build it with a fixed size")
    if any(tensor.dtype.name != "float32" for tensor in (*model.inputs, *model.weights)):
        raise ConversionError(f"{model.name} is not float32 throughout", "Build it without mixed precision")
    return shape


def _quantizations(
    tensors: Sequence[Tensor], scales: Sequence[float], zero_points: Sequence[int]
) -> tuple[Quantization | None, ...]:
    found = zip(tensors, scales, zero_points, strict=True)
    return tuple(Quantization(scale, zero) if tensor.dtype == "int8" else None for tensor, scale, zero in found)


def _interpreter_wrapper() -> ModuleType:
    """LCE's native interpreter, loaded past the package's `__init__`, which would load TensorFlow (seconds)."""
    loaded = sys.modules.get(_WRAPPER)
    if loaded is not None:
        return loaded
    try:
        package = importlib.util.find_spec(_WRAPPER.partition(".")[0])
        if package is None or not package.submodule_search_locations:
            raise ImportError("it is not installed")
        *folders, name = _WRAPPER.split(".")[1:]
        folder = Path(package.submodule_search_locations[0], *folders)
        spec = next(
            spec
            for file in sorted(folder.glob(f"{name}.*"))
            if (spec := importlib.util.spec_from_file_location(_WRAPPER, file)) is not None and spec.loader is not None
        )
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
    except (ImportError, StopIteration) as error:
        raise RuntimeUnavailableError(
            _unavailable("interpreter", error),
            "Run the bundle on an x86-64 machine or a Mac with `pip install larq-compute-engine`",
        ) from error
    sys.modules[_WRAPPER] = module
    return module


def _unavailable(part: str, error: Exception) -> str:
    machine = f"{platform.system()} {platform.machine()}"
    if sys.platform == "linux" and platform.machine() == "aarch64":
        return f"LCE's {part} is not here: larq-compute-engine has no wheel for this platform ({machine})"
    return f"LCE's {part} cannot be loaded on this platform ({machine}: {error or 'no such file'})"
