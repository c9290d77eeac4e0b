"""The benchmark of the runtime: from networks to records and tables, with real interpreters."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bssl_tf_converters.tflite.model import read_model
from bssl_tf_deploy.errors import RuntimeUnavailableError
from bssl_tf_deploy.library import LIBRARY, host_target
from tests.conftest import require_or_skip

ROOT = Path(__file__).parent.parent
Benchmark = Callable[..., subprocess.CompletedProcess[str]]
MS = 1_000_000


@pytest.fixture(autouse=True)
def _importable(monkeypatch: pytest.MonkeyPatch) -> None:
    """The benchmark is a tool of the repository, not installed."""
    monkeypatch.syspath_prepend(str(ROOT / "deploy"))


def _host() -> str:
    try:
        return host_target()
    except RuntimeUnavailableError as error:
        require_or_skip(False, str(error))
        raise


def test_every_kernel_of_this_processor_is_timed_beside_its_bound(tmp_path: Path) -> None:
    from benchmarks.kernels import time_kernels

    require_or_skip(shutil.which("make") is not None and shutil.which("g++") is not None, "no make, or no g++")
    found = {record["kernel"]: record for record in time_kernels(tmp_path)}
    listed = (ROOT / "deploy" / "native" / "kernels" / "list.inc").read_text(encoding="utf-8")
    assert {"portable_2x32", "portable_2x16"} <= found.keys() and all(f"({name})" in listed for name in found)
    for name, record in found.items():
        # A bound is what the instructions allow at best; a kernel beyond it means that the bound is none.
        assert record["gmacs"] > 0 and record["commit"]
        assert name.startswith("portable") or 0.1 < record["share"] < 1.3


def run_benchmark(*arguments: Any) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "benchmarks", *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=200,
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT / "deploy")},
        check=False,
    )


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the small network was timed once, with our runtime where it can be built."""
    folder = tmp_path_factory.mktemp("bench")
    built = subprocess.run(
        [sys.executable, ROOT / "deploy" / "native" / "build.py", "--target", _host(), "--out", folder / LIBRARY],
        capture_output=True,
        text=True,
        check=False,
    )
    assert built.returncode == 0, built.stderr
    done = run_benchmark(
        *("--networks", "tiny", "--threads", "1", "--budget-s", "0", "--min-rounds", "3", "--probes", "1"),
        *("--library", folder / LIBRARY),
        *("--cache", folder / "cache", "--results", folder / "results"),
    )
    assert done.returncode == 0, done.stderr
    assert "converted tiny, binary" in done.stderr
    return folder


def read_records(folder: Path) -> list[dict[str, Any]]:
    lines = (folder / "results" / "runtime-bench.jsonl").read_text().splitlines()
    return [json.loads(line) for line in lines]


def test_the_small_network_goes_all_the_way(folder: Path) -> None:
    from benchmarks.records import FIELDS

    records = {record["variant"]: record for record in read_records(folder)}
    assert set(records) == {"ours", "lce", "float32", "int8"}
    for record in records.values():
        assert set(FIELDS) <= set(record)
        assert (record["network"], record["threads"], record["refused"]) == ("tiny", 1, None)
        assert record["rounds"] == 3
        assert 0 < record["p10_ms"] <= record["median_ms"] <= record["p90_ms"]
        assert record["load_ms"] > 0
        # The first call, which packs and touches memory for the first time, is no faster than the ones it prepares.
        assert record["first_ms"] > 0.5 * record["median_ms"]
    assert records["lce"]["ratio_to_lce"]["median"] == 1
    # The same rounds, looked at from both sides.
    forth = records["float32"]["ratio_to"]["int8"]
    back = records["int8"]["ratio_to"]["float32"]
    assert forth["median"] == pytest.approx(1 / back["median"])
    assert forth["low"] <= forth["median"] <= forth["high"]
    # 32 x 3 x 3 x 32 weights twice: in 1 bit, in 32 and in 8.
    weights = 2 * 32 * 3 * 3 * 32
    for variant, bits in (("lce", 1), ("float32", 32), ("int8", 8)):
        assert weights * bits / 8 < records[variant]["model_bytes"] < weights * bits / 8 + 8000
    assert records["int8"]["cosine_to_float32"] > 0.9
    # Both convolutions, norms and sums in one piece of XNNPACK.
    assert (records["float32"]["xnnpack_nodes"], records["float32"]["remaining_operators"]) == (1, {})


def test_our_runtime_says_what_lce_says_and_leaves_nothing_of_it(folder: Path) -> None:
    [ours] = [record for record in read_records(folder) if record["variant"] == "ours"]
    assert ours["refused"] is None
    assert ours["max_difference"] <= ours["tolerance"]
    assert ours["our_nodes"] >= 1
    assert ours["our_operators"]["LceBconv2d"] == 2
    assert not [name for name in ours["remaining_operators"] if name.startswith("Lce")]
    assert ours["runtime"]["kernels"]
    table = (folder / "results" / "runtime-bench.md").read_text()
    assert f"| tiny | {ours['our_nodes']} |" in table


