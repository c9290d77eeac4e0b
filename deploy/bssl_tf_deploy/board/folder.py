"""What lies in the folder of a service; see the package."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import secrets
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bssl_tf_deploy.board.unit import FIRST_LINE

ABOUT, PENDING, HISTORY, TOKEN, LOCK = "release.json", "pending.json", "history.json", "token", "switch.lock"
NEW, BACK = ".new", ".back"


class Refused(Exception):
    """A request cannot be served.

    Attributes:
        kind: a word that the harness knows.
        log: the last lines that the service wrote.
    """

    def __init__(self, kind: str, message: str, log: list[str] | None = None) -> None:
        self.kind, self.log = kind, log or []
        super().__init__(message)


@dataclass(frozen=True)
class Folder:
    """The folder of one service.

    Attributes:
        root: an absolute path.
        name: the service's.
    """

    root: Path
    name: str

    @property
    def unit(self) -> str:
        """systemd's name of the service."""
        return f"bssl-tf-{self.name}.service"

    @property
    def unit_file(self) -> Path:
        """Where the user's systemd looks for it."""
        return Path.home() / ".config/systemd/user" / self.unit

    def release(self, name: str) -> Path:
        """The folder of a release."""
        if not name.isalnum():
            raise Refused("order", f"{name!r} is not the name of a release")
        return self.root / "releases" / name

    def about(self, release: str) -> dict[str, Any] | None:
        """What is known of a release; None for one that is not there, or not whole."""
        found = self._read(self.release(release) / ABOUT)
        # Packages that no session kept, as its connection was lost, are gone.
        whole = isinstance(found, dict) and (self.root / found["environment"]).is_dir()
        return found if whole else None

    def current(self) -> str | None:
        """The release that `current` leads to."""
        try:
            name = (self.root / "current").readlink().name
        except OSError:
            return None
        return name if name.isalnum() and self.about(name) is not None else None

    def releases(self) -> list[str]:
        """Those that are whole."""
        folders = sorted((self.root / "releases").glob("*"))
        return [path.name for path in folders if path.name.isalnum() and self.about(path.name) is not None]

    def history(self) -> list[str]:
        """Releases that have run and are still there, the newest last."""
        found, whole = self._read(self.root / HISTORY), self.releases()
        return [name for name in found if name in whole] if isinstance(found, list) else []

    def pending(self) -> dict[str, Any] | None:
        """`from` and `to` of a switch that was not decided."""
        found = self._read(self.root / PENDING)
        return found if isinstance(found, dict) else None

    def write(self, path: Path, content: object) -> None:
        """Writes JSON to a file of this folder; it appears whole, or not at all."""
        _written(path, json.dumps(content).encode())

    def token(self) -> Path:
        """The file with the token, made if it is not there; read by the user alone."""
        path = self.root / TOKEN
        if not path.exists():
            _written(path, secrets.token_urlsafe(24).encode() + b"\n")
        return path

    @contextlib.contextmanager
    def lock(self) -> Iterator[None]:
        """While releases are made or switched: no other process may do that.

        Apart from the agent's lock, as a switch goes on to its end when the agent is gone.
        """
        with (self.root / LOCK).open("a") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise Refused("busy", f"another deployment of {self.name} is not finished") from None
            try:
                yield
            finally:
                # Where nothing was made, or all was removed, the agent removes the folder, if it is empty.
                if not (self.root / "releases").exists():
                    for name in (LOCK, TOKEN):
                        (self.root / name).unlink(missing_ok=True)

    def check_unit(self) -> None:
        """Refuses a file of systemd that is someone else's."""
        if self.unit_file.exists() and not self.unit_file.read_bytes().startswith(FIRST_LINE.encode()):
            raise Refused("taken", f"{self.unit_file} was not written by bssl-tf")

    def prepare(self, release: str, suffix: str) -> None:
        """Writes all that a switch to a release needs, beside its place: `place` needs no room on the disk."""
        self.unit_file.parent.mkdir(parents=True, exist_ok=True)
        _written(self._beside(suffix), (self.release(release) / "service").read_bytes())
        link = self.root / f"current{suffix}"
        link.unlink(missing_ok=True)
        link.symlink_to(Path("releases", release))

    def place(self, suffix: str) -> None:
        """Puts what `prepare` wrote in its place."""
        self._beside(suffix).replace(self.unit_file)
        (self.root / f"current{suffix}").replace(self.root / "current")

    def tidy(self) -> None:
        """Removes what `prepare` wrote and nothing needed."""
        for suffix in (NEW, BACK):
            self._beside(suffix).unlink(missing_ok=True)
            (self.root / f"current{suffix}").unlink(missing_ok=True)
            (self.root / f"{HISTORY}{suffix}").unlink(missing_ok=True)

    def withdraw(self) -> None:
        """Removes systemd's file and `current`."""
        self.check_unit()
        self.unit_file.unlink(missing_ok=True)
        (self.root / "current").unlink(missing_ok=True)
        # Those that are empty may have been made here, and are made again when they are needed.
        for made in (self.unit_file.parent, self.unit_file.parent.parent):
            with contextlib.suppress(OSError):
                made.rmdir()

    def discard(self, release: str) -> None:
        """Removes a release, which counts as none from the first step on."""
        (self.release(release) / ABOUT).unlink(missing_ok=True)
        shutil.rmtree(self.release(release), ignore_errors=True)

    def prune(self, kept: list[str]) -> None:
        """Removes all releases but some, and packages that none of these uses."""
        used = {about["environment"] for name in kept if (about := self.about(name)) is not None}
        for path in (self.root / "releases").glob("*"):
            if path.name.isalnum() and path.name not in kept:
                self.discard(path.name)
        for path in self.root.glob("env-*"):
            if path.name not in used and not path.name.endswith(".part"):
                # By this name the agent removes what is left of it.
                part = path.with_name(path.name + ".part")
                path.rename(part)
                shutil.rmtree(part, ignore_errors=True)

    def remove(self) -> None:
        """Removes all of ours but what belongs to the agent."""
        self.prune([])
        self.tidy()
        for name in (PENDING, HISTORY):
            (self.root / name).unlink(missing_ok=True)
        with contextlib.suppress(OSError):
            (self.root / "releases").rmdir()

    def _beside(self, suffix: str) -> Path:
        return self.unit_file.with_name(f".{self.unit}{suffix}")

    def _read(self, path: Path) -> Any:
        try:
            return json.loads(path.read_bytes())
        except (OSError, ValueError):
            return None


def _written(path: Path, content: bytes) -> None:
    temporary = path.with_name(f".{path.name}.part")
    try:
        with os.fdopen(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError:
        temporary.unlink(missing_ok=True)
        raise
