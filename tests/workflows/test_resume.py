"""Killed at any moment and resumed, a run ends in the same weights, bit for bit, as one that was left alone."""

from __future__ import annotations

import hashlib
import os
import random
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from bssl_tf.checkpoints import read_tensors, write_tensors
from bssl_tf.files import read_json, read_records, write_json
from bssl_tf.settings import read_toml
from tests.conftest import TINY_STUDENT, TINY_TEACHER, require_or_skip
from tests.edited import edited

KILLS = 4
# Long enough that a signal sent at the first or the second checkpoint always finds it training.
LONG_TEACHER = [*TINY_TEACHER, "--epochs", "20"]


def start(*arguments: Any) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "bssl_tf", *map(str, arguments)]
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)


def finish(process: subprocess.Popen[str], timeout: float = 300) -> str:
    _, stderr = process.communicate(timeout=timeout)
    assert process.returncode == 0, stderr
    return stderr


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def wait_for_checkpoint(run: Path, process: subprocess.Popen[str], beyond: str) -> None:
    """Until a checkpoint newer than `beyond` is there, or the process has ended."""
    while process.poll() is None:
        names = [path.name for path in (run / "checkpoints").glob("step-*")]
        if any(name > beyond for name in names):
            return
        time.sleep(0.01)


@pytest.mark.slow
@pytest.mark.parametrize("method", ["s2bnn", "bssl"])
def test_sigkill_at_random_moments_changes_no_bit(method: str, tmp_path: Path, tiny_teacher: Path) -> None:
    arguments = ["--teacher", tiny_teacher, "--method", method, *TINY_STUDENT]
    if method == "bssl":
        arguments += ["--set", "bssl.hidden_width=24", "--set", "bssl.output_width=24"]
    began = time.monotonic()
    finish(start("pretrain", "--out", tmp_path / "whole", *arguments))
    duration = time.monotonic() - began
    expected = digest(tmp_path / "whole" / "student" / "weights.safetensors")

    seed = random.SystemRandom().randrange(2**32)
    print(f"moments drawn with seed {seed}")
    moments = random.Random(seed)
    run = tmp_path / "killed"
    kills = 0
    for number in range(KILLS):
        resume = ["--resume"] if (run / "config.toml").exists() else arguments
        process = start("pretrain", "--out", run, *resume)
        newest = max((path.name for path in (run / "checkpoints").glob("step-*")), default="")
        if number % 2 == 0:
            # Shortly after a checkpoint, so that each pair of kills gets further.
            wait_for_checkpoint(run, process, newest)
            time.sleep(moments.uniform(0, duration / 20))
        else:
            # Anywhere: while Python starts, networks are built, or a step or a file is under way.
            time.sleep(moments.uniform(0, duration))
        if process.poll() is None:
            process.send_signal(signal.SIGKILL)
            kills += 1
        process.communicate(timeout=60)
        if (run / "student" / "network.json").exists():
            break
    # The first kill comes at the first of a dozen checkpoints, so it always finds the process.
    assert kills >= 1
    finish(start("pretrain", "--out", run, *(["--resume"] if (run / "config.toml").exists() else arguments)))
    assert digest(run / "student" / "weights.safetensors") == expected
    # The records are those of an unbroken run too, but for the speed.
    whole, killed = (
        [
            {k: v for k, v in record.items() if k not in ("images_per_s", "seconds")}
            for record in read_records(p / "metrics.jsonl")
        ]
        for p in (tmp_path / "whole", run)
    )
    assert killed == whole


def test_ctrl_c_saves_and_says_how_to_go_on_and_a_kill_after_that_changes_no_bit(tmp_path: Path) -> None:
    whole, stopped = tmp_path / "whole", tmp_path / "stopped"
    finish(start("teacher", "--out", whole, *LONG_TEACHER))

    process = start("teacher", "--out", stopped, *LONG_TEACHER)
    wait_for_checkpoint(stopped, process, "")
    process.send_signal(signal.SIGINT)
    _, stderr = process.communicate(timeout=60)
    assert process.returncode == 130, stderr
    found = re.search(
        r"error\[interrupted\]: stopped after step (\d+), which is saved\. Continue with `(.*)`\.", stderr
    )
    assert found, stderr
    assert found[2] == f"bssl-tf teacher --out {stopped} --resume"
    saved = stopped / "checkpoints" / f"step-{int(found[1]):09d}.safetensors"
    assert saved.exists()

    process = start("teacher", "--out", stopped, "--resume")
    wait_for_checkpoint(stopped, process, saved.name)
    process.kill()
    process.communicate(timeout=60)
    assert process.returncode == -signal.SIGKILL
    finish(start("teacher", "--out", stopped, "--resume"))
    assert digest(stopped / "teacher" / "weights.safetensors") == digest(whole / "teacher" / "weights.safetensors")


