"""A real sshd on loopback, as an ordinary process with keys, configuration and a user's folder of its own."""

from __future__ import annotations

import contextlib
import getpass
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.conftest import require_or_skip

_SSHD_PATHS = ("/usr/sbin", "/usr/local/sbin", "/sbin")


@dataclass(frozen=True)
class Device:
    """What listens.

    Attributes:
        address: for --device.
        home: the user's folder there.
        bin: comes first on the device's PATH; its `python3` is the device's Python.
        path: PATH for the harness, whose `ssh` has a configuration of its own.
        folder: keys, known hosts, configurations.
        port: where it listens.
        pid: of the server.
    """

    address: str
    home: Path
    bin: Path
    path: str
    folder: Path
    port: int
    pid: int

    def python(self, script: str) -> None:
        """Makes `script` the device's python3."""
        file = self.bin / "python3"
        file.write_text(f"#!/bin/sh\n{script}\n", encoding="utf-8")
        file.chmod(0o755)

    def sessions(self) -> list[int]:
        """Processes of sshd that serve a connection, not the server itself."""
        done = subprocess.run(["ps", "-eo", "pid=,ppid="], capture_output=True, text=True, check=True)
        pairs = [tuple(map(int, line.split())) for line in done.stdout.splitlines()]
        return [child for child, parent in pairs if parent == self.pid]


@contextlib.contextmanager
def running(folder: Path) -> Iterator[Device]:
    """Starts sshd and ends it."""
    search = os.pathsep.join([os.environ.get("PATH", ""), *_SSHD_PATHS])
    sshd, ssh, keygen = (shutil.which(name, path=search) for name in ("sshd", "ssh", "ssh-keygen"))
    require_or_skip(bool(sshd and ssh and keygen), "no sshd: Debian's openssh-server and openssh-client bring it")
    assert sshd and ssh and keygen
    separated = os.geteuid() != 0 or Path("/run/sshd").is_dir()
    require_or_skip(separated, "sshd as root needs the folder /run/sshd: mkdir /run/sshd")
    for name in ("host", "user", "stranger"):
        subprocess.run([keygen, "-q", "-t", "ed25519", "-N", "", "-f", str(folder / name)], check=True)
    home, binaries, shim = (folder / name for name in ("home", "bin", "shim"))
    for made in (home, binaries, shim):
        made.mkdir()
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    (folder / "sshd_config").write_text(
        f"Port {port}\nListenAddress 127.0.0.1\nHostKey {folder}/host\nPidFile none\nStrictModes no\nUsePAM no\n"
        f"AuthorizedKeysFile {folder}/user.pub\nPasswordAuthentication no\nKbdInteractiveAuthentication no\n"
        f"PermitRootLogin prohibit-password\nSetEnv HOME={home} PATH={binaries}:/usr/bin:/bin\n",
        encoding="utf-8",
    )
    public = (folder / "host.pub").read_text(encoding="utf-8").split()
    (folder / "known_hosts").write_text(f"[127.0.0.1]:{port} {public[0]} {public[1]}\n", encoding="utf-8")
    (folder / "ssh_config").write_text(
        f"IdentityFile {folder}/user\nIdentitiesOnly yes\nUserKnownHostsFile {folder}/known_hosts\n"
        "GlobalKnownHostsFile /dev/null\n",
        encoding="utf-8",
    )
    # The real client, with a configuration that is not the user's.
    (shim / "ssh").write_text(f'#!/bin/sh\nexec {ssh} -F "{folder}/ssh_config" "$@"\n', encoding="utf-8")
    (shim / "ssh").chmod(0o755)
    with (folder / "log").open("wb") as log:
        server = subprocess.Popen([sshd, "-D", "-e", "-f", str(folder / "sshd_config")], stderr=log)
    device = Device(
        f"ssh://{getpass.getuser()}@127.0.0.1:{port}",
        home,
        binaries,
        f"{shim}{os.pathsep}{os.environ.get('PATH', '')}",
        folder,
        port,
        server.pid,
    )
    device.python(f'exec {sys.executable} "$@"')
    try:
        _wait(port, server, folder)
        yield device
    finally:
        server.terminate()
        server.wait(timeout=20)


def _wait(port: int, server: subprocess.Popen[bytes], folder: Path) -> None:
    for _ in range(200):
        assert server.poll() is None, (folder / "log").read_text(encoding="utf-8")
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
            return
        time.sleep(0.05)
    raise AssertionError("sshd does not listen")
