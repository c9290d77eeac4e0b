"""The kinds of device: those of this package, those that were registered, and those of other packages."""

from __future__ import annotations

import functools
import logging

from bssl_tf.devices.android import Phone
from bssl_tf.devices.device import Device, DeviceSettings
from bssl_tf.devices.local import LocalDevice
from bssl_tf.devices.qemu import QemuDevice
from bssl_tf.devices.ssh import SshDevice
from bssl_tf.entry_points import offered
from bssl_tf.errors import ConfigError

GROUP = "bssl_tf.devices"
_registered: dict[str, type[Device]] = {kind.kind: kind for kind in (LocalDevice, SshDevice, Phone, QemuDevice)}
log = logging.getLogger(__name__)


def register(kind: type[Device]) -> type[Device]:
    """Adds a kind; to be used as a decorator.

    Raises:
        ValueError: another one has its name.
    """
    if _registered.get(kind.kind, kind) is not kind:
        raise ValueError(f"there is another kind of device called {kind.kind!r}")
    _registered[kind.kind] = kind
    return kind


def unregister(kind: type[Device]) -> None:
    """The reverse of `register`."""
    _registered.pop(kind.kind, None)


def kinds() -> tuple[type[Device], ...]:
    """All kinds; of those of other packages, whose names are not taken."""
    others = {name: kind for name, kind in _offered().items() if name not in _registered}
    return (*_registered.values(), *others.values())


def device_of(settings: DeviceSettings, known: str = "") -> Device:
    """The device at an address.

    Args:
        settings: with the address.
        known: what else could have been given, for the message.

    Raises:
        ConfigError: no kind knows the address.
    """
    for kind in kinds():
        if kind.matches(settings.address):
            return kind(settings)
    forms = ", ".join(form for kind in kinds() for form in kind.forms)
    raise ConfigError(f"{settings.address!r} is not a device", f"Give {forms}, or a name from the devices file{known}")


@functools.cache
def _offered() -> dict[str, type[Device]]:
    """Kinds of other packages."""
    found: dict[str, type[Device]] = {}
    for entry in offered(GROUP):
        try:
            kind = entry.load()
            if not (isinstance(kind, type) and issubclass(kind, Device)):
                raise TypeError("it is not a subclass of bssl_tf.devices.Device")
        # What a foreign package raises is not known, and the other kinds do not depend on it.
        except Exception as error:
            log.warning("the kind of device %s cannot be loaded (%s)", entry.value, error)
            continue
        found[kind.kind] = kind
    return found
