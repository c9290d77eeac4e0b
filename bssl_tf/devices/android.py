"""A bundle on an Android phone, through adb and TensorFlow Lite's own `benchmark_model`; nothing stays there.

A phone has no Python. `benchmark_model` (prebuilt by Google for android_aarch64) loads our library as an external
delegate, reads an input, writes the outputs (`--output_filepath`), and times. A version that writes no outputs is
refused: what is not known to be right is not timed.
"""

from __future__ import annotations

import contextlib
import hashlib
import re
import secrets
import statistics
import subprocess
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from bssl_tf.devices.adb import AdbConnection
from bssl_tf.devices.devices_file import Device
from bssl_tf.devices.operator_profile import operators, profile_options
from bssl_tf.errors import BundleError, DeviceError, RuntimeUnavailableError
from bssl_tf_deploy.bundle import MODEL, Bundle, checked_file
from bssl_tf_deploy.library import LIBRARY, bundled_name, library_for
from bssl_tf_deploy.predictor import Predictor

TARGET = "android-arm64"
FOLDER = "/data/local/tmp/bssl-tf-device"
_PROGRAM = "benchmark_model"
_ROUNDS = 3
_TEXT = re.compile(r"count=\d+ first=\S+ curr=\S+ min=(?P<min>\S+) max=\S+ avg=(?P<avg>\S+) std=\S+")
_MEDIAN = re.compile(r" p5=\S+ median=(?P<median>\S+) p95=(?P<p95>\S+)")
_START = re.compile(r"Inference timings in us: Init: (?P<init>[^,]+), First inference: (?P<first>[^,]+),")
_MEMORY = re.compile(r"Memory footprint delta from the start of the tool \(MB\): init=\S+ overall=(?P<overall>\S+)")
# Makes the folder, and removes it when its input ends: at our end, or when the cable is pulled.
_LEASE = 'trap \'\' HUP PIPE; mkdir -p "$1" && echo ready && cat >/dev/null; rm -rf "$1"'


def phone_facts(connection: AdbConnection) -> dict[str, Any]:
    """What a phone says of itself.

    Raises:
        DeviceError: it cannot be reached, or there is no runtime for it.
    """
    connection.client("get-state")

    def text(*command: str) -> str:
        status, out = connection.shell(*command)
        return out.strip() if status == 0 else ""

    abi = text("getprop", "ro.product.cpu.abi")
    if abi != "arm64-v8a":
        raise DeviceError(
            f"{connection.address} runs {abi or 'unknown'} programs, for which there is no runtime",
            "Use a phone with a 64-bit ARM system",
        )
    memory = re.search(r"MemTotal:\s+(\d+)", text("cat", "/proc/meminfo"))
    free = text("df", "-k", "/data/local/tmp").splitlines()
    columns = free[-1].split() if free else []
    cores = text("nproc")
    return {
        "machine": "aarch64",
        "system": "Android " + text("getprop", "ro.build.version.release"),
        "processor": " ".join(text("getprop", name) for name in ("ro.product.manufacturer", "ro.product.model")),
        "cores": int(cores) if cores.isdigit() else None,
        "memory_total_mib": int(memory[1]) // 1024 if memory else None,
        "free_mib": int(columns[3]) // 1024 if len(columns) > 3 and columns[3].isdigit() else None,
        "target": TARGET,
        "emulated": False,
    }


def clean_phone(connection: AdbConnection, device: Device) -> bool:
    """Removes folders that were left there; whether there were any. Raises `DeviceError`."""
    prefix = device.remote_dir or FOLDER
    status, _ = connection.shell("sh", "-c", 'ls -d "$1"-* >/dev/null 2>&1 && rm -rf "$1"-*', "sh", prefix)
    return status == 0


