"""What `bssl-tf devices` does: check devices, or remove what is ours from them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from bssl_tf.devices import Facts, find_device, named_devices
from bssl_tf.errors import BsslError


@dataclass(frozen=True)
class DeviceCheck:
    """What one device gave.

    Attributes:
        device: its name.
        facts: None where it was cleaned, or failed.
        removed: whether anything was there to remove; None where it was checked, or failed.
        error: None where it did not fail.
    """

    device: str
    facts: Facts | None = None
    removed: bool | None = None
    error: BsslError | None = None


def check_devices(
    devices: Sequence[str] = (),
    *,
    devices_file: Path | None = None,
    remote_dir: str | None = None,
    clean: bool = False,
) -> Iterator[DeviceCheck]:
    """Checks devices, or cleans them, one after another; each result as soon as it is there. Nothing is installed.

    Args:
        devices: addresses (see `bssl_tf.devices.kinds`) or names of the devices file; this machine and all of the file
            if empty.
        devices_file: where devices have names; None for the usual one.
        remote_dir: where to work there, instead of what the file has.
        clean: remove what is ours instead.

    Raises:
        ConfigError: there is no such device, or the file is wrong.
    """
    names = tuple(devices) or ("local", *named_devices(devices_file))
    given = {"remote_dir": remote_dir} if remote_dir else {}
    for name in names:
        device = find_device(name, devices_file, given)
        try:
            if clean:
                yield DeviceCheck(device.name, removed=device.clean())
            else:
                yield DeviceCheck(device.name, facts=device.check())
        except BsslError as error:
            yield DeviceCheck(device.name, error=error)
