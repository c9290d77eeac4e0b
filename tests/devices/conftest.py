"""A bundle with a real network, and a device behind a real sshd."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.deploy.conftest import real_bundle as real_bundle
from tests.devices.sshd import Device, running

Command = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Device]:
    """A real sshd; see `board`."""
    with running(tmp_path_factory.mktemp("sshd")) as device:
        yield device


@pytest.fixture
def board(server: Device) -> Iterator[Device]:
    """A device behind ssh, on which nothing is at the beginning and nothing may be at the end but ~/.cache."""
    config, known = ((server.folder / name).read_text() for name in ("ssh_config", "known_hosts"))
    python = (server.bin / "python3").read_text()
    yield server
    (server.folder / "ssh_config").write_text(config)
    (server.folder / "known_hosts").write_text(known)
    (server.bin / "python3").write_text(python)
    (server.bin / "python3").chmod(0o755)
    left = [path for path in server.home.rglob("*") if path != server.home / ".cache"]
    assert not left, left


@pytest.fixture
def harness(board: Device) -> Command:
    """The command line, with an `ssh` that knows the device."""

    def call(*arguments: Any, timeout: float = 300) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "bssl_tf", *map(str, arguments)]
        environment = os.environ | {"PATH": board.path}
        return subprocess.run(command, capture_output=True, text=True, timeout=timeout, check=False, env=environment)

    return call