@pytest.fixture
def finished(tmp_path: Path, tiny_teacher: Path) -> Path:
    """A copy of the tiny teacher's run that a test may damage."""
    subprocess.run(["cp", "-r", tiny_teacher, tmp_path / "run"], check=True)
    return tmp_path / "run"


def newest_checkpoint(run: Path) -> Path:
    return max((run / "checkpoints").glob("step-*.safetensors"))


def test_a_truncated_checkpoint_falls_back_to_the_one_before(finished: Path, bssl_tf: Callable[..., Any]) -> None:
    expected = digest(finished / "teacher" / "weights.safetensors")
    newest = newest_checkpoint(finished)
    newest.write_bytes(newest.read_bytes()[:1000])
    done = bssl_tf("teacher", "--out", finished, "--resume")
    assert done.returncode == 0, done.stderr
    assert "Trying the previous checkpoint" in done.stderr
    assert digest(finished / "teacher" / "weights.safetensors") == expected


def test_no_whole_checkpoint_is_one_clear_line(finished: Path, bssl_tf: Callable[..., Any]) -> None:
    for path in (finished / "checkpoints").iterdir():
        path.write_bytes(b"\x80\x04\x95 not safetensors")
    done = bssl_tf("teacher", "--out", finished, "--resume")
    assert done.returncode == 5
    assert "no checkpoint in" in done.stderr and "Traceback" not in done.stderr


def test_a_checkpoint_of_another_network_is_refused(finished: Path, bssl_tf: Callable[..., Any]) -> None:
    path = newest_checkpoint(finished)
    tensors, metadata = read_tensors(path)
    name = "head/head_dense1/kernel"
    write_tensors(path, tensors | {name: tensors[name][:-1]}, metadata)
    done = bssl_tf("teacher", "--out", finished, "--resume")
    assert done.returncode == 5
    assert "does not fit this network: tensor 'head/head_dense1/kernel' is" in done.stderr


@pytest.mark.parametrize("damage", [{"sums": "[1, 2"}, {"sums": "[]"}, {"step": "many"}, None])
def test_hostile_metadata_is_refused(
    damage: dict[str, str] | None, finished: Path, bssl_tf: Callable[..., Any]
) -> None:
    for path in (finished / "checkpoints").glob("step-*"):
        tensors, metadata = read_tensors(path)
        write_tensors(path, tensors, {} if damage is None else metadata | damage)
    done = bssl_tf("teacher", "--out", finished, "--resume")
    assert done.returncode == 5, done.stderr
    assert "has damaged metadata" in done.stderr and "Traceback" not in done.stderr


@pytest.mark.parametrize("change", [{"step": "999999999"}, {"stage": "binary_weights"}])
def test_a_checkpoint_of_another_place_is_refused(
    change: dict[str, str], finished: Path, bssl_tf: Callable[..., Any]
) -> None:
    path = newest_checkpoint(finished)
    tensors, metadata = read_tensors(path)
    write_tensors(path, tensors, metadata | change)
    done = bssl_tf("teacher", "--out", finished, "--resume")
    assert done.returncode == 5, done.stderr
    assert "which the run's config.toml lacks" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "status", "message"),
    [
        ([*TINY_TEACHER], 5, "already holds a run. Add --resume"),
        (["--resume", "--epochs", "1"], 3, "training.epochs is 2 there and 1 here"),
    ],
)
def test_a_run_is_not_overwritten_or_changed(
    arguments: list[str], status: int, message: str, tiny_teacher: Path, bssl_tf: Callable[..., Any]
) -> None:
    done = bssl_tf("teacher", "--out", tiny_teacher, *arguments)
    assert done.returncode == status, done.stderr
    assert message in done.stderr


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"fingerprints": {"data": "0"}}, "the images of embedded are not those with which the run in"),
        ({"threads": 77}, "was started with 77 threads, but now there are 1"),
        ({"fingerprints": 3}, "the images of embedded are not those"),
    ],
)
def test_resuming_under_other_conditions_is_refused(
    change: dict[str, Any], message: str, finished: Path, bssl_tf: Callable[..., Any]
) -> None:
    environment = finished / "environment.json"
    write_json(environment, read_json(environment) | change)
    done = bssl_tf("teacher", "--out", finished, "--resume")
    assert done.returncode == 5
    assert message in done.stderr and "Traceback" not in done.stderr


