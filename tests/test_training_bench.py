"""The benchmark of training: what it compares and computes, and, where PyTorch is there, that both sides agree."""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import click
import numpy as np
import pytest

from bssl_tf.errors import BackendError, ConfigError, TrainingError
from bssl_tf.files import read_records
from docs.tables import speed_of_training

ROOT = Path(__file__).parent.parent
TORCH_PYTHON = ROOT / ".venv-torch" / "bin" / "python"
OURS, PYTORCH, XLA = "ours", "pytorch", "ours_xla"


@pytest.fixture(autouse=True)
def _importable(monkeypatch: pytest.MonkeyPatch) -> None:
    """The benchmark is a tool of the repository, not installed."""
    monkeypatch.syspath_prepend(str(ROOT / "deploy"))


def _case(network: str = "binary_resnet", precision: str = "float32") -> Any:
    from benchmarks.training.cases import all_cases

    found = next(
        case for case in all_cases(2, 0) if (case.network, case.image_size, case.precision) == (network, 32, precision)
    )
    return dataclasses.replace(found, batch_size=8, images=16)


class FakeSide:
    """Answers as a side does; a step takes `step_s`, of which it waits `input_s` for its batch."""

    def __init__(self, name: str, asked: list[tuple[str, int]], step_s: float, input_s: float) -> None:
        self._name, self._asked, self._step_s, self._input_s = name, asked, step_s, input_s
        self.outputs: dict[str, Any] = {"loss": 4.5, "forward_flops": {"student": 100}, "step_flops": 1000.0}
        self.gradients = {"student/conv/kernel": np.arange(6.0), "head/bias": np.ones(2)}
        self.view = np.zeros((2, 4, 4, 3), np.float32)
        self.loss = 1.0

    def ask(self, do: str, **arguments: Any) -> Any:
        if do == "window":
            steps = arguments["steps"]
            self._asked.append((self._name, steps))
            return {"step_s": [self._step_s] * steps, "input_s": [self._input_s] * steps, "loss": self.loss}
        folder = Path(arguments["folder"])
        np.savez(folder / f"{self._name}.npz", **self.gradients)
        if self._name == OURS:
            np.savez(folder / "images.npz", view=self.view)
        else:
            np.save(folder / "view.npy", self.view)
        return self.outputs


def _sides(ours_s: float = 0.1, pytorch_s: float = 0.2, input_s: float = 0.0) -> tuple[dict[str, FakeSide], list[Any]]:
    asked: list[tuple[str, int]] = []
    sides = {OURS: FakeSide(OURS, asked, ours_s, input_s), PYTORCH: FakeSide(PYTORCH, asked, pytorch_s, 0.0)}
    return sides, asked


def test_windows_alternate_and_both_sides_take_equal_steps() -> None:
    from benchmarks.training.session import interleave

    sides, asked = _sides()
    windows = interleave(sides, rounds=20, window_s=1.0, seed=0, pause_s=0.0)
    assert {name: len(found) for name, found in windows.items()} == {OURS: 20, PYTORCH: 20}
    timed = asked[-40:]
    # The slower side fills a window with five steps.
    assert {steps for _, steps in timed} == {5}
    firsts = [name for name, _ in timed[::2]]
    assert all({a[0], b[0]} == {OURS, PYTORCH} for a, b in zip(timed[::2], timed[1::2], strict=True))
    # Who is first in every round would always meet the machine as the other left it.
    assert 4 < firsts.count(OURS) < 16


def test_a_loss_that_is_not_finite_ends_it() -> None:
    from benchmarks.training.session import interleave

    sides, _ = _sides()
    sides[PYTORCH].loss = float("nan")
    with pytest.raises(TrainingError, match="loss of pytorch is nan"):
        interleave(sides, rounds=2, window_s=0.1, seed=0, pause_s=0.0)


@pytest.mark.parametrize(
    ("ours_s", "input_s", "faster", "waits"), [(0.1, 0.002, True, True), (0.12, 0.006, False, False)]
)
def test_a_summary_has_speed_ratio_input_and_bound(ours_s: float, input_s: float, faster: bool, waits: bool) -> None:
    from benchmarks.training.session import interleave, summary

    sides, _ = _sides(ours_s, 0.2, input_s)
    case = _case()
    windows = interleave(sides, rounds=5, window_s=0.1, seed=0, pause_s=0.0)
    rates = {OURS: {"float32": 2e6, "bfloat16": 9e9}, PYTORCH: {"float32": 1e6, "bfloat16": 9e9}}
    found = summary(case, windows, rates, step_flops=1e4)
    assert found["images_per_s"][OURS]["p50"] == pytest.approx(8 / ours_s)
    assert found["speed_up"]["median"] == pytest.approx(0.2 / ours_s)
    assert found["input_share"][OURS] == pytest.approx(input_s / ours_s)
    # The faster of both libraries, in the case's own precision.
    assert found["bound_images_per_s"] == pytest.approx(200)
    assert found["bound_share"][PYTORCH] == pytest.approx(8 / 0.2 / 200)
    goals = found["goals"]
    assert (goals["speed_up_met"], goals["input_share_met"]) == (faster, waits)


