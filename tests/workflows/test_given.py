"""Settings by dotted names and as tables."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from bssl_tf.workflows.given import tables_of

NAMES = st.sampled_from(("moco", "training", "data", "epochs", "queue_size"))
PATHS = st.lists(NAMES, min_size=1, max_size=3).map(".".join)


def looked_up(tables: dict[str, Any], path: str) -> Any:
    found: Any = tables
    for part in path.split("."):
        found = found[part]
    return found


@given(PATHS, st.integers())
def test_a_setting_is_found_where_its_name_puts_it(path: str, value: int) -> None:
    tables = tables_of({path: value})
    assert looked_up(tables, path) == value
    assert tables_of(tables) == tables


def test_dotted_names_and_tables_give_the_same_and_later_ones_win() -> None:
    assert tables_of({"moco.queue_size": 64, "training": {"epochs": 2}, "training.seed": 1}) == {
        "moco": {"queue_size": 64},
        "training": {"epochs": 2, "seed": 1},
    }
    assert tables_of({"training": {"epochs": 2}, "training.epochs": 3}) == {"training": {"epochs": 3}}
    assert tables_of(None) == {}
