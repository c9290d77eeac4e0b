"""Where caches and settings lie, and locks that hold against other processes."""

from __future__ import annotations

import errno
import logging
import os
import signal
import subprocess
import sys
from pathlib import Path

import filelock
import pytest

from bssl_tf import files
from bssl_tf.devices.devices_file import default_file
from bssl_tf.devices.qemu import QemuConnection
from bssl_tf.errors import DeviceError, RunFolderError, StorageError
from bssl_tf_deploy import files as device_files
from tests.arm64.make_rig import default_folder


@pytest.mark.parametrize("mine", [None, "", "/mine", "~/mine", "mine"])
@pytest.mark.parametrize("xdg", [None, "", "/xdg", "relative"])
def test_host_and_device_keep_caches_in_one_place(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, mine: str | None, xdg: str | None
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    for name, value in (("BSSL_TF_CACHE", mine), ("XDG_CACHE_HOME", xdg)):
        monkeypatch.delenv(name, raising=False)
        if value is not None:
            monkeypatch.setenv(name, value)
    if mine:
        expected = tmp_path / "mine" if mine.startswith("~") else Path(mine)
    else:
        # The XDG base directory specification: a relative path is to be ignored.
        expected = Path("/xdg/bssl-tf") if xdg == "/xdg" else tmp_path / ".cache" / "bssl-tf"
    assert files.cache_dir() == device_files.cache_dir() == expected


def test_settings_lie_where_the_system_has_them(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("XDG_CONFIG_HOME", raising=False)
    assert files.config_dir() == tmp_path / ".config" / "bssl-tf"
    monkeypatch.setenv("XDG_CONFIG_HOME", "/settings")
    assert default_file() == Path("/settings/bssl-tf/devices.toml")


def test_without_a_home_the_variable_that_helps_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def homeless(*_: object, **__: object) -> Path:
        raise RuntimeError("Could not determine home directory.")

    for name in ("BSSL_TF_CACHE", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(Path, "home", homeless)
    monkeypatch.setattr("platformdirs.user_cache_path", homeless)
    for find in (files.cache_dir, device_files.cache_dir):
        with pytest.raises(StorageError, match=r"home directory.*BSSL_TF_CACHE"):
            find()


def test_the_emulated_system_lies_in_the_cache_too(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("BSSL_TF_CACHE", str(tmp_path))
    assert default_folder() == tmp_path / "arm64-rig"
    with pytest.raises(DeviceError, match=str(tmp_path / "arm64-rig")):
        QemuConnection()


def test_a_lock_holds_in_one_process_and_names_the_way_out(tmp_path: Path) -> None:
    lock = tmp_path / "run" / "run.lock"
    with (
        files.locked(lock, "another process is training", "--out"),
        pytest.raises(RunFolderError, match=r"another process is training in .*run\. Wait for it, or .* with --out"),
        files.locked(lock, "another process is training", "--out"),
    ):
        pass
    with files.locked(lock, "another process is training", "--out"):
        pass


HOLDER = """
import sys, time
from pathlib import Path
from bssl_tf.files import locked
with locked(Path(sys.argv[1]), "another process is training", "--out"):
    print("held", flush=True)
    time.sleep(60)
"""


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_a_lock_goes_with_its_process(tmp_path: Path, number: signal.Signals) -> None:
    lock = tmp_path / "run.lock"
    with subprocess.Popen([sys.executable, "-c", HOLDER, str(lock)], stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout is not None and holder.stdout.readline() == "held\n"
        with pytest.raises(RunFolderError), files.locked(lock, "another process is training", "--out"):
            pass
        holder.send_signal(number)
    with files.locked(lock, "another process is training", "--out"):
        pass


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP])
def test_a_file_system_without_locks_is_used_with_a_warning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, number: int
) -> None:
    import fcntl

    def refuse(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(fcntl, "flock", refuse)
    with caplog.at_level(logging.WARNING), files.locked(tmp_path / "run.lock", "another process is training", "--out"):
        pass
    assert [record.getMessage() for record in caplog.records] == [
        f"{tmp_path} is on a file system without locks: use it in one process at a time"
    ]


def test_a_place_that_cannot_be_locked_for_want_of_a_file_is_a_storage_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(StorageError, match="cannot write"), files.locked(tmp_path / "file" / "run.lock", "x", "--out"):
        pass


def test_what_fails_inside_a_lock_is_no_failure_of_the_lock(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="of the work"), files.held_lock(tmp_path / "lock", wait=False):
        raise OSError("of the work")
    with files.held_lock(tmp_path / "lock", wait=False) as held:
        assert held
        with pytest.raises(filelock.Timeout), files.held_lock(tmp_path / "lock", wait=False):
            pass


@pytest.mark.parametrize("line", ["", '"content_sha257": "{0}", ', '"sha256": "{0}", '])
def test_a_json_file_that_has_lost_its_checksum_is_damaged(tmp_path: Path, line: str) -> None:
    """Other damage to such a file would be taken for what was written."""
    path = tmp_path / "file.json"
    path.write_text("{" + line.format(64 * "a") + '"step": 4}')
    with pytest.raises(
        RunFolderError, match='checksum is missing; after an edit of your own, set content_sha256 to "ed'
    ):
        files.read_json(path)


def test_who_edits_a_json_file_says_so(tmp_path: Path) -> None:
    path = tmp_path / "file.json"
    files.write_json(path, {"step": 3})
    path.write_text(path.read_text().replace("3\n", "4\n"))
    with pytest.raises(RunFolderError, match="it was changed since it was written"):
        files.read_json(path)
    path.write_text('{"step": 4, "content_sha256": "edited"}')
    assert files.read_json(path) == {"step": 4}
