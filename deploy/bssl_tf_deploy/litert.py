"""The stock interpreter, for float models: LiteRT (ai-edge-litert) with its XNNPACK kernels."""

from __future__ import annotations

import numpy as np

from bssl_tf_deploy.errors import RuntimeUnavailableError


class LiteRtInterpreter:
    """LiteRT's interpreter, one image at a time. XNNPACK is on, as by default.

    Args:
        model: a TFLite flatbuffer of builtin operators, batches of one.
        threads: threads for one image, at least 1.

    Raises:
        RuntimeUnavailableError: ai-edge-litert is not installed, or cannot run this model.
    """

    kernel = "LiteRT XNNPACK"

    def __init__(self, model: bytes, threads: int = 1) -> None:
        try:
            from ai_edge_litert.interpreter import Interpreter
        except ImportError as error:
            raise RuntimeUnavailableError(
                f"LiteRT cannot be loaded ({error})", "Install it with `pip install ai-edge-litert`"
            ) from error
        try:
            self._interpreter = Interpreter(model_content=model, num_threads=threads)
            self._interpreter.allocate_tensors()
        except (ValueError, RuntimeError) as error:
            raise RuntimeUnavailableError(
                f"LiteRT does not run this model ({error})", "Give it a model of builtin operators"
            ) from error
        self._input = self._interpreter.get_input_details()[0]["index"]
        self._output = self._interpreter.get_output_details()[0]["index"]

    def predict(self, batch: np.ndarray) -> np.ndarray:
        """Logits float32 [B, K] of images float32 [B, S, S, C], B at least 1."""
        outputs = []
        for index in range(len(batch)):
            self._interpreter.set_tensor(self._input, np.asarray(batch[index : index + 1], np.float32))
            self._interpreter.invoke()
            outputs.append(self._interpreter.get_tensor(self._output))
        return np.concatenate(outputs)
