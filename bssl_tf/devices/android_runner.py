"""Models on a phone through a small program of ours and TensorFlow Lite's C library, where `benchmark_model` is absent.

The program (deploy/native/runner) is compiled by zig for Android and sent with the library, which comes from
`tflite_library`. It checks and times; what the raw durations mean is computed here, with the functions that boards use,
so that a phone's record has the form of a board's.

It runs emulated with another C library, and in place of a phone's on this machine. What a real phone would
still have to show:

1. Android's linker loads a program that was linked without an NDK: `_start` of our own calls its `__libc_init`.
2. SELinux lets the shell user execute it from /data/local/tmp, and lets it load two libraries by their paths there.
3. libtensorflowlite_jni.so out of the package finds what it needs (liblog.so and others) outside of an app, and takes
   our library as a delegate; the golden outputs say so or the measurement ends.
4. Which thermal zones and clocks the shell user may read; those that it may not are left out.
"""

from __future__ import annotations

import re
import signal
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from bssl_tf.devices.android import TARGET
from bssl_tf.devices.answers import PhoneState, Ran, Started, Timed, Times, read_runner
from bssl_tf.devices.phone import PhoneFolder, model_file, verify_outputs
from bssl_tf.devices.tflite_library import read_tflite_library
from bssl_tf.errors import BsslError, DeviceError, RuntimeUnavailableError
from bssl_tf_deploy.bench import subject_of
from bssl_tf_deploy.bundle import Bundle
from bssl_tf_deploy.library import LIBRARY, RUNNER, runner_for
from bssl_tf_deploy.measure import latency_of
from bssl_tf_deploy.preprocess import normalised
from bssl_tf_deploy.record import (
    BINARY,
    Conditions,
    Golden,
    Machine,
    Network,
    Record,
    Run,
    RuntimeLibrary,
    Start,
    State,
    now,
)
from bssl_tf_deploy.stable import MAX_ROUNDS, Repeated, is_stable, median_interval
from bssl_tf_deploy.strict import StrictError

T = TypeVar("T")
_TFLITE = "libtensorflowlite.so"
_INPUTS = {True: "inputs", False: "inputs-beside"}
_STARTS = 3
_BURN_IN_S = 0.5
_BEGINNING = '{"bssl_tf_runner":1,'
# Numbers of TensorFlow Lite's C interface.
_TYPES = {1: "float32", 3: "uint8", 9: "int8"}
# Exit statuses of the runner (deploy/native/runner/support.h) and what to do then.
_FILE, _MEMORY = 3, 7
_NEXT = {
    4: "Use another version of TensorFlow Lite's library, one for Android on arm64-v8a",
    5: "Export the bundle for android-arm64 again, or use a newer TensorFlow Lite library",
    6: "Export the bundle for android-arm64 again",
    _MEMORY: "Close other programs there",
}
# A shell's statuses for what it may not execute, or does not find.
_NOT_EXECUTED = (126, 127)
_CPU_SENSOR = re.compile(r".*cpu.*|big|mid|little", re.IGNORECASE)
# Sensors that are switched off or count in other units are outside.
_SENSIBLE_C = (0, 150)


