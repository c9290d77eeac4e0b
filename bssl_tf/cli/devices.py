"""`bssl-tf devices`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

from bssl_tf.cli import completion
from bssl_tf.errors import BsslError


def complete_devices(context: click.Context, parameter: click.Parameter, typed: str) -> completion.Offers:
    """Completes a device: those that need no name, and those of the devices file if it can be read."""
    from bssl_tf.devices.devices_file import named_devices

    try:
        named = [*named_devices(context.params.get("devices_file"))]
    except BsslError:
        named = []
    return completion.fitting(("local", *named, "qemu-arm64", "adb", "ssh://"), typed)


@click.command("devices")
@click.argument("devices", nargs=-1, metavar="[DEVICE]...", shell_complete=complete_devices)
@click.option(
    "--devices-file", type=click.Path(path_type=Path), metavar="FILE", help="[~/.config/bssl-tf/devices.toml]"
)
@click.option("--remote-dir", metavar="DIR", help="Where to work on the devices. [~/.cache/bssl-tf-device]")
@click.option("--clean", is_flag=True, help="Remove what bssl-tf keeps on the devices.")
@click.option("--json", "as_json", is_flag=True, help="Print what is found as JSON.")
def command(
    devices: tuple[str, ...], devices_file: Path | None, remote_dir: str | None, clean: bool, as_json: bool
) -> None:
    """List devices and check them: local, ssh://user@host[:port], adb[:serial], qemu-arm64, or names of a file.

    Without DEVICE, this machine and all devices of the file. Nothing is installed; `bssl-tf bench BUNDLE --device` does
    that. The exit status is that of the first device that cannot be used.
    """
    import dataclasses

    from bssl_tf.devices.devices_file import find_device, named_devices

    names = devices or ("local", *named_devices(devices_file))
    found, status = [], 0
    for name in names:
        device = find_device(name, devices_file)
        if remote_dir:
            device = dataclasses.replace(device, remote_dir=remote_dir)
        try:
            found.append({"device": device.name} | (_clean(device) if clean else _check(device)))
        except BsslError as error:
            status = status or error.exit_status
            found.append({"device": device.name, "error": str(error)})
        if not as_json:
            line = _line(found[-1])
            click.echo(line, err="error" in found[-1])
    if as_json:
        click.echo(json.dumps(found, indent=2))
    if status:
        click.get_current_context().exit(status)


def _check(device: Any) -> dict[str, Any]:
    from bssl_tf.devices.adb import AdbConnection
    from bssl_tf.devices.android import phone_facts
    from bssl_tf.devices.measuring import check_device

    connection = device.connect()
    return phone_facts(connection) if isinstance(connection, AdbConnection) else check_device(device)


def _clean(device: Any) -> dict[str, Any]:
    from bssl_tf.devices.adb import AdbConnection
    from bssl_tf.devices.android import clean_phone
    from bssl_tf.devices.measuring import clean_device

    connection = device.connect()
    if isinstance(connection, AdbConnection):
        return {"removed": clean_phone(connection, device)}
    return {"removed": clean_device(device)}


def _line(found: dict[str, Any]) -> str:
    name = found["device"]
    if "error" in found:
        return str(found["error"])
    if "removed" in found:
        return f"{name}: {'removed' if found['removed'] else 'nothing was there'}"
    words = [f"{found['processor']}, {found['system']} {found['machine']}, {found['cores']} cores"]
    if "clock_mhz" in found:
        words.append(f"{found['clock_mhz']:.0f} MHz of {found.get('clock_max_mhz', 0):.0f}")
    if "governors" in found:
        words.append("governor " + "/".join(found["governors"]))
    words.append(f"{found['memory_total_mib']} MiB memory")
    if found.get("free_mib") is not None:
        words.append(f"{found['free_mib']} MiB disk free")
    if "python" in found:
        words.append(f"Python {found['python']}")
    if "temperature_c" in found:
        words.append(f"{found['temperature_c']:.0f} °C")
    if "throttled" in found:
        words.append("throttling: " + (", ".join(found["throttled"]) or "none"))
    if "runtimes" in found:
        words.append(found["runtimes"][0] if found["runtimes"] else "no runtime yet")
    if found["emulated"]:
        words.append("emulated: answers, no times")
    return f"{name}: " + ", ".join(words)
