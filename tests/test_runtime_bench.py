"""The benchmark of the runtime: from networks to records and tables, with real interpreters."""

from __future__ import annotations

import dataclasses
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bssl_tf.bench_records import read_benchmarks
from bssl_tf.errors import RunFolderError
from bssl_tf_converters.tflite.model import read_model
from bssl_tf_deploy.errors import RuntimeUnavailableError
from bssl_tf_deploy.library import LIBRARY, host_target
from bssl_tf_deploy.record import Network, Ratio, Record, Run, Subject
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


@pytest.mark.slow
def test_every_kernel_of_this_processor_is_timed_beside_its_bound(tmp_path: Path) -> None:
    from benchmarks.kernels import time_kernels

    require_or_skip(shutil.which("make") is not None and shutil.which("g++") is not None, "no make, or no g++")
    record = time_kernels(tmp_path)
    found = {one.kernel: one for one in record.kernels}
    assert record.commit
    listed = (ROOT / "deploy" / "native" / "kernels" / "list.inc").read_text(encoding="utf-8")
    assert {"portable_2x32", "portable_2x16"} <= found.keys() and all(f"({name})" in listed for name in found)
    for name, one in found.items():
        # A bound is what the instructions allow at best; a kernel beyond it means that the bound is none.
        assert one.gmacs > 0
        assert name.startswith("portable") or (one.share is not None and 0.1 < one.share < 1.3)


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
    assert "converted tiny, binary," in done.stderr and "converted tiny, binary_int8," in done.stderr
    return folder


def read_records(folder: Path) -> list[Record]:
    return read_benchmarks(folder / "results" / "runtime-bench.jsonl")


def networks(folder: Path) -> dict[str, Network]:
    """Of the one run of the one record."""
    [record] = read_records(folder)
    [run] = record.runs
    return run.networks


def test_the_small_network_goes_all_the_way(folder: Path) -> None:
    [record] = read_records(folder)
    assert record.subject == Subject("tiny", input_shape=(1, 8, 8, 32)) and record.commit and record.time
    [run] = record.runs
    found = run.networks
    assert run.threads == 1 and set(found) == {"ours", "ours_int8", "lce", "lce_int8", "float32", "int8"}
    for name, one in found.items():
        assert one.role == ("stock" if name in ("float32", "int8") else "subject") and one.latency and one.start
        assert one.latency.rounds == 3 and one.latency.p50_ms and one.latency.p10_ms and one.latency.p90_ms
        assert 0 < one.latency.p10_ms <= one.latency.p50_ms <= one.latency.p90_ms
        assert one.start.load_ms and one.start.load_ms > 0
        # The first call, which packs and touches memory for the first time, is no faster than the ones it prepares.
        assert one.start.first_ms and one.start.first_ms > 0.5 * one.latency.p50_ms
        assert set(one.ratios) == set(found) - {name}
    # The same rounds, looked at from both sides.
    forth, back = found["float32"].ratios["int8"], found["int8"].ratios["float32"]
    assert forth.median == pytest.approx(1 / back.median)
    assert forth.low <= forth.median <= forth.high
    # 32 x 3 x 3 x 32 weights twice: in 1 bit, in 32 and in 8. Beside them 32 x 32 of the stem, which are never binary.
    weights, stem = 2 * 32 * 3 * 3 * 32, 32 * 32
    for variant, bits, stem_bits in (("lce", 1, 32), ("ours_int8", 1, 8), ("float32", 32, 32), ("int8", 8, 8)):
        least = (weights * bits + stem * stem_bits) / 8
        assert least < found[variant].model_size_bytes < least + 8000
    agreed = found["int8"].agreement
    assert agreed and agreed.reference == "float32" and agreed.cosine and agreed.cosine > 0.9
    # Both convolutions, norms and sums in one piece of XNNPACK.
    graph = found["float32"].graph
    assert graph and (graph.xnnpack_nodes, graph.remaining_operators) == (1, {})


@pytest.mark.parametrize("variant", ["ours", "ours_int8"])
def test_our_runtime_gives_what_lce_gives_and_leaves_nothing_of_it(folder: Path, variant: str) -> None:
    ours = networks(folder)[variant]
    assert ours.refused is None and ours.agreement and ours.graph
    assert ours.agreement.reference == variant.replace("ours", "lce")
    assert ours.agreement.max_difference is not None and ours.agreement.tolerance is not None
    assert ours.agreement.max_difference <= ours.agreement.tolerance
    assert ours.graph.our_nodes >= 1
    assert ours.graph.our_operators["LceBconv2d"] == 2
    assert not [name for name in ours.graph.remaining_operators if name.startswith("Lce")]
    [record] = read_records(folder)
    assert record.library and record.library.kernels
    table = (folder / "results" / "runtime-bench.md").read_text()
    title = "ours" if variant == "ours" else "ours, int8 ends"
    assert f"| tiny | {title} | {ours.graph.our_nodes} |" in table


