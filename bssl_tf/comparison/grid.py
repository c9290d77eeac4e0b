"""What a preset's `[compare]` table holds: which runs, and how each is measured.

[compare]
protocols = ["linear-probe", "knn-20"]           # measured for every run, on its own data set
headline_protocols = ["finetune-1%"]             # beside them for headline rows, first seed
transfer_protocols = ["linear-probe"]            # for headline rows, first seed, on each of the data sets below
[[compare.transfer]]
source = "tfds:tiny_imagenet_100"                # settings of `DataConfig`
[[compare.rows]]
method = "s2bnn"                                 # as for `bssl-tf pretrain`
variant = "contrastive + distillation"           # empty for the method as it is
seeds = [0, 1, 2]
headline = true
settings = { s2bnn = { contrastive = true } }    # laid over the preset's [pretrain] table
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import re
from dataclasses import dataclass, field
from typing import Any

from bssl_tf.errors import ConfigError
from bssl_tf.methods.registry import names_for, read_run, without_others
from bssl_tf.settings import PROTOCOLS, DataConfig, PretrainConfig, check_choice, merge, read_preset, read_settings


@dataclass(frozen=True)
class Row:
    """A line of the table: one method in one variant, over its seeds."""

    method: str
    variant: str
    seeds: tuple[int, ...]
    headline: bool
    settings: dict[str, Any] = field(compare=False)

    @property
    def name(self) -> str:
        """For people and for folders: `s2bnn`, `bssl, frozen classifier`."""
        return f"{self.method}, {self.variant}" if self.variant else self.method

    @property
    def slug(self) -> str:
        """The name in letters, digits and hyphens."""
        return re.sub(r"[^a-z0-9]+", "-", self.name.lower()).strip("-")

    @property
    def settings_sha256(self) -> str:
        """Hash of the settings that the preset has for this row; records of other settings are not this row's.

        Settings that it leaves to their defaults are not in it, so that a new one does not make old records worthless;
        which defaults they had, the record's commit tells.
        """
        settings = {key: dict(value) if isinstance(value, dict) else value for key, value in self.settings.items()}
        for key in ("data_dir", "download"):
            settings.get("data", {}).pop(key, None)
        settings.pop("teacher", None)  # its weights count, not where they are
        return hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()[:16]


@dataclass(frozen=True)
class Grid:
    """All rows of a preset.

    Attributes:
        preset: its name.
        source: what it was read by, its name or the path of its file.
        rows: in the order of the table.
        protocols: measured for every run on the data set it was trained on.
        headline_protocols: measured beside them for the first seed of headline rows.
        transfer: data sets that the first seed of headline rows is measured on too.
        transfer_protocols: how.
    """

    preset: str
    source: str
    rows: tuple[Row, ...]
    protocols: tuple[str, ...]
    headline_protocols: tuple[str, ...]
    transfer: tuple[DataConfig, ...]
    transfer_protocols: tuple[str, ...]


def read_grid(preset: str, overrides: dict[str, Any] | None = None) -> Grid:
    """The grid of the preset called `preset`, or of the TOML file of that path.

    Args:
        preset: as above.
        overrides: settings of `PretrainConfig` laid over every row's.

    Raises:
        ConfigError: there is none, or a key or a value in it is wrong.
    """
    content = read_preset(preset, "compare")
    base = read_preset(preset, "pretrain")
    known = {"rows", "protocols", "headline_protocols", "transfer", "transfer_protocols"}
    _refuse_unknown(content, known, "compare")
    rows = tuple(
        _row(item, number, base, overrides or {}) for number, item in enumerate(_list(content, "rows", dict), start=1)
    )
    if not rows:
        raise ConfigError(f"preset {preset} has no [[compare.rows]]", "Add one for each method to compare")
    names = [row.slug for row in rows]
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise ConfigError(f"preset {preset} has two rows {twice}", "Give them different variants")
    name = preset.rsplit("/", 1)[-1].removesuffix(".toml")
    return Grid(
        name,
        preset,
        rows,
        _protocols(content, "protocols") or ("linear-probe", "knn-20"),
        _protocols(content, "headline_protocols"),
        tuple(_data(item, number) for number, item in enumerate(_list(content, "transfer", dict), start=1)),
        _protocols(content, "transfer_protocols") or ("linear-probe",),
    )


def _protocols(content: dict[str, Any], key: str) -> tuple[str, ...]:
    names = tuple(_list(content, key, str))
    for name in names:
        check_choice(f"compare.{key}", name, PROTOCOLS)
    return names


def _data(item: dict[str, Any], number: int) -> DataConfig:
    where = f"compare.transfer[{number}]"
    _refuse_unknown(item, {"source", "limit"}, where)  # size and channels are the network's
    data = read_settings(DataConfig, item, f"{where}.")
    if not data.source:
        raise ConfigError(f"{where} names no source", 'Write for example source = "tfds:cifar100"')
    return data


def _row(item: dict[str, Any], number: int, base: dict[str, Any], overrides: dict[str, Any]) -> Row:
    where = f"compare.rows[{number}]"
    _refuse_unknown(item, {field.name for field in dataclasses.fields(Row)}, where)
    seeds, settings = item.get("seeds", [0]), item.get("settings", {})
    if not isinstance(item.get("method"), str):
        raise ConfigError(f"{where} names no method", 'Write for example method = "s2bnn"')
    check_choice(f"{where}.method", item["method"], names_for("pretrain"))
    if not isinstance(item.get("headline", False), bool):
        raise ConfigError(f"{where}.headline is {item['headline']!r}", "Write headline = true, or omit it")
    if not isinstance(seeds, list) or not seeds or not all(type(seed) is int and seed >= 0 for seed in seeds):
        raise ConfigError(f"{where}.seeds is {seeds!r}", "Write for example seeds = [0, 1, 2]")
    if not isinstance(settings, dict):
        raise ConfigError(f"{where}.settings is {settings!r}, not a table", "Write settings = { section = {...} }")
    method = item["method"]
    unread = sorted(settings.keys() - without_others(settings, method).keys())
    if unread:
        raise ConfigError(f"{where}.settings.{unread[0]} is not for {method}", "Remove it, or name its method")
    # Settings of other methods have no part in this row: a change of them does not make its records worthless.
    base, overrides = without_others(base, method), without_others(overrides, method)
    settings = merge(merge(base, merge(settings, {"method": method})), overrides)
    read_run(PretrainConfig, settings)  # a wrong setting is found before the first run, not before the tenth
    return Row(method, str(item.get("variant", "")), tuple(seeds), bool(item.get("headline", False)), settings)


def _list(content: dict[str, Any], key: str, kind: type) -> list[Any]:
    value = content.get(key, [])
    if not isinstance(value, list) or not all(isinstance(item, kind) for item in value):
        raise ConfigError(f"compare.{key} is {value!r}", f"Give a list of values of type {kind.__name__}")
    return value


def _refuse_unknown(content: dict[str, Any], known: set[str], where: str) -> None:
    unknown = sorted(content.keys() - known)
    if unknown:
        raise ConfigError(f"unknown setting {where}.{unknown[0]}", f"Known here: {', '.join(sorted(known))}")
