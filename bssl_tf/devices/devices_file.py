"""Devices by name: `~/.config/bssl-tf/devices.toml`, a table for each.

[pi4]
address = "ssh://pi@192.168.0.4"
remote_dir = "/mnt/usb/bssl-tf"                  # optional: where to work there

[phone]
address = "adb:0123456789ABCDEF"
benchmark_model = "~/android_aarch64_benchmark_model"   # what runs a model there; see `android`
tflite_library = "~/tensorflow-lite-2.17.0.aar"          # or this
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from bssl_tf.devices.adb import AdbConnection
from bssl_tf.devices.connection import Connection
from bssl_tf.devices.local import LocalConnection
from bssl_tf.devices.qemu import QemuConnection
from bssl_tf.devices.ssh import SshConnection
from bssl_tf.errors import ConfigError
from bssl_tf.files import config_dir
from bssl_tf.settings import read_toml

REMOTE_DIR = "~/.cache/bssl-tf-device"
# Neither a user nor a host begins with a dash, which ssh would take for an option.
_SSH = re.compile(
    r"ssh://(?:(?P<user>[A-Za-z0-9_][\w.-]*)@)?(?P<host>[A-Za-z0-9_][\w.-]*|\[[0-9A-Fa-f:.]+\])(?::(?P<port>\d{1,5}))?/?"
)
_ADB = re.compile(r"adb(?::(?P<serial>[A-Za-z0-9][\w.:-]*))?")
_NAME = re.compile(r"[A-Za-z0-9][\w.-]*")
_FILES = ("benchmark_model", "tflite_library")
_KEYS = ("address", "remote_dir", *_FILES)


@dataclass(frozen=True)
class Device:
    """One device.

    Attributes:
        name: in the file; the address for one that is not there.
        address: `local`, `qemu-arm64`, `ssh://[user@]host[:port]`, `adb` or `adb:SERIAL`.
        remote_dir: where to work there; "" for the usual place.
        benchmark_model: a file of this machine, for a phone; for a board, where it adds times by operator.
        tflite_library: a file of this machine, for a phone without the former.
    """

    name: str
    address: str
    remote_dir: str = ""
    benchmark_model: Path | None = None
    tflite_library: Path | None = None

    @property
    def is_phone(self) -> bool:
        """Whether it is reached through adb."""
        return _ADB.fullmatch(self.address) is not None

    def connect(self) -> Connection:
        """The way there; nothing is sent yet.

        Raises:
            DeviceError: what connects is not installed here.
        """
        if self.address == "local":
            return LocalConnection()
        if self.address == "qemu-arm64":
            return QemuConnection()
        found = _SSH.fullmatch(self.address)
        if found:
            port = int(found["port"]) if found["port"] else None
            return SshConnection(self.name, found["host"].strip("[]"), found["user"], port)
        adb = _ADB.fullmatch(self.address)
        assert adb is not None  # `_checked` has seen to it
        return AdbConnection(self.name, adb["serial"])


def default_file() -> Path:
    """Where the file lies unless someone says otherwise."""
    return config_dir() / "devices.toml"


def named_devices(file: Path | None = None) -> dict[str, Device]:
    """All devices of the file; none where there is no file and none was named.

    Raises:
        ConfigError: it is missing though named, not TOML, or an entry is wrong.
    """
    path = file or default_file()
    if file is None and not path.exists():
        return {}
    devices = {}
    for name, entry in read_toml(path).items():
        if not _NAME.fullmatch(name) or not isinstance(entry, dict) or "address" not in entry:
            raise ConfigError(f"{name!r} in {path} is no device", 'Write [name] and below it address = "ssh://..."')
        odd = [key for key, value in entry.items() if key not in _KEYS or not isinstance(value, str)]
        if odd:
            raise ConfigError(f"{name} in {path} has {odd[0]}", f"Only {', '.join(_KEYS)} are known, all of them text")
        files = {key: Path(entry[key]).expanduser() for key in _FILES if entry.get(key)}
        devices[name] = _checked(Device(name, entry["address"], entry.get("remote_dir", ""), **files))
    return devices


def find_device(text: str, file: Path | None = None) -> Device:
    """The device of that name, or at that address.

    Raises:
        ConfigError: there is none, or the file is wrong.
    """
    named = named_devices(file)
    return named[text] if text in named else _checked(Device(text, text), named)


def _checked(device: Device, named: dict[str, Device] | None = None) -> Device:
    address = device.address
    found = _SSH.fullmatch(address)
    if address in ("local", "qemu-arm64") or _ADB.fullmatch(address):
        return device
    if found and 0 < int(found["port"] or 22) < 65536:
        return device
    known = f"; the devices file has {', '.join(named)}" if named else ""
    raise ConfigError(
        f"{address!r} is no device",
        f"Give local, qemu-arm64, ssh://[user@]host[:port], adb[:serial], or a name of the devices file{known}",
    )