def test_the_tables_are_made_from_the_records_alone(folder: Path) -> None:
    table = folder / "results" / "runtime-bench.md"
    before = table.read_text()
    latency = networks(folder)["int8"].latency
    assert latency and f"{latency.p50_ms:.3f}" in before
    table.unlink()
    assert run_benchmark("--report-only", "--results", folder / "results").returncode == 0
    assert table.read_text() == before


def test_the_table_in_results_is_the_one_that_the_records_give() -> None:
    from benchmarks.report import render

    records = read_benchmarks(ROOT / "results" / "runtime-bench.jsonl")
    assert render(records) == (ROOT / "results" / "runtime-bench.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("name", ["demo-bench", "runtime-bench", "runtime-kernels", "arm64-instructions"])
def test_every_record_in_results_is_in_the_one_schema(name: str) -> None:
    assert read_benchmarks(ROOT / "results" / f"{name}.jsonl")


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
    from benchmarks.session import Key, Opened, compare_and_time
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
        Key("lce", 1): Opened(Lce(content), shape, Network("subject", "LCE", len(content))),
        Key("ours", 1): Opened(Lce(content), shape, Network("subject", "LCE", len(content))),
        Key("ours", 2): Opened(Lce(damaged), shape, Network("subject", "LCE", len(damaged))),
    }
    one, two = compare_and_time(contestants, budget_s=0, min_rounds=2).runs
    for found in (one.networks["lce"], one.networks["ours"]):
        assert found.refused is None and found.latency and found.latency.rounds == 2
        assert found.agreement and found.agreement.max_difference == 0
    other = two.networks["ours"]
    assert other.refused and "differs from LCE's" in other.refused and other.agreement
    assert other.agreement.max_difference is not None and other.agreement.tolerance is not None
    assert other.agreement.max_difference > 1000 * other.agreement.tolerance > 0
    assert (other.latency, other.ratios) == (None, {})


