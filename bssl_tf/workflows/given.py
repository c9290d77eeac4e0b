"""Settings as callers give them, by dotted names, as tables or as keyword arguments, to tables as in config.toml."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from bssl_tf.errors import ConfigError
from bssl_tf.methods.registry import over_preset
from bssl_tf.settings import merge

# Keyword argument -> setting of config.toml, where they are not called alike.
_PLACES = {
    "data": "data.source",
    "data_dir": "data.data_dir",
    "download": "data.download",
    "image_size": "data.image_size",
    "image_width": "data.image_width",
    "channels": "data.channels",
    "limit": "data.limit",
    "loading": "data.loading",
    "max_unreadable_share": "data.max_unreadable_share",
    "run": "student",
    "student": "backbone.name",
    "backbone": "backbone.name",
    "width": "backbone.width",
    "depth": "backbone.depth",
    "epochs": "training.epochs",
    "batch_size": "training.batch_size",
    "learning_rate": "training.learning_rate",
    "seed": "training.seed",
    "threads": "training.threads",
    "device": "training.device",
    "distribute": "training.distribute",
    "probe_data": "training.probe_data",
    "head_learning_rate": "finetune.head_learning_rate",
    "class_weights": "finetune.class_weights",
}


def tables_of(settings: Mapping[str, Any] | None) -> dict[str, Any]:
    """Nested tables: `{"moco.queue_size": 64}` and `{"moco": {"queue_size": 64}}` give the same; later ones win."""
    tables: dict[str, Any] = {}
    for name, value in (settings or {}).items():
        for part in reversed(name.split(".")):
            value = {part: value}
        tables = merge(tables, value)
    return tables


def settled(
    command: str, preset: str | Path | None, given: Mapping[str, Any], settings: Mapping[str, Any] | None
) -> dict[str, Any]:
    """The tables of a run: the preset, then the keyword arguments, then `settings`."""
    wanted = {_PLACES.get(name, name): plain(value) for name, value in given.items() if value is not None}
    tables = merge(tables_of(wanted), tables_of(settings))
    return over_preset(command, str(preset), tables) if preset else tables


def plain(value: Any) -> Any:
    """Paths, runs and imported teachers as the text that config.toml holds."""
    return os.fspath(value) if isinstance(value, os.PathLike) else value


def with_sizes(settings: dict[str, Any], name: str, sizes: dict[str, int]) -> dict[str, Any]:
    """The settings with the images' sizes that a network is for. Raises `ConfigError` where they have others."""
    data = settings.get("data", {})
    for key, value in sizes.items():
        if isinstance(data, dict) and data.get(key, value) not in (0, value):
            raise ConfigError(f"{name} is for {key} {value}, not {data[key]}", f"Omit data.{key}")
    return merge(settings, {"data": sizes})
