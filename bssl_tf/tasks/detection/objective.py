"""What a detector learns: quality focal loss on classes, GIoU on boxes.

Li et al., Generalized Focal Loss, NeurIPS 2020 (arXiv 2006.04388), without its distribution focal loss, as each side
of a box is one number here.
"""

from __future__ import annotations

from collections.abc import Mapping

from bssl_tf.backend import tf
from bssl_tf.losses.generalised_iou import overlaps
from bssl_tf.losses.quality_focal import quality_focal
from bssl_tf.replicas import gather
from bssl_tf.tasks.detection.assignment import assign, cells
from bssl_tf_deploy.boxes import MAX_LOG_DISTANCE

# How much GIoU counts beside quality focal loss: the paper's.
BOX_WEIGHT = 2.0


def decoded(of_sides: tf.Tensor, middles: tf.Tensor, of_cells: tf.Tensor) -> tf.Tensor:
    """Boxes in pixels, [B, P, 4], of the logarithms of distances in strides: `bssl_tf_deploy.boxes.candidates`."""
    distances = tf.exp(tf.clip_by_value(of_sides, -MAX_LOG_DISTANCE, MAX_LOG_DISTANCE)) * of_cells[:, tf.newaxis]
    return tf.concat([middles - distances[..., :2], middles + distances[..., 2:]], axis=-1)


def losses(
    outputs: Mapping[int, tuple[tf.Tensor, tf.Tensor]],
    boxes: tf.Tensor,
    classes: tf.Tensor,
    height: int,
    width: int,
) -> dict[str, tf.Tensor]:
    """Scalars: `loss`, which training makes small, and its parts `class_loss` and `box_loss`.

    Both are sums over cells, divided by the number of cells in the batch that learn a box, at least 1. On one of
    several devices that share a batch they are such that their mean over devices is that.

    Args:
        outputs: by stride, logits [B, H / s, W / s, K] and logarithms of distances [B, H / s, W / s, 4], float32.
        boxes: float32 [B, N, 4], pixels of the input; N at least 1.
        classes: int32 [B, N]; -1 for what only fills up, -2 for a place where nothing is to be learnt: an object that
            counts for nothing, or a crowd of them.
        height, width: of the input, pixels.
    """
    strides = sorted(outputs)
    middles, of_cells = cells(strides, height, width)
    logits, of_sides = (
        tf.concat(
            [tf.reshape(outputs[s][part], [tf.shape(boxes)[0], -1, outputs[s][part].shape[-1]]) for s in strides], 1
        )
        for part in (0, 1)
    )
    index = assign(boxes, classes >= 0, middles, of_cells)
    learns = index >= 0
    safe = tf.maximum(index, 0)
    truth = tf.gather(boxes, safe, batch_dims=1)
    found = decoded(of_sides, middles, of_cells)
    # Cells that learn nothing are compared with themselves, so that no gradient comes of them.
    iou, giou = overlaps(found, tf.where(learns[..., tf.newaxis], truth, tf.stop_gradient(found)))
    quality = tf.where(learns, tf.stop_gradient(iou), 0.0)[..., tf.newaxis]
    targets = quality * tf.one_hot(tf.gather(classes, safe, batch_dims=1), logits.shape[-1])
    counted = tf.cast(learns | ~_inside_any(boxes, classes == -2, middles), tf.float32)
    # Of the whole batch, over its devices: each has its share of the sums, and losses of all are averaged.
    counts = gather(tf.reduce_sum(tf.cast(learns, tf.float32))[tf.newaxis])
    count = tf.maximum(tf.reduce_sum(counts), 1.0) / tf.cast(tf.size(counts), tf.float32)
    class_loss = tf.reduce_sum(quality_focal(logits, targets) * counted[..., tf.newaxis]) / count
    box_loss = tf.reduce_sum(tf.where(learns, 1.0 - giou, 0.0)) / count
    return {"loss": class_loss + BOX_WEIGHT * box_loss, "class_loss": class_loss, "box_loss": box_loss}


def _inside_any(boxes: tf.Tensor, chosen: tf.Tensor, middles: tf.Tensor) -> tf.Tensor:
    """For each cell whether its middle lies in one of the `chosen` boxes: bool [B, P]."""
    x, y = middles[:, 0], middles[:, 1]
    left, top, right, bottom = (boxes[..., side, tf.newaxis] for side in range(4))
    inside = (x > left) & (x < right) & (y > top) & (y < bottom)
    return tf.reduce_any(inside & chosen[..., tf.newaxis], axis=1)
