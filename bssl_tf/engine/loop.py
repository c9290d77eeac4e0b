"""The training loop: steps, metrics, checkpoints, Ctrl-C.

A run repeats bit for bit, and so does a run that was killed at any moment and resumed: the batch of a step depends on
the seed and the step alone (data.views), every op is deterministic (backend.configure), and a checkpoint holds every
variable that a step reads.
"""

from __future__ import annotations

import contextlib
import logging
import math
import shlex
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

from bssl_tf.backend import keras, optimizer_variables, tf
from bssl_tf.checkpoints import match_tensors
from bssl_tf.data.views import steps_per_epoch
from bssl_tf.engine.device import refusals_named
from bssl_tf.engine.distribution import ALONE, Distribution
from bssl_tf.engine.inputs import Inputs, LabelledInputs
from bssl_tf.engine.interruption import stop_requests
from bssl_tf.engine.not_finite import first_not_finite, is_finite
from bssl_tf.engine.probe import Probe, Validation
from bssl_tf.engine.run_folder import Checkpoint, RunFolder, score_of
from bssl_tf.engine.stages import Plan, Stage, stage_ends
from bssl_tf.engine.step import make_optimizer, make_step
from bssl_tf.engine.tracking import tracked
from bssl_tf.errors import Interrupted, RunFolderError, TrainingError
from bssl_tf.methods.recipe import Recipe
from bssl_tf.models.binarization import named_weights, take_weights
from bssl_tf.progress import progress
from bssl_tf.schedules import linear_decay, warmup_cosine
from bssl_tf.settings import TrainingConfig

_SECONDS = "seconds"
_log = logging.getLogger(__name__)
_LOWER = "Lower --learning-rate and restart; the last checkpoint is from before it went wrong"


def train(
    run: RunFolder,
    stages: Sequence[Stage],
    build: Callable[[Stage], Recipe],
    inputs: Inputs | LabelledInputs,
    config: TrainingConfig,
    probe: Probe | Validation | None = None,
    distribution: Distribution = ALONE,
    plans: Sequence[Plan] = (),
) -> Recipe:
    """Trains through all stages, from the newest checkpoint of `run` if it has one.

    Args:
        run: an open run folder, locked by the caller.
        stages: one after another; each begins with the trained networks of the one before it.
        build: makes the recipe for a stage; it must build the same networks each time it is called.
        inputs: images and how they become views.
        config: how to optimise.
        probe: measures the network every few epochs, and at the end of each stage.
        distribution: the devices that train it together.
        plans: of a run that was made longer, all that it had; the last one has `stages`.

    Returns:
        The recipe of the last stage, trained.

    Raises:
        DataError: fewer images than a batch.
        TrainingError: the loss is not finite.
        RunFolderError: the checkpoints do not fit or are corrupt.
        Interrupted: Ctrl-C or SIGTERM; a checkpoint was written.
        StorageError: the disk is full; the last checkpoint is whole.
        WorkerError: another worker has stopped.
    """
    per_epoch = steps_per_epoch(len(inputs), config.batch_size)
    plans = plans or (Plan(0, tuple(stages)),)
    planned = stage_ends(plans, per_epoch)
    ends = planned[-1]
    found = run.latest_checkpoint()
    done = found.step if found else 0
    if found:
        _check_place(found, stages, ends)
    if not distribution.agree(done):
        raise RunFolderError(
            f"not all workers see the same checkpoints in {run.path} (this one's is from step {done})",
            "Put the run folder on a file system that all workers share",
        )
    run.rewind_metrics(done)

    recipe: Recipe | None = None
    curves = tracked(run, config) if distribution.is_chief else contextlib.nullcontext()
    with (
        stop_requests() as stop_requested,
        distribution.scope(),
        distribution.losses_named(),
        refusals_named(),
        curves,
    ):
        for number, (stage, begin, end) in enumerate(zip(stages, [0, *ends], ends, strict=False)):
            # A checkpoint on the border belongs to the stage that ends there; the next one takes its networks over.
            if found and done > end:
                continue
            previous, recipe = recipe, build(stage)
            spans = [(plan.step, found_ends[number] - begin) for plan, found_ends in zip(plans, planned, strict=True)]
            loop = _StageLoop(run, stage, recipe, inputs, config, begin, end, spans, per_epoch, probe, distribution)
            if found and begin < done <= end:
                loop.restore(found)
            elif previous is not None:
                _take_over(previous, recipe)
            loop.run(stop_requested, patience=config.patience if end == ends[-1] else 0)
    assert recipe is not None
    return recipe


