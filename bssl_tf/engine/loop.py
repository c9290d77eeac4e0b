"""The training loop: steps, metrics, checkpoints, Ctrl-C.

A run repeats bit for bit, and so does a run that was killed at any moment and resumed: the batch of a step depends on
the seed and the step alone (data.views), every op is deterministic (backend.configure), and a checkpoint holds every
variable that a step reads.
"""

from __future__ import annotations

import math
import shlex
import signal
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np

from bssl_tf.backend import keras, tf
from bssl_tf.checkpoints import match_tensors
from bssl_tf.data.augmentation import Augmentation
from bssl_tf.data.image_set import ImageSet
from bssl_tf.data.views import Batch, batches, steps_per_epoch
from bssl_tf.engine.probe import Probe
from bssl_tf.engine.run_folder import Checkpoint, RunFolder
from bssl_tf.engine.stages import Stage
from bssl_tf.errors import Interrupted, RunFolderError, TrainingError
from bssl_tf.methods.method import Method
from bssl_tf.models.saved import named_weights
from bssl_tf.preprocessing import Preprocessing
from bssl_tf.progress import progress
from bssl_tf.schedules import linear_decay, warmup_cosine
from bssl_tf.seeding import named_seed
from bssl_tf.settings import TrainingConfig

_SECONDS = "seconds"


@dataclass(frozen=True)
class Inputs:
    """What the loop feeds to a method.

    Attributes:
        images: the training images.
        preprocessing: size and normalisation of the views.
        augmentation: what makes a view.
        replay_epochs: after so many epochs the same views come again; 0 for never.
        teacher: what the teacher says of them, if it was kept; see `data.views.batches`.
    """

    images: ImageSet
    preprocessing: Preprocessing
    augmentation: Augmentation
    replay_epochs: int = 0
    teacher: np.ndarray | None = None

    def batches(self, method: Method, config: TrainingConfig, first_step: int, last_step: int) -> tf.data.Dataset:
        """The batches of these steps, as `method` wants them."""
        return batches(
            self.images,
            self.preprocessing,
            self.augmentation,
            views=method.views,
            batch_size=config.batch_size,
            seed=named_seed(config.seed, "views"),
            first_step=first_step,
            last_step=last_step,
            replay_epochs=self.replay_epochs,
            with_labels=method.needs_labels,
            teacher=self.teacher,
        )


def train(
    run: RunFolder,
    stages: Sequence[Stage],
    build_method: Callable[[Stage], Method],
    inputs: Inputs,
    config: TrainingConfig,
    probe: Probe | None = None,
) -> Method:
    """Trains through all stages, from the newest checkpoint of `run` if it has one.

    Args:
        run: an open run folder, locked by the caller.
        stages: one after another; each begins with the trained networks of the one before it.
        build_method: makes the method for a stage; it must build the same networks each time it is called.
        inputs: images and how they become views.
        config: how to optimise.
        probe: measures the network every so many epochs, and at the end of each stage.

    Returns:
        The method of the last stage, trained.

    Raises:
        DataError: fewer images than a batch.
        TrainingError: the loss is not finite.
        RunFolderError: the checkpoints do not fit or are corrupt.
        Interrupted: Ctrl-C or SIGTERM; a checkpoint was written.
        StorageError: the disk is full; the last checkpoint is whole.
    """
    per_epoch = steps_per_epoch(len(inputs.images), config.batch_size)
    ends = np.cumsum([stage.epochs * per_epoch for stage in stages]).tolist()
    found = run.latest_checkpoint()
    done = found.step if found else 0
    if found:
        _check_place(found, stages, ends)
    run.rewind_metrics(done)

    method: Method | None = None
    with _stop_requests() as stop_requested:
        for stage, end in zip(stages, ends, strict=True):
            begin = end - stage.epochs * per_epoch
            # A checkpoint on the border belongs to the stage that ends there; the next one takes its networks over.
            if found and done > end:
                continue
            previous, method = method, build_method(stage)
            loop = _StageLoop(run, stage, method, inputs, config, begin, end, per_epoch, probe)
            if found and begin < done <= end:
                loop.restore(found)
            elif previous is not None:
                _take_over(previous, method)
            loop.run(stop_requested)
    assert method is not None
    return method


