"""The user's own systemd, by its command line. Nothing here is done as root."""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
from pathlib import Path

_TIMEOUT_S = 90
_LOG_LINES = 15
_LOG_LETTERS = 300


class ManagerError(Exception):
    """systemd refuses an order; the text is what it printed."""


class Manager:
    """Orders about one service.

    Args:
        unit: systemd's name of it.
    """

    def __init__(self, unit: str) -> None:
        self._unit = unit
        self._environment = dict(os.environ)
        own = Path(f"/run/user/{os.getuid()}")
        # A login without PAM does not set it.
        if "XDG_RUNTIME_DIR" not in os.environ and own.is_dir():
            self._environment["XDG_RUNTIME_DIR"] = str(own)

    def missing(self) -> str:
        """Why there is no systemd for this user, for a message; empty where there is one."""
        if shutil.which("systemctl") is None:
            return "there is no systemctl"
        status, out = self._run("systemctl", "--user", "show", "--property=Version")
        return "" if status == 0 else out

    def start(self) -> None:
        """Reads the service's file again and restarts it, now and whenever the system starts."""
        self._order("daemon-reload")
        self._order("enable", "--quiet", self._unit)
        self._order("restart", self._unit)

    def stop(self) -> None:
        """Stops the service, and forgets it at the system's start."""
        self._order("disable", "--quiet", "--now", self._unit)

    def reload(self) -> None:
        """Reads the files of services again."""
        self._order("daemon-reload")

    def process(self) -> int:
        """The service's process; 0 while it has none."""
        status, out = self._run("systemctl", "--user", "show", "--property=MainPID", "--value", self._unit)
        return int(out) if status == 0 and out.isdigit() else 0

    def state(self) -> str:
        """In systemd's own word: active, failed, activating, inactive."""
        return self._run("systemctl", "--user", "is-active", self._unit)[1]

    def log(self, since_s: float) -> list[str]:
        """The last lines that the service wrote since a time in seconds since 1970; none where they cannot be read."""
        if shutil.which("journalctl") is None:
            return []
        options = ("--quiet", "--no-pager", "--output=cat", f"--lines={_LOG_LINES}", f"--since=@{int(since_s)}")
        status, out = self._run("journalctl", *options, f"--user-unit={self._unit}")
        lines = [line[:_LOG_LETTERS] for line in out.splitlines() if line.strip()]
        return lines[-_LOG_LINES:] if status == 0 else []

    def lingers(self, *, switch_on: bool = False) -> bool:
        """Whether services of this user run while the user is not logged in.

        Args:
            switch_on: try to have it so, which a system may allow its users.
        """
        user = pwd.getpwuid(os.getuid()).pw_name
        if shutil.which("loginctl") is None:
            return False
        question = ("loginctl", "show-user", user, "--property=Linger", "--value")
        if switch_on and self._run(*question)[1] != "yes":
            self._run("loginctl", "enable-linger")
        return self._run(*question)[1] == "yes"

    def _order(self, *arguments: str) -> None:
        status, out = self._run("systemctl", "--user", *arguments)
        if status != 0:
            raise ManagerError(f"systemctl {arguments[0]}: {out}")

    def _run(self, *command: str) -> tuple[int, str]:
        """Exit status, and what was printed."""
        try:
            done = subprocess.run(
                command,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                timeout=_TIMEOUT_S,
                env=self._environment,
                check=False,
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            return 1, str(error)
        return done.returncode, done.stdout.decode("utf-8", "replace").strip()