class Runner:
    """A way to run models on a phone; see `bssl_tf.devices.phone.Way`.

    Args:
        library: TensorFlow Lite's, see `read_tflite_library`.

    Raises:
        DeviceError: the library cannot be used.
        RuntimeUnavailableError: nothing here compiles for Android.
    """

    program = RUNNER

    def __init__(self, library: Path) -> None:
        self.files = {_TFLITE: read_tflite_library(library), RUNNER: runner_for(TARGET).content}
        self._about: Ran | None = None

    def verify(self, phone: PhoneFolder, bundle: Bundle, threads: int) -> None:
        self._push_inputs(phone, bundle)
        self._about = about = _run(phone, bundle, BINARY, threads)
        ends = ("input", about.input, bundle.manifest.inputs[0]), ("output", about.output, bundle.manifest.outputs[0])
        for name, found, tensor in ends:
            kind, shape = _TYPES.get(found.type), found.shape
            if (kind, shape) != (tensor.dtype, tensor.shape):
                raise RuntimeUnavailableError(
                    f"the model's {name} is {kind} {list(shape)} on {phone.connection.address}, and {tensor.dtype} "
                    f"{list(tensor.shape)} in the manifest",
                    _NEXT[5],
                )
        verify_outputs(bundle, phone.pull("output"))

    def measure(
        self,
        phone: PhoneFolder,
        bundle: Bundle,
        models: Mapping[str, bytes],
        threads: Sequence[int],
        budget_s: float,
        machine: Machine,
    ) -> Record:
        """As `bssl_tf_deploy.measure.measure_bundle` has it; all rounds of the budget are timed, at most 10,000."""
        began = now()
        for name in models:
            if name != BINARY:
                _finite(phone, bundle, name, threads[0])
        runs, states = [], []
        assert self._about is not None
        kernels, tflite, version = self._about.kernels, self._about.tflite, self._about.runtime
        rest = f"TensorFlow Lite {tflite}"
        kernel = f"bssl-tf runtime {kernels.partition(',')[0]}, the rest {rest}"
        for count in threads:
            starts = {name: _start(phone, bundle, name, count) for name in models}
            arguments = [str(int(len(models) * _BURN_IN_S * 1000)), str(int(budget_s * 1000)), str(MAX_ROUNDS)]
            for name in models:
                arguments += _network(phone, name, bundle.golden_images)
            timeout_s = 600 + budget_s + len(models) * _BURN_IN_S
            record = _record(phone, Timed, ["time", phone.path(_TFLITE), str(count), *arguments], timeout_s)
            if len(record.networks) != len(models):
                raise _no_record(phone)
            repeated = {name: _repeated(times) for name, times in zip(models, record.networks, strict=True)}
            states += [_state(record.before), _state(record.after)]
            networks = {
                name: Network(
                    role="subject" if name == BINARY else "beside",
                    kernel=kernel if name == BINARY else rest,
                    model_size_bytes=len(content),
                    latency=latency_of(repeated[name]),
                    start=starts[name],
                )
                for name, content in models.items()
            }
            runs.append(Run(count, networks))
        return Record(
            command=None,
            commit=None,
            time=began,
            machine=machine,
            versions={"bssl-tf runtime": version, "TensorFlow Lite": tflite},
            subject=subject_of(bundle),
            library=RuntimeLibrary(version, tuple(kernels.split(","))),
            conditions=Conditions(states[0], states[-1], budget_s=budget_s),
            golden=Golden(bundle.golden_images, tuple(threads)),
            runs=tuple(runs),
        )

    def _push_inputs(self, phone: PhoneFolder, bundle: Bundle) -> None:
        phone.push(bundle.golden_inputs[0].tobytes(), _INPUTS[True])
        # Networks beside the bundle's take what is normalised.
        prepared = np.ascontiguousarray(normalised(bundle.golden_inputs[0], bundle.manifest), np.float32)
        phone.push(prepared.tobytes(), _INPUTS[False])


def _network(phone: PhoneFolder, name: str, images: int) -> list[str]:
    own = name == BINARY
    library = phone.path(LIBRARY) if own else "-"
    return [phone.path(model_file(name)), library, phone.path(_INPUTS[own]), str(images)]


def _run(phone: PhoneFolder, bundle: Bundle, name: str, threads: int) -> Ran:
    """What the runner says of a network, whose outputs for all golden inputs it leaves in `output`."""
    network = _network(phone, name, bundle.golden_images)
    return _record(phone, Ran, ["run", phone.path(_TFLITE), str(threads), *network, phone.path("output")])


def _finite(phone: PhoneFolder, bundle: Bundle, name: str, threads: int) -> None:
    """Raises `RuntimeUnavailableError` unless a network beside the bundle's gives finite numbers."""
    _run(phone, bundle, name, threads)
    outputs = phone.pull("output")
    if len(outputs) % 4 or not np.isfinite(np.frombuffer(outputs, np.float32)).all():
        raise RuntimeUnavailableError(f"{name} gives numbers that are not finite", "Rebuild that model")