def test_resuming_with_another_teacher_is_refused(
    tiny_student: Path, tiny_teacher: Path, tmp_path: Path, bssl_tf: Callable[..., Any]
) -> None:
    teacher, run = tmp_path / "teacher", tmp_path / "run"
    subprocess.run(["cp", "-r", tiny_teacher, teacher], check=True)
    subprocess.run(["cp", "-r", tiny_student, run], check=True)
    config = (run / "config.toml").read_text()
    (run / "config.toml").write_text(config.replace(str(tiny_teacher), str(teacher)))
    assert bssl_tf("pretrain", "--out", run, "--resume").returncode == 0
    tensors, metadata = read_tensors(teacher / "teacher" / "weights.safetensors")
    name = "teacher/stem_conv/kernel"
    write_tensors(teacher / "teacher" / "weights.safetensors", tensors | {name: -tensors[name]}, metadata)
    done = bssl_tf("pretrain", "--out", run, "--resume")
    assert done.returncode == 5
    assert "the weights of the teacher are not those with which the run in" in done.stderr


def flip_in_the_middle(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 16
    path.write_bytes(content)


def test_a_checkpoint_with_a_flipped_bit_falls_back_and_ends_in_the_same_weights(
    finished: Path, bssl_tf: Callable[..., Any]
) -> None:
    expected = digest(finished / "teacher" / "weights.safetensors")
    (finished / "teacher" / "weights.safetensors").unlink()
    flip_in_the_middle(newest_checkpoint(finished))
    done = bssl_tf("teacher", "--out", finished, "--resume")
    assert done.returncode == 0, done.stderr
    [line] = [line for line in done.stderr.splitlines() if "Trying the previous checkpoint" in line]
    assert "is damaged" in line
    assert digest(finished / "teacher" / "weights.safetensors") == expected


def test_a_missing_newest_checkpoint_is_named_and_ends_in_the_same_weights(
    finished: Path, bssl_tf: Callable[..., Any]
) -> None:
    expected = digest(finished / "teacher" / "weights.safetensors")
    newest_checkpoint(finished).unlink()
    done = bssl_tf("teacher", "--out", finished, "--resume")
    assert done.returncode == 0, done.stderr
    assert "has records up to step 8, but the newest usable checkpoint is of step 4" in done.stderr
    assert digest(finished / "teacher" / "weights.safetensors") == expected


def test_damaged_weights_of_a_teacher_and_a_student_are_refused(
    finished: Path, tiny_student: Path, tmp_path: Path, bssl_tf: Callable[..., Any]
) -> None:
    flip_in_the_middle(finished / "teacher" / "weights.safetensors")
    done = bssl_tf("pretrain", "--out", tmp_path / "new", "--teacher", finished, *TINY_STUDENT)
    assert done.returncode == 5 and "is damaged (its content is not what was written)" in done.stderr
    assert not (tmp_path / "new").exists()
    subprocess.run(["cp", "-r", tiny_student, tmp_path / "student"], check=True)
    flip_in_the_middle(tmp_path / "student" / "student" / "weights.safetensors")
    done = bssl_tf("evaluate", tmp_path / "student")
    assert done.returncode == 5 and "with --resume for a run that still has checkpoints" in done.stderr
    # As the message says.
    assert bssl_tf("pretrain", "--out", tmp_path / "student", "--resume").returncode == 0
    again = tmp_path / "student" / "student" / "weights.safetensors"
    assert digest(again) == digest(tiny_student / "student" / "weights.safetensors")


def test_settings_are_looked_after_from_the_next_resume_on(finished: Path, bssl_tf: Callable[..., Any]) -> None:
    environment = finished / "environment.json"
    environment.write_text(edited({k: v for k, v in read_json(environment).items() if k != "config"}))
    assert bssl_tf("teacher", "--out", finished, "--resume").returncode == 0
    # From now on an edit is noticed.
    edit(finished, "learning_rate = 0.001", "learning_rate = 0.1")
    assert bssl_tf("teacher", "--out", finished, "--resume").returncode == 3


def edit(run: Path, old: str, new: str) -> None:
    config = (run / "config.toml").read_text()
    assert old in config
    (run / "config.toml").write_text(config.replace(old, new))


def test_an_edited_config_is_refused_with_what_differs(finished: Path, bssl_tf: Callable[..., Any]) -> None:
    edit(finished, "learning_rate = 0.001", "learning_rate = 0.1")
    done = bssl_tf("teacher", "--out", finished, "--resume")
    assert done.returncode == 3
    assert (
        "config.toml was changed since the run was started: training.learning_rate was 0.001 and is 0.1 now. "
        "Set it back, or start another run with another --out; only teacher, unlabelled, data.source" in done.stderr
    )
    edit(finished, "learning_rate = 0.1", "learning_rate = 0.001")
    edit(finished, "checkpoint_every_s = 120.0", "checkpoint_every_s = 60.0")
    done = bssl_tf("teacher", "--out", finished, "--resume")
    assert done.returncode == 0, done.stderr


def test_a_finished_run_is_trained_longer_and_records_since_when(finished: Path, bssl_tf: Callable[..., Any]) -> None:
    before = read_records(finished / "metrics.jsonl")
    for epochs in (["--epochs", "3"], ["--epochs", "3"], []):
        done = bssl_tf("teacher", "--out", finished, "--resume", *epochs)
        assert done.returncode == 0, done.stderr
    assert read_toml(finished / "config.toml")["training"]["epochs"] == 3
    planned = read_json(finished / "environment.json")["planned_epochs"]
    assert planned == [{"step": 0, "epochs": 2}, {"step": 8, "epochs": 3}]
    after = read_records(finished / "metrics.jsonl")
    assert after[: len(before)] == before
    assert [record["epoch"] for record in after if "loss" in record] == [1, 2, 3]
    done = bssl_tf("teacher", "--out", finished, "--resume", "--epochs", "2")
    assert done.returncode == 3 and "training.epochs is 3 there and 2 here" in done.stderr


def test_an_empty_config_is_called_empty(finished: Path, bssl_tf: Callable[..., Any]) -> None:
    (finished / "config.toml").write_text("")
    for command in (
        ["teacher", "--out", finished, "--resume"],
        ["evaluate", finished],
        ["export", finished, "--target", "arm64"],
    ):
        done = bssl_tf(*command)
        assert done.returncode == 5, done.stderr
        assert "config.toml is empty" in done.stderr and "teacher" not in done.stderr.replace(str(finished), "")


def test_a_moved_teacher_is_named_anew(
    tiny_student: Path, tiny_teacher: Path, tmp_path: Path, bssl_tf: Callable[..., Any]
) -> None:
    run, old, new = tmp_path / "run", tmp_path / "old", tmp_path / "new"
    subprocess.run(["cp", "-r", tiny_student, run], check=True)
    subprocess.run(["cp", "-r", tiny_teacher, new], check=True)
    edit(run, str(tiny_teacher), str(old))
    done = bssl_tf("pretrain", "--out", run, "--resume")
    assert done.returncode == 12 and f"there is no teacher at {old}" in done.stderr
    assert "name its new place with --teacher" in done.stderr
    done = bssl_tf("pretrain", "--out", run, "--resume", "--teacher", new)
    assert done.returncode == 0, done.stderr
    assert digest(run / "student" / "weights.safetensors") == digest(tiny_student / "student" / "weights.safetensors")
    # It is remembered.
    assert bssl_tf("pretrain", "--out", run, "--resume").returncode == 0
    tensors, metadata = read_tensors(new / "teacher" / "weights.safetensors")
    name = "teacher/stem_conv/kernel"
    write_tensors(new / "teacher" / "weights.safetensors", tensors | {name: -tensors[name]}, metadata)
    done = bssl_tf("pretrain", "--out", run, "--resume", "--teacher", new)
    assert done.returncode == 5 and "the weights of the teacher are not those" in done.stderr


def test_of_two_commands_that_were_started_at_once_one_trains(tmp_path: Path) -> None:
    arguments = ["teacher", "--out", tmp_path / "run", *TINY_TEACHER]
    processes = [start(*arguments), start(*arguments, "--learning-rate", "0.002")]
    said = [process.communicate(timeout=300)[1] for process in processes]
    statuses = [process.returncode for process in processes]
    assert sorted(statuses) == [0, 5], said
    loser = said[statuses.index(5)]
    assert "another process is training in" in loser or "already holds a run" in loser
    # The settings are the winner's.
    rate = read_toml(tmp_path / "run" / "config.toml")["training"]["learning_rate"]
    assert rate == (0.001, 0.002)[statuses.index(0)]


def test_a_folder_with_something_else_in_it_is_left_alone(tmp_path: Path, bssl_tf: Callable[..., Any]) -> None:
    (tmp_path / "thesis.txt").write_text("years of work")
    done = bssl_tf("teacher", "--out", tmp_path, *TINY_TEACHER)
    assert done.returncode == 5
    assert "is not empty" in done.stderr
    assert [item.name for item in tmp_path.iterdir() if item.name != "run.lock"] == ["thesis.txt"]


def test_a_run_of_the_other_command_is_named(
    tiny_teacher: Path, tiny_student: Path, bssl_tf: Callable[..., Any]
) -> None:
    done = bssl_tf("pretrain", "--out", tiny_teacher, "--resume")
    assert done.returncode == 5 and "holds a run of `bssl-tf teacher`" in done.stderr
    done = bssl_tf("teacher", "--out", tiny_student, "--resume")
    assert done.returncode == 5 and "Continue with `bssl-tf pretrain" in done.stderr


def test_two_processes_do_not_train_in_one_folder(finished: Path, bssl_tf: Callable[..., Any]) -> None:
    import fcntl

    with (finished / "run.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        done = bssl_tf("teacher", "--out", finished, "--resume")
    assert done.returncode == 5
    assert "another process is training in" in done.stderr


def test_resuming_nothing_begins_a_run_or_says_what_is_missing(tmp_path: Path, bssl_tf: Callable[..., Any]) -> None:
    """Whoever was stopped before the first step can give the same command with --resume all the same."""
    done = bssl_tf("teacher", "--out", tmp_path / "none", "--resume")
    assert done.returncode == 3
    assert "no data set is named" in done.stderr
    done = bssl_tf("teacher", "--out", tmp_path / "run", "--resume", *TINY_TEACHER)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "run" / "teacher" / "network.json").exists()


def test_one_epoch_needs_no_further_setting(tmp_path: Path, bssl_tf: Callable[..., Any]) -> None:
    done = bssl_tf("teacher", "--out", tmp_path / "run", *TINY_TEACHER, "--epochs", "1")
    assert done.returncode == 0, done.stderr


def test_a_full_disk_is_one_clear_line_and_loses_nothing(tmp_path: Path, bssl_tf: Callable[..., Any]) -> None:
    """On a real file system that is too small for the first checkpoint."""
    run, whole, small = tmp_path / "run", tmp_path / "whole", tmp_path / "small"
    small.mkdir()
    mounted = (
        os.geteuid() == 0
        and subprocess.run(
            ["mount", "-t", "tmpfs", "-o", "size=512k", "tmpfs", small], check=False, capture_output=True
        ).returncode
        == 0
    )
    require_or_skip(mounted, "no right to mount a small file system")
    try:
        done = bssl_tf("teacher", "--out", small / "run", *TINY_TEACHER)
        assert done.returncode == 8, done.stderr
        assert "No space left on device. Free space there" in done.stderr
        assert "Traceback" not in done.stderr
        assert not list((small / "run" / "checkpoints").glob(".*.tmp"))
        subprocess.run(["mount", "-o", "remount,size=64m", small], check=True)
        subprocess.run(["cp", "-r", small / "run", run], check=True)
    finally:
        subprocess.run(["umount", small], check=True)
    finish(start("teacher", "--out", run, "--resume"))
    finish(start("teacher", "--out", whole, *TINY_TEACHER))
    assert digest(run / "teacher" / "weights.safetensors") == digest(whole / "teacher" / "weights.safetensors")
