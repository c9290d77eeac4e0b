"""What a run does with the time that it is given: sizes that suit so many images, and as many epochs as fit."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from bssl_tf.errors import ConfigError
from bssl_tf.methods.registry import Sections, over_preset, read_run
from bssl_tf.settings import FinetuneConfig, merge
from bssl_tf.settings.durations import seconds_of

if TYPE_CHECKING:
    from bssl_tf.engine.forecast import Forecast

PRESET = "short"
# Tuned on the embedded images: batch size and Adam's peak rate, for teachers and students. Fine-tuning has its own
# defaults, which suit few labels and many.
_TUNED = {"teacher": (128, 3e-3), "pretrain": (64, 2e-3)}
# An epoch of fewer steps makes batch norm and queues see the same images again and again.
_STEPS_PER_EPOCH = 20
_SMALLEST_BATCH = 16
_LONGEST_QUEUE = 8192
# As many as both papers take; more taught their students nothing. In fine-tuning as many as by default.
_MOST_EPOCHS = {"teacher": 200, "pretrain": 200, "finetune": FinetuneConfig().training.epochs}
# Of the budget, for what a forecast does not see: reading images, a processor that is shared.
_SHARE = 0.9


def within_budget(
    kind: type[Sections],
    settings: dict[str, Any],
    budget: str,
    count: Callable[[dict[str, Any]], int],
    measure: Callable[[dict[str, Any]], Forecast],
) -> tuple[dict[str, Any], str]:
    """The settings of a run that takes about as long as it may, and a line that states what was chosen.

    What `settings` hold stays; the rest comes from the preset `short`, the number of images, and the measured speed.

    Args:
        kind: of which command the run is.
        settings: of the run.
        budget: see `seconds_of`.
        count: how many images a run of such settings trains on, if batch and queue depend on that; these have the
            smallest ones.
        measure: forecasts a run of such settings.

    Raises:
        ConfigError: `settings` name epochs too, or not even one epoch fits.
    """
    allowed = seconds_of(budget)
    if "epochs" in settings.get("training", {}):
        raise ConfigError("training.epochs is set, and --budget chooses it", "Give one of them")
    command = kind().command
    sized = wanted = merge(over_preset(command, PRESET, settings), {"training": {"epochs": 1}})
    if command in _TUNED:
        sized = _sized(kind, wanted, count(_sized(kind, wanted, _SMALLEST_BATCH)))
    found = measure(sized)
    images, stages = found.images, found.steps // found.steps_per_epoch
    epochs = min(_MOST_EPOCHS[command], math.floor((_SHARE * allowed - found.graphs_s) / (stages * found.epoch_s)))
    if epochs < 1:
        least = math.ceil((found.graphs_s + stages * found.epoch_s) / _SHARE / 60)
        raise ConfigError(
            f"{budget} is not enough for an epoch per stage, {images} images at {found.step_s:.3g} s per step",
            f"Give {least}m or more, or use fewer images with --limit",
        )
    chosen = merge(sized, {"training": {"epochs": epochs}})
    run = read_run(kind, chosen)
    training = run.sections.training
    try:
        run.method.check(run.own, training)
    except ConfigError as error:
        raise ConfigError(
            f"{budget} is enough for training.epochs={epochs}, but {error.what}", error.next_step
        ) from error
    queue = f", queue {getattr(run.own, run.method.queue)}" if run.method.queue else ""
    line = (
        f"{budget} for {images} images at {found.step_s:.3g} s per step: {epochs} epochs"
        f"{' per stage' if stages > 1 else ''} of {found.steps_per_epoch} steps, batch size {training.batch_size}, "
        f"learning rate {training.learning_rate:g}{queue}"
    )
    return chosen, line


def _sized(kind: type[Sections], settings: dict[str, Any], images: int) -> dict[str, Any]:
    """Batch size, learning rate and queue for so many images, where `settings` have none."""
    run = read_run(kind, settings)
    most, rate = _TUNED[kind().command]
    fitting = 2 ** int(math.log2(max(images // _STEPS_PER_EPOCH, 1)))
    given = settings.get("training", {})
    batch = given.get("batch_size", min(most, max(_SMALLEST_BATCH, fitting)))
    # Adam's steps are as long as its rate, whatever the batch; their noise falls with the root of it.
    chosen = {"batch_size": batch, "learning_rate": float(f"{rate * math.sqrt(batch / most):.2g}")}
    sized = merge(settings, {"training": chosen | given})
    queue, own = run.method.queue, run.method.name
    if queue and queue not in settings.get(own, {}):
        # Keys of a quarter of an epoch: an image does not meet its own key of the epoch before, nor keys that are old.
        length = max(1, min(_LONGEST_QUEUE, images // 4) // batch) * batch
        sized = merge(sized, {own: {queue: length}})
    return sized
