from __future__ import annotations

import errno
import json
import multiprocessing
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest

from bssl_tf.data import building, cache
from bssl_tf.data.image_set import DataSplits
from bssl_tf.data.load import load_data
from bssl_tf.errors import StorageError
from tests.data.logged import logged
from tests.deploy.test_hostile_files import put

Save = Callable[..., Path]


@pytest.fixture
def root(tmp_path: Path, save: Save) -> Path:
    for index in range(6):
        save(tmp_path / "photos" / f"{index}.png", index)
    return tmp_path / "photos"


def load(root: Path, **options: Any) -> DataSplits:
    options = {"image_size": 28, "cache_dir": root.parent / "cache", **options}
    return load_data(str(root), **options)


def entry(root: Path) -> Path:
    (found,) = (path.parent for path in (root.parent / "cache").glob("*/index.json"))
    return found


def forbid_decoding(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise AssertionError("decoded again")

    monkeypatch.setattr(building, "decode", refuse)


def test_the_second_time_nothing_is_decoded(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = load(root)
    forbid_decoding(monkeypatch)
    again = load(root)
    assert again.train.fingerprint() == first.train.fingerprint()
    assert isinstance(again.train.images, np.memmap)
    assert not again.train.images.flags.writeable


def test_the_folder_holds_what_its_docstring_says(root: Path) -> None:
    load(root)
    assert sorted(path.name for path in entry(root).iterdir()) == [
        "index.json",
        "train_aspect_ratios.npy",
        "train_images.npy",
        "train_sizes.npy",
    ]
    assert not list(entry(root).parent.glob("*.tmp"))


@pytest.mark.parametrize("change", ["touch", "add", "size", "channels"])
def test_anything_that_changes_the_pixels_makes_a_new_entry(root: Path, save: Save, change: str) -> None:
    before = load(root).train
    if change == "touch":
        os.utime(save(root / "3.png", 99), (1, 1))
    if change == "add":
        save(root / "new.png", 7)
    options = {"size": {"image_size": 32}, "channels": {"channels": 1}}.get(change, {})
    assert load(root, **options).train.fingerprint() != before.fingerprint()
    assert len(list((root.parent / "cache").glob("*/index.json"))) == 2


def cut(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-10])


@pytest.mark.parametrize(
    "damage",
    [
        lambda folder: cut(folder / "train_images.npy"),
        lambda folder: cut(folder / "train_aspect_ratios.npy"),
        lambda folder: np.save(folder / "train_sizes.npy", np.full((6, 2), 20, np.int32)),
        lambda folder: cut(folder / "index.json"),
        lambda folder: (folder / "train_images.npy").open("ab").write(b"more"),
        lambda folder: (folder / "train_images.npy").unlink(),
        lambda folder: (folder / "index.json").unlink(),
        lambda folder: (folder / "index.json").write_text("[]"),
        lambda folder: (folder / "index.json").write_text('{"format": 0}'),
        lambda folder: os.truncate(folder / "index.json", 1 << 30),
        lambda folder: put("pipe", folder / "index.json"),
        lambda folder: put("zero", folder / "index.json"),
        lambda folder: put("folder", folder / "index.json"),
        lambda folder: put("folder", folder / "train_images.npy"),
    ],
)
def test_a_damaged_entry_is_made_again(root: Path, damage: Callable[[Path], object]) -> None:
    expected = load(root).train.fingerprint()
    damage(entry_folder := entry(root))
    lines: list[str] = []
    with logged(lines):
        assert load(root).train.fingerprint() == expected
    assert any("decoding" in line for line in lines)
    assert json.loads((entry_folder / "index.json").read_text())["format"] == cache.FORMAT


SLOW_BUILD = """
import sys, time
from pathlib import Path
from bssl_tf.data import building
from bssl_tf.data.load import load_data
plain = building.decode
def slow(source, *rest):
    if str(source).endswith("5.png"):
        print("decoding", flush=True)
        time.sleep(60)
    return plain(source, *rest)
building.decode = slow
load_data(sys.argv[1], image_size=28, cache_dir=Path(sys.argv[2]))
"""


def test_a_killed_build_leaves_nothing_that_is_believed(root: Path) -> None:
    folder = root.parent / "cache"
    with subprocess.Popen(
        [sys.executable, "-c", SLOW_BUILD, str(root), str(folder)], stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "decoding\n"
        process.send_signal(signal.SIGKILL)
    assert list(folder.glob(".*.tmp"))
    assert not list(folder.glob("*/index.json"))
    assert len(load(root).train) == 6
    assert not list(folder.glob(".*.tmp"))


def test_a_crash_between_decoding_and_renaming_leaves_nothing(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def crash(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(cache, "write_json", crash)
        load(root)
    assert not [path for path in (root.parent / "cache").iterdir() if path.is_dir()]
    assert len(load(root).train) == 6


def test_an_entry_appears_by_renaming_or_not_at_all(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def crash(*_: object) -> None:
        raise OSError(errno.EIO, "Input/output error")

    with monkeypatch.context() as patch, pytest.raises(StorageError, match="Input/output error"):
        patch.setattr(Path, "rename", crash)
        load(root)
    assert not [path for path in (root.parent / "cache").iterdir() if path.is_dir()]
    assert len(load(root).train) == 6


def _load_and_count(arguments: tuple[Path, int]) -> int:
    return len(load(arguments[0]).train)


def test_two_processes_build_one_entry(root: Path) -> None:
    with multiprocessing.get_context("spawn").Pool(2) as pool:
        assert pool.map(_load_and_count, [(root, 0), (root, 1)]) == [6, 6]
    assert entry(root)


class Usage(NamedTuple):
    total: int
    used: int
    free: int


def test_a_disk_known_to_be_too_full_is_refused_before_decoding(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda path: Usage(100, 90, 10))
    forbid_decoding(monkeypatch)
    needed = 6 * 32 * 32 * 3
    with pytest.raises(StorageError, match=rf"{needed} bytes are needed there and 10 are free.*BSSL_TF_CACHE"):
        load(root)


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
def test_a_disk_that_fills_up_while_decoding_is_named(root: Path, monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    def full(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    with monkeypatch.context() as patch:
        patch.setattr(cache.SplitWriter, "append", full)
        with pytest.raises(StorageError, match=rf"{os.strerror(number)}; {6 * 32 * 32 * 3} bytes are needed there"):
            load(root)
    assert not [path for path in (root.parent / "cache").iterdir() if path.is_dir()]
    assert len(load(root).train) == 6


def test_a_cache_that_may_not_be_written_is_named(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(Path, "mkdir", refuse)  # root may write anywhere
    with pytest.raises(StorageError, match=r"cannot use the cache .*cache: Permission denied.*fix the permissions"):
        load(root)


def test_a_cache_path_that_is_a_file_is_named(root: Path) -> None:
    (root.parent / "cache").write_text("in the way")
    with pytest.raises(StorageError, match=r"cannot use the cache .*: Not a directory"):
        load(root)


def test_where_locks_do_not_exist_it_still_works(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import fcntl

    def refuse(*_: object) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", refuse)
    assert len(load(root).train) == 6


def test_an_entry_in_a_cache_that_may_only_be_read_serves(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = load(root).train.fingerprint()

    def refuse(*_: object, **__: object) -> None:
        raise OSError(errno.EROFS, "Read-only file system")

    monkeypatch.setattr(Path, "mkdir", refuse)
    monkeypatch.setattr(cache, "held_lock", refuse)
    assert load(root).train.fingerprint() == expected
