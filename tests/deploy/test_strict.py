"""Strict reading of JSON into dataclasses."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass
from typing import Any, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bssl_tf_deploy.strict import StrictError, parse


@dataclass(frozen=True)
class Inner:
    share: float
    names: tuple[str, ...]


@dataclass(frozen=True)
class Outer:
    count: int
    good: bool
    kind: Literal["one", "two"]
    inner: Inner
    maybe: Inner | None
    by_name: dict[str, Inner]


_FLOATS = st.floats(allow_nan=False, allow_infinity=False, width=32)
_INNERS = st.builds(Inner, share=_FLOATS, names=st.lists(st.text()).map(tuple))
_OUTERS = st.builds(
    Outer,
    count=st.integers(),
    good=st.booleans(),
    kind=st.sampled_from(("one", "two")),
    inner=_INNERS,
    maybe=st.none() | _INNERS,
    by_name=st.dictionaries(st.text(), _INNERS, max_size=3),
)
_ONE = Outer(1, True, "one", Inner(0.5, ("a",)), None, {"x": Inner(1.0, ())})


@given(_OUTERS)
def test_what_was_written_is_read_as_it_was(value: Outer) -> None:
    assert parse(Outer, json.loads(json.dumps(dataclasses.asdict(value))), "value") == value


@pytest.mark.parametrize(
    ("way", "value", "message"),
    [
        (("count",), True, "value.count is not of type int"),
        (("count",), 1.0, "value.count is not of type int"),
        (("good",), 1, "value.good is not of type bool"),
        (("kind",), "three", "value.kind is not 'one' or 'two'"),
        (("kind",), ["one"], "value.kind is not 'one' or 'two'"),
        (("inner",), None, "value.inner is not an object"),
        (("inner", "share"), True, "value.inner.share is not a number"),
        (("inner", "share"), float("nan"), "value.inner.share is not a finite number"),
        (("inner", "share"), 10**400, "value.inner.share is not a finite number"),
        (("inner", "names"), "a", "value.inner.names is not a list"),
        (("inner", "names"), [1], "value.inner.names[0] is not of type str"),
        (("by_name", "x"), [], "value.by_name.x is not an object"),
        (("maybe",), {"share": 1}, "value.maybe has the missing key 'names'"),
        (("inner", "more"), 1, "value.inner has the unknown key 'more'"),
    ],
)
def test_the_first_fault_is_named_with_its_place(way: tuple[str, ...], value: object, message: str) -> None:
    content: dict[str, Any] = json.loads(json.dumps(dataclasses.asdict(_ONE)))
    part = content
    for name in way[:-1]:
        part = part[name]
    part[way[-1]] = value
    with pytest.raises(StrictError) as caught:
        parse(Outer, content, "value")
    assert str(caught.value) == message


@pytest.mark.parametrize("key", [field.name for field in dataclasses.fields(Outer)])
def test_every_key_has_to_be_there(key: str) -> None:
    content = dataclasses.asdict(_ONE)
    del content[key]
    with pytest.raises(StrictError, match=f"value has the missing key '{key}'"):
        parse(Outer, content, "value")
