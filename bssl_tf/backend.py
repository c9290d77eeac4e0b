"""The gate to TensorFlow: the only module that imports it, Keras 2 and larq.

TF_USE_LEGACY_KERAS must be set before anything touches `tf.keras`; set later, TensorFlow silently ignores it and
provides Keras 3, under which larq does not work. So every module writes `from bssl_tf.backend import tf`.
"""

from __future__ import annotations

import contextlib
import os
import platform
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import AbstractContextManager
from typing import Any

from bssl_tf.errors import BackendError
from bssl_tf_deploy.system_errors import memory_shortage

os.environ["TF_USE_LEGACY_KERAS"] = "1"
_log_level_is_ours = os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3") == "3"
# Left to itself TensorFlow computes with oneDNN only where a processor has AVX-512, though it is faster without, too.
if platform.machine() in ("x86_64", "AMD64"):
    os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")
# Two runs can share a GPU: TensorFlow takes its memory as it is needed, not all of it at once.
os.environ.setdefault("TF_FORCE_GPU_ALLOW_GROWTH", "true")


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Drops what native code writes to stderr in the block: TensorFlow's plugins complain before logging is set up."""
    sys.stderr.flush()
    saved, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nowhere, 2)
        yield
    finally:
        os.dup2(saved, 2)
        os.close(saved)
        os.close(nowhere)


@contextlib.contextmanager
def _interrupt_deferred() -> Iterator[None]:
    """Holds a Ctrl-C back until the end of the block: in an import that swallows exceptions it would be lost."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    pending = False

    def remember(signum: int, frame: object) -> None:
        nonlocal pending
        pending = True

    before = signal.signal(signal.SIGINT, remember)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
    if pending:
        raise KeyboardInterrupt


_KEPT_IN_FLOAT32 = "MatMul,BatchMatMul,BatchMatMulV2,Einsum"
_NEXT_STEP = "Install it again in a fresh environment with `make setup` or `pip install bssl-tf`"

try:
    with _interrupt_deferred(), quiet() if _log_level_is_ours else contextlib.nullcontext():
        import tensorflow as tf

        keras = tf.keras
        _keras_home = keras.Model.__module__
except (ImportError, AttributeError) as error:
    raise memory_shortage(error) or BackendError(
        f"TensorFlow or tf-keras cannot be loaded ({error})", _NEXT_STEP
    ) from error

if not _keras_home.startswith("tf_keras"):
    _loaded = "keras was imported first" if "keras" in sys.modules else "TF_USE_LEGACY_KERAS was set too late"
    raise BackendError(
        f"Keras 3 is active ({_loaded}), and larq needs Keras 2",
        "Import bssl_tf before keras or tensorflow, or set TF_USE_LEGACY_KERAS=1 before Python starts",
    )

try:
    with _interrupt_deferred():
        import larq as lq
except ImportError as error:
    raise memory_shortage(error) or BackendError(f"larq cannot be loaded ({error})", _NEXT_STEP) from error

tf.get_logger().setLevel("ERROR")
# Newer GPUs would round to 10 bits what a float32 product takes: signs would flip, and an exported network would be
# compared with rounded outputs.
tf.config.experimental.enable_tensor_float_32_execution(False)

__all__ = [
    "configure",
    "freeze",
    "functional_model",
    "keras",
    "keras_safe_mode",
    "keras_saved_metadata",
    "lq",
    "op_layers",
    "optimizer_variables",
    "quiet",
    "tf",
    "tflite_schema",
    "update_on_all_devices",
]


def keras_safe_mode() -> AbstractContextManager[None]:
    """A context in which Keras refuses to run Python code that a model file brings along."""
    from tf_keras.src.saving import serialization_lib  # no public name; .h5 files honour it only this way

    return serialization_lib.SafeModeScope(True)


def tflite_schema() -> Any:
    """The module with the classes of TFLite's schema that hold a model, and write it as a flatbuffer again."""
    from tensorflow.lite.python import schema_py_generated  # no public name

    return schema_py_generated


