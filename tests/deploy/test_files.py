"""Files and folders appear whole, with the permissions that the user's umask leaves, whatever other threads do."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from PIL import Image

from bssl_tf.data.load import load_data
from bssl_tf_deploy import files
from bssl_tf_deploy.bundle import _folder_beside
from bssl_tf_deploy.errors import StorageError

DEPLOY = Path(__file__).parents[2] / "deploy"


@pytest.fixture
def no_umask(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing may change the umask, not even for a moment: it belongs to all threads."""

    def refuse(mask: int) -> int:
        raise AssertionError("os.umask was called")

    monkeypatch.setattr(os, "umask", refuse)


def permissions(path: Path) -> int:
    return path.stat().st_mode & 0o777


@pytest.mark.usefixtures("no_umask")
def test_files_and_folders_get_what_the_umask_leaves(tmp_path: Path) -> None:
    (tmp_path / "plain").touch()
    (tmp_path / "folder").mkdir()
    (tmp_path / "plain.sh").touch(0o777)
    files.write_text(tmp_path / "a" / "file", "text")
    files.write_bytes(tmp_path / "program", b"", 0o777)
    assert permissions(tmp_path / "a" / "file") == permissions(tmp_path / "plain") != 0o600
    assert permissions(tmp_path / "program") == permissions(tmp_path / "plain.sh")
    assert permissions(files.new_folder(tmp_path, ".x.", ".tmp")) == permissions(tmp_path / "folder") != 0o700
    with _folder_beside(tmp_path / "bundle") as folder:
        assert permissions(folder) == permissions(tmp_path / "folder")
    photos = files.new_folder(tmp_path, "photos", "")
    for index in range(4):
        Image.new("L", (28, 28), index).save(photos / f"{index}.png")
    load_data(str(photos), image_size=28, cache_dir=tmp_path / "cache")
    [entry] = [path for path in (tmp_path / "cache").iterdir() if path.is_dir()]
    assert permissions(entry) == permissions(tmp_path / "folder")


@pytest.mark.usefixtures("no_umask")
def test_a_runtime_that_was_built_gets_what_the_umask_leaves(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(DEPLOY)
    from native.building.objects import copy

    (tmp_path / "made").write_bytes(b"content")
    (tmp_path / "plain.sh").touch(0o777)
    copy(tmp_path / "made", tmp_path / "out", 0o777)
    assert (tmp_path / "out").read_bytes() == b"content"
    assert permissions(tmp_path / "out") == permissions(tmp_path / "plain.sh")
    assert {path.name for path in tmp_path.iterdir()} == {"made", "out", "plain.sh"}


def test_a_name_that_is_taken_is_not_used_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    names = iter(["taken", "taken", "free"])
    monkeypatch.setattr("secrets.token_hex", lambda _: next(names))
    (tmp_path / ".x.taken.tmp").write_text("of another process")
    descriptor, path = files.new_file(tmp_path, ".x.", ".tmp")
    os.close(descriptor)
    assert path.name == ".x.free.tmp"
    assert (tmp_path / ".x.taken.tmp").read_text() == "of another process"
    monkeypatch.setattr("secrets.token_hex", lambda _: "taken")
    with pytest.raises(FileExistsError):
        files.new_folder(tmp_path, ".x.", ".tmp")


def test_a_block_that_fails_leaves_the_old_file(tmp_path: Path) -> None:
    files.write_text(tmp_path / "file", "old")
    with pytest.raises(StorageError, match=r"cannot write .*file"), files.atomic_writer(tmp_path / "file") as file:
        file.write(b"new")
        raise OSError(28, "No space left on device")
    assert (tmp_path / "file").read_text() == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
