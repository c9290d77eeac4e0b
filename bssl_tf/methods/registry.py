"""Methods by name, and what a run is made of: the sections that all runs have, and the chosen method's own table.

A method of another package is registered by an entry point of the group `bssl_tf.methods` that names its `METHOD`:

    [project.entry-points."bssl_tf.methods"]
    mine = "my_package.mine:METHOD"

or, within a program, by `register`. Nothing here loads TensorFlow.
"""

from __future__ import annotations

import dataclasses
import importlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from bssl_tf.entry_points import offered
from bssl_tf.errors import ConfigError, first_line
from bssl_tf.methods.method import Method
from bssl_tf.settings import (
    FinetuneConfig,
    PretrainConfig,
    Table,
    TeacherConfig,
    check_choice,
    check_known,
    merge,
    read_preset,
    read_settings,
)

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint

GROUP = "bssl_tf.methods"
LABELS_USED = "labels_used"
# Each is `METHOD` in the module of its name.
BUILT_IN = ("s2bnn", "bssl", "guided", "moco", "byol", "swav", "supervised", "finetune")
Sections = TypeVar("Sections", TeacherConfig, PretrainConfig, FinetuneConfig)
AnySections = TypeVar("AnySections", bound="TeacherConfig | PretrainConfig | FinetuneConfig", covariant=True)
_registered: dict[str, Method[Any]] = {}


@dataclass(frozen=True)
class RunConfig(Generic[AnySections]):
    """Everything that was decided for a run.

    Attributes:
        sections: what all runs have.
        method: the chosen method.
        own: the settings of its table.
        labels_used: not a setting but a record: whose labels the network learns from, itself or through its teacher,
            as a clause; "" for nobody's, None where that is not recorded.
    """

    sections: AnySections
    method: Method[Any]
    own: Table
    labels_used: str | None = None

    def tables(self) -> dict[str, Any]:
        """As config.toml holds it: all sections and the method's own table, no other method's."""
        own = dataclasses.asdict(self.own)  # type: ignore[call-overload]  # every Table is a dataclass
        record = {} if self.labels_used is None else {LABELS_USED: self.labels_used}
        return dataclasses.asdict(self.sections) | record | ({self.method.name: own} if own else {})


def register(method: Method[Any]) -> None:
    """Makes `method` known to this process, until it ends. Raises `ValueError` for a name that is taken."""
    if method.name in names():
        raise ValueError(f"there is a method {method.name} already")
    _registered[method.name] = method


def names() -> list[str]:
    """What `method` can be: of this package first. No method is loaded."""
    return list(dict.fromkeys((*BUILT_IN, *_registered, *(found.name for found in offered(GROUP)))))


def names_for(command: str) -> list[str]:
    """What `method` can be in a run of `command`. Methods that cannot be loaded are left out."""
    found = []
    for name in names():
        try:
            method = find(name)
        except ConfigError:
            continue
        if method.trains_teachers if command == "teacher" else method.fine_tunes == (command == "finetune"):
            found.append(name)
    return found


def find(name: str) -> Method[Any]:
    """The method called `name`.

    Raises:
        ConfigError: there is none, or the package that provides it is broken.
    """
    if name in BUILT_IN:
        return importlib.import_module(f"bssl_tf.methods.{name}").METHOD
    if name in _registered:
        return _registered[name]
    check_choice("method", name, names())
    return _loaded(next(found for found in offered(GROUP) if found.name == name))


def read_run(kind: type[Sections], tables: dict[str, Any]) -> RunConfig[Sections]:
    """What a run is made of, from the tables of its config.toml or of what the user wants.

    Raises:
        ConfigError: a setting is unknown, of the wrong type or out of range, or a table is another method's.
    """
    tables = dict(tables)
    labels_used = tables.pop(LABELS_USED, None)
    if not isinstance(labels_used, (str, type(None))):
        raise ConfigError(f"{LABELS_USED} is {labels_used!r}, which is not a string", "Restore it, or remove that line")
    name = tables.get("method", kind.method)
    known: list[str] = [field.name for field in dataclasses.fields(kind)]
    if not isinstance(name, str):
        read_settings(kind, {"method": name})  # names what it should be
    method = find(name)
    others = [key for key in tables if key not in known and key != name and key in names()]
    if others:
        raise ConfigError(
            f"[{others[0]}] is not for method {name}, which is chosen here",
            f"Remove the settings of {others[0]}, or choose it with --method {others[0]}",
        )
    check_known(tables, [*known, name])
    own = tables.get(name, {})
    if not isinstance(own, dict):
        raise ConfigError(f"{name} is {own!r}, not a table", f"Write [{name}] and its settings below it")
    sections = read_settings(kind, {key: value for key, value in tables.items() if key != name})
    return RunConfig(sections, method, read_settings(method.settings, own, f"{name}."), labels_used)


def over_preset(command: str, preset: str, settings: dict[str, Any]) -> dict[str, Any]:
    """`settings` over those of a preset, of which only the chosen method's table counts.

    Args:
        command: `teacher`, `pretrain` or `finetune`.
        preset: the name of one of the package, or the path of a TOML file.
        settings: tables that win over the preset's; `method` may be among them.

    Raises:
        ConfigError: there is no such preset, or it has no table for the command.
    """
    base = read_preset(preset, command)
    kinds = (TeacherConfig, PretrainConfig, FinetuneConfig)
    default = next(kind.method for kind in kinds if kind().command == command)
    return merge(without_others(base, settings.get("method", base.get("method", default))), settings)


def without_others(tables: dict[str, Any], name: object) -> dict[str, Any]:
    """`tables`, as a preset has them, without those of other methods than `name`."""
    others = set(names()) - {name}
    return {key: value for key, value in tables.items() if key not in others}


def _loaded(entry: EntryPoint) -> Method[Any]:
    try:
        method = entry.load()
    except Exception as error:  # whatever a package of somebody else raises
        raise ConfigError(
            f"method {entry.name} cannot be loaded from {entry.value} ({first_line(error)})",
            "Install its package again",
        ) from error
    if not isinstance(method, Method) or method.name != entry.name:
        raise ConfigError(
            f"{entry.value} is not a declaration of a method called {entry.name}",
            "Name a bssl_tf.methods.method.Method in the entry point",
        )
    return method
