"""Every command that a document shows exists, with its options, as the real parsers see it."""

from __future__ import annotations

import contextlib
import re
from pathlib import Path

import click
import pytest

from bssl_tf.cli._given import settle
from bssl_tf.cli.main import COMMANDS, cli
from bssl_tf.errors import BsslError
from bssl_tf.methods.registry import read_run
from bssl_tf.settings import FinetuneConfig, PretrainConfig, TeacherConfig
from bssl_tf_deploy.cli import _parsed, _run_settings
from bssl_tf_deploy.running import RunSettings
from tests.docs.conftest import ROOT
from tests.docs.markdown import DOCUMENTS, commands, inline_code, name_of, split

CONTEXT = click.Context(cli, info_name="bssl-tf")
TARGETS = set(re.findall(r"^([a-z0-9-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
TRAINING = {"pretrain": PretrainConfig, "finetune": FinetuneConfig, "teacher": TeacherConfig}


def parse(words: list[str]) -> None:
    """Raises what the program's own parser raises. What is none of our programs is not looked at."""
    program, *arguments = words
    if program == "make":
        assert {one for one in arguments if "=" not in one} <= TARGETS, words
    elif program == "bssl-tf-deploy":
        with pytest.raises(SystemExit, match=r"^0$") if "--help" in arguments else contextlib.nullcontext():
            parsed = _parsed(arguments)
            if parsed.command == "run":
                _run_settings(parsed)
    elif program == "bssl-tf":
        name, *rest = [one for one in arguments if one != "--debug"]
        command = cli.get_command(CONTEXT, name)
        assert command is not None, f"there is no bssl-tf {name}"
        try:
            params = command.make_context(name, rest, parent=CONTEXT).params
        except click.exceptions.Exit:
            return
        if name == "run":
            RunSettings(*(params[key] for key in ("images", "camera", "video", "picamera", "frames"))).check()
        if name in TRAINING:
            options = {
                key: value
                for key, value in params.items()
                if key
                not in ("out", "resume", "dry_run", "profile", "budget", "preset", "settings", "pretrained", "as_json")
            }
            read_run(TRAINING[name], settle(name, params["preset"], params["settings"], options))


def options_of(names: list[str]) -> set[str]:
    """The options of commands of both programs."""
    known = {"--debug", "--help", "--version"}
    for name in names:
        command = cli.get_command(CONTEXT, name)
        assert command is not None, f"there is no bssl-tf {name}"
        known |= {option for one in command.params for option in (*one.opts, *one.secondary_opts)}
    return known


EVERYWHERE = options_of(list(COMMANDS)) | {
    option
    for file in (ROOT / "deploy/bssl_tf_deploy").rglob("*.py")
    for option in re.findall(r'"(--[a-z-]+)"', file.read_text(encoding="utf-8"))
}
# Of programs that are not ours.
OTHERS = re.compile(r"--[a-z]+_|--(no-deps|target arm64|out FILE|report-only|compiler)")


@pytest.mark.parametrize("path", DOCUMENTS, ids=name_of)
def test_commands_in_blocks_are_accepted(path: Path) -> None:
    for words in commands(path):
        try:
            parse(words)
        except click.ClickException as error:
            pytest.fail(f"{' '.join(words)}: {error.format_message()}")


@pytest.mark.parametrize("path", DOCUMENTS, ids=name_of)
def test_commands_and_options_in_sentences_exist(path: Path) -> None:
    for code in inline_code(path):
        words = code.split()
        if words[0] == "make" and len(words) == 2 and "=" not in code:
            assert words[1] in TARGETS or words[1] == "help", code
        elif words[0].startswith("--") and not OTHERS.match(code):
            assert words[0].partition("=")[0] in EVERYWHERE, code
        for command in re.findall(r"(?:^|\()bssl-tf ([^()]+)", code):
            words = command.split()
            names = [name for name in words[0].split("|") if not name.startswith("--") and name != "COMMAND"]
            known = options_of(names) if names else EVERYWHERE
            given = {word.partition("=")[0].strip(".,[]") for word in words if word.startswith("--")}
            assert given <= known, code


def test_the_documents_show_every_command() -> None:
    shown = {words[1] for path in DOCUMENTS for words in commands(path) if words[0] == "bssl-tf"}
    shown |= {code.split()[1] for path in DOCUMENTS for code in inline_code(path) if code.startswith("bssl-tf ")}
    assert shown >= set(COMMANDS)


@pytest.mark.parametrize(
    "line",
    [
        "bssl-tf train",
        "bssl-tf run BUNDLE",
        "bssl-tf run BUNDLE IMAGE --fast",
        "bssl-tf run BUNDLE IMAGE && bssl-tf summary",
        "bssl-tf export RUN --target arm32",
        "bssl-tf pretrain --out RUN --set training.epoch=3",
        "bssl-tf pretrain --out RUN --preset demmo",
        "bssl-tf-deploy run BUNDLE",
        "make dinner",
    ],
)
def test_what_does_not_exist_is_noticed(line: str) -> None:
    with pytest.raises((click.ClickException, BsslError, AssertionError, SystemExit)):
        for words in split(line):
            parse(words)
