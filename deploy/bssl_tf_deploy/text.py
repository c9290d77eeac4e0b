"""Words of others: file names, labels, what a model or a device states about itself."""

from __future__ import annotations

import contextlib
import json
import sys
from collections.abc import Iterator
from typing import Any, TextIO

OUTPUT = "standard output"


def printable(value: object) -> str:
    """Text in one line that every output takes: what would steer a terminal, break a line or turn its direction, and
    bytes of file names that are not UTF-8, become their backslash escapes.
    """
    text = str(value)
    if text.isprintable():
        return text
    return "".join(
        letter if letter.isprintable() else letter.encode("unicode_escape").decode("ascii") for letter in text
    )


def spreadsheet_cell(text: str) -> str:
    """`printable` text for CSV; spreadsheets run what begins like this, and an apostrophe before it makes it text."""
    text = printable(text)
    return f"'{text}" if text.startswith(("=", "+", "-", "@")) else text


def show(*lines: object, file: TextIO | None = None) -> None:
    """Prints lines, each made `printable`, so no label or file name can add a line or change one.

    Args:
        lines: one or more, without line breaks of their own.
        file: where to; None for standard output.

    Raises:
        OSError: they cannot be written; its `filename` is the stream's name.
    """
    _print("\n".join(map(printable, lines)), sys.stdout if file is None else file)


def show_json(content: Any, indent: int | None = 2, **options: Any) -> None:
    """Prints JSON on standard output; whatever a terminal obeys is escaped there by JSON's own rules.

    Args:
        content: for `json.dumps`.
        indent: None for one line.
        options: of `json.dumps`.

    Raises:
        OSError: see `show`.
    """
    _print(json.dumps(content, indent=indent, **options), sys.stdout)


def write(text: str) -> None:
    """Writes text whose every line is `printable` already, at once. Raises `OSError` as `show` does."""
    with _named(sys.stdout):
        sys.stdout.write(text)
        sys.stdout.flush()


def redraw(line: object = "") -> None:
    """Replaces what stands on the last line of a terminal at stderr. Raises `OSError` as `show` does."""
    with _named(sys.stderr):
        print(f"\r\x1b[K{printable(line)}", end="", file=sys.stderr, flush=True)


def flush() -> None:
    """Writes what standard output still holds. Raises `OSError` as `show` does."""
    with _named(sys.stdout):
        sys.stdout.flush()


def _print(text: str, file: TextIO) -> None:
    with _named(file):
        print(text, file=file)


@contextlib.contextmanager
def _named(stream: TextIO) -> Iterator[None]:
    """The system does not say which file was full or closed."""
    try:
        yield
    except OSError as error:
        error.filename = OUTPUT if stream is sys.stdout else "standard error"
        raise
