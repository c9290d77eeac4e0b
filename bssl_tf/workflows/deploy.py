"""What `bssl-tf deploy` does: a bundle as a service on boards."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from bssl_tf.devices import Job, find_device
from bssl_tf.devices.python_device import PythonDevice
from bssl_tf.devices.services import (
    ServiceSettings,
    ServiceStatus,
    Switched,
    deploy_service,
    hosting,
    remove_service,
    roll_back_service,
    service_status,
)
from bssl_tf.errors import BsslError, ConfigError
from bssl_tf_deploy.bundle import read_bundle
from bssl_tf_deploy.heads import read_head

# What is done with a service that is there.
Action = Literal["status", "rollback", "remove"]

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}")


@dataclass(frozen=True)
class Deployment:
    """What one device gave; all but one of the last four are None.

    Attributes:
        device: its name.
        switched: after a deployment or a rollback.
        status: when it was looked at.
        removed: whether there was a service to remove.
        error: where it failed.
    """

    device: str
    switched: Switched | None = None
    status: ServiceStatus | None = None
    removed: bool | None = None
    error: BsslError | None = None


def deploy(
    bundle: str | Path,
    devices: Sequence[str],
    settings: ServiceSettings | None = None,
    *,
    devices_file: Path | None = None,
    remote_dir: str | None = None,
    trust_bundle_library: bool = False,
) -> Iterator[Deployment]:
    """Installs a bundle as a service on devices, one after another; each result as soon as it is there.

    What fails on one device does not keep the others from being deployed to.

    Args:
        bundle: a folder that `export` wrote.
        devices: addresses or names of the devices file, of devices that are reached by ssh.
        settings: of the service.
        devices_file: where devices have names; None for the usual one.
        remote_dir: instead of `~/.local/share/bssl-tf`; the service's name is added to it.
        trust_bundle_library: see `bssl_tf_deploy.load`.

    Raises:
        BundleError: the bundle is not sound, or has no such head.
        ConfigError: there is no such device, or it cannot have a service.
    """
    settings = settings or ServiceSettings()
    content = read_bundle(Path(bundle))
    job = Job(content, trust_bundle_library=trust_bundle_library)
    if settings.head:
        read_head(content, settings.head)
    title = Path(bundle).absolute().name
    return _on_each(
        _found(devices, settings, devices_file, remote_dir),
        lambda device: Deployment(device.name, switched=deploy_service(device, job, settings, title)),
    )


def manage(
    action: Action,
    devices: Sequence[str],
    settings: ServiceSettings | None = None,
    *,
    devices_file: Path | None = None,
    remote_dir: str | None = None,
) -> Iterator[Deployment]:
    """Looks at the service on each device, goes back to the release before, or removes it; see `deploy`."""
    chosen = settings or ServiceSettings()

    def work(device: PythonDevice) -> Deployment:
        if action == "status":
            return Deployment(device.name, status=service_status(device, chosen))
        if action == "rollback":
            return Deployment(device.name, switched=roll_back_service(device, chosen))
        return Deployment(device.name, removed=remove_service(device, chosen))

    return _on_each(_found(devices, chosen, devices_file, remote_dir), work)


def _on_each(devices: Sequence[PythonDevice], work: Callable[[PythonDevice], Deployment]) -> Iterator[Deployment]:
    for device in devices:
        try:
            yield work(device)
        except BsslError as error:
            yield Deployment(device.name, error=error)


def _found(
    devices: Sequence[str], settings: ServiceSettings, devices_file: Path | None, remote_dir: str | None
) -> list[PythonDevice]:
    if not _NAME.fullmatch(settings.name):
        raise ConfigError(
            f"{settings.name!r} cannot name a service", "Use letters, digits, - and _, 64 of them at most"
        )
    given = {"remote_dir": remote_dir} if remote_dir else {}
    # Twice the same would find itself in use.
    return [hosting(find_device(text, devices_file, given)) for text in dict.fromkeys(devices)]