def test_the_tables_are_made_from_the_records_alone(folder: Path) -> None:
    table = folder / "results" / "runtime-bench.md"
    before = table.read_text()
    median = next(record["median_ms"] for record in read_records(folder) if record["variant"] == "int8")
    assert f"{median:.3f}" in before
    table.unlink()
    assert run_benchmark("--report-only", "--results", folder / "results").returncode == 0
    assert table.read_text() == before


def test_models_are_made_once_and_again_when_they_are_not_what_they_were(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from benchmarks import cache

    done = run_benchmark("--networks", "tiny", "--convert-only", "--cache", folder / "cache")
    assert (done.returncode, done.stderr) == (0, "")
    shutil.copytree(folder / "cache", tmp_path, dirs_exist_ok=True)
    model = tmp_path / "tiny.binary.tflite"
    content = model.read_bytes()
    assert cache.load(tmp_path, "tiny", "binary") == content
    model.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    assert cache.load(tmp_path, "tiny", "binary") is None
    model.unlink()
    assert cache.load(tmp_path, "tiny", "binary") is None
    assert cache.load(tmp_path, "tiny", "int8") is not None
    monkeypatch.setattr(cache, "versions", lambda: {"larq-compute-engine": "0.1"})
    assert cache.load(tmp_path, "tiny", "int8") is None


def test_what_computes_something_else_is_not_timed(folder: Path) -> None:
    from benchmarks.session import Contestant, Key, compare_and_time
    from benchmarks.variants import Lce

    content = (folder / "cache" / "tiny.binary.tflite").read_bytes()
    [first, _] = [op for op in read_model(content).operators if op.name == "LceBconv2d"]
    assert first.inputs[1] is not None and first.inputs[1].data is not None
    kernel = first.inputs[1].data
    # The first of 32 output channels with all its signs turned round.
    damaged = content.replace(kernel, bytes(byte ^ 0xFF for byte in kernel[:36]) + kernel[36:])
    assert damaged != content
    shape = (8, 8, 32)
    # LCE's interpreter stands for ours: what counts is what it says.
    contestants = {
        Key("lce", 1): Contestant(Lce(content), shape),
        Key("ours", 1): Contestant(Lce(content), shape),
        Key("ours", 2): Contestant(Lce(damaged), shape),
    }
    reference, same, other = compare_and_time("tiny", contestants, budget_s=0, min_rounds=2)
    for record in (reference, same):
        assert (record["refused"], record["rounds"], record["max_difference"]) == (None, 2, 0)
    assert "differs from LCE's" in other["refused"]
    assert other["max_difference"] > 1000 * other["tolerance"] > 0
    assert (other["rounds"], other["median_ms"], other["ratio_to_lce"]) == (0, None, None)


@pytest.mark.parametrize(
    ("arguments", "status", "said"),
    [
        (("--networks", "QuikNet"), 12, "Did you mean QuickNet?"),
        (("--threads", "0"), 3, "no list of numbers"),
        (("--library", "absent.so"), 10, "there is no library absent.so"),
        (("--library", "README.md"), 10, "README.md cannot be loaded"),
        (("--report-only", "--results", "absent"), 3, "there are no records in absent"),
    ],
)
def test_mistakes_end_in_one_line(arguments: tuple[str, ...], status: int, said: str) -> None:
    done = run_benchmark("--networks", "tiny", *arguments)
    assert done.returncode == status
    [line] = done.stderr.splitlines()
    assert said in line


def test_a_process_that_fails_says_why(tmp_path: Path) -> None:
    from benchmarks import worker

    with pytest.raises(RuntimeUnavailableError, match=r"ended by status 6: .*no binary model of tiny"):
        worker.call("probe", name="tiny", cache=str(tmp_path), library=None, variant="lce", threads=1, isa="auto")


class Clock:
    """Stands still but for what the timed calls take."""

    def __init__(self) -> None:
        self.now = 0
        self.calls: list[str] = []

    def __call__(self) -> int:
        return self.now

    def task(self, name: str, milliseconds: float) -> Callable[[], None]:
        def call() -> None:
            self.now += int(milliseconds * MS)
            self.calls.append(name)

        return call


def test_every_round_has_a_turn_of_each_in_a_changing_order() -> None:
    from benchmarks.timing import interleave

    clock = Clock()
    tasks = {name: clock.task(name, milliseconds) for name, milliseconds in (("a", 2), ("b", 8), ("c", 50))}
    times = interleave(tasks, budget_s=0, min_rounds=40, seed=1, clock=clock)
    # 20 ms of timed calls, at least one.
    assert {name: found.shape for name, found in times.items()} == {"a": (40, 10), "b": (40, 3), "c": (40, 1)}
    assert {float(found.min()) for found in times.values()} == {2, 8, 50}
    # 0.3 s of burn-in; 5 ms of each turn that do not count: 3 calls of a, 1 of b and c.
    burn_in = 150 + 38 + 6
    turns = "".join(clock.calls[burn_in:]).replace("a" * 13, "A").replace("bbbb", "B").replace("cc", "C")
    rounds = [turns[i : i + 3] for i in range(0, len(turns), 3)]
    assert len(rounds) == 40
    assert all(sorted(order) == ["A", "B", "C"] for order in rounds)
    assert len(set(rounds)) == 6


def test_rounds_go_on_until_the_budget_is_spent() -> None:
    from benchmarks.timing import interleave

    clock = Clock()
    times = interleave({"a": clock.task("a", 10)}, budget_s=0.3, min_rounds=1, seed=1, clock=clock)
    assert times["a"].shape == (10, 2)  # rounds of 30 ms


def test_a_ratio_is_paired_and_its_interval_narrows_with_rounds(rng: np.random.Generator) -> None:
    from benchmarks.timing import ratio

    # The machine drifts by a factor of three, which both feel alike.
    drift = np.linspace(1, 3, 400)[:, np.newaxis]
    slow = 6 * drift * rng.uniform(0.98, 1.02, (400, 3))
    fast = 2 * drift * rng.uniform(0.98, 1.02, (400, 5))
    all_rounds, few = ratio(slow, fast), ratio(slow[:20], fast[:20])
    assert all_rounds["median"] == pytest.approx(3, rel=0.005)
    assert all_rounds["low"] < all_rounds["median"] < all_rounds["high"]
    assert all_rounds["high"] - all_rounds["low"] < few["high"] - few["low"]
    assert ratio(slow, slow)["high"] == 1


def test_the_interval_covers_the_true_ratio_in_ninety_five_of_a_hundred_runs() -> None:
    from benchmarks.timing import ratio

    rng = np.random.default_rng(5)
    hits = 0
    for _ in range(200):
        found = ratio(np.exp(rng.normal(1, 0.2, (41, 1))), np.ones((41, 1)))
        hits += found["low"] <= np.e <= found["high"]
    assert 0.89 < hits / 200 < 1  # 0.95 and four standard deviations


def made_up(folder: Path, network: str, threads: int, lce: tuple[float, float], **more: Any) -> dict[str, Any]:
    """A record of our runtime: a real one of another variant, with the figures exchanged."""
    [record] = [record for record in read_records(folder) if record["variant"] == "int8"]
    low, high = lce
    ratio = {"median": (low + high) / 2, "low": low, "high": high, "p10": low, "p90": high}
    return {
        **record,
        **{"network": network, "variant": "ours", "threads": threads, "ratio_to_lce": ratio},
        **{"speedup_over_one_thread": None, "our_nodes": 1, "our_operators": {}, "max_difference": 0.0},
        **more,
    }


def test_goals_are_met_by_the_lower_end_and_the_newest_run(folder: Path) -> None:
    from benchmarks.report import markdown

    faster = {"median": 1.2, "low": 1.1, "high": 1.3, "p10": 1.1, "p90": 1.3}
    barely = {"median": 1.75, "low": 1.69, "high": 1.8, "p10": 1.6, "p90": 1.9}
    text = markdown(
        [
            made_up(folder, "QuickNet", 1, (2.0, 2.2), time="2001-01-01T00:00:00Z"),
            made_up(folder, "QuickNet", 1, (6.1, 6.3), ratio_to={"MobileNetV2 float32": faster}),
            made_up(folder, "XNORNet", 1, (3.9, 4.2)),
            made_up(folder, "stack-64x56", 1, (7.0, 7.0)),
            made_up(folder, "stack-512x7", 1, (0.9, 0.98)),
            made_up(folder, "XNORNet", 2, (4.0, 4.2), speedup_over_one_thread=barely),
        ]
    )
    goals = text[text.index("### Goals") : text.index("### Latency")]
    rows = {}
    for line in goals.splitlines()[4:]:
        if line:
            goal, threads, lowest, verdict, missed = (cell.strip() for cell in line.strip("|").split("|"))
            rows[goal, threads] = (lowest, verdict, missed)

    def row(goal: str, threads: str) -> tuple[str, str, str]:
        [found] = [row for (name, count), row in rows.items() if name.startswith(goal) and count == threads]
        return found

    assert row("at least 6", "1") == ("QuickNet 6.20 (6.10 to 6.30)", "met", "")
    assert row("at least 4", "1")[1] == "missed by 1 of 1, 8 not timed"
    assert row("at least 4", "2")[1] == "met, 8 not timed"
    assert row("at least 7", "1")[1:] == ("missed by 1 of 2, 2 not timed", "stack-512x7 0.94 (0.90 to 0.98)")
    assert row("never slower than LCE", "1")[1] == "missed by 1 of 4, 10 not timed"
    assert row("QuickNet faster than MobileNetV2", "1")[1] == "met"
    assert row("two threads", "2")[1] == "missed by 1 of 1, 13 not timed"
