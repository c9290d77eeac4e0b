"""An Android device reached by adb, with the system's own client."""

from __future__ import annotations

import subprocess
from collections.abc import Sequence

from bssl_tf.devices.connection import client, open_pipes, remote_line
from bssl_tf.errors import DeviceError

_TIMEOUT_S = 600
_AGAIN = "Check the cable, then run the same command again"
# What adb prints -> what happened, what to do; the first that fits.
_CAUSES = (
    ("unauthorized", "does not trust this computer", "Unlock it and allow USB debugging when prompted"),
    ("device offline", "is offline", "Plug it in again; `adb reconnect` may help"),
    ("no devices/emulators found", "is not connected", "Plug in a phone and enable USB debugging"),
    ("more than one device", "is one of several", "Name one: adb:SERIAL (`adb devices -l` lists them)"),
    ("' not found", "is not connected", "Plug it in; `adb devices -l` lists connected devices"),
    ("No space left on device", "has a full disk", "Free space there"),
    (
        "insufficient permissions",
        "is not accessible to this user",
        "Give the user access to USB (udev rules)",
    ),
    ("cannot connect to daemon", "cannot be reached: adb's server is not running", "Start it with `adb start-server`"),
    ("error: closed", "closed the connection", _AGAIN),
    ("connection reset", "closed the connection", _AGAIN),
    ("protocol fault", "closed the connection", _AGAIN),
)


class AdbConnection:
    """A phone.

    Args:
        address: for messages.
        serial: as `adb devices` shows it; None where only one is plugged in.
    """

    def __init__(self, address: str, serial: str | None = None) -> None:
        self.address = address
        self._serial = serial

    def start(self, arguments: Sequence[str]) -> subprocess.Popen[bytes]:
        # -T: bytes pass unchanged, and the exit status is the program's.
        return open_pipes([*self._adb(), "shell", "-T", remote_line(arguments)])

    def explain(self, messages: str) -> DeviceError | None:
        for sign, what, next_step in _CAUSES:
            if sign in messages:
                return DeviceError(f"{self.address} {what}", next_step)
        return None

    def client(self, *arguments: str) -> str:
        """What adb itself prints: push, pull, get-state.

        Raises:
            DeviceError: it fails.
        """
        try:
            done = subprocess.run([*self._adb(), *arguments], capture_output=True, timeout=_TIMEOUT_S, check=False)
        except (OSError, subprocess.TimeoutExpired) as error:
            raise DeviceError(f"{self.address} does not answer ({type(error).__name__})", _AGAIN) from error
        if done.returncode != 0:
            raise self.failed(done.stderr or done.stdout)
        return done.stdout.decode("utf-8", "replace")

    def shell(self, *arguments: str, timeout_s: float = _TIMEOUT_S) -> tuple[int, str]:
        """Exit status and output of a program on the phone, its messages after its output.

        Args:
            arguments: the program and its arguments.
            timeout_s: how long it may take.

        Raises:
            DeviceError: the connection is gone.
        """
        process = self.start(arguments)
        try:
            out, said = process.communicate(timeout=timeout_s)
        except subprocess.TimeoutExpired as error:
            process.kill()
            process.communicate()
            raise DeviceError(f"{self.address} does not answer", _AGAIN) from error
        # adb's own complaints come with status 1, like a program's.
        if process.returncode != 0 and said.lstrip().startswith((b"error: ", b"adb: ")):
            raise self.failed(said)
        return process.returncode, (out + said).decode("utf-8", "replace")

    def failed(self, said: bytes) -> DeviceError:
        """An error of what adb printed."""
        text = said.decode("utf-8", "replace").strip()
        last = (text.splitlines() or ["no message"])[-1]
        return self.explain(text) or DeviceError(f"the connection to {self.address} ended ({last[:200]})", _AGAIN)

    def _adb(self) -> list[str]:
        return [client("adb", "Debian: adb"), *(["-s", self._serial] if self._serial else [])]
