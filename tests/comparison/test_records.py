from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bssl_tf.comparison.records import FIELDS, Measured, load, measured
from bssl_tf.errors import RunFolderError
from bssl_tf.files import append_record

# Two-sided 95 % quantiles of Student's t, from a printed table: degrees of freedom -> quantile.
T_TABLE = {1: 12.706, 2: 4.303, 3: 3.182, 4: 2.776, 9: 2.262}


@given(st.lists(st.floats(0, 100), min_size=2, max_size=5))
def test_the_interval_is_the_textbooks(values: list[float]) -> None:
    mean = sum(values) / len(values)
    deviation = math.sqrt(sum((v - mean) ** 2 for v in values) / (len(values) - 1))
    expected = T_TABLE[len(values) - 1] * deviation / math.sqrt(len(values))
    found = Measured(tuple(values))
    assert found.mean == pytest.approx(mean, abs=1e-9)
    assert found.interval == pytest.approx(expected, rel=1e-3, abs=1e-9)


def test_the_interval_covers_the_mean_in_ninety_five_of_a_hundred_draws() -> None:
    rng = np.random.default_rng(3)
    hits = 0
    for _ in range(2000):
        found = Measured(tuple(rng.normal(50, 4, 3)))
        hits += abs(found.mean - 50) <= (found.interval or 0)
    assert 0.935 < hits / 2000 < 0.965  # three standard deviations of a binomial with p = 0.95


def test_one_seed_has_no_interval() -> None:
    assert Measured((71.25,)).interval is None
    assert str(Measured((71.25,))) == "71.2"
    assert str(Measured((70.0, 72.0))) == "71.0 ± 12.7"


def record(**changes: object) -> dict[str, object]:
    base: dict[str, object] = dict.fromkeys(FIELDS, "x")
    numbers = {"seed": 0, "top1": 50.0, "epochs": 8, "wall_s": 1.0, "teacher_cache_s": 0.0, "versions": {}}
    return base | numbers | changes


def test_the_last_record_of_a_seed_counts() -> None:
    records = [record(seed=1, top1=40.0), record(seed=0, top1=10.0), record(seed=0, top1=20.0), record(method="y")]
    found = measured(records, method="x")
    assert found is not None and found.values == (20.0, 40.0)
    assert measured(records, method="z") is None


def test_a_record_that_lacks_a_field_is_named(tmp_path: Path) -> None:
    path = tmp_path / "records.jsonl"
    whole = record()
    assert load(path) == []
    path.write_text(json.dumps(whole) + "\n" + json.dumps({k: v for k, v in whole.items() if k != "commit"}) + "\n")
    with pytest.raises(RunFolderError, match=r"record 2 in .* has no commit"):
        load(path)


def test_a_cut_line_costs_itself_only(tmp_path: Path) -> None:
    path = tmp_path / "records.jsonl"
    append_record(path, record(seed=1), record(seed=2))
    whole = path.read_bytes()
    for cut in (1, len(whole) // 2 - 5, len(whole) - 1):
        path.write_bytes(whole[:cut])
        kept = whole[:cut].count(b"\n")
        append_record(path, record(seed=3))
        assert [r["seed"] for r in load(path)] == [*[1, 2][:kept], 3]


def test_a_damaged_line_among_others_is_named(tmp_path: Path) -> None:
    path = tmp_path / "records.jsonl"
    append_record(path, record(), record())
    path.write_text(path.read_text().replace('"seed"', "seed", 1))
    with pytest.raises(RunFolderError, match=r"line 1 in .* is not a record"):
        load(path)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("top1", "50"),
        ("top1", True),
        ("top1", 10**400),
        ("seed", []),
        ("versions", 3),
        ("protocol", None),
        ("wall_s", {}),
    ],
)
def test_a_record_of_other_types_is_named(tmp_path: Path, name: str, value: object) -> None:
    path = tmp_path / "records.jsonl"
    append_record(path, record(), record(**{name: value}))
    with pytest.raises(RunFolderError, match=r"ecord|line 2 in .* is not a record"):
        load(path)
