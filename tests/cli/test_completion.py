"""Completion in the shells themselves, on a terminal; and that what it offers is what the commands take."""

from __future__ import annotations

import os
import pty
import select
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import click
import pytest

from bssl_tf.cli import completion
from bssl_tf.cli.import_teacher import command as import_teacher
from bssl_tf.cli.main import COMMANDS, COMPLETE_VARIABLE, cli
from bssl_tf.cli.teacher import command as teacher
from tests.conftest import processor_seconds

HEAVY = ("tensorflow", "tf_keras", "keras", "larq", "larq_zoo", "larq_compute_engine", "sklearn", "numpy")
# Begins a shell without anyone's settings.
SHELLS = {"bash": ["bash", "--norc", "--noprofile", "-i"], "zsh": ["zsh", "-f", "-i"]}
BEFORE = {
    "bash": 'eval "$(bssl-tf completion bash)"',
    "zsh": 'autoload -Uz compinit; compinit -u -D; eval "$(bssl-tf completion zsh)"',
}
TAB, TO_THE_BEGINNING, TO_THE_END, ENTER = "\t", "\x01", "\x05", "\r"


def offered(line: str, **environment: str) -> list[str]:
    """What a shell that keeps words whole, which is fish, is told for a line that ends where the cursor is."""
    *_, typed = words = line.split(" ")
    command = [sys.executable, "-m", "bssl_tf"]
    asked = {COMPLETE_VARIABLE: "fish_complete", "COMP_WORDS": " ".join(words), "COMP_CWORD": typed, **environment}
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=os.environ | asked)
    assert done.stderr == ""
    return [answer.partition("\t")[0] for answer in done.stdout.splitlines() if answer]


