"""A file is read in one sitting, and a command file only parses, calls and prints."""

from __future__ import annotations

import ast
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("bssl_tf", "converters", "deploy")
MAX_LINES, MAX_LINES_OF_A_COMMAND = 350, 150


def lines(path: Path) -> int:
    return len(path.read_text(encoding="utf-8").splitlines())


def test_no_python_file_of_the_packages_is_too_long() -> None:
    files = [path for package in PACKAGES for path in (ROOT / package).rglob("*.py") if "build" not in path.parts]
    assert len(files) > 200
    assert {str(path.relative_to(ROOT)): lines(path) for path in files if lines(path) > MAX_LINES} == {}


def test_no_command_file_holds_more_than_a_command() -> None:
    files = list((ROOT / "bssl_tf" / "cli").glob("*.py"))
    assert len(files) > 15
    assert {path.name: lines(path) for path in files if lines(path) >= MAX_LINES_OF_A_COMMAND} == {}


# What prints otherwise: text.py itself, a script for shells, lines that were made printable, JSON for another process,
# and tools for the maintainers, which print what is ours.
PRINTING = {
    *("deploy/bssl_tf_deploy/text.py", "bssl_tf/cli/completion.py", "bssl_tf/cli/_logging.py"),
    *(
        "deploy/bssl_tf_deploy/start.py",
        "bssl_tf/models/counts.py",
        "bssl_tf/zoo/add.py",
        "bssl_tf/data/embedded/make.py",
        "bssl_tf/devices/repeat_model.py",
    ),
    *("bssl_tf/engine/interruption.py",),
}


def test_strangers_text_is_printed_by_one_function() -> None:
    """`print` and `click.echo` would let a label or a file name steer the terminal."""
    found = set()
    for folder in ("bssl_tf", "converters/bssl_tf_converters", "deploy/bssl_tf_deploy"):
        for path in (ROOT / folder).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                if isinstance(node, ast.Call) and ast.unparse(node.func) in (
                    *("print", "click.echo", "click.secho", "traceback.print_exc", "traceback.print_exception"),
                    *("sys.stdout.write", "sys.stderr.write"),
                ):
                    found.add(path.relative_to(ROOT).as_posix())
    assert found == PRINTING


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_tests_find_no_agreement_in_what_is_not_finite(value: float) -> None:
    with pytest.raises(AssertionError):
        np.testing.assert_allclose([1.0, value], [1.0, value])