class _StageLoop:
    """One stage: a fresh optimiser, its steps, its checkpoints."""

    def __init__(
        self,
        run: RunFolder,
        stage: Stage,
        method: Method,
        inputs: Inputs,
        config: TrainingConfig,
        begin: int,
        end: int,
        per_epoch: int,
        probe: Probe | None,
    ) -> None:
        self._run, self._stage, self._method = run, stage, method
        self._inputs, self._config, self._probe = inputs, config, probe
        self._begin, self._end, self._per_epoch = begin, end, per_epoch
        self._optimizer = _optimizer(config)
        self._optimizer.build(method.trainable_variables())
        self._step_function = _step_function(method, self._optimizer, config.weight_decay)
        self._done = begin
        self._sums: dict[str, float] = {}

    def _variables(self) -> dict[str, tf.Variable]:
        """Everything that a step reads and some step writes, by a name that is the same in every process."""
        method = self._method
        models = method.trained | method.companions
        named = {f"{part}/{name}": w for part, model in models.items() for name, w in named_weights(model).items()}
        named |= {f"state/{name}": variable for name, variable in method.state.items()}
        named |= {f"optimizer/{i:04d}": variable for i, variable in enumerate(self._optimizer.variables)}
        return named

    def restore(self, checkpoint: Checkpoint) -> None:
        """Puts the loop where the checkpoint was written."""
        variables = self._variables()
        match_tensors(
            checkpoint.path, checkpoint.tensors, {key: variable.numpy() for key, variable in variables.items()}
        )
        for key, variable in variables.items():
            variable.assign(checkpoint.tensors[key])
        self._done, self._sums = checkpoint.step, dict(checkpoint.sums)

    def _checkpoint(self) -> None:
        tensors = {name: variable.numpy() for name, variable in self._variables().items()}
        self._run.save_checkpoint(self._done, self._stage.name, tensors, self._sums)

    def run(self, stop_requested: Callable[[], bool]) -> None:
        """Trains to the end of the stage."""
        config, steps = self._config, self._end - self._begin
        if self._done == self._end:
            return
        stream = self._inputs.batches(self._method, config, self._done, self._end)
        saved_at = epoch_began = stepped = time.monotonic()
        epoch_first = self._done
        with progress(total=steps, description=self._stage.name, done=self._done - self._begin) as bar:
            for batch in stream:
                step = self._done - self._begin
                rate = config.learning_rate * self._schedule(step, steps)
                losses = self._step_function(
                    batch, tf.constant(rate, tf.float32), tf.constant(self._method.scheduled(step / steps), tf.float32)
                )
                parts = {name: float(value) for name, value in losses.items()}
                if not math.isfinite(parts["loss"]):
                    raise TrainingError(
                        f"the loss is {parts['loss']} at step {self._done + 1}",
                        "Lower --learning-rate and start anew; the last checkpoint is from before it went wrong",
                    )
                self._done += 1
                for name, value in parts.items():
                    self._sums[name] = self._sums.get(name, 0.0) + value

                now = time.monotonic()
                # Kept in the checkpoint with the sums, so that a cut does not make an epoch look shorter.
                self._sums[_SECONDS] = self._sums.get(_SECONDS, 0.0) + now - stepped
                stepped = now
                images_per_s = (self._done - epoch_first) * config.batch_size / (now - epoch_began)
                bar.set_postfix(
                    {k: f"{v:.3f}" for k, v in parts.items()} | {"images/s": f"{images_per_s:.0f}"}, refresh=False
                )
                bar.update()

                epoch_ended = (self._done - self._begin) % self._per_epoch == 0
                if epoch_ended:
                    self._record_epoch(rate, images_per_s)
                    self._record_probe()
                    # Its time is not training's.
                    epoch_began, epoch_first = time.monotonic(), self._done
                    stepped += epoch_began - now
                if epoch_ended or now - saved_at > config.checkpoint_every_s or stop_requested():
                    self._checkpoint()
                    saved_at = now
                if stop_requested():
                    raise Interrupted(
                        f"stopped after step {self._done}, which is saved",
                        f"Go on with the same command and --out {shlex.quote(str(self._run.path))} --resume",
                    )

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
        reason = self._method.collapsed(means)
        if reason:
            raise TrainingError(
                f"stopped behind epoch {(self._done - self._begin) // self._per_epoch}: {reason}",
                "Start anew with a lower --learning-rate, a larger --batch-size, or another method's settings",
            )

    def _record_probe(self) -> None:
        epoch = (self._done - self._begin) // self._per_epoch
        if self._probe is None or (epoch % self._probe.every and self._done < self._end):
            return
        measured = self._probe.measure(self._method.trained[self._probe.part])
        self._run.record({"step": self._done, "stage": self._stage.name, "epoch": epoch, **measured})


