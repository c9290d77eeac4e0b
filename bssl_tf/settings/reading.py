"""Strict reading of settings: tables of TOML become frozen dataclasses, and the first mistake is named in one line.

pydantic reads and checks; the types of a dataclass define what it accepts: `Literal` for a choice of names, `Positive`
and the like for ranges. pydantic itself is loaded when settings are first read, so that `--help` is quick.
"""

from __future__ import annotations

import dataclasses
import difflib
import typing
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

from annotated_types import BaseMetadata, Ge, Gt, Le

from bssl_tf.errors import ConfigError

if TYPE_CHECKING:
    from pydantic import TypeAdapter
    from pydantic_core import ErrorDetails

K = TypeVar("K")
T = TypeVar("T", bound="Table")

Positive = Annotated[float, Gt(0)]
# Beyond, shapes overflow.
PositiveInt = Annotated[int, Gt(0), Le(2**31 - 1)]
NotNegative = Annotated[float, Ge(0)]
NotNegativeInt = Annotated[int, Ge(0)]
Share = Annotated[float, Ge(0), Le(1)]
_adapters: dict[type, TypeAdapter[Any]] = {}


class Table:
    """Base of every dataclass of settings: unknown keys, other types and numbers that are not finite are refused."""

    __pydantic_config__ = {"extra": "forbid", "strict": True, "allow_inf_nan": False}  # noqa: RUF012 - pydantic's name

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: Callable[[Any], Any]) -> Any:
        """Takes tables where pydantic's strictness would take instances alone; values stay strict."""
        schema = inner = handler(source)
        while inner["type"] != "dataclass":
            inner = inner["schema"]
        inner["strict"] = False
        return schema


def adapter_of(kind: type[K]) -> TypeAdapter[K]:
    """pydantic's reader of a dataclass, made once: creating it takes a hundred times as long as using it."""
    from pydantic import TypeAdapter

    if kind not in _adapters:
        _adapters[kind] = TypeAdapter(kind)
    return _adapters[kind]


def read_settings(kind: type[T], tables: dict[str, Any], where: str = "") -> T:
    """Builds settings from nested tables.

    Args:
        kind: a frozen dataclass derived from `Table`.
        tables: as read from TOML; missing values take their defaults, in nested tables too.
        where: prefix of the names in messages, such as `data.`.

    Raises:
        ConfigError: a key is unknown (the nearest known one is named), or a value is of the wrong type or out of range.
    """
    from pydantic import ValidationError

    try:
        return adapter_of(kind).validate_python(_with_defaults(kind, tables))
    except ValidationError as error:
        found = error.errors(include_url=False)
        # What is misspelt is missing too; the misspelling is the cause.
        first = next((one for one in found if one["type"] == "unexpected_keyword_argument"), found[0])
        raise _named(kind, first, where) from error


def check_choice(name: str, value: str, choices: Iterable[str]) -> None:
    """Raises `ConfigError`, with the nearest known name, unless `value` is one of `choices`."""
    known = sorted(choices)
    if value not in known:
        near = difflib.get_close_matches(value, known, n=1)
        hint = f"Did you mean {near[0]!r}? " if near else ""
        raise ConfigError(f"{name} is {value!r}", f"{hint}Choose one of {', '.join(known)}")


def check_known(keys: Iterable[str], known: Iterable[str], where: str = "") -> None:
    """Raises `ConfigError`, with the nearest known name, unless every one of `keys` is one of `known`."""
    known = list(known)
    for key in keys:
        if key not in known:
            near = difflib.get_close_matches(key, known, n=1)
            hint = f"Did you mean {where}{near[0]}? " if near else ""
            raise ConfigError(f"unknown setting {where}{key}", f"{hint}Known here: {', '.join(known)}")


def _with_defaults(kind: type[Table], tables: dict[str, Any]) -> dict[str, Any]:
    """Nested tables over the defaults that `kind` has for them, which may differ from those of their own class."""
    filled = dict(tables)
    for field in dataclasses.fields(kind):  # type: ignore[arg-type]  # every Table is a dataclass
        if field.default_factory is not dataclasses.MISSING and isinstance(filled.get(field.name), dict):
            filled[field.name] = dataclasses.asdict(field.default_factory()) | filled[field.name]
    return filled


def _named(kind: type[Table], error: ErrorDetails, where: str) -> ConfigError:
    """The error as a sentence about the setting, and the next step."""
    *path, key = (str(part) for part in error["loc"])
    hints = _hints(kind)
    for part in path:
        where += f"{part}."
        inner = hints[part]
        # A table of any names has one type for all of its values, and so has a list.
        hints = {key: typing.get_args(inner)[-1]} if typing.get_origin(inner) in (dict, list) else _hints(inner)
    name, value = f"{where}{key}", error["input"]
    wanted: Any = hints.get(key)
    match error["type"]:
        case "unexpected_keyword_argument":
            try:
                check_known([key], hints, where)
            except ConfigError as unknown:
                return unknown
        case "missing":
            return ConfigError(f"the setting {name} is missing", "Add it")
        case "dataclass_type":
            return ConfigError(f"{name} is {value!r}, not a table", f"Write [{name}] and its settings below it")
        case "finite_number":
            return ConfigError(f"{name} is {value}", "Give a finite value")
        case "literal_error" if isinstance(value, str):
            try:
                check_choice(name, value, typing.get_args(wanted))
            except ConfigError as unknown:
                return unknown
        case "greater_than" | "greater_than_equal" | "less_than" | "less_than_equal":
            return ConfigError(f"{name} is {value}", f"Give {_range(wanted, error['type'])}")
    plain = typing.get_args(wanted)[0] if typing.get_origin(wanted) is Annotated else wanted
    type_name = {int: "an int", float: "a float", str: "a str", bool: "a bool"}.get(plain)
    if type_name is None:
        return ConfigError(f"{name} is {value!r}", f"{error['msg'].replace('Input should', 'It should')}")
    return ConfigError(f"{name} is {value!r}, which is not {type_name}", f"Give a value of type {plain.__name__}")


def _hints(kind: type) -> dict[str, Any]:
    """The types of a table's settings, in order, with their ranges."""
    return typing.get_type_hints(kind, include_extras=True)


def _range(wanted: Any, broken: str) -> str:
    limits = {type(one): one for one in typing.get_args(wanted) if isinstance(one, BaseMetadata)}
    below = limits.get(Gt) or limits.get(Ge)
    above = limits.get(Le)
    if isinstance(below, Ge) and isinstance(above, Le):
        return f"a value from {below.ge} to {above.le}"
    if isinstance(above, Le) and broken == "less_than_equal":
        return f"{above.le} or less"
    if isinstance(below, Gt):
        return f"a value above {below.gt or 'zero'}"
    if isinstance(below, Ge):
        return f"{below.ge or 'zero'} or more"
    return "a value within its range"