def checkpointed(recipe: Recipe, optimizer: Any) -> dict[str, tf.Variable]:
    """Everything that a step reads and some step writes, by a name that is the same in every process."""
    named = named_variables(recipe.trained | recipe.companions)
    named |= {f"state/{name}": variable for name, variable in recipe.state.items()}
    named |= {f"optimizer/{i:04d}": variable for i, variable in enumerate(optimizer_variables(optimizer))}
    return named


def named_variables(models: Mapping[str, keras.Model]) -> dict[str, tf.Variable]:
    """The variables of networks by name, as checkpoints have them."""
    return {f"{part}/{name}": w for part, model in models.items() for name, w in named_weights(model).items()}


class _StageLoop:
    """One stage: a fresh optimiser, its steps, its checkpoints."""

    def __init__(
        self,
        run: RunFolder,
        stage: Stage,
        recipe: Recipe,
        inputs: Inputs | LabelledInputs,
        config: TrainingConfig,
        begin: int,
        end: int,
        spans: Sequence[tuple[int, int]],
        per_epoch: int,
        probe: Probe | Validation | None,
        distribution: Distribution,
    ) -> None:
        self._run, self._stage, self._recipe = run, stage, recipe
        self._inputs, self._config, self._probe = inputs, config, probe
        self._begin, self._end, self._per_epoch = begin, end, per_epoch
        self._spans = spans
        self._distribution = distribution
        self._optimizer = make_optimizer(config)
        self._optimizer.build(recipe.trainable_variables())
        self._step_function = make_step(
            recipe, self._optimizer, config.weight_decay, parts=config.accumulate, xla=config.xla
        )
        self._variables = checkpointed(recipe, self._optimizer)
        self._done = begin
        self._sums: dict[str, float] = {}

    def restore(self, checkpoint: Checkpoint) -> None:
        """Puts the loop where the checkpoint was written."""
        variables = self._variables
        match_tensors(
            checkpoint.path, checkpoint.tensors, {key: variable.numpy() for key, variable in variables.items()}
        )
        for key, variable in variables.items():
            variable.assign(checkpoint.tensors[key])
        self._done, self._sums = checkpoint.step, dict(checkpoint.sums)

    def _checkpoint(self) -> None:
        tensors = {name: variable.numpy() for name, variable in self._variables.items()}
        # The loss of the step before was finite all the same; nobody could go on from this.
        spoilt = next((name for name, tensor in tensors.items() if not is_finite(tensor)), None)
        if spoilt is not None:
            raise TrainingError(f"{spoilt} is not finite after step {self._done}", _LOWER)
        self._run.save_checkpoint(self._done, self._stage.name, tensors, self._sums)

    def run(self, stop_requested: Callable[[], bool], *, patience: int) -> None:
        """Trains to the end of the stage, or until so many probes in a row were no better than one before them."""
        config = self._config
        # Since the stage began or was made longer.
        since = max(self._begin, self._spans[-1][0])
        scores = self._run.scores(since, self._done) if patience else []
        if self._done == self._end or _exhausted(scores, patience):
            return
        stream = self._distribution.batches(
            lambda shard: self._inputs.batches(self._recipe, config, self._done, self._end, shard)
        )
        saved_at = epoch_began = stepped = time.monotonic()
        epoch_first = self._done
        total = self._end - self._begin
        with progress(total=total, description=self._stage.name, done=self._done - self._begin) as bar:
            unread: Callable[[], dict[str, float]] | None = None
            for batch in stream:
                step, steps = self._done - self._begin, self._planned_steps()
                rate = config.learning_rate * self._schedule(step, steps)
                losses = self._step_function(
                    batch, tf.constant(rate, tf.float32), tf.constant(self._recipe.scheduled(step / steps), tf.float32)
                )
                # Those of the step before, and not sooner, so that a GPU has a step to do while Python gets them.
                parts = unread() if unread is not None else {}
                self._done += 1
                unread = partial(self._read, self._done, losses, batch)
                epoch_ended = (self._done - self._begin) % self._per_epoch == 0
                if epoch_ended:
                    parts, unread = unread(), None

                now = time.monotonic()
                # Kept in the checkpoint with the sums, so that a cut does not make an epoch look shorter.
                self._sums[_SECONDS] = self._sums.get(_SECONDS, 0.0) + now - stepped
                stepped = now
                images = (self._done - epoch_first) * config.batch_size * self._inputs.per_row
                images_per_s = images / (now - epoch_began)
                bar.set_postfix(
                    {k: f"{v:.3f}" for k, v in parts.items()} | {"images/s": f"{images_per_s:.0f}"}, refresh=False
                )
                bar.update()

                if epoch_ended:
                    self._record_epoch(rate, images_per_s)
                    scores += self._record_probe()
                    # Its time is not training's.
                    epoch_began, epoch_first = time.monotonic(), self._done
                    stepped += epoch_began - now
                # Workers decide together: one that stops a step earlier would leave the others waiting.
                due = self._distribution.any(stop_requested() or now - saved_at > config.checkpoint_every_s)
                if epoch_ended or due:
                    if unread is not None:
                        unread()
                        unread = None
                    self._checkpoint()
                    saved_at = now
                if epoch_ended and self._done < self._end and _exhausted(scores, patience):
                    epoch = (self._done - self._begin) // self._per_epoch
                    _log.info(f"stopped after epoch {epoch}: the last {patience} probes were no better than before")
                    return
                if due and self._distribution.any(stop_requested()):
                    place = shlex.quote(str(self._run.path))
                    raise Interrupted(
                        f"stopped after step {self._done}, which is saved",
                        f"Continue with `bssl-tf {self._run.command} --out {place} --resume`",
                    )

    def _read(self, number: int, losses: Mapping[str, tf.Tensor], batch: Any) -> dict[str, float]:
        """The losses of a step, which are added to the epoch's.

        Raises:
            TrainingError: the loss is not finite.
        """
        parts = {name: float(value) for name, value in losses.items()}
        if not math.isfinite(parts["loss"]):
            cause = first_not_finite(self._recipe, self._variables, self._distribution.first(batch), parts)
            raise TrainingError(f"the loss is {parts['loss']} at step {number}: {cause}", _LOWER)
        for name, value in parts.items():
            self._sums[name] = self._sums.get(name, 0.0) + value
        return parts

    def _planned_steps(self) -> int:
        """The length of the stage by the plan of the next step: a run that was made longer repeats its first part."""
        return next(steps for since, steps in reversed(self._spans) if since <= self._done)

    def _schedule(self, step: int, steps: int) -> float:
        if self._config.schedule == "cosine":
            return warmup_cosine(step, steps, round(self._config.warmup_epochs * self._per_epoch))
        return linear_decay(step, steps)

    def _record_epoch(self, rate: float, images_per_s: float) -> None:
        seconds = self._sums.pop(_SECONDS)
        means = {name: total / self._per_epoch for name, total in self._sums.items()}
        self._sums = {}
        self._run.record(
            {
                "step": self._done,
                "stage": self._stage.name,
                "epoch": (self._done - self._begin) // self._per_epoch,
                "learning_rate": rate,
                "images_per_s": round(images_per_s, 1),
                "seconds": round(seconds, 1),
                **means,
            }
        )
        reason = self._recipe.collapsed(means)
        if reason:
            raise TrainingError(
                f"stopped after epoch {(self._done - self._begin) // self._per_epoch}: {reason}",
                "Restart with a lower --learning-rate, a larger --batch-size, or another method's settings",
            )

    def _record_probe(self) -> list[float]:
        """The score, if it is time for a probe; where the best is kept, its weights are written."""
        epoch = (self._done - self._begin) // self._per_epoch
        if self._probe is None or (epoch % self._probe.every and self._done < self._end):
            return []
        measured = self._probe.measure(self._recipe.trained[self._probe.part])
        score = score_of(measured)
        before = self._run.scores(self._begin, self._done - 1) if self._probe.keeps_best else []
        self._run.record({"step": self._done, "stage": self._stage.name, "epoch": epoch, **measured})
        if self._probe.keeps_best and score > max(before, default=-math.inf):
            trained = named_variables(self._recipe.trained)
            self._run.save_best(self._done, {name: variable.numpy() for name, variable in trained.items()})
        return [score]


def _exhausted(scores: Sequence[float], patience: int) -> bool:
    return 0 < patience < len(scores) and max(scores[-patience:]) <= max(scores[:-patience])


def _check_place(found: Checkpoint, stages: Sequence[Stage], ends: Sequence[int]) -> None:
    """A checkpoint states where it belongs; an edited config.toml may state something else."""
    number = next((i for i, end in enumerate(ends) if found.step <= end), None)
    if number is None or stages[number].name != found.stage:
        raise RunFolderError(
            f"{found.path} is from step {found.step} of stage {found.stage}, which the run's config.toml lacks",
            "Put config.toml back as it was, or start another run with another --out",
        )


def _take_over(previous: Recipe, recipe: Recipe) -> None:
    """Networks, momentum encoders and queues go on where the stage before left them."""
    for models, before in ((recipe.trained, previous.trained), (recipe.companions, previous.companions)):
        for name in models.keys() - recipe.fresh_each_stage:
            take_weights(models[name], before[name])
    for name, variable in recipe.state.items():
        variable.assign(previous.state[name])
