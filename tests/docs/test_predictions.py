"""Predictions from counted instructions are the arithmetic that is written beside them."""

from __future__ import annotations

import dataclasses

import pytest

from bssl_tf.bench_records import read_benchmarks
from bssl_tf_deploy.record import Count, Loop, Record, Subject
from docs.predictions import predict, predictions
from docs.tables import RESULTS

FAST = Loop("neon_8x32", "cortex-a72", loop_instructions=120, loop_words=30, cycles_per_word=1.6, bound_per_word=1.5)
SLOW = Loop("neon_4x16", "cortex-a72", loop_instructions=75, loop_words=15, cycles_per_word=2.0, bound_per_word=1.8)


def counted(instructions: int, cnt: int) -> Count:
    return Count("ours", "cortex-a72", instructions, vector=0, cnt=cnt, spread=0.0, kernels=None)


def test_a_network_without_sign_comparisons_takes_one_or_half_a_cycle_an_instruction() -> None:
    found = predict(counted(3_000_000, 0), [], size_bytes=400_000)
    assert found.low_ms == pytest.approx(1.0)
    assert found.high_ms == pytest.approx(2.0 + 0.1)


def test_a_large_file_is_never_computed_faster_than_it_is_read() -> None:
    assert predict(counted(3_000, 0), [], size_bytes=4_000_000).low_ms == pytest.approx(1.0)


def test_the_loops_count_by_the_cycles_of_the_model() -> None:
    found = predict(counted(9_000_000, 1_000_000), [FAST, SLOW], size_bytes=0)
    # Of the fast end 5 M of the instructions are in loops, of the slow end 4 M.
    assert found.low_ms == pytest.approx((1.5e6 + 4e6 / 2) / 1.5e6)
    assert found.high_ms == pytest.approx((2.0e6 + 5e6 / 1) / 1.5e6)


def test_the_newest_counts_of_the_board_s_processor_are_taken() -> None:
    [record, *_] = read_benchmarks(RESULTS / "arm64-instructions.jsonl")

    def of(network: str, count: Count) -> Record:
        return dataclasses.replace(record, subject=Subject(network), counts=(count,), loops=(FAST,))

    newer = counted(3_000_000, 0)
    elsewhere = dataclasses.replace(newer, processor="cortex-a53", instructions=1)
    records = [of("a", counted(1_000, 0)), of("a", newer), of("a", elsewhere), of("without size", newer)]
    found = predictions(records, {("a", "ours"): 0, ("b", "ours"): 0})
    assert found == {("a", "ours"): predict(newer, [FAST], 0)}
