"""An Android device reached by adb, with the system's own client."""

from __future__ import annotations

import subprocess
import threading
from collections.abc import Sequence
from typing import IO

from bssl_tf.devices.answers import MAX_ANSWER_BYTES
from bssl_tf.devices.connection import client, open_pipes, remote_line
from bssl_tf.errors import DeviceError

_TIMEOUT_S = 600
# What a process that has ended left in its pipes.
_DRAIN_S = 10
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
        """What adb itself prints: push, get-state.

        Raises:
            DeviceError: it fails.
        """
        status, out, said = self._ended(open_pipes([*self._adb(), *arguments]), _TIMEOUT_S)
        if status != 0:
            raise self.failed(said or out)
        return out.decode("utf-8", "replace")

    def shell(self, *arguments: str, timeout_s: float = _TIMEOUT_S) -> tuple[int, str]:
        """As `output`, with text, the messages after the output."""
        status, out, said = self.output(*arguments, timeout_s=timeout_s)
        return status, (out + said).decode("utf-8", "replace")

    def output(self, *arguments: str, timeout_s: float = _TIMEOUT_S) -> tuple[int, bytes, bytes]:
        """Exit status, output and messages of a program on the phone.

        Args:
            arguments: the program and its arguments.
            timeout_s: how long it may take.

        Raises:
            DeviceError: the connection is gone, or more than `MAX_ANSWER_BYTES` come.
        """
        status, out, said = self._ended(self.start(arguments), timeout_s)
        # adb's own complaints come with status 1, like a program's.
        if status != 0 and said.lstrip().startswith((b"error: ", b"adb: ")):
            raise self.failed(said)
        return status, out, said

    def failed(self, said: bytes) -> DeviceError:
        """An error of what adb printed."""
        text = said.decode("utf-8", "replace").strip()
        last = (text.splitlines() or ["no message"])[-1]
        return self.explain(text) or DeviceError(f"the connection to {self.address} ended ({last[:200]})", _AGAIN)

    def _ended(self, process: subprocess.Popen[bytes], timeout_s: float) -> tuple[int, bytes, bytes]:
        """Exit status, output and messages of a process, which may be without end on a stranger's phone."""
        assert process.stdin is not None and process.stdout is not None and process.stderr is not None
        contents: dict[IO[bytes], bytes] = {}

        def read(stream: IO[bytes]) -> None:
            contents[stream] = stream.read(MAX_ANSWER_BYTES + 1)
            if len(contents[stream]) > MAX_ANSWER_BYTES:
                process.kill()

        streams = (process.stdout, process.stderr)
        readers = [threading.Thread(target=read, args=(stream,), daemon=True) for stream in streams]
        with process:
            process.stdin.close()
            for reader in readers:
                reader.start()
            try:
                process.wait(timeout_s)
            except BaseException as error:
                process.kill()
                if isinstance(error, subprocess.TimeoutExpired):
                    raise DeviceError(f"{self.address} does not answer", _AGAIN) from error
                raise
            for reader in readers:
                reader.join(_DRAIN_S)
        out, said = (contents.get(stream, b"") for stream in streams)
        if max(len(out), len(said)) > MAX_ANSWER_BYTES:
            raise DeviceError(f"{self.address} sent more than {MAX_ANSWER_BYTES:,} bytes", _AGAIN)
        return process.returncode, out, said

    def _adb(self) -> list[str]:
        return [client("adb", "Debian: adb"), *(["-s", self._serial] if self._serial else [])]
