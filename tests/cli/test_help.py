"""What --help shows of every option."""

from __future__ import annotations

import re

import click
import pytest

from bssl_tf.cli.main import COMMANDS, cli

CONTEXT = click.Context(cli, info_name="bssl-tf", **cli.context_settings)


def options() -> list[tuple[str, click.Option]]:
    found = []
    for name in COMMANDS:
        command = cli.get_command(CONTEXT, name)
        assert command is not None
        found += [(name, one) for one in command.params if isinstance(one, click.Option)]
    return found


@pytest.mark.parametrize(("command", "option"), options(), ids=lambda one: one if isinstance(one, str) else one.opts[0])
def test_a_default_is_shown_in_the_one_notation(command: str, option: click.Option) -> None:
    """As click makes it, with `show_default="text"` where it depends on something."""
    shown = option.get_help_record(click.Context(click.Command(command), parent=CONTEXT))
    assert shown is not None
    meaning = shown[1]
    assert option.help and not re.search(r"\[(?!default: )[^\]]*\]$", option.help), meaning
    assert "?" not in option.help, meaning
    single = option.is_flag and not option.secondary_opts
    if isinstance(option.default, (str, int, float)) and not single:
        assert "[default: " in meaning, meaning