def test_ours_compiled_by_xla_is_a_side_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from benchmarks.training import session

    sides, asked = _sides()
    sides[XLA] = FakeSide(XLA, asked, 0.08, 0.0)
    windows = session.interleave(sides, rounds=5, window_s=0.1, seed=0, pause_s=0.0)
    rates = {name: {"float32": 2e6, "bfloat16": 9e9} for name in sides}
    found = session.summary(_case(), windows, rates, step_flops=1e4)
    assert found["xla_speed_up"]["median"] == pytest.approx(0.1 / 0.08) and found["bound_share"][XLA] == 0.5
    assert found["speed_up"]["median"] == pytest.approx(2)

    began: list[list[str]] = []
    monkeypatch.setattr(subprocess, "Popen", lambda command, **_: began.append(command))
    for name in sides:
        session.Process(name, "python", _case(), tmp_path / "log")
    assert [command[2].rpartition(".")[2] for command in began] == ["ours", "pytorch", "ours"]
    assert [command[4:] for command in began] == [[], [], ["xla"]]


def test_sides_that_agree_are_measured(tmp_path: Path) -> None:
    from benchmarks.training.session import compare

    found = compare(_sides()[0], tmp_path, _case())
    assert found["gradient_difference"] == 0 and found["step_flops"] == 1000


@pytest.mark.parametrize("what", ["loss", "gradient", "other weights", "view", "work"])
def test_sides_that_compute_something_else_are_refused(tmp_path: Path, what: str) -> None:
    from benchmarks.training.session import compare

    sides, _ = _sides()
    other = sides[PYTORCH]
    if what == "loss":
        other.outputs = {**other.outputs, "loss": 4.51}
    elif what == "gradient":
        other.gradients = {**other.gradients, "head/bias": np.array([1.0, -1.0])}
    elif what == "other weights":
        other.gradients = {"head/bias": np.ones(2)}
    elif what == "view":
        other.view = np.full_like(other.view, 0.01)
    else:
        other.outputs = {**other.outputs, "forward_flops": {"student": 101}}
    with pytest.raises(TrainingError, match=r"loss_diff|gradient_diff|gradients are of other|view_diff|other work"):
        compare(sides, tmp_path, _case())


SERVER = """
from benchmarks.training.worker import serve

def double(number):
    print("noise on standard output", flush=True)
    return 2 * number

def fail():
    raise RuntimeError("a part is missing")

serve({"double": double, "fail": fail})
"""


