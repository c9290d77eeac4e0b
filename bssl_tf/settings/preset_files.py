"""Presets: TOML files of the package or of the user, with a table for each command."""

from __future__ import annotations

import importlib.resources
from pathlib import Path
from typing import Any

from bssl_tf.errors import ConfigError
from bssl_tf.settings.reading import check_choice
from bssl_tf.settings.tables import read_toml
from bssl_tf.settings.training import CODE

_TABLES = ("teacher", "pretrain", "finetune", "compare")


def _folder() -> Path:
    # Not files("bssl_tf.settings.presets"): the folder holds data, no code.
    return Path(str(importlib.resources.files("bssl_tf.settings"))) / "presets"


def presets() -> list[str]:
    """Names of the presets that come with the package."""
    return sorted(path.stem for path in _folder().glob("*.toml"))


def read_preset(name: str, command: str) -> dict[str, Any]:
    """The table of `command` in the preset called `name`, or in the TOML file of that path.

    It may hold the tables of several methods; `bssl_tf.methods.registry.without_others` takes those of one.

    Raises:
        ConfigError: there is no such preset, it has no table for the command, or its student is code.
    """
    if not name.endswith(".toml"):
        check_choice("the preset", name, presets())
    content = read_toml(Path(name) if name.endswith(".toml") else _folder() / f"{name}.toml")
    unknown = content.keys() - set(_TABLES)
    if unknown:
        raise ConfigError(f"preset {name} has an unknown table {sorted(unknown)[0]}", f"Known: {', '.join(_TABLES)}")
    if command not in content:
        raise ConfigError(f"preset {name} has no table [{command}]", "Choose a preset that has one")
    if not isinstance(content[command], dict):
        raise ConfigError(
            f"[{command}] in preset {name} is not a table", f"Write [{command}] and its settings below it"
        )
    backbone = content[command].get("backbone")
    network = backbone.get("name") if isinstance(backbone, dict) else None
    if isinstance(network, str) and CODE.fullmatch(network):
        # A preset may come from a stranger, with the code that it names.
        raise ConfigError(
            f"preset {name} names code to run, {network!r}", "Pass it as --student, or name a saved model"
        )
    return dict(content[command])
