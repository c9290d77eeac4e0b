"""A bundle as a service on a board behind a real sshd, with a stand-in for systemd that starts real processes."""

from __future__ import annotations

import contextlib
import hashlib
import http.client
import json
import os
import shlex
import shutil
import signal
import site
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner, Result
from PIL import Image

from bssl_tf.cli._deployments import deployment_lines
from bssl_tf.cli.main import cli
from bssl_tf.data.load import load_data
from bssl_tf.devices import installing, services
from bssl_tf.devices.session import Session
from bssl_tf.devices.ssh import SshConnection
from bssl_tf.workflows.deploy import Deployment
from bssl_tf_deploy.bundle import read_bundle
from bssl_tf_deploy.files import without_checksum
from tests.conftest import require_or_skip
from tests.devices.sshd import Device
from tests.devices.test_ssh import small_disk
from tests.edited import edited
from tests.fake_systemd import FakeSystemd

ZOO = Path(__file__).parents[2] / "bssl_tf" / "zoo" / "fashion-mnist-28" / "bundle"
UNIT = "bssl-tf-server.service"
Command = Callable[..., Result]


@pytest.fixture
def systemd(server: Device, tmp_path: Path) -> Iterator[FakeSystemd]:
    """The stand-in, on a board on which nothing is left for the next test."""
    state = tmp_path / "systemd"
    state.mkdir()
    made = FakeSystemd(state, server.bin, server.home)
    python = (server.bin / "python3").read_text()
    yield made
    made.end()
    server.python(python.partition("\n")[2])
    for path in server.home.iterdir():
        if path.name != ".cache":
            shutil.rmtree(path)


@pytest.fixture
def deploy(server: Device, systemd: FakeSystemd, monkeypatch: pytest.MonkeyPatch) -> Command:
    """`bssl-tf deploy` for the board, which has the packages already."""
    monkeypatch.setenv("PATH", server.path)
    monkeypatch.setattr(SshConnection, "packages", tuple(site.getsitepackages()))
    monkeypatch.setattr(services, "SETTLE_S", 0.1)

    def call(*arguments: Any, device: str = server.address) -> Result:
        words = ["deploy", *map(str, arguments), "--device", device, "--health-timeout", "20"]
        result = CliRunner().invoke(cli, words)
        assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
        return result

    return call


