"""Compares the two sides of a case and measures them interleaved: one computes while the other waits."""

from __future__ import annotations

import contextlib
import json
import math
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from benchmarks.others import OthersClock
from benchmarks.timing import ratio
from benchmarks.training import cases
from benchmarks.training.cases import Case
from bssl_tf.errors import BackendError, TrainingError

OURS, PYTORCH, XLA = "ours", "pytorch", "ours_xla"
_MODULES = {name: f"benchmarks.training.{'pytorch' if name == PYTORCH else 'ours'}" for name in (OURS, PYTORCH, XLA)}
_COMPARED_IMAGES = 16
# A sign within rounding of zero may differ, and batch norm spreads it over the batch.
_LOSS_TOLERANCE, _GRADIENT_TOLERANCE, _VIEW_TOLERANCE = 1e-4, 0.02, 1e-3
# Threads that spin for some milliseconds after their work go to sleep.
_PAUSE_S = 0.2


class Side(Protocol):
    """A process that answers; see `worker`."""

    def ask(self, do: str, **arguments: Any) -> Any:
        """The answer to a request."""


class Process:
    """A side's process, and the pipe to it.

    Args:
        name: a key of `_MODULES`.
        python: the interpreter of its environment.
        case: what it builds.
        log: file for what it prints.
    """

    def __init__(self, name: str, python: str, case: Case, log: Path) -> None:
        self._name, self._log = name, log
        # PyTorch's environment has nothing of this project but this package, which is not installed.
        path = [str(Path(__file__).parents[2]), *filter(None, [os.getenv("PYTHONPATH")])]
        try:
            with log.open("w", encoding="utf-8") as file:
                self._process = subprocess.Popen(
                    [python, "-m", _MODULES[name], json.dumps(case.to_dict()), *(["xla"] if name == XLA else [])],
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    stderr=file,
                    text=True,
                    env={**os.environ, "PYTHONPATH": os.pathsep.join(path)},
                )
        except OSError as error:
            raise BackendError(f"{python} cannot be started ({error.strerror})", "Check --torch-python") from error

    @property
    def number(self) -> int:
        """Of the process, in the system."""
        return self._process.pid

    def ask(self, do: str, **arguments: Any) -> Any:
        """The answer to a request. Raises `BackendError` if the process ends instead."""
        assert self._process.stdin is not None and self._process.stdout is not None
        line = ""
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.write(json.dumps({"do": do, **arguments}) + "\n")
            self._process.stdin.flush()
            line = self._process.stdout.readline()
        if not line:
            status = self._process.wait()
            printed = self._log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
            said = printed[-1] if printed else "no message"
            raise BackendError(
                f"the process of {self._name} ended by status {status} at {do!r}: {said}",
                "Check that its environment is complete: `make bench-training` makes PyTorch's",
            )
        return json.loads(line)

    def close(self) -> None:
        """Ends the process: at the end of its input it does so itself, unless it is in the middle of something."""
        assert self._process.stdin is not None
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.close()
        try:
            self._process.wait(5)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


@contextlib.contextmanager
def both_sides(case: Case, torch_python: str, folder: Path, *, xla: bool = False) -> Iterator[dict[str, Process]]:
    """The processes of a case, by name, with `xla` ours twice; they end with the block."""
    with contextlib.ExitStack() as stack:
        sides = {}
        for name in (OURS, PYTORCH, *([XLA] if xla else [])):
            python = torch_python if name == PYTORCH else sys.executable
            sides[name] = Process(name, python, case, folder / f"{name}.log")
            stack.callback(sides[name].close)
        yield sides


def measure(
    case: Case, torch_python: str, *, rounds: int, window_s: float, profile_steps: int, xla: bool = False
) -> dict[str, Any]:
    """All that a record has of a case but its conditions.

    Args:
        case: what to measure.
        torch_python: interpreter of an environment with PyTorch.
        rounds: each has a window of steps of either side.
        window_s: about how long the timed steps of a window take on the slower side.
        profile_steps: of our side, afterwards; 0 for none.
        xla: whether our side is measured once more, compiled by XLA.

    Raises:
        BackendError: a side cannot be started, or fails.
        TrainingError: the sides do not compute the same.
    """
    with tempfile.TemporaryDirectory() as folder, both_sides(case, torch_python, Path(folder), xla=xla) as sides:
        versions = {name: version for side in sides.values() for name, version in side.ask("versions").items()}
        agreement = compare(sides, Path(folder), case)
        rates = {name: side.ask("matrix_rate") for name, side in sides.items()}
        others = OthersClock([side.number for side in sides.values()])
        windows = interleave(sides, rounds=rounds, window_s=window_s, seed=case.seed)
        others_cores = others.cores()
        profiled = sides[OURS].ask("profile", steps=profile_steps) if profile_steps else None
    return {
        "versions": versions,
        "agreement": agreement,
        "matrix_flops_per_s": rates,
        "windows": windows,
        "others_cores": others_cores,
        "profile_s": profiled,
        **summary(case, windows, rates, agreement["step_flops"]),
    }


