"""The runs of faults find what they are there to find; `make test-faults` has them in large numbers."""

from __future__ import annotations

import functools
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from bssl_tf.errors import RunFolderError
from bssl_tf.files import read_records
from bssl_tf.methods import registry
from tests.faults import kills, limits, mutations, originals
from tests.faults.__main__ import _Record
from tests.faults.kills import kill_often
from tests.faults.mutations import KINDS, Kind, read_mutants, restore


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("originals")
    originals.make_pictures(folder / "pictures")
    return folder


@pytest.mark.parametrize("name", ["JPEG", "PNG", "WebP", "TIFF"])
def test_mutated_pictures_are_read_or_refused(name: str, pictures: Path) -> None:
    found = read_mutants(name, pictures, 0, 150)
    assert not found["failures"]
    assert found["mutants"] == sum(found["outcomes"].values()) == 150
    assert {"read", "ImageError"} <= found["outcomes"].keys()


def _key_error(path: Path) -> None:
    raise KeyError("width")


def _writes(path: Path) -> None:
    (Path(os.devnull)).write_text("effect")


def _spins(path: Path) -> None:
    while True:
        pass


def _sleeps(path: Path) -> None:
    time.sleep(0.4)


def _makes_a_message_of_it(path: Path) -> None:
    try:
        end = time.process_time() + 0.4
        while time.process_time() < end:
            pass
    except BaseException as error:
        raise RunFolderError("the file is damaged", "Restore it") from error


@pytest.mark.parametrize(
    ("reader", "words"),
    [
        (_key_error, "KeyError"),
        (_writes, "side effects"),
        (_sleeps, "no answer within"),
        (_makes_a_message_of_it, "no answer within"),
    ],
)
def test_planted_faults_are_found(
    reader: Callable[[Path], None], words: str, pictures: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mutations, "SECONDS", 0.1)
    calls = 0

    def read(path: Path) -> None:
        nonlocal calls
        calls += 1
        # The first call is for the whole file, which has to be read.
        if calls > 1:
            reader(path)

    monkeypatch.setitem(KINDS, "planted", Kind("pictures/photo.jpg", read))
    found = read_mutants("planted", pictures, 0, 2)
    assert any(words in failure for failure in found["failures"])


