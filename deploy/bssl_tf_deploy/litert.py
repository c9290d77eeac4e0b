"""The stock TFLite interpreter, in whichever package it is installed, with its XNNPACK kernels and, on demand, ours."""

from __future__ import annotations

import importlib
import traceback
import weakref
from collections.abc import Callable, Sequence
from importlib import metadata
from operator import attrgetter
from pathlib import Path
from typing import Any

import numpy as np

from bssl_tf_deploy.errors import RuntimeUnavailableError
from bssl_tf_deploy.forks import never_end, watch
from bssl_tf_deploy.library import describe
from bssl_tf_deploy.manifest import Quantization
from bssl_tf_deploy.system_errors import memory_shortage

# Package, module, and the names in it of the interpreter and of what loads a delegate; the first that is installed
# runs the model. The modules are named here, not imported: a device has one of them, and never needs TensorFlow.
_PACKAGES = (
    ("ai-edge-litert", "ai_edge_litert.interpreter", "Interpreter", "load_delegate"),
    ("tflite-runtime", "tflite_runtime.interpreter", "Interpreter", "load_delegate"),
    ("tensorflow", "tensorflow", "lite.Interpreter", "lite.experimental.load_delegate"),
)


class LiteRtInterpreter:
    """A stock interpreter, one image at a time. XNNPACK is on, as by default.

    Each object has its own interpreter and its own delegate. One thread at a time may use it; different objects can be
    used at the same time. A child of `os.fork` makes its own of both when it first uses the object.

    Args:
        model: a TFLite flatbuffer, batches of one; of builtin operators, or with `library` of LCE's too.
        threads: threads for one image, 1 to 64.
        library: the runtime library that brings LCE's operators.
        profiled: whether `library` can be asked for the times of its nodes; see `bssl_tf_deploy.operators`.

    Attributes:
        name: `own` with our library, else `stock`.
        kernel: what computes, in words.
        versions: of the packages that compute.
        library: what was given.
        native: the interpreter of that package itself.
        delegate: the object that holds our library's delegate; None without `library`.

    Raises:
        RuntimeUnavailableError: no interpreter or not this library can be loaded, or they cannot run this model.
    """

    def __init__(self, model: bytes, threads: int = 1, library: Path | None = None, *, profiled: bool = False) -> None:
        self._model, self._threads, self._profiled = model, threads, profiled
        self._is_the_parents = False
        package, make_interpreter, load_delegate = _stock()
        self.versions = {package: metadata.version(package)}
        self.name, self.kernel = "stock", "LiteRT XNNPACK"
        delegates = []
        if library is not None:
            # First, because a delegate that cannot be loaded leaves a half-made object that complains at its end.
            version, kernels = describe(library)
            self.versions = {"bssl-tf runtime": version} | self.versions
            self.name, self.kernel = "own", f"bssl-tf runtime {kernels.partition(',')[0]}, the rest XNNPACK"
        try:
            if library is not None:
                # A library of an older bundle does not know the option.
                options = {"num_threads": str(threads)} | ({"profile": "1"} if profiled else {})
                delegates = [load_delegate(str(library), options)]
            self.native = make_interpreter(model_content=model, num_threads=threads, experimental_delegates=delegates)
            _keep_until_gone(self.native, delegates)
            self.native.allocate_tensors()
        except (ValueError, RuntimeError) as error:
            # A half-made interpreter goes now, while its delegate is there, and not with the traceback.
            traceback.clear_frames(error.__traceback__)
            raise RuntimeUnavailableError(
                f"LiteRT does not run this model ({error})",
                "Export it again" if library else "Give it a model of builtin operators",
            ) from error
        self.library, self.delegate = library, delegates[0] if delegates else None
        self._inputs = [
            (one["index"], np.dtype(one["dtype"]), tuple(map(int, one["shape"])))
            for one in self.native.get_input_details()
        ]
        self._outputs = [
            (one["index"], Quantization(*one["quantization"]) if one["dtype"] == np.int8 else None)
            for one in self.native.get_output_details()
        ]
        if threads > 1:
            watch(self)

    def run(self, inputs: Sequence[np.ndarray]) -> list[np.ndarray]:
        """The model's outputs in its order, float32 [B, ...], also of those that are int8.

        Args:
            inputs: for each input of the model, in its order, [B, ...] of its type; B is at least 1.

        Raises:
            ValueError: there are more or fewer inputs, one has another type or shape, or not as many rows.
        """
        if self._is_the_parents:
            LiteRtInterpreter.__init__(self, self._model, self._threads, self.library, profiled=self._profiled)
        if len(inputs) != len(self._inputs):
            raise ValueError(f"there are {len(inputs)} inputs, the network takes {len(self._inputs)}")
        count = len(inputs[0])
        for array, (_, dtype, shape) in zip(inputs, self._inputs, strict=True):
            if array.dtype != dtype or array.shape != (count, *shape[1:]) or not count:
                raise ValueError(
                    f"an input is {array.dtype} {list(array.shape)}, the network takes {dtype} {['N', *shape[1:]]}"
                )
        rows = []
        for index in range(count):
            for array, (place, _, _) in zip(inputs, self._inputs, strict=True):
                self.native.set_tensor(place, array[index : index + 1])
            self.native.invoke()
            rows.append([self.native.get_tensor(place) for place, _ in self._outputs])
        outputs = [np.concatenate(row) for row in zip(*rows, strict=True)]
        return [
            array if quantization is None else quantization.floats(array)
            for array, (_, quantization) in zip(outputs, self._outputs, strict=True)
        ]

    def leave_to_the_parent(self) -> None:
        """In a child of fork; see `bssl_tf_deploy.forks`."""
        self._is_the_parents = True
        never_end(self.native._interpreter)

    def predict(self, batch: np.ndarray) -> np.ndarray:
        """`run` for a model of one input and one output.

        Raises:
            ValueError: it has more, or see `run`.
        """
        [output] = self.run([batch])
        return output


def _keep_until_gone(interpreter: Any, delegates: list[Any]) -> None:
    """Lets `delegates` live until the native interpreter is gone, which still calls them while it goes.

    The interpreter itself keeps them only as long as nothing refers to it in a circle: the garbage collector would end
    them in the order they were made in, delegates first.
    """
    # Watching the native object, not the one in Python: that is declared dead before its end.
    keeper = weakref.finalize(interpreter._interpreter, delegates.clear)
    keeper.atexit = False


def _stock() -> tuple[str, Callable[..., Any], Callable[..., Any]]:
    """Name of the first package that is installed, its interpreter, and what loads a delegate."""
    broken: Exception | None = None
    for package, module, interpreter, load_delegate in _PACKAGES:
        try:
            loaded = importlib.import_module(module)
            return package, attrgetter(interpreter)(loaded), attrgetter(load_delegate)(loaded)
        except (ImportError, AttributeError) as error:
            # One that is there but does not load says more than one that is not there.
            if broken is None or isinstance(broken, ModuleNotFoundError) > isinstance(error, ModuleNotFoundError):
                broken = error
    assert broken is not None
    raise memory_shortage(broken) or RuntimeUnavailableError(
        f"no TFLite interpreter can be loaded ({broken})", "Install one with `pip install ai-edge-litert`"
    )
