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

import functools
import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bssl_tf.devices.device import Device, DeviceSettings
from bssl_tf.devices.kinds import device_of
from bssl_tf.errors import ConfigError
from bssl_tf.files import config_dir
from bssl_tf.settings import read_toml

if TYPE_CHECKING:
    import pydantic

_NAME = re.compile(r"[A-Za-z0-9][\w.-]*")


@functools.cache
def _entry() -> type[pydantic.BaseModel]:
    """A table of the file. Made when there is one: names are offered on Tab without waiting for pydantic."""
    import pydantic

    class Entry(pydantic.BaseModel):
        model_config = pydantic.ConfigDict(extra="forbid", strict=True)

        address: str
        remote_dir: str = ""
        benchmark_model: str = ""
        tflite_library: str = ""

    return Entry


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
    return {name: device_of(_settings(name, entry, path)) for name, entry in read_toml(path).items()}


def find_device(text: str, file: Path | None = None, given: Mapping[str, Any] | None = None) -> Device:
    """The device of that name, or at that address.

    Args:
        text: a name or an address.
        file: the devices file; None for the usual one.
        given: fields of `DeviceSettings` that the user named for this call.

    Raises:
        ConfigError: there is none, or the file is wrong.
    """
    named = named_devices(file)
    known = f"; the devices file has {', '.join(named)}" if named else ""
    device = named[text] if text in named else device_of(DeviceSettings(text, text), known)
    return type(device)(device.overridden(device.settings, given)) if given else device


def _settings(name: str, entry: object, path: Path) -> DeviceSettings:
    if not _NAME.fullmatch(name) or not isinstance(entry, dict) or "address" not in entry:
        raise ConfigError(f"{name!r} in {path} is not a device", 'Write [name] and below it address = "ssh://..."')
    from pydantic import ValidationError

    try:
        read: Any = _entry().model_validate(entry)
    except ValidationError as error:
        [key, *_] = error.errors()[0]["loc"]
        known = ", ".join(_entry().model_fields)
        raise ConfigError(f"{name} in {path} has {key}", f"The known keys are {known}, all of them strings") from error
    tool, library = (_file(name, path, text) for text in (read.benchmark_model, read.tflite_library))
    return DeviceSettings(name, read.address, read.remote_dir, tool, library)


def _file(name: str, path: Path, text: str) -> Path | None:
    try:
        return Path(text).expanduser() if text else None
    except RuntimeError as error:
        raise ConfigError(
            f"{name} in {path} has {text!r}, but there is no such user", "Write the full path of the file"
        ) from error
