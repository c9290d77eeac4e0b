"""Where the time of a step goes: a table, and a trace for TensorBoard."""

from __future__ import annotations

import itertools
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bssl_tf.backend import tf
from bssl_tf.data.views import Batch
from bssl_tf.descent import gradients_of
from bssl_tf.engine.device import refusals_named
from bssl_tf.engine.distribution import Distribution
from bssl_tf.engine.inputs import Inputs, LabelledInputs
from bssl_tf.engine.stages import Stage
from bssl_tf.engine.step import graph_maker, make_optimizer, make_step, objective_of, split
from bssl_tf.files import storage_errors
from bssl_tf.methods.recipe import Recipe
from bssl_tf.settings import TrainingConfig

# They make graphs and fill queues.
_UNTIMED_STEPS = 2
_TRACED_STEPS = 5
_PIECES = ("teacher", "forward", "gradients")


@dataclass(frozen=True)
class Profile:
    """Where the time of a step goes.

    Attributes:
        steps: those that were timed.
        seconds: of a step, medians, by part: `input` (waiting for images), `teacher`, `forward` and `backward` (student
            and heads), `optimizer` (weights, the method's own state, and what Python does for each step).
        trace: folder of a trace of some more steps, for TensorBoard's profiler.
    """

    steps: int
    seconds: dict[str, float]
    trace: Path


def profile(
    build: Callable[[Stage], Recipe],
    stages: Sequence[Stage],
    inputs: Inputs | LabelledInputs,
    config: TrainingConfig,
    distribution: Distribution,
    steps: int,
    trace: Path,
) -> Profile:
    """Takes steps of the last stage, first as in training, then in pieces: teacher; forward pass; that and gradients.

    A piece is what the next larger one takes longer. Nothing of the run is written.

    Args:
        build, stages, inputs, config, distribution: as for `loop.train`.
        steps: how many to time of each.
        trace: where to write a trace.

    Raises:
        StorageError: the trace cannot be written.
    """
    with distribution.scope(), distribution.losses_named(), refusals_named():
        recipe = build(stages[-1])
        optimizer = make_optimizer(config)
        optimizer.build(recipe.trainable_variables())
        step = make_step(recipe, optimizer, config.weight_decay, parts=config.accumulate, xla=config.xla)
        scheduled = tf.constant(recipe.scheduled(0.0), tf.float32)
        rate = tf.constant(config.learning_rate, tf.float32)

        def train_by(batch: Any) -> None:
            for value in step(batch, rate, scheduled).values():
                float(value)

        last = _UNTIMED_STEPS + steps + _TRACED_STEPS
        stream = distribution.batches(lambda shard: inputs.batches(recipe, config, 0, last, shard))
        spans: dict[str, list[float]] = {"input": [], "step": []}
        began = time.monotonic()
        for number, batch in enumerate(itertools.islice(stream, _UNTIMED_STEPS + steps)):
            here = time.monotonic()
            train_by(batch)
            done = time.monotonic()
            if number >= _UNTIMED_STEPS:
                spans["input"].append(here - began)
                spans["step"].append(done - here)
            began = done
        with storage_errors(trace):
            tf.profiler.experimental.start(str(trace))
            for number, batch in enumerate(stream):
                with tf.profiler.experimental.Trace("step", step_num=number, _r=1):
                    train_by(batch)
            tf.profiler.experimental.stop()
        pieces = _pieces(recipe, optimizer, config, distribution)
        spans |= {name: [] for name in pieces}
        # In turns, so that another process on the machine slows all of them.
        for number in range(_UNTIMED_STEPS + steps):
            for name, piece in pieces.items():
                began = time.monotonic()
                piece(batch, scheduled)
                if number >= _UNTIMED_STEPS:
                    spans[name].append(time.monotonic() - began)
    seconds = {name: statistics.median(times) for name, times in spans.items()}
    # One after the other within a larger piece; rounding must not make one negative.
    larger = (*_PIECES, "step")
    ends = dict(zip(larger, itertools.accumulate((seconds[name] for name in larger), max), strict=True))
    return Profile(
        steps,
        {
            "input": seconds["input"],
            "teacher": ends["teacher"],
            "forward": ends["forward"] - ends["teacher"],
            "backward": ends["gradients"] - ends["forward"],
            "optimizer": ends["step"] - ends["gradients"],
        },
        trace,
    )


def _pieces(
    recipe: Recipe, optimizer: Any, config: TrainingConfig, distribution: Distribution
) -> dict[str, Callable[[Any, tf.Tensor], float]]:
    """The teacher, the forward pass, and that and the backward pass, of a batch; each waits for its result."""
    objective, variables, strategy = objective_of(recipe), recipe.trainable_variables(), distribution.strategy
    graph = graph_maker(config.xla)

    def of_teacher(batch: Batch, scheduled: tf.Tensor) -> tf.Tensor:
        if recipe.teacher_outputs is None or batch.teacher:
            return tf.zeros(())
        return tf.add_n([tf.reduce_sum(recipe.teacher_outputs(view)) for view in batch.views])

    @graph
    def teacher(batch: Any, scheduled: tf.Tensor) -> Any:
        return strategy.run(of_teacher, (batch, scheduled))

    @graph
    def forward(batch: Any, scheduled: tf.Tensor) -> Any:
        return strategy.run(lambda *own: objective(*own)[0], (batch, scheduled))

    @graph
    def gradients(batch: Any, scheduled: tf.Tensor) -> Any:
        found, _ = gradients_of(objective, (batch, scheduled), variables, optimizer, weight_decay=config.weight_decay)
        return strategy.run(tf.linalg.global_norm, (found,))

    def in_parts(function: Callable[[Any, tf.Tensor], Any]) -> Callable[[Any, tf.Tensor], float]:
        def run(batch: Any, scheduled: tf.Tensor) -> float:
            parts = [batch] if config.accumulate == 1 else split(batch, config.accumulate)
            return sum(float(distribution.first(function(part, scheduled))) for part in parts)

        return run

    return {name: in_parts(piece) for name, piece in zip(_PIECES, (teacher, forward, gradients), strict=True)}
