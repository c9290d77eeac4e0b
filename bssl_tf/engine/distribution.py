"""The devices that train a run together: which there are, which of them this process has, and what it feeds to them.

All of them hold the same weights. A step takes the batch that one device would take, split by rows; the gradients are
averaged, and a method that needs the other rows gets them (`bssl_tf.replicas`). So a run computes on any number of
devices what it computes on one, but for the rounding of sums.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, Literal

from bssl_tf.backend import quiet, tf
from bssl_tf.data.views import Batch
from bssl_tf.errors import ConfigError, WorkerError, first_line
from bssl_tf.models.layers import synchronized_batch_norm
from bssl_tf.progress import silence

Kind = Literal["none", "mirrored", "multiworker", "tpu"]
_OTHER_WORKER_FAILED = (
    tf.errors.UnavailableError,
    tf.errors.AbortedError,
    tf.errors.CancelledError,
    tf.errors.DeadlineExceededError,
    tf.errors.InternalError,
)
# As TensorFlow's messages name a process.
_TASK = re.compile(r"/job:\w+/replica:0/task:\d+")


@dataclass(frozen=True)
class Distribution:
    """See the top of this file; `distribution_of` makes one.

    Attributes:
        strategy: of TensorFlow.
        workers: the addresses of all processes, this one's too, the chief's first, by the names that TensorFlow's
            messages have for them; empty where there is only this one.
        worker: which of them this process is.
        synchronized_batch_norm: whether batch norm takes its statistics from the whole batch.
    """

    strategy: tf.distribute.Strategy
    workers: dict[str, str] = field(default_factory=dict)
    worker: int = 0
    synchronized_batch_norm: bool = True

    @property
    def replicas(self) -> int:
        """R, how many devices hold the network, of all workers together."""
        return int(self.strategy.num_replicas_in_sync)

    @property
    def is_chief(self) -> bool:
        """Whether this process is the one that writes."""
        return self.worker == 0

    @contextlib.contextmanager
    def scope(self) -> Iterator[None]:
        """Networks and optimisers that are made in the block are those of all devices."""
        token = synchronized_batch_norm.set(self.synchronized_batch_norm)
        try:
            with self.strategy.scope() if self.replicas > 1 else contextlib.nullcontext():
                yield
        finally:
            synchronized_batch_norm.reset(token)

    def batches(self, stream_of: Callable[[tuple[int, int]], Iterable[Batch]]) -> Iterator[Any]:
        """The batches of all devices of this process, as a step takes them.

        Args:
            stream_of: gives the batches of one shard, see `data.views.batches`.
        """
        if self.replicas == 1:
            return iter(stream_of((0, 1)))
        local = self.replicas // max(len(self.workers), 1)
        first = self.worker * local
        streams = [stream_of((number, self.replicas)) for number in range(first, first + local)]
        return (self._spread(parts) for parts in zip(*streams, strict=True))

    def _spread(self, parts: tuple[Batch, ...]) -> Any:
        """A value for each device of this process."""
        first = self.worker * len(parts)
        return self.strategy.experimental_distribute_values_from_function(
            lambda context: parts[context.replica_id_in_sync_group - first]
        )

    def first(self, value: Any) -> Any:
        """What the first device of this process has of a structure of values for each."""
        return tf.nest.map_structure(lambda one: self.strategy.experimental_local_results(one)[0], value)

    def any(self, flag: bool) -> bool:
        """Whether `flag` is true in any worker; all of them have to ask, and all get the same answer."""
        if not self.workers:
            return flag
        votes = self.strategy.experimental_distribute_values_from_function(lambda _: tf.constant(float(flag)))
        with self.losses_named():
            return float(self.strategy.reduce(tf.distribute.ReduceOp.SUM, votes, axis=None)) > 0

    def wait_for_all(self) -> None:
        """Waits until all workers are here."""
        self.any(False)

    def agree(self, number: int) -> bool:
        """Whether all workers have the same number."""
        if not self.workers:
            return True
        numbers = self.strategy.experimental_distribute_values_from_function(lambda _: tf.constant(number, tf.int64))
        with self.losses_named():
            total = int(self.strategy.reduce(tf.distribute.ReduceOp.SUM, numbers, axis=None))
        return not self.any(total != number * self.replicas)

    @contextlib.contextmanager
    def losses_named(self) -> Iterator[None]:
        """Turns TensorFlow's failure to reach another worker into a `WorkerError` that names it."""
        try:
            yield
        except _OTHER_WORKER_FAILED as error:
            if not self.workers:
                raise
            raise self._lost(str(error)) from error

    def _lost(self, message: str) -> WorkerError:
        others = {
            name: f"worker {number} ({address})"
            for number, (name, address) in enumerate(self.workers.items())
            if number != self.worker
        }
        named = [others[name] for name in _TASK.findall(message) if name in others]
        who = next(iter(others.values() if len(others) == 1 else named), "another worker")
        return WorkerError(f"{who} has stopped or cannot be reached", "Start all workers again with --resume")