def test_a_mutant_that_a_checksum_lets_pass_is_found(pictures: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(KINDS, "planted", Kind("pictures/photo.jpg", Path.read_bytes, checked=True))
    failures = read_mutants("planted", pictures, 0, 20)["failures"]
    assert len(failures) > 10 and all("other content was read" in failure for failure in failures)


_STEPS = 24


def _training(fault: str) -> None:
    """A run of a quarter of a second, saved after each step, which may have a fault of its own."""
    run = Path(sys.argv[sys.argv.index("--out") + 1])
    (run / "checkpoints").mkdir(parents=True, exist_ok=True)
    (run / "config.toml").touch()
    done = max((int(path.suffix[1:]) for path in run.glob("checkpoints/step-*")), default=0)
    if done and fault == "refuses":
        sys.exit(5)
    if done and fault == "traceback":
        print("Traceback (most recent call last):")
    if fault == "stubborn":
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    first = done + 1 if fault == "forgets" else 0
    for step in range(done, _STEPS):
        time.sleep(0.01)
        (run / "checkpoints" / f"step-.{step + 1}").touch()
    (run / "student").mkdir(exist_ok=True)
    (run / "student" / "weights.safetensors").write_text(f"{first} to {_STEPS}")
    (run / "student" / "network.json").touch()


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        ("", ""),
        ("refuses", "status 5"),
        ("traceback", "a traceback"),
        ("stubborn", "did not end within"),
        ("forgets", "other weights"),
    ],
)
def test_kills_find_planted_faults(fault: str, words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if fault == "stubborn":
        monkeypatch.setattr(kills, "SIGNALS", (signal.SIGTERM,))
        monkeypatch.setattr(kills, "_ENDS_S", 0.01)
    outcome = kill_often("planted", ["pretrain"], tmp_path, 12, 0, functools.partial(_training, fault))
    assert bool(outcome.failures) == bool(fault)
    assert all(words in failure for failure in outcome.failures), outcome
    assert fault or (outcome.kills == 12 and outcome.resumed > 1 and outcome.ended)


def test_every_method_is_killed() -> None:
    killed = {arguments[arguments.index("--method") + 1] for arguments in map(list, kills.RUNS.values())}
    assert killed == set(registry.names_for("pretrain"))


@pytest.mark.slow
def test_kills_of_training_lose_nothing(tmp_path: Path) -> None:
    """In a process of its own, as forks must come before TensorFlow's threads."""
    command = [
        sys.executable,
        "-m",
        "tests.faults",
        "--kills",
        "3",
        "--mutants",
        "0",
        "--no-large",
        "--run",
        "moco teacher",
    ]
    command += ["--record", str(tmp_path / "record.jsonl")]
    subprocess.run(command, check=True)
    [outcome] = read_records(tmp_path / "record.jsonl")
    assert outcome["kills"] == 3 and outcome["ended"] and not outcome["failures"]


def test_what_is_recorded_is_not_done_again(tmp_path: Path) -> None:
    file, about = tmp_path / "record.jsonl", {"commit": "abc"}
    results = [
        {"kind": "one", "mutants": 500, "failures": []},
        {"kind": "two", "mutants": 500, "failures": ["7: KeyError"]},
        {"kind": "three", "mutants": 499, "failures": []},
    ]
    record = _Record(file, about)
    record.keep("mutants", iter(results))
    assert record.failed
    counts = dict.fromkeys(["one", "two", "three", "four"], 500)
    assert _Record(file, about).lacks("mutants", counts) == ["two", "three", "four"]
    assert _Record(file, about).lacks("kills", counts) == list(counts)
    assert _Record(file, {"commit": "def"}).lacks("mutants", counts) == list(counts)


@pytest.mark.parametrize(
    ("reader", "outcome"),
    [
        (Path.read_bytes, "at the door"),
        (_key_error, "FAILED"),
        (_spins, "FAILED"),
        (_makes_a_message_of_it, "no answer"),
    ],
)
def test_large_files_find_planted_faults(
    reader: Callable[[Path], object], outcome: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "SECONDS", 0.2)
    (tmp_path / "large").touch()
    os.truncate(tmp_path / "large", 5 * 10**9)
    kind = Kind("", lambda path: reader(path) if path.name == "large" else None)
    assert outcome in limits._forked(kind, tmp_path / "sound", tmp_path / "large")["outcome"]


@pytest.mark.slow
def test_large_files_of_every_kind_are_read_in_little_memory(tmp_path: Path) -> None:
    originals.cached_originals(tmp_path / "originals")
    command = [sys.executable, "-m", "tests.faults.limits", str(tmp_path / "originals")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    found = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    assert not [one for one in found if "FAILED" in one["outcome"]]
    assert {one["kind"] for one in found} == set(limits.EVERY) and done.returncode == 0, done.stderr


def test_a_mutant_is_repeated_by_its_number(pictures: Path) -> None:
    def content(seed: int) -> bytes:
        import numpy as np

        whole = (pictures / "pictures" / "photo.jpg").read_bytes()
        return mutations.mutated(whole, np.random.default_rng(seed), text=False)

    assert content(7) == content(7) != content(8)


def test_a_copy_is_restored_whatever_became_of_it(tmp_path: Path) -> None:
    source = tmp_path / "source"
    for name in ("a", "b/c", "b/d/e", "f"):
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        (source / name).write_text(name)
    copy = Path(shutil.copytree(source, tmp_path / "copy"))
    (copy / "a").write_text("A")
    (copy / "f").unlink()
    shutil.rmtree(copy / "b" / "d")
    (copy / "b" / "new").mkdir()
    (copy / "b" / "new" / "file").touch()
    (copy / "b" / "link").symlink_to(copy)
    restore(source, copy)
    files = {path.relative_to(copy).as_posix(): path.read_text() for path in copy.rglob("*") if path.is_file()}
    assert files == {name: name for name in ("a", "b/c", "b/d/e", "f")}
    assert not (copy / "b" / "new").exists() and not (copy / "b" / "link").is_symlink()
    alone = tmp_path / "alone"
    shutil.copy2(source / "a", alone)
    alone.write_text("B")
    restore(source / "a", alone)
    assert alone.read_text() == "a"