def alone(folder: Path) -> dict[str, str]:
    """An environment with our command and without anyone's settings."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    return os.environ | {"PATH": path, "TERM": "xterm", "HOME": str(folder), "XDG_CONFIG_HOME": str(folder / "config")}


def completed_by_fish(folder: Path, lines: Sequence[str]) -> list[list[str]]:
    """The same in fish, which tells without a terminal what it would put in the place of the last word."""
    found = []
    for line in lines:
        command = ["fish", "--no-config", "-c", f"bssl-tf completion fish | source; complete -C '{line}'"]
        done = subprocess.run(command, cwd=folder, env=alone(folder), capture_output=True, text=True, check=True)
        [offer] = done.stdout.splitlines()
        found.append([*line.split(" ")[:-1], offer.partition("\t")[0].rstrip("/")])
    return found


def completed(shell: str, folder: Path, lines: Sequence[str]) -> list[list[str]]:
    """The words that each line has after Tab at its end, in a shell on a terminal with `folder` as its own.

    A slash behind a folder is left away: zsh takes it back when the line goes on.
    """
    environment = alone(folder)
    answers = folder / "answers"
    answers.mkdir()
    child, terminal = pty.fork()
    if child == 0:
        os.chdir(folder)
        os.execvpe(SHELLS[shell][0], SHELLS[shell], environment)
    found, printed = [], b""
    try:
        os.write(terminal, f"{BEFORE[shell]}; printf ready >{answers}/ready{ENTER}".encode())
        printed += _until_written(answers / "ready", terminal)
        for number, line in enumerate(lines):
            # The line is not run, but its words are printed, one a line.
            instead = f"printf '%s\\n' >{answers}/{number} "
            os.write(terminal, (line + TAB + TO_THE_BEGINNING + instead + TO_THE_END + ENTER).encode())
            printed += _until_written(answers / str(number), terminal)
            found.append([word.rstrip("/") for word in (answers / str(number)).read_text().splitlines()])
    except TimeoutError:
        pytest.fail(printed.decode(errors="replace"))
    finally:
        os.kill(child, signal.SIGKILL)
        os.close(terminal)
        os.waitpid(child, 0)
    return found


def _until_written(file: Path, terminal: int, limit_s: float = 30) -> bytes:
    """What is printed until the file has something in it."""
    printed, end = b"", time.monotonic() + limit_s
    while not (file.exists() and file.stat().st_size):
        if time.monotonic() > end:
            raise TimeoutError
        if select.select([terminal], [], [], 0.05)[0]:
            printed += os.read(terminal, 65536)
    return printed


@pytest.mark.parametrize("shell", [*SHELLS, "fish"])
def test_a_real_shell_completes(shell: str, tmp_path: Path) -> None:
    if shell != "bash" and shutil.which(shell) is None:
        pytest.skip(f"{shell} is not installed")
    (tmp_path / "some run").mkdir()
    (tmp_path / "some-notes.txt").write_text("")
    expected = {
        "bssl-tf pretr": ["bssl-tf", "pretrain"],
        "bssl-tf pretrain --resu": ["bssl-tf", "pretrain", "--resume"],
        "bssl-tf export x --target and": ["bssl-tf", "export", "x", "--target", "android-arm64"],
        # A folder, with a space in it; the file beside it is no run.
        "bssl-tf evaluate some": ["bssl-tf", "evaluate", "some run"],
        "bssl-tf check some-": ["bssl-tf", "check", "some-notes.txt"],
        # bash splits words at colons, and behind them replaces what is there.
        "bssl-tf pretrain --student zoo:fash": ["bssl-tf", "pretrain", "--student", "zoo:fashion-mnist-28"],
        "bssl-tf pretrain --student=zoo:fash": ["bssl-tf", "pretrain", "--student=zoo:fashion-mnist-28"],
        "bssl-tf bench x --device ssh://me@pi --no-fl": [
            *("bssl-tf", "bench", "x", "--device", "ssh://me@pi", "--no-float")
        ],
    }
    lines = list(expected)
    found = completed_by_fish(tmp_path, lines) if shell == "fish" else completed(shell, tmp_path, lines)
    assert dict(zip(expected, found, strict=True)) == expected


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("bssl-tf com", ["plain,compare", "plain,completion"]),
        ("bssl-tf check --l", ["plain,--list"]),
        ("bssl-tf evaluate run --protocol finetune-1", ["plain,finetune-1%", "plain,finetune-10%"]),
        ("bssl-tf teacher --method b", ["plain,byol"]),
        ("bssl-tf pretrain --method s", ["plain,s2bnn", "plain,swav", "plain,supervised"]),
        ("bssl-tf pretrain --preset d", ["plain,demo"]),
        ("bssl-tf pretrain --preset own.t", ["file,own.t"]),
        ("bssl-tf pretrain --data ", ["dir,", "plain,embedded", "plain,tfds:"]),
        ("bssl-tf evaluate r", ["dir,r"]),
        ("bssl-tf run b", ["dir,b"]),
        ("bssl-tf run b i", ["file,i"]),
        ("bssl-tf check ", ["file,"]),
        ("bssl-tf zoo fash", ["plain,fashion-mnist-28"]),
        ("bssl-tf pretrain --seed ", []),
    ],
)
def test_what_is_offered(line: str, expected: list[str]) -> None:
    assert offered(line) == expected


def test_devices_of_the_file_are_offered(tmp_path: Path) -> None:
    usual = tmp_path / "bssl-tf" / "devices.toml"
    usual.parent.mkdir()
    usual.write_text('[pi4]\naddress = "ssh://pi@raspberrypi.local"\n')
    other = tmp_path / "other.toml"
    other.write_text('[pi5]\naddress = "ssh://pi@raspberrypi.local"\n')
    assert offered("bssl-tf devices p", XDG_CONFIG_HOME=str(tmp_path)) == ["plain,pi4"]
    line = f"bssl-tf bench bundle --devices-file {other} --device p"
    assert offered(line, XDG_CONFIG_HOME=str(tmp_path)) == ["plain,pi5"]
    usual.write_text("no TOML at all")
    assert offered("bssl-tf devices l", XDG_CONFIG_HOME=str(tmp_path)) == ["plain,local"]


@pytest.mark.parametrize("line", ["check --allow ", "check larq_zoo:", "pretrain --student ", "bench x --device "])
def test_offering_is_light_and_fast(line: str) -> None:
    """Six times as long as Python takes for little more than itself."""
    program = (
        "import sys\nfrom bssl_tf.cli.main import main\nsys.argv = ['bssl-tf']\n"
        f"try:\n    main()\nfinally:\n    print([m for m in sys.modules if m.split('.')[0] in {HEAVY!r}])"
    )
    words = line.split(" ")
    asked = {COMPLETE_VARIABLE: "zsh_complete", "COMP_WORDS": f"bssl-tf {line}", "COMP_CWORD": str(len(words))}
    seconds, alone = [], []
    for _ in range(3):
        begun = processor_seconds()
        subprocess.run([sys.executable, "-c", "import click, dataclasses, json, pathlib"], check=True)
        alone.append(processor_seconds() - begun)
        begun = processor_seconds()
        command = [sys.executable, "-c", program]
        done = subprocess.run(command, capture_output=True, text=True, check=True, env=os.environ | asked)
        seconds.append(processor_seconds() - begun)
        *lines, loaded = done.stdout.splitlines()
        assert loaded == "[]"
        assert ("zoo:fashion-mnist-28" in lines) == line.startswith("pretrain")
        assert lines and lines[0] == "plain"
    assert min(seconds) < 6 * min(alone)


def test_the_names_are_those_that_the_commands_take() -> None:
    from bssl_tf.keras_files.models import zoo_networks
    from bssl_tf.models.registry import BACKBONES
    from bssl_tf.settings import FLOAT_NETWORKS
    from bssl_tf.workflows.networks_beside import OPPONENTS
    from bssl_tf_converters.checkpoints.teacher_formats import FORMATS
    from bssl_tf_converters.lce.checks import AFTER, BEFORE, RUNNING

    assert sorted(completion.FLOAT_NETWORKS) == sorted(FLOAT_NETWORKS)
    assert completion.OPPONENTS == OPPONENTS
    assert sorted(completion.STUDENTS) == sorted({*BACKBONES} - FLOAT_NETWORKS)
    assert sorted(completion.larq_zoo_names()) == sorted(zoo_networks())
    assert completion.allowable_codes() == [check.code for check in (*BEFORE, *AFTER, *RUNNING) if check.allowable]
    assert _words(teacher, "method") == ["moco", "byol"]
    assert _words(import_teacher, "form") == list(FORMATS)


def _words(command: click.Command, name: str) -> list[str]:
    [parameter] = [one for one in command.params if one.name == name]
    return [item.value for item in parameter.shell_complete(click.Context(command), "")]


# Values that only their giver knows.
FREE = {"head", "heads", "layer", "only", "remote_dir", "service", "settings", "teacher_output"}


@pytest.mark.parametrize("name", list(COMMANDS))
def test_every_value_is_completed_or_free(name: str) -> None:
    """Where this fails for a new option, give it a `shell_complete=` out of `bssl_tf.cli.completion`."""
    context = click.Context(cli)
    command = cli.get_command(context, name)
    assert command is not None
    for parameter in command.params:
        flag = isinstance(parameter, click.Option) and parameter.is_flag
        number = isinstance(parameter.type, click.types._NumberParamTypeBase) or parameter.type.name == "numbers"
        if not (flag or number or parameter.name in FREE):
            assert parameter.shell_complete(context, ""), f"{name}: nothing is offered for {parameter.opts}"
