"""Which devices a run uses. GPUs are faked: what is tested is what TensorFlow is asked for, and what a user is told."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest

from bssl_tf.backend import tf
from bssl_tf.engine.configuration import _check as check
from bssl_tf.engine.configuration import settled
from bssl_tf.engine.device import choose_device, refusals_named
from bssl_tf.errors import BackendError, ConfigError, TrainingError
from bssl_tf.settings import PretrainConfig


@dataclass
class Machine:
    """TensorFlow on a machine with GPUs.

    Attributes:
        gpus: all of them.
        visible: those that a run uses.
        started: whether TensorFlow has computed something.
    """

    gpus: list[str]
    visible: list[str] = field(default_factory=list)
    started: bool = False

    def show(self, devices: list[str], kind: str) -> None:
        assert kind == "GPU"
        if self.started:
            raise RuntimeError("Visible devices cannot be modified after being initialized")
        self.visible = devices


@pytest.fixture
def machine(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Machine:
    made = Machine([f"GPU{number}" for number in range(request.param)])
    made.visible = list(made.gpus)
    monkeypatch.setattr(tf.config, "list_physical_devices", lambda kind: made.gpus if kind == "GPU" else [])
    monkeypatch.setattr(tf.config, "get_visible_devices", lambda kind: made.visible if kind == "GPU" else [])
    monkeypatch.setattr(tf.config, "set_visible_devices", made.show)
    monkeypatch.setattr(tf.config.experimental, "get_device_details", lambda gpu: {"device_name": f"model of {gpu}"})
    return made


@pytest.mark.parametrize(
    ("machine", "device", "distribute", "used"),
    [
        (0, "auto", "none", []),
        (0, "cpu", "mirrored", []),
        (2, "auto", "none", ["GPU0"]),
        (2, "auto", "mirrored", ["GPU0", "GPU1"]),
        (2, "gpu", "none", ["GPU0"]),
        (2, "gpu:1", "none", ["GPU1"]),
        (2, "gpu:1", "mirrored", ["GPU1"]),
        (2, "cpu", "none", []),
    ],
    indirect=["machine"],
)
def test_a_run_sees_the_devices_that_it_is_to_use(
    machine: Machine, device: str, distribute: str, used: list[str]
) -> None:
    name = choose_device(device, distribute)
    assert machine.visible == used
    assert name == (f"model of {used[0]}" if used else "cpu")
    machine.started = True
    assert choose_device(device, distribute) == name, "a second run in the process"


@pytest.mark.parametrize("machine", [0], indirect=True)
def test_a_run_on_a_tpu_is_recorded_as_one(machine: Machine) -> None:
    """Or `--resume` would continue it on a CPU."""
    assert choose_device("auto", "tpu") == "tpu"


@pytest.mark.parametrize(
    ("machine", "device", "message"),
    [
        (0, "gpu", "TensorFlow sees no GPU. Run `bssl-tf doctor`"),
        (0, "gpu:0", "TensorFlow sees no GPU"),
        (2, "gpu:2", "TensorFlow sees 2 GPUs. Choose from gpu:0 to gpu:1"),
    ],
    indirect=["machine"],
)
def test_a_gpu_that_is_not_there_is_refused(machine: Machine, device: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        choose_device(device, "none")


@pytest.mark.parametrize("machine", [2], indirect=True)
def test_another_device_cannot_be_chosen_once_tensorflow_has_started(machine: Machine) -> None:
    machine.started = True
    with pytest.raises(BackendError, match="after TensorFlow had started"):
        choose_device("gpu:1", "none")


@pytest.mark.parametrize("device", ["gpu:", "gpu:x", "GPU", "gpu:-1", "tpu", ""])
def test_a_wrong_name_of_a_device_is_refused_before_there_is_data(device: str) -> None:
    with pytest.raises(ConfigError, match=r"training\.device is .*Choose auto, cpu, gpu, or gpu:N"):
        check(settled(PretrainConfig, {"method": "moco", "training": {"device": device}}))


def test_float32_is_not_rounded_on_gpus() -> None:
    assert not tf.config.experimental.tensor_float_32_execution_enabled()


def test_an_operation_without_a_deterministic_version_is_named_with_the_switch() -> None:
    said = "A deterministic GPU implementation of X is not available.\n\t [[{{node step/SelectV2_grad}}]]"
    message = r"step/SelectV2_grad has no .*training\.deterministic=false"
    with pytest.raises(TrainingError, match=message) as error, refusals_named():
        raise tf.errors.UnimplementedError(None, None, said)
    assert "\n" not in str(error.value)
    other: Any = tf.errors.UnimplementedError(None, None, "The Conv2D op currently only supports the NHWC format")
    with pytest.raises(tf.errors.UnimplementedError), refusals_named():
        raise other


def test_an_operation_that_xla_has_not_is_named_with_the_next_step() -> None:
    @tf.function(jit_compile=True)
    def step(value: tf.Tensor) -> tf.Tensor:
        return tf.numpy_function(np.square, [value], tf.float32)

    message = "XLA cannot compile the operation PyFunc.*without training.xla"
    with pytest.raises(TrainingError, match=message) as error, refusals_named():
        step(tf.constant(2.0))
    assert "\n" not in str(error.value)
