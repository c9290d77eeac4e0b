"""A bundle as a service on a board: installed as releases beside each other, switched, looked at, removed.

What is done there is done by `bssl_tf_deploy.board`, which each session sends.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib import resources
from typing import Any, TypeVar

from bssl_tf.devices.device import Device, Job
from bssl_tf.devices.installing import check_room, install
from bssl_tf.devices.packages import collect_packages, target_of
from bssl_tf.devices.python_device import PythonDevice
from bssl_tf.devices.session import Session, open_session
from bssl_tf.errors import BsslError, ConfigError, DeploymentError, DeviceError, StorageError
from bssl_tf_deploy.bundle import MANIFEST, checked_file
from bssl_tf_deploy.heads import head_path
from bssl_tf_deploy.strict import StrictError, parse

FOLDER = "~/.local/share/bssl-tf"
# How much later a service that has answered has to answer again, as the same process.
SETTLE_S = 3.0
_MODULES = ("__init__", "unit", "folder", "manager", "health", "releases", "command")
_RUN = "from bssl_tf_deploy.board.command import main; main()"
# What the board may take for itself, beside the two times that a service is waited for.
_MARGIN_S = 600.0
T = TypeVar("T")
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class ServiceSettings:
    """How a bundle is served.

    Attributes:
        name: of the service; letters, digits, `-` and `_`.
        host: where it listens there.
        port: at which port, 1024 to 65535.
        threads: for one image.
        head: of the bundle, which answers instead of the exported classes; "" for none.
        health_s: how long it may take to answer after the switch, seconds.
        keep: how many releases stay, at least 2.
    """

    name: str = "server"
    host: str = "127.0.0.1"
    port: int = 8000
    threads: int = 1
    head: str = ""
    health_s: float = 60.0
    keep: int = 3


@dataclass(frozen=True)
class Switched:
    """What a switch gave.

    Attributes:
        release: which runs now.
        before: which ran before; None for none.
        state: "running", or "unchanged" where it ran already.
        address: where it listens there, HOST:PORT.
        token_file: what holds the token there; "" where none is needed.
        lingers: whether it runs while its user is not logged in.
        recovered: whether a switch that had been cut off was taken back first.
    """

    release: str
    before: str | None
    state: str
    address: str
    token_file: str
    lingers: bool
    recovered: bool


@dataclass(frozen=True)
class ServiceStatus:
    """What a device states of a service.

    Attributes:
        release: which runs; None for no service.
        title: the bundle's name at its deployment.
        made_s: when it was installed, seconds since 1970; 0 for no service.
        address: where it listens there, HOST:PORT.
        state: systemd's word: active, failed, ...; "absent" for no service.
        healthy: whether its health page answers.
        answered: how many images it has answered.
        temperature_c: of the board; None where it does not report it.
        earlier: releases that `rollback` can go to, the newest last.
        interrupted: whether a switch was cut off, or goes on.
        lingers: see `Switched`.
    """

    release: str | None
    title: str
    made_s: int
    address: str
    state: str
    healthy: bool
    answered: int
    temperature_c: float | None
    earlier: tuple[str, ...]
    interrupted: bool
    lingers: bool


@dataclass(frozen=True)
class _Look:
    no_systemd: str
    releases: tuple[str, ...]
    environments: tuple[str, ...]
    free_bytes: int


@dataclass(frozen=True)
class _Removed:
    removed: bool
    before: str | None


@dataclass(frozen=True)
class _Refused:
    error: str
    message: str
    log: tuple[str, ...]


def hosting(device: Device) -> PythonDevice:
    """`device` as one that can have a service. Raises `ConfigError` for others."""
    if not device.hosts_services or not isinstance(device, PythonDevice):
        raise ConfigError(
            f"{device.name} is not a device that can have a service", "Give ssh://[user@]host[:port] of a board"
        )
    return device


def deploy_service(device: PythonDevice, job: Job, settings: ServiceSettings, title: str) -> Switched:
    """Installs a bundle as a release, checks it there, and switches the service to it.

    Args:
        device: with systemd.
        job: its bundle and whether the bundle's own library is trusted; the rest of it is not looked at.
        settings: of the service.
        title: what `status` calls the bundle.

    Raises:
        DeploymentError: the release does not pass its check, or does not answer after the switch; the one before runs.
        DeviceError: the device cannot be reached, has no systemd, no room, or was lost. The release before runs; where
            the connection was lost during the switch, the device decides by itself.
        BundleError: a file arrived changed.
        StorageError: the device cannot write.
        OSError: the bundle's head cannot be read.
    """
    with _opened(device, settings) as board:
        look = board.ask(_Look, "look")
        if look.no_systemd:
            raise DeviceError(
                f"{device.name} has no systemd for this user ({look.no_systemd[:200]})",
                "Use a system with systemd and log in by ssh as the user of the service, or run `bssl-tf-deploy serve` "
                "there by other means",
            )
        facts, packages_there = board.session.facts, device.connect().packages
        packages = collect_packages(
            device.name,
            facts,
            job.library(target_of(device.name, facts)),
            bring_wheels=packages_there is None,
            serving=True,
        )
        manifest = (job.bundle.path / MANIFEST).read_bytes()
        request = {
            "environment": packages.environment,
            "packages": list(packages_there or ()),
            "host": settings.host,
            "port": settings.port,
            "threads": settings.threads,
            "head": settings.head,
        }
        learned = {}
        if settings.head:
            path = head_path(job.bundle, settings.head)
            learned[path.relative_to(job.bundle.path).as_posix()] = path.read_bytes()
        contents = [hashlib.sha256(content).hexdigest() for content in (manifest, *learned.values())]
        parts = [*contents, *map(repr, request.values())]
        release = hashlib.sha256("\n".join(parts).encode()).hexdigest()[:12]
        if release in look.releases:
            log.info("%s: release %s is there already", device.name, release)
        else:
            install(device.name, board.session, packages, board.opened)
            files = {name: checked_file(job.bundle, name).read_bytes() for name in job.bundle.manifest.files}
            files |= {MANIFEST: manifest, **learned}
            check_room(device.name, look.free_bytes, sum(map(len, files.values())))
            for name, content in files.items():
                board.session.put(f"bundle/{name}", content)
            log.info("%s: checking release %s", device.name, release)
            look = board.ask(_Look, "make", release=release, title=title, **request)
        # Before the switch: what runs from now on is not taken away when the connection is lost.
        board.session.ask({"do": "keep", "environments": [*look.environments]})
        log.info("%s: switching to release %s", device.name, release)
        return board.ask(Switched, "switch", release=release, keep=settings.keep, **board.times)


def roll_back_service(device: PythonDevice, settings: ServiceSettings) -> Switched:
    """Switches to the release that ran before. Raises as `deploy_service` does, and `DeviceError` if there is none."""
    with _opened(device, settings) as board:
        return board.ask(Switched, "rollback", **board.times)


def service_status(device: PythonDevice, settings: ServiceSettings) -> ServiceStatus:
    """What runs, and whether it answers. Raises `DeviceError`."""
    with _opened(device, settings) as board:
        return board.ask(ServiceStatus, "status")


def remove_service(device: PythonDevice, settings: ServiceSettings) -> bool:
    """Stops a service and removes all that was made for it; whether there was one. Raises `DeviceError`."""
    with _opened(device, settings) as board:
        removed = board.ask(_Removed, "remove").removed
        board.session.ask({"do": "clean", "folder": board.folder})
        return removed


class _Board:
    """A session with the folder of a service open, and the program there."""

    def __init__(self, device: PythonDevice, session: Session, settings: ServiceSettings) -> None:
        self.session, self._device, self._settings = session, device, settings
        self.folder = f"{device.settings.remote_dir or FOLDER}-{settings.name}"
        self.times = {"health_s": settings.health_s, "settle_s": SETTLE_S}
        self.opened: Mapping[str, Any] = session.ask({"do": "open", "folder": self.folder})
        package = resources.files("bssl_tf_deploy.board")
        # Not the package's own, which would load what is not there.
        session.put("bssl_tf_deploy/__init__.py", b"")
        for name in _MODULES:
            session.put(f"bssl_tf_deploy/board/{name}.py", package.joinpath(f"{name}.py").read_bytes())

    def ask(self, kind: type[T], do: str, **more: Any) -> T:
        """What `bssl_tf_deploy.board.command` answers."""
        request = {"do": do, "folder": self.opened["folder"], "service": self._settings.name, **more}
        limit_s = _MARGIN_S + 2 * self._settings.health_s
        done = self.session.run(["-c", _RUN, json.dumps(request)], [], timeout_s=limit_s)
        try:
            answer = json.loads(done["stdout"])
            if isinstance(answer, dict) and "error" in answer:
                raise self._refused(parse(_Refused, answer, "the answer"))
            return parse(kind, answer["ok"], "the answer")
        except (ValueError, KeyError, TypeError, RecursionError, StrictError) as error:
            said = (done["stderr"].strip().splitlines() or [str(error)])[-1]
            raise DeviceError(
                f"{self._device.name} could not carry out a request ({do}: {said[:300]})", "Install bssl-tf again"
            ) from error

    def _refused(self, refused: _Refused) -> BsslError:
        name, message = self._device.name, refused.message
        if refused.error == "full":
            return DeviceError(
                f"the disk of {name} is full ({message})", "Free space there; what ran before still runs"
            )
        if refused.error == "storage":
            return StorageError(f"{name} cannot write: {message}", "Check the folder's owner and permissions there")
        if refused.error == "busy":
            return DeviceError(f"{name} is in use: {message}", "Wait for it, and run the same command again")
        if refused.error == "taken":
            return DeviceError(f"{name}: {message}", "Name the service differently with --service")
        if refused.error == "none":
            return DeviceError(f"{name}: {message}", "Run with --status to see what is there")
        if refused.error == "check":
            return DeploymentError(
                f"{name} did not take the release, which fails its check there: {message}",
                "What ran before still runs; check the bundle with `bssl-tf run --check`",
            )
        if refused.error == "unhealthy":
            return DeploymentError(
                f"{name} has taken the release back: {message}", "Read the service's last lines above", refused.log
            )
        return DeviceError(
            f"{name} could not carry out a request ({refused.error}: {message})", "Install bssl-tf again"
        )


@contextlib.contextmanager
def _opened(device: PythonDevice, settings: ServiceSettings) -> Iterator[_Board]:
    with open_session(device) as session:
        yield _Board(device, session, settings)
