"""Generalised intersection over union (GIoU): overlap of boxes that has a gradient where they do not touch."""

from __future__ import annotations

from bssl_tf.backend import tf

_EPSILON = 1e-7


def overlaps(boxes: tf.Tensor, others: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Intersection over union of pairs of boxes, 0 to 1, and its generalisation, -1 to 1.

    IoU - (C - U) / C, with the union's area U and that of the smallest box around both, C. 1 minus it is the loss.

    Source: Rezatofighi et al., Generalized Intersection over Union, CVPR 2019 (arXiv 1902.09630), algorithm 1.

    Args:
        boxes: float32 [..., 4]: left, top, right, bottom.
        others: the same shape.

    Returns:
        Two float32 [...].
    """
    first_low, first_high = boxes[..., :2], boxes[..., 2:]
    second_low, second_high = others[..., :2], others[..., 2:]
    shared = _area(tf.maximum(first_low, second_low), tf.minimum(first_high, second_high))
    union = _area(first_low, first_high) + _area(second_low, second_high) - shared
    around = _area(tf.minimum(first_low, second_low), tf.maximum(first_high, second_high))
    iou = shared / tf.maximum(union, _EPSILON)
    return iou, iou - (around - union) / tf.maximum(around, _EPSILON)


def _area(low: tf.Tensor, high: tf.Tensor) -> tf.Tensor:
    return tf.reduce_prod(tf.maximum(high - low, 0.0), axis=-1)