ALONE = Distribution(tf.distribute.get_strategy())


def distribution_of(kind: Kind, batch_size: int, *, synchronized_batch_norm: bool = True) -> Distribution:
    """The devices for a run. It has to be called before TensorFlow computes anything.

    Args:
        kind: `none` for one device; `mirrored` for all GPUs of this machine, or without one for its logical CPUs;
            `multiworker` for the workers of TF_CONFIG, with all GPUs of each; `tpu` for those of TPU_NAME.
        batch_size: of all devices together.
        synchronized_batch_norm: see `Distribution`.

    Raises:
        ConfigError: TF_CONFIG is missing or names no workers, there is no TPU, or the batch does not split over the
            devices.
        WorkerError: the workers do not find each other.
    """
    if kind == "none":
        return ALONE
    workers, worker = _workers() if kind == "multiworker" else ({}, 0)
    if kind == "mirrored":
        devices = tf.config.list_logical_devices("GPU") or tf.config.list_logical_devices("CPU")
        strategy = tf.distribute.MirroredStrategy([device.name for device in devices])
    elif kind == "multiworker":
        try:
            with quiet():
                strategy = tf.distribute.MultiWorkerMirroredStrategy()
        except (tf.errors.OpError, RuntimeError) as error:
            raise WorkerError(
                f"{list(workers.values())[worker]} cannot be reached by the other workers, or not all of them were "
                f"started ({first_line(error)})",
                "Start all workers of TF_CONFIG within a few minutes, each on its own machine and with a free port",
            ) from error
    else:
        try:
            strategy = tf.distribute.TPUStrategy(tf.distribute.cluster_resolver.TPUClusterResolver.connect())
        # A name that is missing, unknown or out of reach is a ValueError, an OpError, or one of Google's client.
        except Exception as error:
            raise ConfigError(
                f"training.distribute is 'tpu', but there is no TPU ({first_line(error)})",
                "Set TPU_NAME to the name or address of one, `local` on a machine that has it",
            ) from error
    made = Distribution(strategy, workers, worker, synchronized_batch_norm)
    if not made.is_chief:
        logging.getLogger("bssl_tf").setLevel(logging.ERROR)
        silence()
    if batch_size % made.replicas:
        raise ConfigError(
            f"a batch of {batch_size} does not split evenly over {made.replicas} devices",
            f"Try --batch-size {-(-batch_size // made.replicas) * made.replicas}",
        )
    return made


def _workers() -> tuple[dict[str, str], int]:
    """`Distribution.workers` of what TF_CONFIG lists, and which of them is this process."""
    try:
        config = json.loads(os.environ.get("TF_CONFIG", "{}"))
        cluster, task = config["cluster"], config["task"]
        addresses = {
            _task(job, number): str(address)
            for job in ("chief", "worker")
            for number, address in enumerate(cluster.get(job, ()))
        }
        own = _task(task["type"], int(task["index"]))
        if own not in addresses:
            raise ValueError(f"there is no {task['type']} {task['index']}")
    except (ValueError, KeyError, TypeError, AttributeError, OverflowError) as error:
        raise ConfigError(
            f"TF_CONFIG does not name the workers of a run and which one this is ({type(error).__name__}: {error})",
            "Set it as for every use of tf.distribute, or start workers on this machine with `bssl-tf launch`",
        ) from error
    return addresses, list(addresses).index(own)


def _task(job: str, number: int) -> str:
    return f"/job:{job}/replica:0/task:{number}"
