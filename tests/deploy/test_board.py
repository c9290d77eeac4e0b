"""Releases of a service on a board, with small servers in the place of bundles: what runs after whatever happens."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from bssl_tf_deploy.board import folder as folders
from bssl_tf_deploy.board.command import answered, apart
from bssl_tf_deploy.board.folder import Folder
from bssl_tf_deploy.board.manager import Manager
from bssl_tf_deploy.board.unit import FIRST_LINE, unit_text
from tests.conftest import require_or_skip
from tests.fake_systemd import FakeSystemd, words_of

# Answers its health page; or does so once, or with an error, or not at all.
SERVER = """
import http.server, os, sys, time
port, manner = int(sys.argv[1]), sys.argv[2]
if manner == "fails":
    sys.exit("no such network: \\x1b[31mred")
if manner == "silent":
    time.sleep(600)
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(500 if manner == "sick" else 200)
        self.end_headers()
        self.wfile.write(b'{"status": "ok", "answered": 3, "temperature_c": 41.5}')
        if manner == "dies":
            self.wfile.flush()
            os._exit(1)
    def log_message(self, *words):
        pass
http.server.HTTPServer.allow_reuse_address = True
http.server.HTTPServer(("127.0.0.1", port), Handler).serve_forever()
"""
ODD = "a b%h $HOME ${X} 'q' \"dq\" \\z\n;ü"


class Board:
    """A user's folders with the folder of one service, whose requests are answered as those of a harness are."""

    def __init__(self, home: Path, port: int, systemd: FakeSystemd) -> None:
        self.home, self.port, self.systemd = home, port, systemd
        self.folder = Folder(home / "share" / ODD, "server")
        self.folder.root.mkdir(parents=True)
        (home / "server.py").write_text(SERVER)

    def release(self, name: str, manner: str = "answers", port: int = 0) -> None:
        """A release as `make` leaves one."""
        place, packages = self.folder.release(name), self.folder.root / f"env-{name}"
        place.mkdir(parents=True)
        packages.mkdir()
        arguments = ["-S", str(self.home / "server.py"), str(port or self.port), manner]
        (place / "service").write_text(unit_text("server", sys.executable, arguments))
        about = {"release": name, "environment": packages.name, "host": "127.0.0.1", "port": port or self.port}
        self.folder.write(place / "release.json", about | {"title": name, "made_s": 1})

    def request(self, do: str, **more: Any) -> dict[str, Any]:
        times = {"health_s": 2.0, "settle_s": 0.1, "keep": 2}
        return {"do": do, "folder": str(self.folder.root), "service": "server", **times, **more}

    def ask(self, do: str, **more: Any) -> dict[str, Any]:
        return answered(self.request(do, **more))

    def switch(self, name: str, manner: str = "answers") -> dict[str, Any]:
        self.release(name, manner)
        return self.ask("switch", release=name)

    def running(self) -> str | None:
        """The release whose process answers, if `current` and systemd's file are of the same."""
        status, name = self.ask("status")["ok"], self.folder.current()
        if name is None or not status["healthy"]:
            return None
        assert self.folder.unit_file.read_bytes() == (self.folder.release(name) / "service").read_bytes()
        assert self.systemd.enabled() == [self.folder.unit]
        return name

    def untidy(self) -> list[str]:
        """What a switch leaves when it was cut off."""
        found = [*self.folder.root.iterdir(), *self.home.glob(".config/systemd/user/.*")]
        return [path.name for path in found if path.name == "pending.json" or path.name.endswith((".new", ".back"))]


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


@pytest.fixture
def board(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Board]:
    for name in ("home", "bin", "state"):
        (tmp_path / name).mkdir()
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("PATH", str(tmp_path / "bin"), prepend=os.pathsep)
    systemd = FakeSystemd(tmp_path / "state", tmp_path / "bin", tmp_path / "home")
    yield Board(tmp_path / "home", free_port(), systemd)
    systemd.end()


