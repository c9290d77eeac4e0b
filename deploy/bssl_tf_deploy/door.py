"""The one place where a command ends: with a status, and after an error with one line on stderr."""

from __future__ import annotations

import contextlib
import os
import sys
import tempfile
import traceback
from collections.abc import Callable
from typing import NoReturn

from bssl_tf_deploy.errors import BsslError, UnexpectedError
from bssl_tf_deploy.system_errors import system_error
from bssl_tf_deploy.text import OUTPUT, flush, show

# As the shell has it for whoever is stopped by Ctrl-C.
_INTERRUPTED = 130
# Whoever read our output has gone, as in `| head`: nobody is left to be told.
_UNREAD = 1


def run_command(command: Callable[[], int | None], *, debug: bool, interrupted: str) -> NoReturn:
    """Runs a command and exits with its status, or with that of its error after one line that states the next step.

    Args:
        command: what to run; returns a status, None for success.
        debug: print the traceback of an error too.
        interrupted: the line to print after Ctrl-C.
    """
    _prepare_streams()
    try:
        status = _status(command)
        flush()
    except KeyboardInterrupt:
        status = _INTERRUPTED
        _report(interrupted)
    except Exception as error:
        if debug:
            _report(*"".join(traceback.format_exception(error)).splitlines())
        known = _known(error)
        status = known.exit_status if known is not None else _UNREAD
        if known is not None:
            _report(str(known))
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except (OSError, ValueError):
            # Or Python complains at exit about what it cannot write.
            with contextlib.suppress(OSError, ValueError):
                os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
    sys.exit(status)


def _status(command: Callable[[], int | None]) -> int:
    try:
        return command() or 0
    except SystemExit as left:
        return left.code if isinstance(left.code, int) else int(left.code is not None)


def _known(error: Exception) -> BsslError | None:
    """The error for the user; None where nobody reads it."""
    if isinstance(error, BsslError):
        return error
    if isinstance(error, BrokenPipeError) and error.filename == OUTPUT:
        return None
    return system_error(error) or _unexpected(error)


def _unexpected(error: Exception) -> UnexpectedError:
    """A fault of ours; the details go to a file that only this user can read."""
    said = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
    said = said if len(said) <= 300 else said[:300] + "..."
    text = f"{sys.argv}\nPython {sys.version}\n" + "".join(traceback.format_exception(error))
    try:
        descriptor, path = tempfile.mkstemp(prefix="bssl-tf-error-", suffix=".txt")
        with os.fdopen(descriptor, "w", encoding="utf-8", errors="backslashreplace") as file:
            file.write(text)
    except OSError:
        return UnexpectedError(said, "This is a fault in bssl-tf: report it with what --debug prints")
    return UnexpectedError(f"{said} (details in {path})", "This is a fault in bssl-tf: report it with that file")


def _report(*lines: str) -> None:
    with contextlib.suppress(OSError):
        show(*lines, file=sys.stderr)


def _prepare_streams() -> None:
    """Gives every standard stream a place to go, and an escape for each letter that it cannot take."""
    for descriptor in (0, 1, 2):
        try:
            os.fstat(descriptor)
        except OSError:
            # Closed: the next file to be opened would get this number, and what libraries print.
            os.open(os.devnull, os.O_RDWR)
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:
            stream = open(os.devnull, "w", encoding="utf-8")  # noqa: PTH123, SIM115
            setattr(sys, name, stream)
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")
