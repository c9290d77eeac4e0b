"""Learning rates and loss weights as functions of the step; plain Python, so that a test is a line."""

from __future__ import annotations

import math


def linear_decay(step: int, total_steps: int) -> float:
    """1 at the first step, falling in a straight line to 0 at `total_steps`.

    S2-BNN's released code decays so, by epoch, under a flag that is called cosine; here it goes step by step.
    """
    return 1.0 - step / total_steps


def warmup_cosine(step: int, total_steps: int, warmup_steps: int) -> float:
    """Rises in a straight line to 1 over `warmup_steps`, then falls along half a cosine to 0 at `total_steps`.

    Source: BSSL (arXiv 2110.08851), section 5, after SGDR (arXiv 1608.03983).
    """
    if step < warmup_steps:
        return (step + 1) / warmup_steps
    remaining = max(1, total_steps - warmup_steps)
    return (1.0 + math.cos(math.pi * (step - warmup_steps) / remaining)) / 2.0


def dynamic_balance(progress: float, start: float, end: float) -> float:
    """The weight lambda of the KL term, from `start` at progress 0 to `end` at progress 1, along half a cosine.

    Source: BSSL (arXiv 2110.08851), section 4.2, eq. 5.
    """
    return end - (end - start) * (math.cos(math.pi * progress) + 1.0) / 2.0
