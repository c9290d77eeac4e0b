"""The interpreters that are compared, opened alike: a call copies an image in, computes, and copies the output out."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from benchmarks.networks import BINARY, BINARY_INT8, FLOAT32, INT8
from bssl_tf.errors import RuntimeUnavailableError
from bssl_tf_converters.lce import converter as lce
from bssl_tf_deploy.library import describe
from bssl_tf_deploy.quiet import captured_output
from bssl_tf_deploy.record import Graph

OURS, OURS_INT8 = "ours", "ours_int8"
LCE, LCE_INT8 = "lce", "lce_int8"
# Variant -> the kind of model that it runs.
VARIANTS = {
    OURS: BINARY,
    OURS_INT8: BINARY_INT8,
    LCE: BINARY,
    LCE_INT8: BINARY_INT8,
    FLOAT32: FLOAT32,
    INT8: INT8,
}
# Ours -> the one that its results have to agree with.
REFERENCES = {OURS: LCE, OURS_INT8: LCE_INT8}


class Variant(Protocol):
    """An open interpreter; `kernel` is what computes, in words."""

    kernel: str

    def run(self, image: np.ndarray) -> np.ndarray:
        """The output, float32 or int8 [1, ...], for `image`, float32 or int8 [1, H, W, C] as `prepare` gives it."""

    def prepare(self, image: np.ndarray) -> np.ndarray:
        """`image`, float32 [1, H, W, C], in the type that the model takes."""

    def meaning(self, output: np.ndarray) -> np.ndarray:
        """What `run` gave, as float32."""

    def graph(self) -> Graph | None:
        """Who computes what; None where the interpreter does not report it."""


class Lce:
    """LCE's own interpreter at its best; see `lce.LceInterpreter`."""

    def __init__(self, model: bytes, threads: int = 1) -> None:
        made = lce.LceInterpreter(model, threads)
        self.name, self.kernel, self.versions = made.name, made.kernel, made.versions
        self._made = made

    def run(self, image: np.ndarray) -> np.ndarray:
        """See `Variant`. Without the checks and the second copy of `LceInterpreter.run`, which are not LCE's."""
        output: np.ndarray = self._made._interpreter.predict([image])[0]
        return output

    def prepare(self, image: np.ndarray) -> np.ndarray:
        """See `Variant`."""
        [quantization] = self._made.input_quantizations
        return image if quantization is None else quantization.integers(image)

    def meaning(self, output: np.ndarray) -> np.ndarray:
        """See `Variant`."""
        [quantization] = self._made.output_quantizations
        return output if quantization is None else quantization.floats(output)

    def graph(self) -> Graph | None:
        """See `Variant`."""
        return None


class LiteRt:
    """The stock interpreter with XNNPACK, as by default, and our delegate where a library is given.

    Args:
        model: a TFLite flatbuffer, batches of one.
        threads: threads for one image, at least 1.
        library: our runtime; None for a model of builtin operators.
        isa: the kernels that our runtime is to use; see its option of that name.

    Raises:
        RuntimeUnavailableError: the library cannot be loaded, or the model not be run.
    """

    def __init__(self, model: bytes, threads: int, library: Path | None = None, isa: str = "auto") -> None:
        module = _lite_rt()
        self.kernel = "LiteRT XNNPACK"
        if library is not None:
            self.kernel = f"bssl-tf runtime {describe(library)[1].partition(',')[0]}, the rest XNNPACK"
        # Both announce themselves on standard error.
        with captured_output():
            try:
                # The interpreter keeps the delegate, and lets go of it after itself.
                delegates = None
                if library is not None:
                    delegates = [module.load_delegate(str(library), {"num_threads": str(threads), "isa": isa})]
                self._interpreter = module.Interpreter(
                    model_content=model, num_threads=threads, experimental_delegates=delegates
                )
                self._interpreter.allocate_tensors()
            except (OSError, AttributeError, ValueError, RuntimeError) as error:
                subject = f"this model with {library}" if library else "this model"
                raise RuntimeUnavailableError(
                    f"LiteRT does not run {subject} ({error})", "Build the library again, or omit it"
                ) from error
        self._input = self._interpreter.get_input_details()[0]
        self._output = self._interpreter.get_output_details()[0]

    def run(self, image: np.ndarray) -> np.ndarray:
        """See `Variant`."""
        self._interpreter.set_tensor(self._input["index"], image)
        self._interpreter.invoke()
        output: np.ndarray = self._interpreter.get_tensor(self._output["index"])
        return output

    def prepare(self, image: np.ndarray) -> np.ndarray:
        """See `Variant`."""
        if self._input["dtype"] != np.int8:
            return image
        scale, zero_point = self._input["quantization"]
        return np.clip(np.round(image / scale) + zero_point, -128, 127).astype(np.int8)

    def meaning(self, output: np.ndarray) -> np.ndarray:
        """See `Variant`."""
        if output.dtype != np.int8:
            return output
        scale, zero_point = self._output["quantization"]
        return ((output.astype(np.float32) - zero_point) * scale).astype(np.float32)

    def graph(self) -> Graph | None:
        """See `Variant`."""
        nodes = self._interpreter._get_ops_details()  # the only place that tells, and public to no one
        plain = {node["index"]: node for node in nodes if node["op_name"] != "DELEGATE"}
        writer = {int(tensor): index for index, node in plain.items() for tensor in node["outputs"]}
        ours: list[set[int]] = []
        others: list[set[int]] = []
        for node in nodes:
            if node["op_name"] == "DELEGATE":
                covered = _between(node, plain, writer)
                lce_ops = any(plain[index]["op_name"].startswith("Lce") for index in covered)
                (ours if lce_ops else others).append(covered)
        taken = set().union(*ours, *others)
        return Graph(
            our_nodes=len(ours),
            xnnpack_nodes=len(others),
            our_operators=_names(plain, set().union(*ours)),
            remaining_operators=_names(plain, set(plain) - taken),
        )


def _lite_rt() -> Any:
    try:
        from ai_edge_litert import interpreter
    except ImportError as error:
        raise RuntimeUnavailableError(
            f"LiteRT cannot be loaded ({error})", "Install it with `pip install ai-edge-litert`"
        ) from error
    return interpreter


def _between(delegate: dict[str, Any], plain: dict[int, dict[str, Any]], writer: dict[int, int]) -> set[int]:
    """The nodes that a delegate's node stands for: those on the ways back from its outputs to its inputs."""
    stop = {int(tensor) for tensor in delegate["inputs"]}
    pending = [int(tensor) for tensor in delegate["outputs"]]
    covered: set[int] = set()
    while pending:
        index = writer.get(pending.pop())
        if index is not None and index not in covered:
            covered.add(index)
            pending += [int(tensor) for tensor in plain[index]["inputs"] if int(tensor) not in stop]
    return covered


def _names(nodes: dict[int, dict[str, Any]], chosen: set[int]) -> dict[str, int]:
    return dict(sorted(Counter(nodes[index]["op_name"] for index in chosen).items()))


def load_native(variant: str) -> None:
    """Loads the native code of a variant's interpreter, so that opening a model counts the model alone."""
    if variant in REFERENCES.values():
        lce._interpreter_wrapper()
    else:
        _lite_rt()


def open_variant(variant: str, model: bytes, threads: int, library: Path | None, isa: str) -> Variant:
    """Opens `model` in the interpreter of `variant`, a key of `VARIANTS`. Errors: see `Lce` and `LiteRt`."""
    if variant in REFERENCES.values():
        return Lce(model, threads)
    return LiteRt(model, threads, library if variant in REFERENCES else None, isa)