def test_the_newest_releases_stay_and_rollback_goes_through_them(board: Board) -> None:
    for name, before in (("a", None), ("b", "a"), ("c", "b")):
        answer = board.switch(name)["ok"]
        assert (answer["release"], answer["before"], answer["state"]) == (name, before, "running")
        assert board.running() == name and board.untidy() == []
    assert board.folder.releases() == ["b", "c"]
    assert sorted(path.name for path in board.folder.root.glob("env-*")) == ["env-b", "env-c"]
    process = board.systemd.process(board.folder.unit)
    assert board.ask("switch", release="c")["ok"]["state"] == "unchanged"
    assert board.systemd.process(board.folder.unit) == process
    status = board.ask("status")["ok"]
    assert (status["answered"], status["temperature_c"], status["earlier"]) == (3, 41.5, ["b"])
    assert board.ask("rollback")["ok"]["release"] == "b" and board.running() == "b"
    assert board.ask("rollback")["message"] == "there is no earlier release"
    assert board.running() == "b"


@pytest.mark.parametrize("manner", ["fails", "dies", "sick", "silent"])
def test_a_release_that_does_not_answer_gives_way_to_the_one_before(board: Board, manner: str) -> None:
    board.switch("a")
    answer = board.switch("b", manner)
    assert answer["error"] == "unhealthy"
    assert "release b does not run" in answer["message"] and "release a runs again" in answer["message"]
    assert answer["log"] == (["no such network: \x1b[31mred"] if manner == "fails" else [])
    assert board.running() == "a" and board.untidy() == [] and board.folder.history() == ["a"]


def test_a_first_release_that_does_not_answer_leaves_no_service(board: Board) -> None:
    answer = board.switch("a", "fails")
    assert answer["error"] == "unhealthy" and "nothing runs there now" in answer["message"]
    assert board.folder.current() is None and not board.folder.unit_file.exists()
    assert not board.systemd.process(board.folder.unit) and board.systemd.enabled() == []
    assert board.ask("status")["ok"]["state"] == "absent"


def test_the_health_page_of_another_service_does_not_count(board: Board) -> None:
    other = subprocess.Popen([sys.executable, "-S", str(board.home / "server.py"), str(board.port), "answers"])
    try:
        for _ in range(100):
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", board.port)):
                break
            time.sleep(0.05)
        answer = board.switch("a", "silent")
        assert answer["error"] == "unhealthy"
    finally:
        other.kill()
        other.wait()


def test_a_cut_connection_does_not_stop_the_way_back(board: Board) -> None:
    board.switch("a")
    board.release("b", "silent")
    program = "from bssl_tf_deploy.board.command import main; main()"
    command = [sys.executable, "-c", program, json.dumps(board.request("switch", release="b"))]
    asking = subprocess.Popen(command, stdout=subprocess.PIPE, start_new_session=True)
    _until(lambda: board.folder.current() == "b")
    # As the agent does when it hears nothing any more.
    os.killpg(asking.pid, signal.SIGKILL)
    asking.communicate()
    _until(lambda: board.folder.pending() is None)
    assert board.running() == "a"
    _until(lambda: board.untidy() == [])


@pytest.mark.parametrize("first", [True, False])
def test_a_switch_that_lost_its_power_is_taken_back_by_the_next_request(board: Board, first: bool) -> None:
    if not first:
        board.switch("a")
    board.release("b", "silent")
    # As far as it got.
    board.folder.prepare("b", folders.NEW)
    board.folder.write(board.folder.root / "pending.json", {"from": None if first else "a", "to": "b"})
    board.folder.place(folders.NEW)
    Manager(board.folder.unit).start()
    assert board.ask("status")["ok"]["interrupted"]
    answer = board.ask("rollback")
    assert answer["error"] == "none" and board.untidy() == []
    if not first:
        _until(lambda: board.running() == "a")
    assert bool(board.systemd.process(board.folder.unit)) != first


def test_wherever_the_disk_fills_up_the_old_release_runs(board: Board, monkeypatch: pytest.MonkeyPatch) -> None:
    board.switch("a")
    process, written = board.systemd.process(board.folder.unit), list[int]()
    board.release("b")

    def full(descriptor: int) -> None:
        written.append(descriptor)
        if len(written) > places:
            raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    for places in range(4):
        written.clear()
        assert board.ask("switch", release="b")["error"] == "full" and len(written) == places + 1
        assert board.running() == "a" and board.untidy() == []
        assert board.systemd.process(board.folder.unit) == process
    # There is nothing more to write.
    places = 4
    written.clear()
    assert board.ask("switch", release="b")["ok"]["release"] == board.running() == "b"


def test_two_switches_at_once_are_one_too_many(board: Board) -> None:
    board.switch("a")
    with board.folder.lock():
        for do in ("switch", "rollback", "remove"):
            assert board.ask(do, release="a")["error"] == "busy"
    assert board.running() == "a"


