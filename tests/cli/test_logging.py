"""What the packages log, as the command line shows it."""

from __future__ import annotations

import io
import logging
import subprocess
import sys

import pytest

from bssl_tf.cli import _logging


@pytest.fixture
def installed() -> None:
    """As in the command line."""
    _logging.install()
    _logging.install()


@pytest.mark.parametrize("package", _logging.PACKAGES)
def test_lines_are_plain_go_to_stderr_and_come_once(
    package: str, installed: None, capsys: pytest.CaptureFixture[str]
) -> None:
    log = logging.getLogger(f"{package}.some.module")
    log.info("reading %s", "photos/, 100 %")
    log.warning("one file is damaged")
    log.debug("not for users")
    logging.getLogger("another.package").warning("of somebody else")
    printed = capsys.readouterr()
    assert printed.out == ""
    shown = [line for line in printed.err.splitlines() if "somebody else" not in line]
    assert shown == ["reading photos/, 100 %", "warning: one file is damaged"]


def test_a_line_stands_above_a_progress_bar_that_goes_on(installed: None, monkeypatch: pytest.MonkeyPatch) -> None:
    from tqdm import tqdm

    screen = io.StringIO()
    monkeypatch.setattr(sys, "stderr", screen)
    with tqdm(total=4, file=screen, desc="stage 1", mininterval=0, miniters=1) as bar:
        bar.update(1)
        logging.getLogger("bssl_tf.engine.loop").info("a look at the accuracy")
        bar.update(1)
    # What a terminal shows: a carriage return goes back to the beginning of the line.
    lines = [line.split("\r")[-1].strip() for line in screen.getvalue().split("\n")]
    assert "a look at the accuracy" in lines
    assert [line for line in lines if "a look" in line and "stage 1" in line] == []
    assert "stage 1:  50%" in lines[-2]


def test_commands_show_what_is_logged() -> None:
    program = (
        "import sys\nfrom bssl_tf.cli import main\n"
        "import bssl_tf.cli.summary as summary, click, logging\n"
        "command = click.Command('summary', callback=lambda: logging.getLogger('bssl_tf.x').info('hello'))\n"
        "summary.command = command\nsys.argv = ['bssl-tf', 'summary']\nmain.main()"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert (done.stdout, done.stderr) == ("", "hello\n")
