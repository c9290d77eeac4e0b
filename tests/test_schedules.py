from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bssl_tf.schedules import dynamic_balance, linear_decay, warmup_cosine

totals = st.integers(2, 10_000)


@given(totals, st.data())
def test_linear_decay_falls_evenly_from_one(total: int, data: st.DataObject) -> None:
    step = data.draw(st.integers(0, total - 1))
    assert linear_decay(0, total) == 1
    assert linear_decay(step, total) - linear_decay(step + 1, total) == pytest.approx(1 / total)
    assert linear_decay(total, total) == 0


@given(totals, st.data())
def test_warmup_cosine_rises_then_falls(total: int, data: st.DataObject) -> None:
    warmup = data.draw(st.integers(0, total - 1))
    values = [warmup_cosine(step, total, warmup) for step in range(min(total, 500))]
    assert all(0 <= v <= 1 for v in values)
    rise, fall = values[:warmup], values[warmup:]
    assert rise == sorted(rise)
    assert fall == sorted(fall, reverse=True)
    assert warmup_cosine(warmup, total, warmup) == 1
    assert warmup_cosine(total, total, warmup) == pytest.approx(0, abs=1e-12)


def test_warmup_cosine_is_half_way_down_in_the_middle() -> None:
    assert warmup_cosine(60, 110, 10) == pytest.approx(0.5)


@given(st.floats(0, 1), st.floats(0, 1))
def test_dynamic_balance_rises_from_start_to_end(earlier: float, later: float) -> None:
    assert dynamic_balance(0, 0.1, 0.3) == pytest.approx(0.1)
    assert dynamic_balance(1, 0.1, 0.3) == pytest.approx(0.3)
    earlier, later = sorted((earlier, later))
    assert dynamic_balance(earlier, 0.1, 0.3) <= dynamic_balance(later, 0.1, 0.3) + 1e-12
    # The paper's formula, term by term, with k = step and K = last step.
    k, big_k = earlier * 1000, 1000
    expected = 0.3 - (0.3 - 0.1) * (math.cos(math.pi * k / big_k) + 1) / 2
    assert dynamic_balance(earlier, 0.1, 0.3) == pytest.approx(expected)