@pytest.fixture
def port() -> int:
    """One that is free."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


def table(result: Result) -> dict[str, str]:
    """The only row of the table at the end."""
    head, row = result.stdout.splitlines()
    starts = [head.index(word) for word in head.split()]
    return {
        word: row[first:last].strip()
        for word, first, last in zip(head.split(), starts, [*starts[1:], None], strict=True)
    }


def root(server: Device) -> Path:
    return server.home / ".local/share/bssl-tf-server"


def nothing_is_left(server: Device) -> bool:
    return [path for path in server.home.rglob("*") if path.is_file()] == [] and not root(server).exists()


def damaged(folder: Path) -> Path:
    """A bundle whose network gives something else than its golden outputs."""
    copy = shutil.copytree(ZOO, folder / "damaged")
    bundle = read_bundle(copy)
    inputs, outputs = bundle.manifest.inputs[0].name, bundle.manifest.outputs[0].name
    arrays = {f"input/{inputs}": bundle.golden_inputs[0], f"output/{outputs}": -bundle.golden_outputs[0]}
    np.savez(copy / "golden.npz", **arrays)
    content = (copy / "golden.npz").read_bytes()
    manifest = without_checksum(json.loads((copy / "manifest.json").read_text()))
    manifest["files"]["golden.npz"] = {"sha256": hashlib.sha256(content).hexdigest(), "bytes": len(content)}
    (copy / "manifest.json").write_text(edited(manifest))
    return copy


def test_a_bundle_becomes_a_service_and_goes_again(
    server: Device, systemd: FakeSystemd, deploy: Command, port: int
) -> None:
    (systemd.state / "linger").write_text("no\n")
    result = deploy(ZOO, "--port", port)
    assert result.exit_code == 0, result.output
    row = table(result)
    assert row["state"] == "running" and row["address"] == f"127.0.0.1:{port}"
    assert "sudo loginctl enable-linger" in result.stderr
    assert systemd.enabled() == [UNIT] and (root(server) / "current").readlink() == Path("releases", row["release"])
    [status] = json.loads(deploy("--status", "--json").stdout)
    assert status["state"] == "active" and status["healthy"] and not status["lingers"] and status["title"] == "bundle"
    assert table(deploy("--remove"))["state"] == "removed"
    assert not systemd.process(UNIT) and not systemd.enabled() and nothing_is_left(server)


def test_a_board_without_systemd_is_one_line(server: Device, systemd: FakeSystemd, deploy: Command) -> None:
    (systemd.state / "broken").touch()
    result = deploy(ZOO)
    assert result.exit_code == 14
    assert "has no systemd for this user (Failed to connect to bus" in result.stderr and nothing_is_left(server)


def test_one_lost_board_does_not_stop_the_others(server: Device, systemd: FakeSystemd, deploy: Command) -> None:
    result = deploy("--status", "--device", "ssh://127.0.0.1:9", "--device", server.address)
    assert result.exit_code == 20 and "does not accept ssh connections" in result.stderr
    _, lost, found = result.stdout.splitlines()
    assert "failed (device)" in lost and "no service" in found


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ((), "give BUNDLE"),
        (("--status", "bundle"), "give BUNDLE"),
        (("--rollback", "--port", "8001"), "--port does nothing with --rollback"),
        (("--status", "--service", "a/b"), "cannot name a service"),
        (("--status", "--device", "local"), "local is not a device that can have a service"),
    ],
)
def test_what_makes_no_sense_is_refused(words: tuple[str, ...], message: str) -> None:
    result = CliRunner().invoke(cli, ["deploy", "--device", "ssh://pi", *words])
    assert result.exit_code and message in f"{result.output}{result.exception}"


def test_words_of_a_board_cannot_steer_the_terminal() -> None:
    status = services.ServiceStatus("\x1b[31m", "", 0, "\n", "active", False, 0, None, (), True, False)
    for line in deployment_lines([Deployment("pi", status=status)]):
        assert line.isprintable()


@pytest.mark.slow
def test_releases_are_installed_switched_and_rolled_back(
    server: Device, systemd: FakeSystemd, deploy: Command, port: int
) -> None:
    first = table(deploy(ZOO, "--port", port))
    # The same again is neither installed nor started again.
    process, orders = systemd.process(UNIT), systemd.orders()
    assert table(deploy(ZOO, "--port", port)) == first | {"state": "unchanged"}
    assert (systemd.process(UNIT), systemd.orders()) == (process, orders)
    second = table(deploy(ZOO, "--port", port, "--threads", 2))
    assert second["state"] == "running" and second["release"] != first["release"]
    # Both use the same packages.
    assert len(list(root(server).glob("env-*"))) == 1
    assert table(deploy("--rollback"))["release"] == first["release"]
    last = deploy("--rollback")
    assert last.exit_code == 14 and "there is no earlier release" in last.stderr
    status = table(deploy("--status"))
    assert status["release"] == first["release"] and status["health"] == "ok, 0 answered"
    deploy("--remove")
    assert nothing_is_left(server)
    assert table(deploy("--remove"))["state"] == "nothing was there"


@pytest.mark.slow
def test_a_release_that_fails_leaves_the_one_before(
    server: Device, systemd: FakeSystemd, deploy: Command, port: int, tmp_path: Path
) -> None:
    first = table(deploy(ZOO, "--port", port))
    process = systemd.process(UNIT)
    # Before the switch.
    bad = deploy(damaged(tmp_path), "--port", port)
    assert bad.exit_code == 20 and "fails its check there" in bad.stderr and "golden outputs" in bad.stderr
    assert systemd.process(UNIT) == process and len(list(root(server).glob("releases/*"))) == 1
    # After the switch: the port is taken.
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        bad = deploy(ZOO, "--port", taken.getsockname()[1])
    assert bad.exit_code == 20 and f"release {first['release']} runs again" in bad.stderr
    assert "cannot listen at 127.0.0.1" in bad.stderr
    [status] = json.loads(deploy("--status", "--json").stdout)
    assert status["healthy"] and status["release"] == first["release"]


@pytest.mark.slow
def test_names_are_never_read_by_a_shell(
    server: Device, systemd: FakeSystemd, deploy: Command, port: int, tmp_path: Path
) -> None:
    bundle = tmp_path / "x; touch trapped; $(touch trapped) `touch trapped` 'a \"b %h\n\x1b[31m"
    shutil.copytree(ZOO, bundle)
    place = server.home / "a b; touch trapped; $(touch trapped) \\ 'c \"d %h\n"
    result = deploy(bundle, "--port", port, "--remote-dir", place)
    assert result.exit_code == 0, result.output
    [status] = json.loads(deploy("--status", "--json", "--remote-dir", place).stdout)
    assert status["healthy"] and status["title"] == bundle.name
    program = next(server.home.glob("a b*-server/current/environment/bin/bssl-tf-deploy"))
    done = subprocess.run([program, "verify", program.parents[2] / "bundle"], capture_output=True, check=False)
    assert done.returncode == 0, done.stderr
    assert table(deploy("--remove", "--remote-dir", place))["state"] == "removed"
    assert not list(server.home.rglob("trapped")) and not list(tmp_path.rglob("trapped"))


@pytest.mark.slow
def test_a_service_for_other_machines_needs_its_token(
    server: Device, systemd: FakeSystemd, deploy: Command, port: int
) -> None:
    result = deploy(ZOO, "--port", port, "--host", "0.0.0.0")
    assert result.exit_code == 0 and "clients need the token in" in result.stderr, result.output
    token = (root(server) / "token").read_text().strip()
    assert token not in result.output
    for headers, status in (({}, 401), ({"Authorization": f"Bearer {token}"}, 200)):
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
        with contextlib.closing(connection):
            connection.request("GET", "/health", headers=headers)
            assert connection.getresponse().status == status
    again = deploy(ZOO, "--port", port, "--host", "0.0.0.0", "--threads", 2)
    assert again.exit_code == 0 and (root(server) / "token").read_text().strip() == token


@pytest.mark.slow
def test_a_service_answers_by_a_head_to_which_a_class_is_added_on_the_board(
    server: Device, systemd: FakeSystemd, deploy: Command, port: int, tmp_path: Path
) -> None:
    pictures = load_data("embedded", image_size=28).test
    assert pictures is not None
    for name, label in (("bag", 8), ("boot", 9), ("shirt", 0)):
        folder = tmp_path / ("more" if name == "shirt" else "photos") / name
        folder.mkdir(parents=True)
        for place in np.flatnonzero(pictures.labels == label)[:12]:
            Image.fromarray(pictures.images[place, ..., 0]).save(folder / f"{place}.png")
    photo = next((tmp_path / "more/shirt").iterdir()).read_bytes()
    bundle = shutil.copytree(ZOO, tmp_path / "bundle")
    learn = ["learn", str(bundle), str(tmp_path / "photos"), "--method", "prototypes", "--head", "things"]
    subprocess.run([sys.executable, "-c", "from bssl_tf_deploy.cli import main; main()", *learn], check=True)

    def labels() -> set[str]:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
        with contextlib.closing(connection):
            connection.request("POST", "/predict", photo, {"Content-Type": "image/png"})
            found = json.loads(connection.getresponse().read())
        return {one["label"] for one in found["classes"]} - {"unknown"}

    missing = CliRunner().invoke(cli, ["deploy", str(ZOO), "--head", "things", "--device", server.address])
    assert "has no head things" in str(missing.exception)
    result = deploy(bundle, "--port", port, "--head", "things")
    assert result.exit_code == 0, result.output
    assert labels() and labels() <= {"bag", "boot"}
    current = root(server) / "current"
    program = [str(current / "environment/bin/bssl-tf-deploy"), "learn", str(current / "bundle"), "--head", "things"]
    subprocess.run([*program, "--add-class", "shirt", str(tmp_path / "more/shirt")], check=True)
    environment = {"PATH": f"{server.bin}:/usr/bin:/bin", "HOME": str(server.home)}
    subprocess.run(["systemctl", "--user", "restart", UNIT], env=environment, check=True)
    for _ in range(200):
        if json.loads(deploy("--status", "--json").stdout)[0]["healthy"]:
            break
        time.sleep(0.1)
    assert "shirt" in labels()


@pytest.mark.slow
def test_a_cut_connection_leaves_the_old_release(
    server: Device, systemd: FakeSystemd, deploy: Command, port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = table(deploy(ZOO, "--port", port))
    process, ask, cut_at = systemd.process(UNIT), Session.ask, list[str]()

    def cut(self: Session, request: Any, *more: Any, **named: Any) -> Any:
        if request["do"] in cut_at:
            for session in server.sessions():
                with contextlib.suppress(ProcessLookupError):
                    os.kill(session, signal.SIGKILL)
        return ask(self, request, *more, **named)

    monkeypatch.setattr(Session, "ask", cut)
    for do in ("put", "run", "keep"):
        cut_at[:] = [do]
        result = deploy(ZOO, "--port", port, "--threads", 2)
        assert result.exit_code == 14 and "closed the connection" in result.stderr, result.output
    cut_at.clear()
    for _ in range(100):
        result = deploy("--status", "--json")
        if result.exit_code == 0:
            break
        time.sleep(0.1)
    [status] = json.loads(result.stdout)
    assert status["release"] == first["release"] and status["healthy"] and systemd.process(UNIT) == process
    assert table(deploy(ZOO, "--port", port, "--threads", 2))["state"] == "running"


@pytest.mark.slow
def test_a_full_disk_leaves_nothing_half_made(
    server: Device, systemd: FakeSystemd, deploy: Command, port: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    python = (server.bin / "python3").read_text().partition("\n")[2]
    for size in ("3m", "200k", "700k", "1m"):
        server.python(python)
        small_disk(server, size, tmp_path / "left")
        result = deploy(ZOO, "--port", port)
        assert result.exit_code == 14 and "the disk of" in result.stderr, (size, result.output)
        assert (tmp_path / "left").read_text() == ""
        # From now on as if others filled it meanwhile.
        for module in (services, installing):
            monkeypatch.setattr(module, "check_room", lambda *sizes: None)


@pytest.mark.slow  # Wheels are fetched.
def test_a_board_without_packages_gets_wheels(
    server: Device, systemd: FakeSystemd, deploy: Command, port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(SshConnection, "packages", None)
    result = deploy(ZOO, "--port", port)
    assert result.exit_code == 0, result.output
    [packages] = root(server).glob("env-*")
    assert (packages / "starlette").is_dir() and (packages / "PIL").is_dir()
    [path] = root(server).glob("releases/*/environment/lib/python*/site-packages/bssl_tf_service.pth")
    assert str(Path(site.getsitepackages()[0])) not in path.read_text()


@pytest.mark.slow
def test_the_real_systemd_runs_a_service(
    server: Device, systemd: FakeSystemd, deploy: Command, port: int, tmp_path: Path
) -> None:
    """The user's own, in a namespace; not the system's, so that nothing lingers and nothing keeps its messages."""
    systemd.end()
    manager = shutil.which("systemd", path="/lib/systemd:/usr/lib/systemd")
    require_or_skip(manager is not None and shutil.which("systemctl") is not None, "systemd is not installed")
    runtime = tmp_path / "runtime"
    runtime.mkdir(mode=0o700)
    script = (
        "mkdir -p /run/systemd && mount -t tmpfs tmpfs /run/systemd && mkdir /run/systemd/system &&"
        "mount -t tmpfs tmpfs /sys/fs/cgroup && mount -t cgroup2 cgroup2 /sys/fs/cgroup && mkdir -p /sys/fs/cgroup/user"
        '&& echo $$ > /sys/fs/cgroup/user/cgroup.procs && exec "$0" --user'
    )
    environment = {"PATH": "/usr/bin:/bin", "HOME": str(server.home), "XDG_RUNTIME_DIR": str(runtime)}
    command = ["unshare", "-Cmr", "sh", "-c", script, str(manager)]
    with (tmp_path / "log").open("wb") as log:
        process = subprocess.Popen(command, env=environment, stdout=log, stderr=log)
    try:
        question = ["systemctl", "--user", "show", "--property=Version"]
        for _ in range(100):
            able = subprocess.run(question, env=environment, capture_output=True, check=False).returncode == 0
            if able or process.poll() is not None:
                break
            time.sleep(0.1)
        require_or_skip(able, "no systemd for users may run here")
        text = (server.bin / "python3").read_text().partition("\n")[2]
        server.python(f"export XDG_RUNTIME_DIR={shlex.quote(str(runtime))}\n{text}")
        result = deploy(ZOO, "--port", port)
        assert result.exit_code == 0, result.output
        first = table(result)
        assert "enable-linger" in result.stderr
        assert table(deploy(ZOO, "--port", port, "--threads", 2))["state"] == "running"
        with socket.socket() as taken:
            taken.bind(("127.0.0.1", 0))
            taken.listen()
            bad = deploy(ZOO, "--port", taken.getsockname()[1])
        assert bad.exit_code == 20 and "runs again" in bad.stderr
        assert table(deploy("--rollback"))["release"] == first["release"]
        status = table(deploy("--status"))
        assert status["state"] == "active" and status["health"] == "ok, 0 answered"
        assert table(deploy("--remove"))["state"] == "removed"
        listed = subprocess.run(
            ["systemctl", "--user", "list-unit-files", UNIT], env=environment, capture_output=True, check=False
        )
        assert UNIT.encode() not in listed.stdout and nothing_is_left(server)
    finally:
        process.terminate()
        process.wait(timeout=60)
