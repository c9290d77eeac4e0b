"""A bundle on an Android phone, through adb; nothing stays there.

A phone has no Python. Models run there in TensorFlow Lite's own `benchmark_model`, or where that is absent in a small
runner of ours with TensorFlow Lite's library: `android_benchmark_model` and `android_runner`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from bssl_tf.devices.adb import AdbConnection
from bssl_tf.devices.android_benchmark_model import BenchmarkModel
from bssl_tf.devices.android_runner import Runner
from bssl_tf.devices.devices_file import Device
from bssl_tf.devices.phone import BINARY, FOLDER, TARGET, Way, model_file, phone_folder
from bssl_tf.errors import DeviceError, RuntimeUnavailableError
from bssl_tf_deploy.bundle import Bundle, checked_file
from bssl_tf_deploy.library import LIBRARY, bundled_name, library_for
from bssl_tf_deploy.measure import thread_counts

_SPARE_MIB = 8


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


def reach_phone(device: Device, connection: AdbConnection) -> None:
    """Raises what `measure_on_phone` would before it sends anything: the phone, or what is to run there, is missing."""
    _way(device)
    phone_facts(connection)


def clean_phone(connection: AdbConnection, device: Device) -> bool:
    """Removes folders that were left there; whether there were any. Raises `DeviceError`."""
    prefix = device.remote_dir or FOLDER
    # As `phone_folder` names them, since the prefix may be that of someone's own folders.
    ours = '"$1"-' + 8 * "[0-9a-f]"
    status, _ = connection.shell("sh", "-c", f"ls -d {ours} >/dev/null 2>&1 && rm -rf {ours}", "sh", prefix)
    return status == 0


def measure_on_phone(
    device: Device,
    connection: AdbConnection,
    bundle: Bundle,
    threads: str,
    beside: Mapping[str, bytes],
    *,
    budget_s: float = 30.0,
    trust_bundle_library: bool = False,
    say: Any = lambda line: None,
) -> dict[str, Any]:
    """Checks a bundle on a phone, then times it.

    Args:
        device: which.
        connection: the way there.
        bundle: from `read_bundle`.
        threads: numbers of threads, each measured by itself, in the words of `thread_counts`.
        beside: name -> model of builtin operators, timed in turns with the bundle's.
        budget_s: seconds of timed calls for each number of threads; `benchmark_model` decides for itself.
        trust_bundle_library: see `bssl_tf_deploy.load`.
        say: told in a line what is done.

    Returns:
        A record: `facts`, `golden`, and what the way there gives: `kernel` and `runs`, one for each number of threads.

    Raises:
        DeviceError: the phone cannot be reached, was lost or has no room; or nothing was named that runs models there.
        BundleError: a file arrived changed, or the golden outputs differ there.
        RuntimeUnavailableError: the phone cannot run the model, or there is no library or runner for it.
    """
    way = _way(device)
    facts = phone_facts(connection)
    counts = thread_counts(threads, facts["cores"] or 1)
    say(f"{device.name}: {facts['processor']}, {facts['cores']} cores, {facts['system']}")
    models = {BINARY: bundle.model, **beside}
    library = _library(bundle, trust_bundle_library)
    contents = {LIBRARY: library} | {model_file(name): content for name, content in models.items()} | way.files
    needed = (sum(map(len, contents.values())) >> 20) + _SPARE_MIB
    if facts["free_mib"] is not None and facts["free_mib"] < needed:
        raise DeviceError(
            f"the disk of {device.name} has {facts['free_mib']} MB free, and {needed} MB are needed",
            "Free space there",
        )
    with phone_folder(connection, device.remote_dir) as phone:
        for name, content in contents.items():
            phone.push(content, name)
        connection.shell("chmod", "700", phone.path(way.program))
        for count in counts:
            way.verify(phone, bundle, count)
        say(f"{device.name}: golden outputs as expected")
        measured = way.measure(phone, bundle, models, list(counts), budget_s)
    golden = {"images": bundle.golden_images, "threads": list(counts), "as_expected": True}
    return {"facts": facts, "golden": golden, **measured}


def _way(device: Device) -> Way:
    if device.benchmark_model is not None:
        return BenchmarkModel(device.benchmark_model)
    if device.tflite_library is not None:
        return Runner(device.tflite_library)
    raise DeviceError(
        f"{device.name} needs a program or a library of TensorFlow Lite that runs models there, and none was named",
        "Name Google's prebuilt android_aarch64 benchmark_model with --benchmark-model, or the .aar of "
        "org.tensorflow:tensorflow-lite (or its .so) with --tflite-library",
    )


def _library(bundle: Bundle, trust_bundle_library: bool) -> bytes:
    name = bundled_name(TARGET)
    try:
        return library_for(TARGET).content
    except RuntimeUnavailableError:
        if not trust_bundle_library or name not in bundle.manifest.files:
            raise
        return checked_file(bundle, name).read_bytes()