@pytest.mark.parametrize(
    ("arguments", "status", "said"),
    [
        (("--networks", "QuikNet"), 12, "Did you mean QuickNet?"),
        (("--threads", "0"), 3, "not a list of numbers"),
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
    assert all_rounds.median == pytest.approx(3, rel=0.005)
    assert all_rounds.low < all_rounds.median < all_rounds.high
    assert all_rounds.high - all_rounds.low < few.high - few.low
    assert ratio(slow, slow).high == 1


def test_the_interval_covers_the_true_ratio_in_ninety_five_of_a_hundred_runs() -> None:
    from benchmarks.timing import ratio

    rng = np.random.default_rng(5)
    hits = 0
    for _ in range(200):
        found = ratio(np.exp(rng.normal(1, 0.2, (41, 1))), np.ones((41, 1)))
        hits += found.low <= np.e <= found.high
    assert 0.89 < hits / 200 < 1  # 0.95 and four standard deviations


def made_up(folder: Path, network: str, threads: int, ratios: dict[str, Ratio], **more: Any) -> Record:
    """A record of one variant, ours unless it is named: a real one of another, with the figures exchanged."""
    [record] = read_records(folder)
    real = record.runs[0].networks["int8"]
    assert real.latency and record.library
    found = dataclasses.replace(
        real,
        role="subject",
        ratios=ratios,
        ratio_to_one_thread=more.get("ratio_to_one_thread"),
        agreement=None,
        latency=dataclasses.replace(real.latency, p50_ms=more.get("p50_ms", real.latency.p50_ms)),
    )
    return dataclasses.replace(
        record,
        subject=Subject(network),
        library=dataclasses.replace(record.library, isa=more.get("isa", "auto")),
        time=more.get("time", record.time),
        runs=(Run(threads, {more.get("variant", "ours"): found}),),
    )


def between(low: float, high: float) -> Ratio:
    return Ratio((low + high) / 2, low, high, low, high)


def test_goals_are_met_by_the_lower_end_and_the_newest_run(folder: Path) -> None:
    from benchmarks.report import render

    text = render(
        [
            made_up(folder, "QuickNet", 1, {"lce": between(2.0, 2.2)}, time="2001-01-01T00:00:00Z"),
            made_up(folder, "QuickNet", 1, {"lce": between(6.1, 6.3)}),
            made_up(folder, "XNORNet", 1, {"lce": between(6.9, 7.2)}),
            made_up(folder, "stack-64x56", 1, {"lce": between(7.0, 7.0)}),
            made_up(folder, "stack-512x7", 1, {"lce": between(0.9, 0.98)}),
            made_up(folder, "XNORNet", 2, {"lce": between(1, 1)}, ratio_to_one_thread=between(1.74, 1.9)),
            made_up(folder, "BiRealNet", 1, {"int8": between(2.5, 2.6)}, variant="ours_int8"),
            made_up(folder, "QuickNetLarge", 1, {"MobileNetV2 int8": between(1.4, 1.6)}, variant="ours_int8"),
        ]
    )
    goals = text[text.index("### Goals") : text.index("### Accuracy")]
    rows = {}
    for line in goals.splitlines()[4:]:
        if line:
            goal, threads, lowest, verdict, missed = (cell.strip() for cell in line.strip("|").split("|"))
            rows[goal, threads] = (lowest, verdict, missed)

    def row(goal: str, threads: str) -> tuple[str, str, str]:
        [found] = [row for (name, count), row in rows.items() if name.startswith(goal) and count == threads]
        return found

    assert row("at least 6", "1") == ("QuickNet 6.20 (6.10 to 6.30)", "met", "")
    missed = "XNORNet 7.05 (6.90 to 7.20)"
    assert row("at least 7", "1")[1:] == (
        "missed by 2 of 3, 10 not timed",
        f"stack-512x7 0.94 (0.90 to 0.98); {missed}",
    )
    # LCE has one thread.
    assert not [goal for goal, count in rows if "LCE" in goal and count == "2"]
    assert row("two threads", "2")[1] == "missed by 1 of 1, 13 not timed"
    # QuickNetLarge was not compared with its own int8 form.
    assert row("with int8 ends at least 2.5", "1")[1:] == (
        "missed by 1 of 2, 7 not timed",
        "QuickNetLarge not timed",
    )


def test_the_goal_beside_mobilenet_is_that_of_int8_ends(folder: Path) -> None:
    from benchmarks.report import render

    beside = {"MobileNetV2 int8": between(1.4, 1.6)}
    text = render([made_up(folder, "QuickNet", 1, beside, variant="ours_int8")])
    assert "| QuickNet with int8 ends at least 1.5 times as fast as MobileNetV2 in int8 | 1 |" in text
    assert "| it is 1.50 (1.40 to 1.60) | missed by 1 of 1 |" in text


def test_the_table_of_accuracies_names_what_is_better_in_both(folder: Path) -> None:
    from benchmarks.report import render

    text = render(
        [
            made_up(folder, "QuickNet", 1, {}, p50_ms=2.0),
            made_up(folder, "XNORNet", 1, {}, p50_ms=2.0),
            made_up(folder, "BinaryAlexNet", 1, {}, p50_ms=1.5),
            made_up(folder, "MobileNetV2", 1, {}, variant="int8", p50_ms=3.0),
            made_up(folder, "tiny", 1, {}, p50_ms=0.1),
        ]
    )
    table = text[text.index("### Accuracy") : text.index("### Latency")]
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in table.splitlines()[4:] if "|" in line]
    assert [(name, top1, better) for name, top1, *_, better in rows] == [
        ("MobileNetV2, int8", "70.8", ""),
        ("QuickNet, 1-bit", "63.3", ""),
        ("XNORNet, 1-bit", "45.0", "QuickNet, 1-bit"),
        ("BinaryAlexNet, 1-bit", "36.3", ""),
    ]


def test_a_processor_without_some_instructions_has_tables_of_its_own(folder: Path) -> None:
    from benchmarks.report import render

    [record] = read_records(folder)
    assert record.library
    text = render([record, made_up(folder, "QuickNet", 1, {}, isa="portable")])
    headings = [line for line in text.splitlines() if line.startswith("## ")]
    fastest = record.library.kernels[0].partition("_")[0]
    assert headings == [f"## {record.machine}, {fastest}", f"## {record.machine}, portable"]


def test_a_file_of_too_many_records_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "bench.jsonl").write_text("{}\n" * 5_001)
    with pytest.raises(RunFolderError, match=r"has 5,001 lines, more than 5,000\. Split it"):
        read_benchmarks(tmp_path / "bench.jsonl")
