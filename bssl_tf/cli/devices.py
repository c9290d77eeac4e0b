"""`bssl-tf devices`."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from bssl_tf.cli import completion
from bssl_tf.cli.options import json_option
from bssl_tf.errors import BsslError
from bssl_tf_deploy.text import show, show_json

if TYPE_CHECKING:
    from bssl_tf.devices import Facts
    from bssl_tf.workflows.devices import DeviceCheck


def complete_devices(context: click.Context, parameter: click.Parameter, typed: str) -> completion.Offers:
    """Completes a device: what each kind offers, and those of the devices file if it can be read."""
    from bssl_tf.devices import kinds, named_devices

    try:
        named = [*named_devices(context.params.get("devices_file"))]
    except BsslError:
        named = []
    return completion.fitting((*named, *(offer for kind in kinds() for offer in kind.offers)), typed)


@click.command("devices")
@click.argument("devices", nargs=-1, metavar="[DEVICE]...", shell_complete=complete_devices)
@click.option(
    "--devices-file",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="File that names devices.  [default: ~/.config/bssl-tf/devices.toml]",
)
@click.option("--remote-dir", metavar="DIR", help="Working folder on the devices.  [default: ~/.cache/bssl-tf-device]")
@click.option("--clean", is_flag=True, help="Remove everything that bssl-tf keeps on the devices.")
@json_option("Print the results as JSON.")
def command(
    devices: tuple[str, ...], devices_file: Path | None, remote_dir: str | None, clean: bool, as_json: bool
) -> None:
    """List and check devices: local, ssh://user@host[:port], adb[:serial], qemu-arm64, or names from the devices file.

    Without DEVICE, checks this machine and all devices in the file. Nothing is installed; `bssl-tf bench BUNDLE
    --device` does that. The exit status is that of the first device that cannot be used.
    """
    from bssl_tf.workflows.devices import check_devices

    found, status = [], 0
    for one in check_devices(devices, devices_file=devices_file, remote_dir=remote_dir, clean=clean):
        status = status or (one.error.exit_status if one.error else 0)
        found.append(_plain(one))
        if not as_json:
            show(_line(one), file=sys.stderr if one.error is not None else None)
    if as_json:
        show_json(found)
    if status:
        click.get_current_context().exit(status)


def _plain(one: DeviceCheck) -> dict[str, Any]:
    if one.error is not None:
        return {"device": one.device, "error": str(one.error)}
    if one.facts is None:
        return {"device": one.device, "removed": one.removed}
    return {"device": one.device, **dataclasses.asdict(one.facts)}


def _line(one: DeviceCheck) -> str:
    if one.error is not None:
        return str(one.error)
    if one.facts is None:
        return f"{one.device}: {'removed' if one.removed else 'nothing was there'}"
    return f"{one.device}: " + ", ".join(_words(one.facts))


def _words(facts: Facts) -> Iterator[str]:
    machine, state = facts.machine, facts.state
    yield str(machine)
    if state.clock_mhz is not None:
        yield f"{state.clock_mhz:.0f} MHz" + (f" of {state.clock_max_mhz:.0f}" if state.clock_max_mhz else "")
    if state.governors:
        yield "governor " + "/".join(state.governors)
    if machine.memory_mib is not None:
        yield f"{machine.memory_mib} MiB memory"
    if facts.free_mib is not None:
        yield f"{facts.free_mib} MiB disk free"
    if machine.python is not None:
        yield f"Python {machine.python}"
    if state.temperature_c is not None:
        yield f"{state.temperature_c:.0f} °C"
    if state.throttled is not None:
        yield "throttling: " + (", ".join(state.throttled) or "none")
    if facts.runtimes is not None:
        yield facts.runtimes or "no runtime yet"
    if machine.emulated:
        yield "emulated: answers, no times"