def measure_on_phone(
    device: Device,
    connection: AdbConnection,
    bundle: Bundle,
    threads: Sequence[int],
    beside: Mapping[str, bytes],
    say: Any = lambda line: None,
) -> dict[str, Any]:
    """Checks a bundle on a phone, then times it.

    Returns:
        A record: `facts`, `golden`, `kernel`, and `runs`, one for each number of threads, with for each network the
        figures of `benchmark_model` in milliseconds (median over three processes, in turns with the other networks),
        what it said (`raw`), and for the bundle's its `operators`.

    Raises:
        DeviceError: the phone cannot be reached, was lost or has no room; or there is no `benchmark_model`.
        BundleError: a file arrived changed, or the golden outputs differ there.
        RuntimeUnavailableError: the phone cannot run the model, or there is no library for it.
    """
    if device.benchmark_model is None or not device.benchmark_model.is_file():
        raise DeviceError(
            f"{device.name} needs TensorFlow Lite's benchmark_model, and "
            + (f"{device.benchmark_model} is no file" if device.benchmark_model else "none was named"),
            "Get Google's prebuilt android_aarch64 one and name it with --benchmark-model or in the devices file",
        )
    facts = phone_facts(connection)
    say(f"{device.name}: {facts['processor']}, {facts['cores']} cores, {facts['system']}")
    contents = {LIBRARY: _library(bundle), MODEL: bundle.model, _PROGRAM: device.benchmark_model.read_bytes()}
    contents |= {f"{name}.tflite": content for name, content in beside.items()}
    needed = sum(map(len, contents.values())) >> 20
    if facts["free_mib"] is not None and facts["free_mib"] < needed + 8:
        raise DeviceError(
            f"the disk of {device.name} has {facts['free_mib']} MB free, and {needed + 8} MB are needed",
            "Free space there",
        )
    with _folder(connection, device) as folder:
        for name, content in contents.items():
            _push(connection, content, f"{folder}/{name}")
        connection.shell("chmod", "700", f"{folder}/{_PROGRAM}")
        for count in threads:
            _verify(connection, folder, bundle, count)
        say(f"{device.name}: golden outputs as expected")
        networks = {"binary": MODEL} | {name: f"{name}.tflite" for name in beside}
        runs = []
        for count in threads:
            said: dict[str, list[str]] = {name: [] for name in networks}
            for _ in range(_ROUNDS):
                for name, model in networks.items():
                    said[name].append(_benchmark(connection, folder, model, count, own=name == "binary"))
            found = {name: figures(texts) | {"raw": texts} for name, texts in said.items()}
            found["binary"]["operators"] = _operators(connection, folder, count)
            runs.append({"threads": count, "networks": found})
    return {
        "facts": facts,
        "golden": {"images": len(bundle.golden_inputs), "threads": list(threads), "as_expected": True},
        "kernel": "bssl-tf runtime in benchmark_model, the rest XNNPACK",
        "runs": runs,
    }


def figures(texts: Sequence[str]) -> dict[str, Any]:
    """Figures in milliseconds of what several runs of `benchmark_model` printed; medians over the runs.

    Raises:
        DeviceError: one of them printed no times.
    """
    rows = []
    for text in texts:
        # The first such line is of the warm-up.
        lines = [line for line in text.splitlines() if _TEXT.search(line)]
        start = _START.search(text)
        if not lines or start is None:
            raise DeviceError("benchmark_model printed no times", "Take another version of it")
        timed, median, memory = _TEXT.search(lines[-1]), _MEDIAN.search(lines[-1]), _MEMORY.search(text)
        assert timed is not None
        row = {"load_ms": start["init"], "first_ms": start["first"], "mean_ms": timed["avg"], "min_ms": timed["min"]}
        row |= {"p50_ms": median["median"], "p95_ms": median["p95"]} if median else {}
        figure = {key: float(value) / 1000 for key, value in row.items()}
        rows.append(figure | ({"memory_mib": float(memory["overall"])} if memory else {}))
    # Older versions print no median; what not every run has is left out.
    return {key: statistics.median(row[key] for row in rows) for key in rows[0] if all(key in row for row in rows)}


def _library(bundle: Bundle) -> bytes:
    name = bundled_name(TARGET)
    try:
        return library_for(TARGET).content
    except RuntimeUnavailableError:
        if name not in bundle.manifest.files:
            raise
        return checked_file(bundle, name).read_bytes()


