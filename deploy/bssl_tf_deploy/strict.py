"""Reads what JSON gave as frozen dataclasses, strictly: no key missing, none unknown, every type as the class has it.

Standard library only, so that a device can read what the host wrote and the reverse. `manifest` and `record` are read
with it.
"""

from __future__ import annotations

import dataclasses
import functools
import types
import typing
from typing import Any, TypeVar

T = TypeVar("T")


class StrictError(Exception):
    """The first thing that is not as it should be, and where it stands."""


def parse(kind: type[T], value: object, where: str) -> T:
    """`value`, as JSON gave it, as `kind`.

    Args:
        kind: a dataclass whose fields are dataclasses, X | None, dict[str, X], tuple[X, ...], Literal, bool, int, float
            or str. An int is read as a float where one is wanted; a bool is never read as a number.
        value: what `json.loads` returned.
        where: what is read, for messages: "manifest".

    Raises:
        StrictError: a key is missing or unknown, a type is wrong, or a number is not finite.
    """
    return typing.cast(T, _parse(kind, value, where))


def expect(holds: bool, where: str, what: str) -> None:
    """Raises `StrictError` ("WHERE is not WHAT") unless it holds."""
    if not holds:
        raise StrictError(f"{where} is not {what}")


def _parse(kind: Any, value: Any, where: str) -> Any:
    if kind in (bool, int, str):
        expect(type(value) is kind, where, f"of type {kind.__name__}")
        return value
    origin = typing.get_origin(kind)
    if origin in (types.UnionType, typing.Union):
        [item] = (item for item in typing.get_args(kind) if item is not type(None))
        return None if value is None else _parse(item, value, where)
    if dataclasses.is_dataclass(kind):
        hints = _hints(typing.cast(type, kind))
        expect(isinstance(value, dict), where, "an object")
        odd = sorted(set(value) ^ set(hints))
        if odd:
            state = "missing" if odd[0] in hints else "unknown"
            raise StrictError(f"{where} has the {state} key {odd[0]!r:.60}")
        return typing.cast(Any, kind)(**{key: _parse(hints[key], value[key], f"{where}.{key}") for key in hints})
    if origin is dict:
        expect(isinstance(value, dict), where, "an object")
        item = typing.get_args(kind)[1]
        return {key: _parse(item, value[key], f"{where}.{key:.60}") for key in value}
    if origin is tuple:
        expect(isinstance(value, (list, tuple)), where, "a list")
        item = typing.get_args(kind)[0]
        # Thousands of durations at once; what is odd among them is named below.
        if item in (int, str) and set(map(type, value)) <= {item}:
            return tuple(value)
        return tuple(_parse(item, element, f"{where}[{index}]") for index, element in enumerate(value))
    if origin is typing.Literal:
        words = typing.get_args(kind)
        expect(any(type(value) is type(word) and value == word for word in words), where, " or ".join(map(repr, words)))
        return value
    assert kind is float
    expect(isinstance(value, (int, float)) and not isinstance(value, bool), where, "a number")
    expect(-1e300 < value < 1e300, where, "a finite number")
    return float(value)


@functools.cache
def _hints(kind: type) -> dict[str, Any]:
    return typing.get_type_hints(kind)
