"""What code that runs on one of several devices needs of the others, which train the same network together.

A batch of B images is split over R replicas, B / R consecutive rows each. On a single device every function here
returns what it was given, and adds nothing to a graph.
"""

from __future__ import annotations

from typing import Any

from bssl_tf.backend import tf


def gather(rows: tf.Tensor) -> tf.Tensor:
    """The rows of all replicas in the order of the batch, [B / R, ...] to [B, ...]; gradients flow back to each."""
    context = _others()
    return rows if context is None else context.all_gather(rows, axis=0)


def own_rows(whole: tf.Tensor) -> tf.Tensor:
    """The rows of this replica, [B, ...] to [B / R, ...]: undoes `gather`."""
    context = _others()
    if context is None:
        return whole
    parts = tf.reshape(whole, tf.concat([[context.num_replicas_in_sync, -1], tf.shape(whole)[1:]], axis=0))
    return tf.ensure_shape(parts[context.replica_id_in_sync_group], [None, *whole.shape[1:]])


def mean(values: Any) -> Any:
    """The mean over all replicas of a tensor, or of each in a list or dictionary of tensors; with gradients."""
    context = _others()
    if context is None:
        return values
    # A number that came from the host lies on no device yet.
    return context.all_reduce(tf.distribute.ReduceOp.MEAN, tf.nest.map_structure(tf.identity, values))


def _others() -> Any:
    """The context of a replica that is not alone, else None."""
    context = tf.distribute.get_replica_context()
    return context if context is not None and context.num_replicas_in_sync > 1 else None