def _start(phone: PhoneFolder, bundle: Bundle, name: str, threads: int) -> Start:
    """Medians over fresh processes; memory where the phone reports it."""
    network = _network(phone, name, bundle.golden_images)
    found = []
    for _ in range(_STARTS):
        record = _record(phone, Started, ["start", phone.path(_TFLITE), str(threads), *network])
        row = {"load_ms": record.load_ns / 1e6, "first_ms": record.first_ns / 1e6}
        memory = {"memory_before_kib": record.memory_before_kib, "peak_memory_kib": record.peak_memory_kib}
        found.append(row | {key: value for key, value in memory.items() if value})
    known = [key for key in found[0] if all(key in row for row in found)]
    return Start(**{key: statistics.median(row[key] for row in found) for key in known})


def _record(phone: PhoneFolder, kind: type[T], arguments: Sequence[str], timeout_s: float = 600) -> T:
    """What the runner printed. Raises `RuntimeUnavailableError` or `DeviceError` where it fails."""
    status, out = phone.connection.shell(phone.path(RUNNER), *arguments, timeout_s=timeout_s)
    if status != 0:
        raise _failed(phone, status, out)
    # The libraries may have something to say beside it.
    lines = [line for line in out.splitlines() if line.startswith(_BEGINNING)]
    try:
        [line] = lines
        return read_runner(kind, line)
    except (ValueError, StrictError) as error:
        raise _no_record(phone) from error


def _failed(phone: PhoneFolder, status: int, out: str) -> BsslError:
    address = phone.connection.address
    sign = f"{RUNNER}: "
    errors = [line.removeprefix(sign) for line in out.splitlines() if line.startswith(sign)]
    said = (errors or out.strip().splitlines() or [f"exit status {status}"])[-1].replace(f"{phone.folder}/", "")[:300]
    full = phone.connection.explain(out)
    if full is not None:
        return full
    if status in (_FILE, _MEMORY):
        return DeviceError(f"the runner on {address} stopped: {said}", _NEXT.get(status, "Run the same command again"))
    if status > 128:
        killed = status == 128 + signal.SIGKILL
        return DeviceError(
            f"the runner on {address} was killed (signal {status - 128})",
            # By itself it ends with another signal when a library in it does what it must not.
            "Check whether the phone has enough memory" if killed else _NEXT[4],
        )
    if status in _NOT_EXECUTED:
        return DeviceError(
            f"{address} cannot execute the runner: {said}", "Name a folder that permits it, with --remote-dir"
        )
    return RuntimeUnavailableError(
        f"the runner on {address} stopped: {said}", _NEXT.get(status, "Use another version of TensorFlow Lite")
    )


def _no_record(phone: PhoneFolder) -> DeviceError:
    return DeviceError(f"the runner on {phone.connection.address} returned no record", "Run the same command again")


def _repeated(times: Times) -> Repeated:
    durations = list(times.durations_ns)
    low, high = median_interval(durations)
    return Repeated(times.first_ns, durations, low, high, is_stable(durations))


def _state(raw: PhoneState) -> State:
    """A phone's state; `temperature_c` is the hottest CPU sensor's."""
    found: dict[str, Any] = {}
    if raw.governors:
        found["governors"] = sorted(set(raw.governors))
    for key, clocks in (("clock", raw.clock_khz), ("clock_max", raw.clock_max_khz)):
        if any(clocks):
            found[f"{key}_mhz"] = max(clocks) / 1000
    low, high = _SENSIBLE_C
    sensors = [one.millicelsius / 1000 for one in raw.sensors if _CPU_SENSOR.fullmatch(one.kind)]
    sensible = [value for value in sensors if low < value < high]
    if sensible:
        found["temperature_c"] = max(sensible)
    return State.of(found)