def functional_model() -> type[Any]:
    """The class of the models that `keras.Model(inputs, outputs)` makes."""
    from tf_keras.src.engine.functional import Functional  # no public name

    made: type[Any] = Functional
    return made


def op_layers() -> tuple[type[Any], ...]:
    """The layers that functions of TensorFlow become in a functional model."""
    from tf_keras.src.layers.core.tf_op_layer import SlicingOpLambda, TFOpLambda  # no public name

    return TFOpLambda, SlicingOpLambda


def freeze(function: Any) -> Any:
    """A concrete function with its variables as constants and its calls inlined."""
    from tensorflow.python.framework.convert_to_constants import convert_variables_to_constants_v2  # no public name

    return convert_variables_to_constants_v2(function, lower_control_flow=False)


def update_on_all_devices(optimizer: Any, gradients: Any, variables: Any) -> None:
    """One step of a Keras optimiser in the cross-replica context of `tf.distribute`, and the layers' constraints.

    Args:
        optimizer: built for `variables`; if it scales losses, nothing happens where a gradient is not finite.
        gradients: of the loss, the same on all replicas.
        variables: of the strategy.
    """

    # No public name. `apply_gradients` would have every replica apply the constraints, where a variable of all replicas
    # cannot be assigned.
    def update(inner: Any) -> None:
        strategy = tf.distribute.get_strategy()
        inner._distributed_apply_gradients_fn(strategy, list(zip(gradients, variables, strict=True)))
        for variable in variables:
            if variable.constraint is not None:
                variable.assign(variable.constraint(variable))

    if not isinstance(optimizer, keras.mixed_precision.LossScaleOptimizer):
        update(optimizer)
        return
    _, finite = optimizer._loss_scale.update(gradients)
    tf.cond(finite, lambda: update(optimizer.inner_optimizer), lambda: None)


def optimizer_variables(optimizer: Any) -> list[Any]:
    """All that an update of a Keras optimiser reads and writes, less the weights; in a fixed order."""
    if not isinstance(optimizer, keras.mixed_precision.LossScaleOptimizer):
        return list(optimizer.variables)
    scale = optimizer._loss_scale  # no public name
    return [*optimizer.variables, scale.current_loss_scale, scale.counter]


def keras_saved_metadata(content: bytes) -> Any:
    """The message in a SavedModel's keras_metadata.pb: Keras 2's description of each layer."""
    from tf_keras.protobuf import saved_metadata_pb2  # no public name

    metadata = saved_metadata_pb2.SavedMetadata()
    metadata.ParseFromString(content)
    return metadata


def configure(threads: int, precision: str = "float32", *, deterministic: bool = True) -> None:
    """Makes every op deterministic and sets how many threads TensorFlow may use.

    Call it once, before the first op runs. The thread count changes how sums are split, so two runs agree bit for
    bit only with the same count; it is recorded in the run folder.

    Args:
        threads: threads for one op, at least 1.
        precision: `bfloat16` lets oneDNN compute convolutions in bfloat16 on a CPU; variables, heads and losses stay
            float32.
        deterministic: False allows ops of a GPU that give other results each time.
    """
    if deterministic:
        tf.config.experimental.enable_op_determinism()
    # Left to itself the rewriter takes the losses too, as they follow a product; three digits are too few there.
    os.environ.setdefault("TF_AUTO_MIXED_PRECISION_GRAPH_REWRITE_ALLOWLIST_REMOVE", _KEPT_IN_FLOAT32)
    tf.config.optimizer.set_experimental_options({"auto_mixed_precision_onednn_bfloat16": precision == "bfloat16"})
    try:
        tf.config.threading.set_intra_op_parallelism_threads(threads)
    except RuntimeError as error:
        # 0 is what TensorFlow starts with if nobody says otherwise, and means every core.
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
        if (tf.config.threading.get_intra_op_parallelism_threads() or cores) != threads:
            raise BackendError(
                "the number of threads was set after TensorFlow had started",
                f"Call bssl_tf.backend.configure({threads}) before anything is computed, also before a model is built",
            ) from error
