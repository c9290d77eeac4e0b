"""What a preset's `[compare]` table says: which runs, and how each is measured.

[compare]
protocols = ["linear-probe", "knn-20"]           # measured for every run, on its own data set
transfer_protocols = ["linear-probe"]            # measured for headline rows, on each of the data sets below
headline_protocols = ["finetune-1%"]             # measured for headline rows only, on the run's own data set
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
import re
from dataclasses import dataclass, field
from typing import Any

from bssl_tf.config import PretrainConfig, from_dict, merge, read_preset
from bssl_tf.errors import ConfigError


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


@dataclass(frozen=True)
class Grid:
    """All rows of a preset.

    Attributes:
        preset: its name.
        rows: in the order of the table.
        protocols: measured for every run on the data set it was trained on.
        headline_protocols: measured beside them for headline rows.
        transfer: data sets that headline rows are measured on too, as settings of `DataConfig`.
        transfer_protocols: how.
    """

    preset: str
    rows: tuple[Row, ...]
    protocols: tuple[str, ...]
    headline_protocols: tuple[str, ...]
    transfer: tuple[dict[str, Any], ...]
    transfer_protocols: tuple[str, ...]


def read_grid(preset: str) -> Grid:
    """The grid of the preset called `preset`, or of the TOML file of that path.

    Raises:
        ConfigError: there is none, or a key or a value in it is wrong.
    """
    content = read_preset(preset, "compare")
    base = read_preset(preset, "pretrain")
    known = {"rows", "protocols", "headline_protocols", "transfer", "transfer_protocols"}
    _refuse_unknown(content, known, "compare")
    rows = tuple(_row(item, number, base) for number, item in enumerate(_list(content, "rows", dict), start=1))
    if not rows:
        raise ConfigError(f"preset {preset} has no [[compare.rows]]", "Add one for each method to compare")
    names = [row.slug for row in rows]
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise ConfigError(f"preset {preset} has two rows {twice}", "Give them different variants")
    name = preset.rsplit("/", 1)[-1].removesuffix(".toml")
    return Grid(
        name,
        rows,
        tuple(_list(content, "protocols", str)) or ("linear-probe", "knn-20"),
        tuple(_list(content, "headline_protocols", str)),
        tuple(_list(content, "transfer", dict)),
        tuple(_list(content, "transfer_protocols", str)) or ("linear-probe",),
    )


def _row(item: dict[str, Any], number: int, base: dict[str, Any]) -> Row:
    where = f"compare.rows[{number}]"
    _refuse_unknown(item, {field.name for field in dataclasses.fields(Row)}, where)
    seeds, settings = item.get("seeds", [0]), item.get("settings", {})
    if not isinstance(item.get("method"), str):
        raise ConfigError(f"{where} names no method", 'Write for example method = "s2bnn"')
    if not isinstance(seeds, list) or not seeds or not all(type(seed) is int and seed >= 0 for seed in seeds):
        raise ConfigError(f"{where}.seeds is {seeds!r}", "Write for example seeds = [0, 1, 2]")
    if not isinstance(settings, dict):
        raise ConfigError(f"{where}.settings is {settings!r}, not a table", "Write settings = { section = {...} }")
    settings = merge(base, merge(settings, {"method": item["method"]}))
    from_dict(PretrainConfig, settings)  # a wrong setting is found before the first run, not before the tenth
    return Row(item["method"], str(item.get("variant", "")), tuple(seeds), bool(item.get("headline", False)), settings)


def _list(content: dict[str, Any], key: str, kind: type) -> list[Any]:
    value = content.get(key, [])
    if not isinstance(value, list) or not all(isinstance(item, kind) for item in value):
        raise ConfigError(f"compare.{key} is {value!r}", f"Give a list of values of type {kind.__name__}")
    return value


def _refuse_unknown(content: dict[str, Any], known: set[str], where: str) -> None:
    unknown = sorted(content.keys() - known)
    if unknown:
        raise ConfigError(f"unknown setting {where}.{unknown[0]}", f"Known here: {', '.join(sorted(known))}")
