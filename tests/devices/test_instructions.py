"""Counting instructions: what is made of qemu's words, and what is said where nothing can count. See also
tests/deploy/native/test_arm64_instructions.py."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from bssl_tf.devices.instructions import build_plugin, count_instructions
from bssl_tf.errors import DeviceError
from bssl_tf_deploy.record import Count


def saying(*lines: str) -> list[str]:
    return [sys.executable, "-c", f"print({chr(10).join(lines)!r})"]


def test_a_count_is_for_one_image_of_both_halves(tmp_path: Path) -> None:
    asked: list[Sequence[str]] = []

    def python(arguments: Sequence[str]) -> list[str]:
        asked.append(arguments)
        return saying("bssl-count 100 10 1", "bssl-count 1100 110 11", "noise bssl-count 2300 210 21", "kernels a,b")

    found = count_instructions(
        python, tmp_path / "model.tflite", tmp_path / "library.so", images=10, network="n", processor="p"
    )
    assert found == Count("n", "p", 110, 10, 1, round(20 / 110, 4), ("a", "b"))
    assert asked[0][1:] == [str(tmp_path / "model.tflite"), "10", str(tmp_path / "library.so")]
    assert Path(asked[0][0]).name == "repeat_model.py" and Path(asked[0][0]).is_file()


def test_a_qemu_without_plugins_is_told(tmp_path: Path) -> None:
    with pytest.raises(DeviceError, match=r"qemu did not count model\.tflite"):
        count_instructions(
            lambda arguments: saying("kernels a"), tmp_path / "model.tflite", None, network="n", processor="p"
        )


def test_no_compiler_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(DeviceError, match="cc is not installed"):
        build_plugin(tmp_path)
