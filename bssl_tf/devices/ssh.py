"""A device reached by ssh, with the system's own client, its configuration, keys and known hosts."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Sequence

from bssl_tf.devices.connection import CONNECT_TIMEOUT_S, client, open_pipes, remote_line
from bssl_tf.devices.python_device import PythonDevice
from bssl_tf.errors import DeviceError

# Nobody is asked anything; a way that is gone is noticed after three unanswered questions. Host keys are checked as the
# user's configuration says.
_OPTIONS = (
    *("-T", "-o", "BatchMode=yes", "-o", f"ConnectTimeout={CONNECT_TIMEOUT_S}"),
    *("-o", "ServerAliveInterval=5", "-o", "ServerAliveCountMax=3", "-o", "ClearAllForwardings=yes"),
)
_AGAIN = "Check the cable and the power, then run the same command again"
# What OpenSSH prints -> what happened, what to do; the first that fits.
_CAUSES = (
    (
        "REMOTE HOST IDENTIFICATION HAS CHANGED",
        "has a different host key than before",
        "Find out why; if it was reinstalled, remove the old key with `ssh-keygen -R`",
    ),
    (
        "Host key verification failed",
        "has a host key that is not known here",
        "Connect once with `ssh` by hand and compare the key's fingerprint",
    ),
    ("Permission denied", "rejects the key or the user", "Put your public key there with `ssh-copy-id`"),
    ("Could not resolve hostname", "has a name that cannot be resolved", "Check the name, or give its IP address"),
    ("Connection refused", "does not accept ssh connections", "Enable ssh there, or check the port"),
    ("No route to host", "cannot be reached", "Check its power, its network and the address"),
    ("Network is unreachable", "cannot be reached", "Check its power, its network and the address"),
    ("timed out", "does not answer", "Check its power, its network and the address"),
    ("Too many authentication failures", "rejects the keys", "Name the right one with IdentityFile in ~/.ssh/config"),
    ("not responding", "stopped responding during the session", _AGAIN),
    (
        "closed by remote host",
        "closed the connection",
        _AGAIN,
    ),
    ("Connection closed", "closed the connection", "Check its sshd log"),
    ("Connection reset", "closed the connection", _AGAIN),
    ("Broken pipe", "closed the connection", _AGAIN),
)


class SshConnection:
    """A host that ssh knows.

    Args:
        address: for messages.
        host: name, address, or an alias of the user's ssh configuration; checked by `SshDevice`.
        user: None for the configuration's.
        port: None for the configuration's.
    """

    packages: tuple[str, ...] | None = None
    runtime = True
    python: tuple[str, ...] = ()

    def __init__(self, address: str, host: str, user: str | None = None, port: int | None = None) -> None:
        self.address = address
        self._target = [*(["-l", user] if user else []), *(["-p", str(port)] if port else []), "--", host]

    def start(self, arguments: Sequence[str]) -> subprocess.Popen[bytes]:
        return open_pipes([client("ssh", "Debian: openssh-client"), *_OPTIONS, *self._target, remote_line(arguments)])

    def explain(self, messages: str) -> DeviceError | None:
        for sign, what, next_step in _CAUSES:
            if sign in messages:
                return DeviceError(f"{self.address} {what}", next_step)
        return None


class SshDevice(PythonDevice):
    """A board, or any other Linux machine; see `Device`."""

    kind = "ssh"
    hosts_services = True
    forms = ("ssh://[user@]host[:port]",)
    offers = ("ssh://",)
    # Neither a user nor a host begins with a dash, which ssh would take for an option.
    pattern = re.compile(
        r"ssh://(?:(?P<user>[A-Za-z0-9_][\w.-]*)@)?(?P<host>[A-Za-z0-9_][\w.-]*|\[[0-9A-Fa-f:.]+\])"
        r"(?::(?P<port>\d{1,5}))?/?"
    )

    @classmethod
    def matches(cls, address: str) -> bool:
        found = cls.pattern.fullmatch(address)
        return found is not None and 0 < int(found["port"] or 22) < 65536

    def connect(self) -> SshConnection:
        found = self.pattern.fullmatch(self.settings.address)
        assert found is not None  # `matches` has seen to it
        port = int(found["port"]) if found["port"] else None
        return SshConnection(self.name, found["host"].strip("[]"), found["user"], port)