def compare(sides: Mapping[str, Side], folder: Path, case: Case) -> dict[str, Any]:
    """Gives both sides the same weights and images, and refuses sides that do not compute the same.

    Returns:
        `loss` by side; `loss_difference` and `gradient_difference`, relative; `view_difference`, largest;
        `forward_flops` of an image by part, and `step_flops`, of an image in a step.

    Raises:
        TrainingError: losses, gradients, views or the number of operations differ.
    """
    images = min(_COMPARED_IMAGES, case.batch_size)
    ours = sides[OURS].ask("outputs", folder=str(folder), images=images)
    theirs = sides[PYTORCH].ask("outputs", folder=str(folder))
    with np.load(folder / "ours.npz") as a, np.load(folder / "pytorch.npz") as b:
        if set(a) != set(b):
            raise TrainingError(
                f"{case.name}: gradients are of other weights: {sorted(set(a) ^ set(b))}", "Fix deploy/benchmarks"
            )
        ours_gradient, their_gradient = (
            np.concatenate([found[name].ravel() for name in sorted(a)]) for found in (a, b)
        )
    with np.load(folder / "images.npz") as found:
        # Where a value lies on a border between two of its cases, all of a view may differ a little.
        view_difference = float(np.quantile(np.abs(found["view"] - np.load(folder / "view.npy")), 0.99))
    found_differences = {
        "loss_difference": abs(ours["loss"] - theirs["loss"]) / abs(ours["loss"]),
        "gradient_difference": float(
            np.linalg.norm(ours_gradient - their_gradient) / max(float(np.linalg.norm(ours_gradient)), 1e-30)
        ),
        "view_difference": view_difference,
    }
    limits = (_LOSS_TOLERANCE, _GRADIENT_TOLERANCE, _VIEW_TOLERANCE)
    for (name, value), limit in zip(found_differences.items(), limits, strict=True):
        if not value <= limit:
            raise TrainingError(
                f"{case.name}: the two sides do not compute the same ({name} {value:.2g}, at most {limit:g})",
                "Fix deploy/benchmarks/training",
            )
    if ours["forward_flops"] != theirs["forward_flops"]:
        raise TrainingError(
            f"{case.name}: the two sides do other work: {ours['forward_flops']} and {theirs['forward_flops']}",
            "Fix deploy/benchmarks/training",
        )
    return {
        "images": images,
        "loss": {OURS: ours["loss"], PYTORCH: theirs["loss"]},
        **found_differences,
        "forward_flops": ours["forward_flops"],
        "step_flops": theirs["step_flops"],
    }


def interleave(
    sides: Mapping[str, Side], *, rounds: int, window_s: float, seed: int, pause_s: float = _PAUSE_S
) -> dict[str, list[dict[str, Any]]]:
    """Windows of the sides in rounds, each in an order drawn anew; both have the same number of steps.

    Before them, two windows of each make graphs, reach the memory that is needed, and give the number of steps.

    Returns:
        For each side a window for each round, as `worker.timed_steps` has it.
    """
    slowest = 0.0
    for side in sides.values():
        side.ask("window", steps=1)
        slowest = max(slowest, float(np.median(side.ask("window", steps=2)["step_s"])))
    steps = max(2, math.ceil(window_s / slowest))
    order = np.random.default_rng(seed)
    names = list(sides)
    windows: dict[str, list[dict[str, Any]]] = {name: [] for name in names}
    for _ in range(rounds):
        for place in order.permutation(len(names)):
            time.sleep(pause_s)
            window = sides[names[place]].ask("window", steps=steps)
            if not math.isfinite(window["loss"]):
                raise TrainingError(f"the loss of {names[place]} is {window['loss']}", "Choose another --seed")
            windows[names[place]].append(window)
    return windows


def summary(
    case: Case,
    windows: Mapping[str, Sequence[Mapping[str, Any]]],
    rates: Mapping[str, Mapping[str, float]],
    step_flops: float,
) -> dict[str, Any]:
    """What the windows come to.

    Returns:
        `images_per_s` by side, p10, p50 and p90 over windows; `speed_up`, how many times as fast ours is, with a 95 %
        interval (bootstrap over rounds); `input_share` by side, of the time of all steps; `bound_images_per_s`, what
        the faster library's matrix products would allow if a step were nothing else, and `bound_share` by side; where
        XLA was measured, `xla_speed_up`, how many times as fast it makes ours.
    """
    seconds = {name: np.array([[np.mean(one["step_s"])] for one in found]) for name, found in windows.items()}
    bound = max(side[case.precision] for side in rates.values()) / step_flops
    speeds = {name: case.batch_size / found[:, 0] for name, found in seconds.items()}
    quantiles = {name: [float(v) for v in np.percentile(found, (10, 50, 90))] for name, found in speeds.items()}
    compared = ratio(1e3 * seconds[PYTORCH], 1e3 * seconds[OURS], seed=case.seed)
    goal = cases.GOALS[case.precision]
    share = {
        name: sum(sum(one["input_s"]) for one in found) / sum(sum(one["step_s"]) for one in found)
        for name, found in windows.items()
    }
    compiled = {}
    if XLA in seconds:
        found = ratio(1e3 * seconds[OURS], 1e3 * seconds[XLA], seed=case.seed)
        compiled = {"xla_speed_up": {"median": found.median, "low": found.low, "high": found.high}}
    return {
        **compiled,
        "images_per_s": {
            name: dict(zip(("p10", "p50", "p90"), found, strict=True)) for name, found in quantiles.items()
        },
        "speed_up": {"median": compared.median, "low": compared.low, "high": compared.high},
        "input_share": share,
        "bound_images_per_s": bound,
        "bound_share": {name: found[1] / bound for name, found in quantiles.items()},
        "goals": {
            "speed_up": goal,
            "speed_up_met": compared.low >= goal,
            "input_share": cases.MOST_INPUT_SHARE,
            "input_share_met": share[OURS] < cases.MOST_INPUT_SHARE,
        },
    }