def test_a_service_of_someone_else_is_left_as_it_is(board: Board) -> None:
    board.folder.unit_file.parent.mkdir(parents=True)
    board.folder.unit_file.write_text("[Service]\nExecStart=/bin/true\n")
    for answer in (board.switch("a"), board.ask("remove")):
        assert answer["error"] == "taken" and "was not written by bssl-tf" in answer["message"]
    assert board.folder.unit_file.read_text() == "[Service]\nExecStart=/bin/true\n" and board.systemd.orders() == []


def test_remove_takes_only_what_was_made(board: Board) -> None:
    board.switch("a")
    (board.folder.root / "notes.txt").write_text("mine")
    (board.folder.unit_file.parent / "other.service").write_text("mine")
    assert board.ask("remove")["ok"] == {"removed": True, "before": "a"}
    assert [path.name for path in board.folder.root.iterdir()] == ["notes.txt"]
    assert [path.name for path in board.folder.unit_file.parent.iterdir()] == ["other.service"]
    assert not board.systemd.process(board.folder.unit) and board.systemd.enabled() == []
    assert board.ask("remove")["ok"] == {"removed": False, "before": None}


def test_a_board_without_a_service_stays_as_it_is(board: Board) -> None:
    assert board.ask("rollback")["message"] == "there is no such service"
    assert board.ask("remove")["ok"]["removed"] is False and board.ask("status")["ok"]["state"] == "absent"
    assert [*board.folder.root.iterdir()] == [] and board.systemd.orders() == []


def test_a_release_without_its_packages_is_none(board: Board) -> None:
    board.switch("a")
    board.release("b")
    shutil.rmtree(board.folder.root / "env-b")
    assert board.folder.releases() == ["a"]
    assert board.ask("switch", release="b")["message"] == "there is no release b" and board.running() == "a"


def test_a_token_is_made_once_and_is_the_users_alone(board: Board) -> None:
    token = board.folder.token()
    text = token.read_text()
    assert len(text) > 24 and token.stat().st_mode & 0o777 == 0o600
    assert board.folder.token().read_text() == text


def test_without_systemd_that_is_the_answer(board: Board, monkeypatch: pytest.MonkeyPatch) -> None:
    (board.systemd.state / "broken").touch()
    assert "Failed to connect to bus" in board.ask("look")["ok"]["no_systemd"]
    monkeypatch.setenv("PATH", "/nowhere")
    assert board.ask("look")["ok"]["no_systemd"] == "there is no systemctl"


def test_a_process_of_its_own_gives_the_same_answers(board: Board) -> None:
    for request in (board.request("rollback"), board.request("remove")):
        assert apart(request) == answered(request)


def test_names_of_releases_are_no_paths(board: Board) -> None:
    for name in ("../a", ".", "", "a/b"):
        assert board.ask("switch", release=name)["error"] == "order"


@pytest.mark.parametrize("word", ["plain", ODD, "%", "$", "$$", "\\x41", "%%n", "\t\x7f", "-"])
def test_systemd_gives_a_program_the_words_that_were_meant(word: str, tmp_path: Path) -> None:
    text = unit_text("server", f"/opt/{word}", ["serve", word])
    [line] = [line for line in text.splitlines() if line.startswith("ExecStart=")]
    assert words_of(line.partition("=")[2]) == ["/bin/sh", "-c", 'exec "$0" "$@"', f"/opt/{word}", "serve", word]
    assert text.startswith(FIRST_LINE)


def test_systemd_finds_no_fault_with_the_file(tmp_path: Path) -> None:
    tool = shutil.which("systemd-analyze")
    require_or_skip(tool is not None, "systemd-analyze (systemd) is not installed")
    file = tmp_path / "bssl-tf-server.service"

    def verdict(text: str) -> tuple[int, str]:
        file.write_text(text)
        done = subprocess.run([str(tool), "verify", str(file)], capture_output=True, text=True, check=False)
        return done.returncode, done.stderr

    text = unit_text("server", f"/opt/{ODD}", ["serve", ODD])
    assert verdict(text) == (0, "")
    assert verdict(text.replace("Type=exec", "Type=exce"))[1] != ""


def _until(holds: Any, limit_s: float = 20) -> None:
    end = time.monotonic() + limit_s
    while not holds():
        assert time.monotonic() < end
        time.sleep(0.05)
