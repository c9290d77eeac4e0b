"""The memory of a command, whatever the process that starts it has taken."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

# A process begins with the peak of the one that started it, so a small one is between.
_BETWEEN = """
import resource, subprocess, sys
status = subprocess.run(sys.argv[2:], check=False).returncode
with open(sys.argv[1], "w") as file:
    file.write(str(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss))
sys.exit(status)
"""


class Measured(NamedTuple):
    """Largest resident memory of a command, in KiB on Linux, and what it wrote to stderr."""

    peak_kib: int
    said: str


def measured(command: Sequence[object], environment: Mapping[str, str] | None = None) -> Measured:
    """Runs a command, which must succeed."""
    with tempfile.TemporaryDirectory() as folder:
        peak = Path(folder) / "peak"
        words = [sys.executable, "-c", _BETWEEN, str(peak), *map(str, command)]
        done = subprocess.run(
            words, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
        return Measured(int(peak.read_text()), done.stderr)
