"""The kept outputs of a teacher: cut at any moment, their file continues where it was, and ends with the same bytes."""

from __future__ import annotations

import logging
import os
import signal
from pathlib import Path

import numpy as np
import pytest

from bssl_tf.engine import teacher_cache
from bssl_tf.engine.inputs import Inputs
from bssl_tf.engine.stages import Stage
from bssl_tf.engine.teacher_cache import with_teacher_cache
from bssl_tf.errors import Interrupted
from bssl_tf.settings import TrainingConfig
from bssl_tf.teachers.teacher import Teacher
from tests.methods.recipes import BATCH, recipe

CONFIG = TrainingConfig(epochs=2, batch_size=BATCH)
STEPS = 16  # two epochs of 256 images


def kept(inputs: Inputs, teacher: Teacher) -> np.ndarray:
    built = recipe("s2bnn", teacher)(Stage("only", False, 2))
    outputs = with_teacher_cache(inputs, built, CONFIG, 2, "a teacher")[0].teacher
    assert outputs is not None
    return np.array(outputs)


@pytest.fixture
def whole(teacher: Teacher, inputs: Inputs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> np.ndarray:
    """What an unbroken run keeps; what comes after begins with an empty cache."""
    monkeypatch.setenv("BSSL_TF_CACHE", str(tmp_path / "whole"))
    outputs = kept(inputs, teacher)
    assert outputs.shape == (STEPS, 1, BATCH, 16) and outputs.dtype == np.float16
    assert not list((tmp_path / "whole").glob("*.part*"))
    monkeypatch.setenv("BSSL_TF_CACHE", str(tmp_path / "cut"))
    return outputs


def cut_after(blocks: int, monkeypatch: pytest.MonkeyPatch, *, synced: float) -> None:
    """The process is killed when so many blocks are written; all of them are on the disk only with `synced` 0."""
    append = teacher_cache._Growing.append

    def killed(growing: teacher_cache._Growing, block: np.ndarray, total: int) -> None:
        if growing.blocks == blocks:
            raise KeyboardInterrupt
        append(growing, block, total)

    monkeypatch.setattr(teacher_cache, "_SYNC_S", synced)
    monkeypatch.setattr(teacher_cache._Growing, "append", killed)


def test_a_cut_file_continues_and_ends_with_the_same_bytes(
    whole: np.ndarray,
    teacher: Teacher,
    inputs: Inputs,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO, "bssl_tf.engine.teacher_cache")
    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        cut_after(5, patched, synced=0.0)
        kept(inputs, teacher)
    [part] = (tmp_path / "cut").glob("*.part")
    # After a power cut the end of a file may be anything.
    with part.open("ab") as file:
        file.write(b"\xff" * 1000)
    np.testing.assert_array_equal(kept(inputs, teacher), whole)
    assert f"the outputs for 5 of {STEPS} steps already exist" in caplog.text
    assert not list((tmp_path / "cut").glob("*.part*"))
    one, other = (next((tmp_path / name).glob("*.teacher.npy")).read_bytes() for name in ("whole", "cut"))
    assert one == other


DAMAGES = ["not noted", "shorter", "another shape", "a damaged note", "an empty file", "a bit"]


@pytest.mark.parametrize("damage", DAMAGES)
def test_what_is_not_certain_is_computed_again(
    damage: str, whole: np.ndarray, teacher: Teacher, inputs: Inputs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        cut_after(5, patched, synced=3600.0 if damage == "not noted" else 0.0)
        kept(inputs, teacher)
    [part] = (tmp_path / "cut").glob("*.part")
    note = part.with_name(part.name + ".json")
    content = part.read_bytes()
    if damage == "shorter":
        part.write_bytes(content[:-1])
    elif damage == "another shape":
        part.write_bytes(content.replace(b"(16, 1, 32, 16)", b"(16, 1, 16, 16)"))
    elif damage == "a damaged note":
        note.write_text('{"blocks": "five", "bytes": 1024}')
    elif damage == "a bit":
        part.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    elif damage == "an empty file":
        part.write_bytes(b"")
    np.testing.assert_array_equal(kept(inputs, teacher), whole)


def test_ctrl_c_keeps_what_there_is(
    whole: np.ndarray, teacher: Teacher, inputs: Inputs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    append = teacher_cache._Growing.append

    def pressed(growing: teacher_cache._Growing, block: np.ndarray, total: int) -> None:
        append(growing, block, total)
        if growing.blocks == 7:
            os.kill(os.getpid(), signal.SIGINT)

    with monkeypatch.context() as patched:
        patched.setattr(teacher_cache._Growing, "append", pressed)
        with pytest.raises(Interrupted, match=f"outputs for 7 of {STEPS} steps, which are kept.*--resume"):
            kept(inputs, teacher)
    cut_after(16, monkeypatch, synced=3600.0)  # never
    np.testing.assert_array_equal(kept(inputs, teacher), whole)
