"""The code on the page about Python runs as it stands there, and does what the text around it promises."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

from tests.docs.conftest import ROOT

PAGE = (ROOT / "docs/pages/reference/python.md").read_text(encoding="utf-8")


def test_the_examples_run_one_after_the_other(tmp_path: Path) -> None:
    program = "\n".join(re.findall(r"^```python\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL))
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True, timeout=900, check=False
    )
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines[0].startswith("student {'linear-probe': ")
    assert "3 binary convolutions" in lines
    assert len([line for line in lines if re.fullmatch(r"\d-\S+\.png [\w/ -]+ 0\.\d+", line)]) == 4
    assert re.fullmatch(r"True\n\d+ binary multiply-accumulates", "\n".join(lines[-2:]))
    # Nothing is logged before a handler is added, at the very end.
    assert "building the runtime" not in done.stderr
    assert (tmp_path / "runs/student/bundle-x86_64/manifest.json").exists()
