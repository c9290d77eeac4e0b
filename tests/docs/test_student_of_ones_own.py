"""The network in the guide is built as it stands there, kept, and stays binary."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from bssl_tf.preprocessing import Preprocessing
from bssl_tf.settings import PretrainConfig, read_settings
from bssl_tf.workflows import student as students
from bssl_tf.workflows.check import check_network
from bssl_tf.workflows.student import open_student
from tests.docs.conftest import ROOT

GUIDE = (ROOT / "docs/pages/guide.md").read_text(encoding="utf-8")


def test_the_example_is_a_network_that_lce_keeps_binary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # Below.
    monkeypatch.setattr(students, "_advise", lambda student: None)
    section = GUIDE.partition("### A network of your own")[2]
    [code] = re.findall(r"^```python\n(.*?)^```", section.partition("\n## ")[0], re.MULTILINE | re.DOTALL)
    (tmp_path / "mine.py").write_text(code)
    [name] = re.findall(r"--student (\S+) --depth", section)
    config = read_settings(PretrainConfig, {"backbone": {"name": f"{tmp_path}/{name}", "depth": 2}})
    student = open_student(config, Preprocessing(24, 3, (0.5,) * 3, (0.2,) * 3), tmp_path / "run", None)
    assert [stage.binary_weights for stage in student.stages(config)] == [False, True]
    found = check_network(student.build(), name)
    assert found.sound and found.findings == () and found.binary is not None
    assert found.in_short() == [f"of {name} LCE keeps 2 convolutions binary, and computes 1 in float"]