@contextlib.contextmanager
def _folder(connection: AdbConnection, device: Device) -> Iterator[str]:
    """A fresh folder on the phone that goes with this block, or with the cable."""
    folder = f"{device.remote_dir or FOLDER}-{secrets.token_hex(4)}"
    lease = connection.start(["sh", "-c", _LEASE, "sh", folder])
    assert lease.stdin is not None and lease.stdout is not None and lease.stderr is not None
    try:
        if lease.stdout.readline().strip() != b"ready":
            raise connection.failed(lease.stderr.read())
        yield folder
    finally:
        with contextlib.suppress(OSError):
            lease.stdin.close()
        try:
            lease.wait(timeout=20)
        except subprocess.TimeoutExpired:
            lease.kill()
            lease.wait()
        lease.stdout.close()
        lease.stderr.close()


def _push(connection: AdbConnection, content: bytes, target: str) -> None:
    with tempfile.NamedTemporaryFile() as file:
        file.write(content)
        file.flush()
        connection.client("push", file.name, target)
    status, out = connection.shell("sha256sum", target)
    if status != 0 or out.split()[:1] != [hashlib.sha256(content).hexdigest()]:
        raise BundleError(
            f"{Path(target).name} arrived changed on {connection.address} (its SHA-256 differs)",
            "Run the same command again",
        )


def _verify(connection: AdbConnection, folder: str, bundle: Bundle, threads: int) -> None:
    """Raises `BundleError` unless the phone gives the golden outputs."""
    signature = bundle.manifest.signature
    shape = ",".join(map(str, signature.input.shape))
    outputs = []
    for image in bundle.golden_inputs:
        _push(connection, image.tobytes(), f"{folder}/input")
        name = signature.input.name
        given = [f"--input_layer={name}", f"--input_layer_shape={shape}"]
        given += [f"--input_layer_value_files={name}:{folder}/input", f"--output_filepath={folder}/output"]
        given += ["--num_runs=1", "--min_secs=0", "--warmup_runs=0", "--warmup_min_secs=0"]
        _benchmark(connection, folder, MODEL, threads, *given, own=True)
        with tempfile.TemporaryDirectory() as here:
            file = Path(here, "output")
            try:
                connection.client("pull", f"{folder}/output", str(file))
                outputs.append(np.frombuffer(file.read_bytes(), np.float32).reshape(signature.output.shape))
            except (DeviceError, OSError, ValueError) as error:
                raise RuntimeUnavailableError(
                    "this benchmark_model writes no outputs, so that nobody knows whether they are right",
                    "Take a newer version, one with --output_filepath",
                ) from error
        connection.shell("rm", "-f", f"{folder}/output")
    given_there = np.concatenate(outputs)

    class Phone:
        def predict(self, batch: np.ndarray) -> np.ndarray:
            return given_there

    Predictor(bundle, Phone()).verify_golden()


def _benchmark(connection: AdbConnection, folder: str, model: str, threads: int, *more: str, own: bool) -> str:
    """What `benchmark_model` printed. Raises `RuntimeUnavailableError` where it fails."""
    command = [f"{folder}/{_PROGRAM}", f"--graph={folder}/{model}", f"--num_threads={threads}"]
    if own:
        command.append(f"--external_delegate_path={folder}/{LIBRARY}")
        command.append(f"--external_delegate_options=num_threads:{threads}")
    status, out = connection.shell(*command, *more)
    if status != 0:
        last = (out.strip().splitlines() or [f"exit status {status}"])[-1]
        raise RuntimeUnavailableError(
            f"benchmark_model on {connection.address} does not run {model} ({last[:200]})",
            "Export the bundle for android-arm64 again, or take another benchmark_model",
        )
    return out


def _operators(connection: AdbConnection, folder: str, threads: int) -> list[dict[str, Any]]:
    """Times of the bundle's operators from a run of their own, which watching makes slower."""
    file = f"{folder}/operators.csv"
    _benchmark(connection, folder, MODEL, threads, *profile_options(file), own=True)
    status, out = connection.shell("cat", file)
    return operators(out) if status == 0 else []
