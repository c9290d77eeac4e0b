"""Versions and machine facts that a figure must not travel without."""

from __future__ import annotations

import contextlib
import os
import platform
import shlex
import subprocess
import time
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

from bssl_tf_deploy.benchmark import machine

_RECORDED_PACKAGES = ("bssl-tf", "tensorflow", "tf-keras", "larq", "larq-compute-engine", "numpy", "scikit-learn")


def resolved_threads(threads: int) -> int:
    """`threads`, or with 0 the cores that this process may use, which a container or `taskset` may have made fewer."""
    if threads:
        return threads
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def environment(threads: int) -> dict[str, Any]:
    """When, on what machine, with which versions and how many threads (see `resolved_threads`)."""
    versions = {}
    for package in _RECORDED_PACKAGES:
        with contextlib.suppress(metadata.PackageNotFoundError):
            versions[package] = metadata.version(package)
    return {
        "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "machine": machine(),
        "commit": _commit(),
        "python": platform.python_version(),
        "versions": versions,
        "threads": resolved_threads(threads),
    }


def command_line(name: str, subject: str, options: Mapping[str, Any]) -> str:
    """The `bssl-tf` command that does the same as a call from Python, to be typed in a shell.

    Args:
        name: of the command.
        subject: its argument.
        options: by their names in Python; those that are None or False are left out, a list is one option for each.
    """
    words = ["bssl-tf", name, subject]
    for key, value in options.items():
        option = "--" + key.replace("_", "-")
        if isinstance(value, list):
            words += [word for one in value for word in (option, one)]
        elif value is True:
            words.append(option)
        elif value is not None and value is not False:
            words += [option, f"{value:g}" if isinstance(value, float) else str(value)]
    return shlex.join(words)


def _commit() -> str | None:
    """The commit that this package is run from, with `+` when its files differ; None where there is no git."""
    here = Path(__file__).parent
    try:
        # A package inside somebody else's repository, in a .venv say, is not under that repository's version control.
        if not (here.parent / ".git").exists():
            return None
        head = _git(here.parent, "rev-parse", "--short=12", "HEAD")
        changed = _git(here.parent, "status", "--porcelain", "--", "bssl_tf", "converters", "deploy", "pyproject.toml")
    except (OSError, subprocess.SubprocessError):
        return None
    return head + ("+" if changed else "")


def _git(folder: Path, *arguments: str) -> str:
    done = subprocess.run(
        ["git", "-C", str(folder), *arguments], capture_output=True, text=True, timeout=10, check=True
    )
    return done.stdout.strip()