def test_a_process_answers_by_lines_whatever_it_prints(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from benchmarks.training import session

    (tmp_path / "fake_side.py").write_text(SERVER, encoding="utf-8")
    monkeypatch.setitem(session._MODULES, OURS, "fake_side")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    process = session.Process(OURS, sys.executable, _case(), tmp_path / "log")
    assert process.ask("double", number=21) == 42
    assert "noise" in (tmp_path / "log").read_text(encoding="utf-8")
    with pytest.raises(BackendError, match="ended by status 1 at 'fail': RuntimeError: a part is missing"):
        process.ask("fail")
    process.close()


def test_steps_are_timed_after_those_that_fill_the_pipeline() -> None:
    from benchmarks.training.worker import UNTIMED_STEPS, timed_steps

    seen: list[int] = []

    def train_by(batch: int) -> float:
        seen.append(batch)
        return float(batch)

    found = timed_steps(iter(range(100)), train_by, 3)
    assert seen == list(range(UNTIMED_STEPS + 3)) and found["loss"] == seen[-1]
    assert len(found["step_s"]) == len(found["input_s"]) == 3
    assert all(0 <= waited <= step for waited, step in zip(found["input_s"], found["step_s"], strict=True))


def test_the_sides_own_work_is_not_that_of_others() -> None:
    """A side's loader of images is its child."""
    from benchmarks.others import _seconds_of

    busy = "import time\nwhile time.process_time() < 0.3: pass\nprint(1, flush=True)\ninput()"
    parent = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {busy!r}])"
    with subprocess.Popen(
        [sys.executable, "-c", parent], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None and process.stdout.readline() == "1\n"
        assert 0.25 < _seconds_of(frozenset([process.pid])) < 5
        assert _seconds_of(frozenset()) == 0
        process.communicate("\n")


def _measured(case: Any, *_: Any, **__: Any) -> dict[str, Any]:
    from benchmarks.training.session import interleave, summary

    windows = interleave(_sides(0.1, 0.1975)[0], rounds=2, window_s=0.1, seed=0, pause_s=0.0)
    rates = {OURS: {"float32": 2e6, "bfloat16": 4e6}}
    return {"versions": {"torch": "2.13.0"}, "windows": windows, **summary(case, windows, rates, step_flops=1e4)}


def test_what_is_recorded_is_not_measured_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from benchmarks.training import __main__ as program

    calls: list[str] = []

    def measure(case: Any, *rest: Any, **named: Any) -> dict[str, Any]:
        if len(calls) == 1:
            calls.append("stopped")
            raise KeyboardInterrupt
        calls.append(case.name)
        return _measured(case)

    monkeypatch.setattr(program, "measure", measure)
    options = ["--networks", "binary_resnet", "--torch-python", sys.executable, "--results", str(tmp_path)]
    monkeypatch.setattr(sys, "argv", ["benchmarks.training", *options])
    with pytest.raises(click.Abort):
        program.command.main(options, standalone_mode=False)
    program.command.main(options, standalone_mode=False)
    first, second = "binary_resnet at 32 px, float32", "binary_resnet at 32 px, bfloat16"
    assert calls == [first, "stopped", second]
    records = read_records(tmp_path / "training-speed.jsonl")
    assert [record["case"]["precision"] for record in records] == ["float32", "bfloat16"]
    for key in ("command", "commit", "time", "machine", "versions", "windows"):
        assert records[0][key], key
    program.command.main([*options, "--precision", "float32", "--again"], standalone_mode=False)
    assert calls[3:] == [first]


def test_a_network_that_it_lacks_and_pytorch_that_is_missing_are_named(tmp_path: Path) -> None:
    from benchmarks.training.__main__ import command

    with pytest.raises(ConfigError, match="no network 'quicknt'"):
        command.main(["--networks", "quicknt", "--torch-python", sys.executable], standalone_mode=False)
    with pytest.raises(BackendError, match="bench-training"):
        command.main(["--torch-python", str(tmp_path / "python")], standalone_mode=False)


def test_the_table_is_made_from_the_newest_records() -> None:
    def record(precision: str, speed: float) -> dict[str, Any]:
        case = _case(precision=precision)
        return {"case": case.to_dict(), **json.loads(json.dumps(_measured(case))), "bound_images_per_s": speed}

    text = speed_of_training([record("float32", 111.0), record("bfloat16", 222.0), record("float32", 333.0)])
    rows = text.splitlines()[2:]
    assert len(rows) == 2 and "111" not in text
    assert "| `binary_resnet`, 32 px, float32 | 80 (80 to 80) |" in rows[0] and "| 333 |" in rows[0]
    assert "1.98 (1.98 to 1.98) | 1.8 met | 0.0 %, met |" in rows[0]
    assert rows[0].endswith("|  |")
    compiled = record("float32", 1.0) | {"xla_speed_up": {"median": 1.25, "low": 1.2, "high": 1.3}}
    assert speed_of_training([compiled]).endswith("| 1.25 (1.20 to 1.30) |\n")
    assert speed_of_training([]) == "Not measured yet.\n"


@pytest.mark.slow
def test_our_side_takes_steps_and_states_its_work(tmp_path: Path) -> None:
    from benchmarks.training.session import Process

    process = Process(OURS, sys.executable, _case(), tmp_path / "log")
    try:
        found = process.ask("outputs", folder=str(tmp_path), images=4)
        window = process.ask("window", steps=1)
    finally:
        process.close()
    # The student's multiply-accumulates at 32 px in bssl_tf/models/README.md, twice.
    assert found["forward_flops"]["student"] == 38191104 and 0 < found["loss"] < 10
    assert len(window["step_s"]) == 1 and 0 < window["loss"] < 10
    with np.load(tmp_path / "weights.npz") as weights, np.load(tmp_path / "ours.npz") as gradients:
        assert set(gradients) < set(weights) and len(gradients) > 30


@pytest.mark.slow
@pytest.mark.parametrize("network", ["binary_resnet", "quicknet", "reactnet_a"])
def test_pytorch_computes_the_same_losses_gradients_views_and_operations(tmp_path: Path, network: str) -> None:
    from benchmarks.training.session import both_sides, compare

    if not TORCH_PYTHON.exists():
        pytest.skip("PyTorch is not installed in .venv-torch, which `make bench-training` makes")
    with both_sides(_case(network), str(TORCH_PYTHON), tmp_path) as sides:
        found = compare(sides, tmp_path, _case(network))
    # The bounds are the benchmark's own; a gradient that flows another way differs by far more.
    assert 2 * sum(found["forward_flops"].values()) < found["step_flops"] < 3 * sum(found["forward_flops"].values())


def test_pytorchs_side_needs_nothing_of_this_project() -> None:
    """Its environment has PyTorch and numpy only."""
    modules = "benchmarks.training.cases, benchmarks.training.worker"
    code = f"import sys, {modules}; print([n for n in sys.modules if n.split('.')[0] in {{'bssl_tf', 'tensorflow'}}])"
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "deploy")}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=True)
    assert done.stdout.strip() == "[]"
    for name in ("pytorch", "networks", "views", "weights"):
        text = (ROOT / "deploy" / "benchmarks" / "training" / f"{name}.py").read_text(encoding="utf-8")
        assert "import bssl_tf" not in text and "from bssl_tf" not in text
