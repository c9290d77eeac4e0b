"""Both ends of the pipe between the benchmark and a side's process: one JSON object a line, a request and its answer.

A side's process starts with its case as only argument. While it is not asked anything it waits for the next line, so
it uses no processor. Loads neither TensorFlow nor PyTorch, nor anything of this project.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

# What was prefetched while the process waited, and one more that fills the pipeline again.
UNTIMED_STEPS = 4
_MATRIX_SIDE, _MATRIX_S = 2048, 1.5


def serve(handlers: Mapping[str, Callable[..., Any]]) -> None:
    """Answers requests `{"do": NAME, ...arguments}` until standard input ends."""
    # Libraries print to standard output, too.
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    for line in sys.stdin:
        request = json.loads(line)
        answer = handlers[request.pop("do")](**request)
        answers.write(json.dumps(answer) + "\n")
        answers.flush()


def timed_steps(batches: Iterator[Any], train_by: Callable[[Any], float], steps: int) -> dict[str, Any]:
    """Takes `UNTIMED_STEPS` and then `steps` steps that are timed.

    Args:
        batches: endless.
        train_by: takes one step to its end and returns its loss.
        steps: at least 1.

    Returns:
        `input_s`, the wait for each batch, `step_s`, from one step's end to the next, lists of seconds, and `loss`.
    """
    input_s, step_s = [], []
    loss = 0.0
    for number in range(UNTIMED_STEPS + steps):
        began = time.perf_counter()
        batch = next(batches)
        here = time.perf_counter()
        loss = train_by(batch)
        ended = time.perf_counter()
        if number >= UNTIMED_STEPS:
            input_s.append(here - began)
            step_s.append(ended - began)
    return {"input_s": input_s, "step_s": step_s, "loss": loss}


def matrix_flops_per_s(multiply: Callable[[], object]) -> float:
    """The fastest of some products of 2048 by 2048 matrices, in operations a second, 2 for each product and sum.

    Args:
        multiply: makes one such product, to its end.
    """
    multiply()
    fastest, spent = float("inf"), 0.0
    while spent < _MATRIX_S:
        began = time.perf_counter()
        multiply()
        took = time.perf_counter() - began
        fastest, spent = min(fastest, took), spent + took
    return 2.0 * _MATRIX_SIDE**3 / fastest


def matrix_shape() -> tuple[int, int]:
    """Of the matrices for `matrix_flops_per_s`."""
    return _MATRIX_SIDE, _MATRIX_SIDE
