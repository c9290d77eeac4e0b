"""What the command lines of the benchmarks have in common: what they print as they go, and how they end."""

from __future__ import annotations

import sys
from typing import NoReturn

import click

from bssl_tf.errors import Interrupted
from bssl_tf_deploy.door import run_command
from bssl_tf_deploy.text import show


def say(line: str) -> None:
    """Prints a line beside the results."""
    show(line, file=sys.stderr)


def run(command: click.Command, *, next_step: str) -> NoReturn:
    """Runs a command line and exits with the error's status.

    Args:
        command: the benchmark.
        next_step: what to do after Ctrl-C.
    """

    def called() -> int:
        try:
            command(standalone_mode=False)
        except click.ClickException as error:
            error.show()
            return error.exit_code
        except click.Abort:
            raise KeyboardInterrupt from None
        return 0

    run_command(called, debug="--debug" in sys.argv[1:], interrupted=str(Interrupted("stopped at once", next_step)))
