"""A file is read in one sitting, and a command file only parses, calls and prints."""

from __future__ import annotations

from pathlib import Path

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
