"""`bssl-tf bench --device`."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import shlex
import sys
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click
from click.core import ParameterSource

from bssl_tf.cli.devices import complete_devices
from bssl_tf.cli.options import is_run_folder, prose

if TYPE_CHECKING:
    from bssl_tf.devices.devices_file import Device
    from bssl_tf_deploy.bundle import Bundle

DEVICE_SETTINGS = (
    *("all_threads", "budget", "sustained", "beside", "no_float", "devices_file", "remote_dir", "benchmark_model"),
    *("tflite_library", "clean"),
)
Function = TypeVar("Function", bound=Callable[..., Any])


def device_options(function: Function) -> Function:
    """Which devices, and what only they are asked."""
    for option in reversed(
        [
            click.option(
                "--device",
                "devices",
                multiple=True,
                metavar="DEVICE",
                shell_complete=complete_devices,
                help="local, ssh://user@host[:port], adb[:serial], qemu-arm64, or a name of the devices file. Repeat.",
            ),
            click.option("--all-threads", is_flag=True, help="Devices: 1, 2, 4 ... up to all cores, not --threads."),
            click.option(
                "--budget",
                default=30.0,
                show_default=True,
                type=click.FloatRange(0, 86400),
                help="Devices: seconds of timed calls for each number of threads.",
            ),
            click.option(
                "--sustained",
                default=0.0,
                type=click.FloatRange(0, 86400),
                metavar="SECONDS",
                help="Devices: call without a pause for so long, and watch for throttling.",
            ),
            click.option(
                "--beside",
                multiple=True,
                metavar="NAME=FILE",
                help="Devices: another .tflite of the same input shape, float32 in and out, timed in turns. Repeat.",
            ),
            click.option(
                "--no-float", is_flag=True, help="Devices: without the float32 and int8 networks of its shape."
            ),
            click.option(
                "--devices-file",
                type=click.Path(path_type=Path),
                metavar="FILE",
                help="Where devices have names. [~/.config/bssl-tf/devices.toml]",
            ),
            click.option("--remote-dir", metavar="DIR", help="Where to work there. [~/.cache/bssl-tf-device]"),
            click.option(
                "--benchmark-model",
                type=click.Path(path_type=Path),
                metavar="FILE",
                help="TensorFlow Lite's benchmark_model for the device: runs models on Android, elsewhere it adds "
                "operators.",
            ),
            click.option(
                "--tflite-library",
                type=click.Path(path_type=Path),
                metavar="FILE",
                help="Android without benchmark_model: the .aar of org.tensorflow:tensorflow-lite, or its arm64 .so.",
            ),
            click.option("--clean", is_flag=True, help="Devices: remove what was installed there at the end."),
        ]
    ):
        function = option(function)
    return function


def bench_devices(
    bundle: str,
    record_file: str | None,
    threads: int,
    trust_bundle_library: bool,
    *,
    as_json: bool,
    devices: Sequence[str],
    devices_file: Path | None,
    remote_dir: str | None,
    benchmark_model: Path | None,
    tflite_library: Path | None,
    no_float: bool,
    beside: Sequence[str],
    clean: bool,
    **plan: Any,
) -> None:
    """Measures a bundle on devices, one after another; what fails on one does not keep it from the others.

    Each is reached before anything is made for it.

    Raises:
        BsslError: the bundle is not sound, or there is but one device, and it failed.
    """
    from bssl_tf.cli.stock_networks import NAMES, has_stock_networks, stock_networks
    from bssl_tf.devices.devices_file import find_device
    from bssl_tf.errors import BsslError, ConfigError
    from bssl_tf.files import append_record
    from bssl_tf_deploy.bundle import read_bundle

    content = read_bundle(Path(bundle))
    if benchmark_model and not benchmark_model.is_file():
        raise ConfigError(f"{benchmark_model} is no file", "Check the path of --benchmark-model")
    if tflite_library and not tflite_library.is_file():
        raise ConfigError(f"{tflite_library} is no file", "Check the path of --tflite-library")
    run = Path(bundle).resolve().parent
    if record_file is None and is_run_folder(run):
        record_file = str(run / "bench-devices.jsonl")
    targets = []
    for device in (find_device(text, devices_file) for text in devices):
        # A phone takes one of the two: what is named now goes before what the file says.
        of_file = None if tflite_library and device.is_phone else device.benchmark_model
        targets.append(
            dataclasses.replace(
                device,
                remote_dir=remote_dir or device.remote_dir,
                benchmark_model=benchmark_model or of_file,
                tflite_library=tflite_library or device.tflite_library,
            )
        )
    if tflite_library and not any(target.is_phone for target in targets):
        raise click.UsageError("--tflite-library needs a phone: --device adb")
    others = _beside(beside)
    built_here = has_stock_networks(content.manifest)
    # An emulator times nothing.
    with_stock = not no_float and built_here and any(target.address != "qemu-arm64" for target in targets)
    _check_number({*others, *(NAMES if with_stock else ())}, targets)
    records, failures = [], []

    def failed(error: BsslError) -> None:
        if len(targets) == 1:
            raise error
        click.echo(str(error), err=True)
        failures.append(error)

    # Before the networks are made, which takes long.
    reached = []
    for target in targets:
        try:
            _reach(target)
            reached.append(target)
        except BsslError as error:
            failed(error)
    if with_stock and any(target.address != "qemu-arm64" for target in reached):
        others = stock_networks(content.manifest) | others
    for target in reached:
        try:
            found = _measure(target, content, threads, trust_bundle_library, others, plan)
            if clean:
                _clean(target)
        except BsslError as error:
            failed(error)
            continue
        record = {
            "bundle": bundle,
            "bundle_sha256": hashlib.sha256((content.path / "manifest.json").read_bytes()).hexdigest(),
            "backbone": content.manifest.network.backbone,
            "target": content.manifest.target,
            "input_shape": content.manifest.inputs[0].shape,
            "device": {"name": target.name, "address": target.address},
            "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
            "command": shlex.join(["bssl-tf", *sys.argv[1:]]),
            **found,
        }
        if record_file:
            append_record(Path(record_file), record)
        records.append(record)
        if not as_json:
            click.echo("\n".join(_table(record)))
    if as_json:
        click.echo(json.dumps(records, indent=2))
    if failures:
        click.get_current_context().exit(failures[0].exit_status)


def _check_number(beside: Collection[str], devices: Sequence[Device]) -> None:
    """Raises `ConfigError` for more networks than the runner on a phone takes."""
    from bssl_tf.devices.android_runner import MOST_NETWORKS
    from bssl_tf.errors import ConfigError

    phones = [device for device in devices if device.is_phone and device.benchmark_model is None]
    if phones and len(beside) >= MOST_NETWORKS:
        raise ConfigError(
            f"{len(beside)} networks are to be timed beside the bundle's ({', '.join(list(beside)[:3])} ...), and the "
            f"runner on {phones[0].name} takes {MOST_NETWORKS - 1}",
            "Name fewer with --beside, and the rest in another call",
        )


def _reach(device: Device) -> None:
    """Raises `BsslError` where a device, or what it needs of this machine, is not there."""
    from bssl_tf.devices.adb import AdbConnection
    from bssl_tf.devices.android import reach_phone
    from bssl_tf.devices.measuring import reach_device

    connection = device.connect()
    if isinstance(connection, AdbConnection):
        reach_phone(device, connection)
    else:
        reach_device(device)


def _measure(
    device: Device,
    bundle: Bundle,
    threads: int,
    trust_bundle_library: bool,
    beside: Mapping[str, bytes],
    plan: Mapping[str, Any],
) -> dict[str, Any]:
    """What a device gave: `facts`, `emulated`, and what `bssl_tf_deploy.measure` or a phone records."""
    from bssl_tf.devices.adb import AdbConnection
    from bssl_tf.devices.android import measure_on_phone
    from bssl_tf.devices.measuring import measure_on_device

    connection = device.connect()
    counts = "all" if plan["all_threads"] else str(threads)
    if isinstance(connection, AdbConnection):
        if plan["sustained"]:
            prose(f"{device.name}: --sustained is for boards, and left out")
        given = click.get_current_context().get_parameter_source("budget") is ParameterSource.COMMANDLINE
        if given and device.benchmark_model is not None:
            prose(f"{device.name}: benchmark_model decides for itself how long it times, not --budget")
        found = measure_on_phone(
            device,
            connection,
            bundle,
            counts,
            beside,
            budget_s=plan["budget"],
            trust_bundle_library=trust_bundle_library,
            say=prose,
        )
        return {"emulated": False, **found}
    arguments = ["--threads", counts]
    arguments += ["--budget", str(plan["budget"]), "--sustained", str(plan["sustained"])]
    measured = measure_on_device(
        device, bundle, arguments, beside, trust_bundle_library=trust_bundle_library, say=prose
    )
    return {"facts": measured.facts, "emulated": measured.emulated, **measured.record}


def _clean(device: Device) -> None:
    from bssl_tf.devices.adb import AdbConnection
    from bssl_tf.devices.measuring import clean_device

    # Nothing stays on a phone.
    if not isinstance(device.connect(), AdbConnection):
        clean_device(device)


def _beside(texts: Sequence[str]) -> dict[str, bytes]:
    """Models of NAME=FILE."""
    from bssl_tf.errors import ConfigError

    found = {}
    for text in texts:
        name, _, file = text.partition("=")
        # It becomes the name of a file on the device.
        if not name.isidentifier() or name == "binary" or not file:
            raise ConfigError(
                f"--beside {text!r} is not NAME=FILE", "Write for example --beside int8=model-int8.tflite"
            )
        try:
            found[name] = Path(file).read_bytes()
        except OSError as error:
            raise ConfigError(f"{file} cannot be read ({error.strerror})", "Check the path") from error
    return found


def _table(record: Mapping[str, Any]) -> list[str]:
    from bssl_tf.devices.operator_profile import operator_lines
    from bssl_tf_deploy.measure import table

    facts = record["facts"]
    lines = [
        f"{record['device']['name']}: {record['backbone']}, input {list(record['input_shape'])}, "
        f"{facts['processor']}, {facts['cores']} cores, {facts['system']} {facts['machine']}",
        f"golden outputs: as expected for {record['golden']['images']} images, from {record['kernel']}",
    ]
    if "versions" in record:
        versions = ", ".join(f"{name} {version}" for name, version in record["versions"].items())
        # A phone has none.
        lines.append(versions + (f", Python {facts['python']}" if "python" in facts else ""))
    if record["emulated"]:
        return [*lines, "emulated: answers are checked, times would mean nothing", *_counts(record)]
    before, after = (record.get("conditions", {}).get(when, {}) for when in ("before", "after"))
    if "temperature_c" in before and "temperature_c" in after:
        lines.append(f"temperature before and after {before['temperature_c']:.1f} and {after['temperature_c']:.1f} °C")
    if "governors" in before:
        lines.append(f"governor {'/'.join(before['governors'])}")
    if after.get("throttled"):
        lines.append("throttling: " + ", ".join(after["throttled"]))
    if "raw" in record["runs"][0]["networks"]["binary"]:
        return lines + _phone_table(record)
    lines += table(record)
    if "operators" in record:
        lines.append(f"operators by benchmark_model with {record['operators']['threads']} threads, while watched:")
        lines += operator_lines(record["operators"]["rows"])
    return lines


def _counts(record: Mapping[str, Any]) -> list[str]:
    found = record.get("instructions")
    if found is None:
        return []
    return [
        f"emulated: one image takes {found['instructions'] / 1e6:.3f} million instructions on {found['processor']}, "
        f"{found['vector'] / 1e6:.3f} million of them vector ones"
    ]


def _phone_table(record: Mapping[str, Any]) -> list[str]:
    from bssl_tf.devices.operator_profile import operator_lines

    lines = []
    for run in record["runs"]:
        for name, row in run["networks"].items():
            values = ", ".join(f"{key} {value:.3f}" for key, value in row.items() if isinstance(value, float))
            lines.append(f"{run['threads']} threads, {name}: {values}")
        lines += operator_lines(run["networks"]["binary"]["operators"])
    return lines
