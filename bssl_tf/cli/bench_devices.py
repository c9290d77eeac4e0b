"""What `bssl-tf bench --device` takes, and what it prints."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import click

from bssl_tf.cli.devices import complete_devices
from bssl_tf.cli.options import prose
from bssl_tf.errors import BsslError
from bssl_tf_deploy.text import show, show_json

DEVICE_SETTINGS = (
    *("all_threads", "budget", "sustained", "devices_file", "remote_dir", "benchmark_model"),
    *("tflite_library", "clean"),
)
Function = TypeVar("Function", bound=Callable[..., Any])
_SECONDS = click.FloatRange(0, 86400)
_FILE = click.Path(path_type=Path)


def device_options(function: Function) -> Function:
    """Options that only apply to devices."""
    for option in reversed(
        [
            click.option(
                "--device",
                "devices",
                multiple=True,
                metavar="DEVICE",
                shell_complete=complete_devices,
                help="local, ssh://user@host[:port], adb[:serial], qemu-arm64, or a name from the devices file; "
                "may be repeated.",
            ),
            click.option(
                "--all-threads", is_flag=True, help="Devices: use 1, 2, 4 ... up to all cores instead of --threads."
            ),
            click.option(
                "--budget",
                type=_SECONDS,
                metavar="SECONDS",
                help="Devices: duration of timed calls for each number of threads.  [default: 30]",
            ),
            click.option(
                "--sustained",
                default=0.0,
                type=_SECONDS,
                metavar="SECONDS",
                help="Devices: also run without a pause for SECONDS, and watch for throttling.",
            ),
            click.option(
                "--devices-file",
                type=_FILE,
                metavar="FILE",
                help="File that names devices.  [default: ~/.config/bssl-tf/devices.toml]",
            ),
            click.option(
                "--remote-dir",
                metavar="DIR",
                help="Working folder on the device.  [default: ~/.cache/bssl-tf-device]",
            ),
            click.option(
                "--benchmark-model",
                type=_FILE,
                metavar="FILE",
                help="TensorFlow Lite's benchmark_model for the device: on Android it runs the models, elsewhere it "
                "adds times by operator.",
            ),
            click.option(
                "--tflite-library",
                type=_FILE,
                metavar="FILE",
                help="Android without benchmark_model: the .aar of org.tensorflow:tensorflow-lite, or its arm64 .so.",
            ),
            click.option("--clean", is_flag=True, help="Devices: remove everything installed there at the end."),
        ]
    ):
        function = option(function)
    return function


def bench_on_devices(
    bundle: str,
    record_file: str | None,
    threads: int,
    trust_bundle_library: bool,
    *,
    as_json: bool,
    share_file: Path | None,
    devices: Sequence[str],
    devices_file: Path | None,
    beside: dict[str, Path],
    opponents: Sequence[str],
    no_float: bool,
    all_threads: bool,
    budget: float | None,
    sustained: float,
    clean: bool,
    **given: Any,
) -> None:
    """Prints each device's record as it comes; exits with the status of the first that failed."""
    from bssl_tf.workflows.bench_devices import DeviceBenchSettings, bench_devices
    from bssl_tf_deploy.show import record_lines

    settings = DeviceBenchSettings(
        threads=threads,
        all_threads=all_threads,
        budget_s=budget,
        sustained_s=sustained,
        beside=beside,
        opponents=tuple(opponents),
        stock=not no_float,
        trust_bundle_library=trust_bundle_library,
        clean=clean,
        devices_file=devices_file,
        given={key: value for key, value in given.items() if value is not None},
    )
    records, failures = [], list[BsslError]()
    kept = {"record_file": Path(record_file) if record_file else None, "share_file": share_file}
    for one in bench_devices(bundle, devices, settings, **kept):
        if one.error is not None:
            if len(devices) == 1:
                raise one.error
            prose(str(one.error))
            failures.append(one.error)
        if one.record is not None:
            records.append(one.record)
            if not as_json:
                show(*record_lines(one.record))
    if as_json:
        show_json([record.to_dict() for record in records])
    if failures:
        click.get_current_context().exit(failures[0].exit_status)
