"""What the packages log becomes plain lines on stderr; stdout is for results."""

from __future__ import annotations

import logging
import sys

from bssl_tf_deploy.text import printable

PACKAGES = ("bssl_tf", "bssl_tf_converters", "bssl_tf_deploy")


class Lines(logging.Handler):
    """Writes each record as a line, warnings as "warning: ...", without breaking a progress bar."""

    def emit(self, record: logging.LogRecord) -> None:
        """Writes `record`; errors of the stream are the caller's, as those of print are."""
        # What strangers wrote, a file name say, is in it.
        line = "\n".join(map(printable, record.getMessage().split("\n")))
        if record.levelno >= logging.WARNING:
            line = f"warning: {line}"
        bars = sys.modules.get("tqdm")
        if bars is None:
            print(line, file=sys.stderr)
        else:
            bars.tqdm.write(line, file=sys.stderr)


def install() -> None:
    """Shows what the packages log at level INFO or above; once, however often it is called."""
    for package in PACKAGES:
        logger = logging.getLogger(package)
        logger.setLevel(logging.INFO)
        if not any(isinstance(handler, Lines) for handler in logger.handlers):
            logger.addHandler(Lines())
