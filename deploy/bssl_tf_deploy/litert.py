"""The stock TFLite interpreter, in whichever package it is installed, with its XNNPACK kernels and, on demand, ours."""

from __future__ import annotations

import importlib
import traceback
import weakref
from collections.abc import Callable
from importlib import metadata
from operator import attrgetter
from pathlib import Path
from typing import Any

import numpy as np

from bssl_tf_deploy.errors import RuntimeUnavailableError
from bssl_tf_deploy.library import describe

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
    used at the same time.

    Args:
        model: a TFLite flatbuffer, batches of one; of builtin operators, or with `library` of LCE's too.
        threads: threads for one image, 1 to 64.
        library: the runtime library that brings LCE's operators.

    Attributes:
        name: `own` with our library, else `stock`.
        kernel: what computes, in words.
        versions: of the packages that compute.

    Raises:
        RuntimeUnavailableError: no interpreter or not this library can be loaded, or they cannot run this model.
    """

    def __init__(self, model: bytes, threads: int = 1, library: Path | None = None) -> None:
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
                delegates = [load_delegate(str(library), {"num_threads": str(threads)})]
            self._interpreter = make_interpreter(
                model_content=model, num_threads=threads, experimental_delegates=delegates
            )
            _keep_until_gone(self._interpreter, delegates)
            self._interpreter.allocate_tensors()
        except (ValueError, RuntimeError) as error:
            # A half-made interpreter goes now, while its delegate is there, and not with the traceback.
            traceback.clear_frames(error.__traceback__)
            raise RuntimeUnavailableError(
                f"LiteRT does not run this model ({error})",
                "Export it again" if library else "Give it a model of builtin operators",
            ) from error
        taken = self._interpreter.get_input_details()[0]
        self._input, self._input_dtype = taken["index"], taken["dtype"]
        self._output = self._interpreter.get_output_details()[0]["index"]

    def predict(self, batch: np.ndarray) -> np.ndarray:
        """Logits float32 [B, K] of images [B, S, S, C], float32 or for a network that takes pixels uint8, B at least 1.

        Raises:
            ValueError: the images have another shape, or are not the pixels that the network takes.
        """
        if self._input_dtype == np.uint8 and batch.dtype != np.uint8:
            raise ValueError(f"images are {batch.dtype}, the network takes uint8")
        outputs = []
        for index in range(len(batch)):
            self._interpreter.set_tensor(self._input, np.asarray(batch[index : index + 1], self._input_dtype))
            self._interpreter.invoke()
            outputs.append(self._interpreter.get_tensor(self._output))
        return np.concatenate(outputs)


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
    broken = ""
    for package, module, interpreter, load_delegate in _PACKAGES:
        try:
            loaded = importlib.import_module(module)
            return package, attrgetter(interpreter)(loaded), attrgetter(load_delegate)(loaded)
        except (ImportError, AttributeError) as error:
            broken = broken or str(error)
    raise RuntimeUnavailableError(
        f"no TFLite interpreter can be loaded ({broken})", "Install one with `pip install ai-edge-litert`"
    )
