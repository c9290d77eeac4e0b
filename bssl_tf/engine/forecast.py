"""What a run will take, from a few of its steps: time, memory, disk."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from safetensors.numpy import save

from bssl_tf.backend import tf
from bssl_tf.data.views import steps_per_epoch
from bssl_tf.engine.device import refusals_named
from bssl_tf.engine.distribution import Distribution
from bssl_tf.engine.inputs import Inputs, LabelledInputs
from bssl_tf.engine.loop import checkpointed
from bssl_tf.engine.probe import Probe, Validation
from bssl_tf.engine.stages import Stage
from bssl_tf.engine.step import make_optimizer, make_step
from bssl_tf.memory import peak_bytes
from bssl_tf.methods.recipe import Recipe
from bssl_tf.settings import TrainingConfig

_MEASURED_STEPS, _MEASURED_S = 20, 20.0
# Two are kept while a third is written.
_CHECKPOINTS = 3


@dataclass(frozen=True)
class Forecast:
    """What a run will take.

    Attributes:
        images: N training images.
        steps: of all stages together.
        steps_per_epoch: full batches of these images.
        measured_steps: those that were taken for this.
        step_s: seconds per step, the median.
        epoch_s: seconds of an epoch, with its checkpoint and its share of probes.
        graphs_s: seconds until the graphs of all stages are made.
        total_s: seconds of all of that.
        peak_memory_bytes: most memory of this process that was resident at once.
        peak_device_bytes: most memory of the first GPU that was taken at once; 0 without one.
        disk_bytes: most that the run folder will hold at once.
    """

    images: int
    steps: int
    steps_per_epoch: int
    measured_steps: int
    step_s: float
    epoch_s: float
    graphs_s: float
    total_s: float
    peak_memory_bytes: int
    peak_device_bytes: int
    disk_bytes: int


def forecast(
    build: Callable[[Stage], Recipe],
    stages: Sequence[Stage],
    inputs: Inputs | LabelledInputs,
    config: TrainingConfig,
    probe: Probe | Validation | None,
    distribution: Distribution,
) -> Forecast:
    """Takes steps of each stage, makes a checkpoint in memory and measures a probe; writes nothing.

    Args:
        build, stages, inputs, config, probe, distribution: as for `loop.train`.
    """
    per_epoch = steps_per_epoch(len(inputs), config.batch_size)
    steps = per_epoch * sum(stage.epochs for stage in stages)
    graphs_s, recipes = 0.0, []
    with distribution.scope(), distribution.losses_named(), refusals_named():
        for stage in stages:
            # All are kept until the end of a run, and their graphs take memory.
            recipes.append(build(stage))
            recipe = recipes[-1]
            optimizer = make_optimizer(config)
            optimizer.build(recipe.trainable_variables())
            step = make_step(recipe, optimizer, config.weight_decay, parts=config.accumulate, xla=config.xla)
            times = _times(step, recipe, inputs, config, distribution, steps if stage is stages[-1] else 1)
            graphs_s += times[0]
        tensors = {name: np.asarray(variable) for name, variable in checkpointed(recipe, optimizer).items()}
        began = time.monotonic()
        checkpoint_bytes = len(save(tensors))
        saved = time.monotonic()
        if probe is not None:
            probe.measure(recipe.trained[probe.part])
        probed = time.monotonic()
    step_s = statistics.median(times[1:] or times)
    epochs = sum(stage.epochs for stage in stages)
    probes = sum(-(-stage.epochs // probe.every) for stage in stages) if probe is not None else 0
    checkpoint_s, probe_s = saved - began, probed - saved
    network_bytes = sum(4 * model.count_params() for model in recipe.trained.values())
    return Forecast(
        images=inputs.total,
        steps=steps,
        steps_per_epoch=per_epoch,
        measured_steps=max(1, len(times) - 1),
        step_s=step_s,
        epoch_s=per_epoch * step_s + checkpoint_s + (probe_s / probe.every if probe is not None else 0),
        graphs_s=graphs_s,
        total_s=steps * step_s + graphs_s + epochs * checkpoint_s + probes * probe_s,
        peak_memory_bytes=peak_bytes(),
        peak_device_bytes=_peak_device_bytes(),
        # The result, what it was and will be where the best is kept, and what it starts from then.
        disk_bytes=_CHECKPOINTS * checkpoint_bytes
        + network_bytes * (5 if probe is not None and probe.keeps_best else 1),
    )


def _times(
    step: Callable[..., Any],
    recipe: Recipe,
    inputs: Inputs | LabelledInputs,
    config: TrainingConfig,
    distribution: Distribution,
    most: int,
) -> list[float]:
    """Seconds of steps, of which the first one makes the graph."""
    count = min(_MEASURED_STEPS + 1, most)
    rate, scheduled = tf.constant(config.learning_rate, tf.float32), tf.constant(recipe.scheduled(0.0), tf.float32)
    times: list[float] = []
    before = time.monotonic()
    for batch in distribution.batches(lambda shard: inputs.batches(recipe, config, 0, count, shard)):
        float(step(batch, rate, scheduled)["loss"])
        now = time.monotonic()
        times.append(now - before)
        before = now
        if distribution.any(sum(times[1:]) > _MEASURED_S):
            break
    return times


def _peak_device_bytes() -> int:
    if not tf.config.list_logical_devices("GPU"):
        return 0
    return int(tf.config.experimental.get_memory_info("GPU:0")["peak"])
