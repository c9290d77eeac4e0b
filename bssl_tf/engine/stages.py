"""Multi-stage training: what is binary in each stage."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class Stage:
    """One stage, with a fresh optimiser and its own schedule.

    Attributes:
        name: in logs and checkpoints.
        binary_weights: whether weights are binary; activations always are in a binary network.
        epochs: how long it lasts.
    """

    name: str
    binary_weights: bool
    epochs: int


def progressive_binarization(epochs: int) -> tuple[Stage, ...]:
    """Binary activations first, then binary weights too (S2-BNN, section 3.1; BSSL, section 4.3)."""
    return Stage("binary_activations", False, epochs), Stage("binary_weights", True, epochs)


def direct(epochs: int) -> tuple[Stage, ...]:
    """Both at once from the beginning, for as many epochs as the two stages have together."""
    return (Stage("binary", True, 2 * epochs),)


STAGES: dict[str, Callable[[int], tuple[Stage, ...]]] = {"progressive": progressive_binarization, "direct": direct}
