"""Which of this machine's devices a run uses, and what they are called in its records."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator
from typing import Any

from bssl_tf.backend import tf
from bssl_tf.errors import BackendError, ConfigError, TrainingError, first_line

CPU, TPU = "cpu", "tpu"


def choose_device(device: str, distribute: str) -> str:
    """Hides from TensorFlow the GPUs that a run does not use. Call it before TensorFlow computes anything.

    Args:
        device: `auto` for GPUs where TensorFlow sees any, `cpu`, `gpu`, or `gpu:N` for the one with that number.
        distribute: `training.distribute`; with `none` a run uses one GPU at most.

    Returns:
        `cpu`, `tpu`, or the model of the GPUs.

    Raises:
        ConfigError: there is no such GPU.
        BackendError: TensorFlow has started with others.
    """
    found = tf.config.list_physical_devices("GPU")
    kind, _, number = device.partition(":")
    if kind == "gpu" and not found:
        raise ConfigError(
            f"training.device is {device!r}, but TensorFlow sees no GPU", "Run `bssl-tf doctor` to see why, or omit it"
        )
    if number and int(number) >= len(found):
        raise ConfigError(
            f"training.device is {device!r}, but TensorFlow sees {len(found)} GPU{'s' * (len(found) > 1)}",
            f"Choose from gpu:0 to gpu:{len(found) - 1}",
        )
    if kind == CPU:
        used: list[Any] = []
    elif number:
        used = [found[int(number)]]
    else:
        used = found[:1] if distribute == "none" else found
    if used != tf.config.get_visible_devices("GPU"):
        try:
            tf.config.set_visible_devices(used, "GPU")
        except RuntimeError as error:
            raise BackendError(
                "the device was chosen after TensorFlow had started", "Start another process for a run on it"
            ) from error
    if distribute == TPU:
        return TPU
    if not used:
        return CPU
    return str(tf.config.experimental.get_device_details(used[0]).get("device_name", "GPU"))


@contextlib.contextmanager
def refusals_named() -> Iterator[None]:
    """Turns what TensorFlow says of an operation that is not deterministic, or not for XLA, into a `TrainingError`."""
    try:
        yield
    except (tf.errors.UnimplementedError, tf.errors.InvalidArgumentError) as error:
        said = str(error)
        if "XlaMustCompile" in said or "XLA_" in said:
            operation = re.search(r"_JIT: (\w+)", said)
            what = f"the operation {operation[1]}" if operation else f"the step ({first_line(error)})"
            raise TrainingError(
                f"XLA cannot compile {what}",
                "Start another run without training.xla",
            ) from error
        if "determinis" not in said.lower():
            raise
        node = re.search(r"\{\{node ([^}]+)\}\}", said)
        raise TrainingError(
            f"{node[1] if node else 'an operation'} has no deterministic version here ({first_line(error)})",
            "Start another run with --set training.deterministic=false; that one will not repeat bit for bit",
        ) from error