def _optimizer(config: TrainingConfig) -> Any:
    if config.optimizer == "sgd":
        return keras.optimizers.SGD(learning_rate=config.learning_rate, momentum=0.9)
    return keras.optimizers.Adam(learning_rate=config.learning_rate)


def _step_function(method: Method, optimizer: Any, weight_decay: float) -> Callable[..., dict[str, tf.Tensor]]:
    variables = method.trainable_variables()
    slow = [
        (v, rate) for name, rate in method.rates.items() for v in method.trained[name].trainable_variables if rate != 1
    ]

    @tf.function
    def step(batch: Batch, learning_rate: tf.Tensor, scheduled: tf.Tensor) -> dict[str, tf.Tensor]:
        if method.teacher_outputs is not None and not batch.teacher:
            batch = batch._replace(teacher=tuple(method.teacher_outputs(view) for view in batch.views))
        with tf.GradientTape() as tape:
            losses = dict(method.losses(batch, scheduled))
        gradients = tape.gradient(losses["loss"], variables)
        if weight_decay:
            gradients = [g + weight_decay * v for g, v in zip(gradients, variables, strict=True)]
        optimizer.learning_rate.assign(learning_rate)
        before = [tf.identity(variable) for variable, _ in slow]
        optimizer.apply_gradients(zip(gradients, variables, strict=True))
        # Adam does not care how long a gradient is, so it is the step that is made shorter.
        for (variable, rate), old in zip(slow, before, strict=True):
            variable.assign(old + rate * (variable - old))
        method.after_step(scheduled)
        return losses

    return step


def _check_place(found: Checkpoint, stages: Sequence[Stage], ends: Sequence[int]) -> None:
    """A checkpoint says where it belongs; an edited config.toml may say something else."""
    number = next((i for i, end in enumerate(ends) if found.step <= end), None)
    if number is None or stages[number].name != found.stage:
        raise RunFolderError(
            f"{found.path} is of step {found.step} in stage {found.stage}, which the run's config.toml has no room for",
            "Put config.toml back as it was, or start another run with another --out",
        )


def _take_over(previous: Method, method: Method) -> None:
    """Networks, momentum encoders and queues go on where the stage before left them."""
    for models, before in ((method.trained, previous.trained), (method.companions, previous.companions)):
        for name in models.keys() - method.fresh_each_stage:
            models[name].set_weights(before[name].get_weights())
    for name, variable in method.state.items():
        variable.assign(previous.state[name])


@contextmanager
def _stop_requests() -> Iterator[Callable[[], bool]]:
    """Turns the first Ctrl-C or SIGTERM into a request to stop behind the step; a second one stops at once."""
    requested = False

    def handle(signum: int, frame: Any) -> None:
        nonlocal requested
        if requested:
            raise KeyboardInterrupt
        requested = True
        print("\nstopping after this step; press Ctrl-C again to stop at once", file=sys.stderr)

    try:
        before = {number: signal.signal(number, handle) for number in (signal.SIGINT, signal.SIGTERM)}
    except ValueError:  # not the main thread: whoever runs us there handles signals
        before = {}
    try:
        yield lambda: requested
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
