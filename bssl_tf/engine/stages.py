"""Multi-stage training: what is binary in each stage, and at which steps stages end."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace


@dataclass(frozen=True)
class Stage:
    """One stage, with a fresh optimiser and its own schedule.

    Attributes:
        name: in logs and checkpoints.
        binary_weights: whether weights are binary.
        epochs: how long it lasts.
        binary_activations: whether activations are, as always but for a float twin.
    """

    name: str
    binary_weights: bool
    epochs: int
    binary_activations: bool = True


def progressive_binarization(epochs: int) -> tuple[Stage, ...]:
    """Binary activations first, then binary weights too (S2-BNN, section 3.1; BSSL, section 4.3)."""
    return Stage("binary_activations", False, epochs), Stage("binary_weights", True, epochs)


def direct(epochs: int) -> tuple[Stage, ...]:
    """Both at once from the beginning, for as many epochs as the two stages have together."""
    return (Stage("binary", True, 2 * epochs),)


def in_float(epochs: int) -> tuple[Stage, ...]:
    """Nothing is binary: one stage, for `epochs` epochs."""
    return (Stage("float", False, epochs, binary_activations=False),)


STAGES: dict[str, Callable[[int], tuple[Stage, ...]]] = {"progressive": progressive_binarization, "direct": direct}


@dataclass(frozen=True)
class Plan:
    """How long the stages of a run are, as decided at a step of it.

    Attributes:
        step: from this step on it holds, until the next plan's.
        stages: all of the run. Those that had ended by then keep the length that they had, the last one does not.
    """

    step: int
    stages: tuple[Stage, ...]


def plans_of(stages: Sequence[Stage], epochs: int, planned: Sequence[tuple[int, int]]) -> list[Plan]:
    """`stages`, of a run of so many epochs, as long as they were to be at each time: pairs of a step and epochs."""
    return [
        Plan(step, tuple(replace(stage, epochs=stage.epochs * then // epochs) for stage in stages))
        for step, then in planned
    ]


def stage_ends(plans: Sequence[Plan], per_epoch: int) -> list[list[int]]:
    """The steps after which the stages end, for each plan as it was at its time."""
    ends: list[list[int]] = []
    for plan in plans:
        found: list[int] = []
        for number, stage in enumerate(plan.stages):
            over = bool(ends) and ends[-1][number] <= plan.step and number < len(plan.stages) - 1
            found.append(ends[-1][number] if over else sum(found[-1:]) + stage.epochs * per_epoch)
        ends.append(found)
    return ends
