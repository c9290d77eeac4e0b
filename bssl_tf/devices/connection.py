"""What every kind of connection can do, and the one place where arguments become a remote shell's line."""

from __future__ import annotations

import shlex
import shutil
import subprocess
from collections.abc import Sequence
from typing import Protocol

from bssl_tf.errors import DeviceError

CONNECT_TIMEOUT_S = 10


class Connection(Protocol):
    """A way to a device.

    Attributes:
        address: as the user wrote it: `local`, `ssh://pi@host`, `adb:SERIAL`, `qemu-arm64`.
        packages: folders on the device that hold numpy and LiteRT already; None where they have to be brought.
        runtime: whether `bssl_tf_deploy` with its library has to be brought.
        python: how a program on the device starts Python; empty for the Python that it runs in.
    """

    address: str
    packages: tuple[str, ...] | None
    runtime: bool
    python: tuple[str, ...]

    def start(self, arguments: Sequence[str]) -> subprocess.Popen[bytes]:
        """Starts a program on the device, with pipes to its input, output and messages.

        The program `python3` is the device's Python, whatever its name there.

        Raises:
            DeviceError: what connects (ssh, adb, qemu) is not installed here, or there is no such device.
        """

    def explain(self, messages: str) -> DeviceError | None:
        """What a connection that ended says, as an error; None where `messages` says nothing about the way there."""


def remote_line(arguments: Sequence[str]) -> str:
    """Arguments as one line for a POSIX shell, which gives back the same arguments.

    `ssh` and `adb shell` join their arguments with spaces and let a shell on the device split them again; so each is
    quoted, here and nowhere else.
    """
    return shlex.join(arguments)


def client(name: str, package: str) -> str:
    """The path of a program of this machine.

    Raises:
        DeviceError: it is not installed.
    """
    found = shutil.which(name)
    if found is None:
        raise DeviceError(f"{name} is not installed on this machine", f"Install it ({package})")
    return found


def open_pipes(command: Sequence[str]) -> subprocess.Popen[bytes]:
    """Starts a program of this machine in a session of its own, so that Ctrl-C reaches it through us, in order.

    Raises:
        DeviceError: it cannot be started.
    """
    try:
        return subprocess.Popen(
            list(command),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,
        )
    except OSError as error:
        raise DeviceError(f"{command[0]} cannot be started ({error.strerror})", "Install it again") from error
