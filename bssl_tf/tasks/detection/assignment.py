"""Which cells of a detector's maps learn which box: centre sampling, with one level for each box.

Tian et al., FCOS: Fully Convolutional One-Stage Object Detection, TPAMI 2021 (arXiv 2006.09214), section 3: a cell
learns a box where its middle is near the middle of the box, on the level for boxes of that size; of several, the
smallest.

Task-aligned assignment, which many float detectors use, lets predictions choose the cells. Those of a binary network
change sign by sign between steps and are poor for long, so here the boxes alone decide. Quality focal loss makes scores
follow the fit of the boxes all the same.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from bssl_tf.backend import tf

# A box's longest side, in strides of the level that learns it, is at most this; the coarsest level takes all larger.
# FCOS: distances to the sides up to 64 px at stride 8, which is a side of 128 px from a cell in the middle.
LONGEST_SIDE = 16.0
# In strides, from the middle of a box.
RADIUS = 1.5


def cells(strides: Sequence[int], height: int, width: int) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """The middles of all cells, float32 [P, 2] as x and y in pixels, and their strides, float32 [P].

    Finest stride first, then row by row, as outputs of a network are when they are flattened.
    """
    middles, of_cells = [], []
    for stride in strides:
        y, x = np.meshgrid(np.arange(height // stride), np.arange(width // stride), indexing="ij")
        middles.append((np.stack([x.ravel(), y.ravel()], axis=1) + 0.5) * stride)
        of_cells.append(np.full(x.size, stride))
    return np.concatenate(middles).astype(np.float32), np.concatenate(of_cells).astype(np.float32)


def assign(
    boxes: tf.Tensor, valid: tf.Tensor, middles: NDArray[np.float32], of_cells: NDArray[np.float32]
) -> tf.Tensor:
    """The box that each cell learns.

    A cell learns a box that its middle lies in, at most 1.5 strides away from the box's middle in x and in y, on the
    level for its size. A box that no cell would learn so is learnt by the cell with the nearest middle on its level. Of
    several boxes a cell learns the smallest, of equal ones the first.

    Args:
        boxes: float32 [B, N, 4], pixels, N at least 1.
        valid: bool [B, N]; False for what only fills up.
        middles, of_cells: from `cells`.

    Returns:
        int32 [B, P], 0 to N - 1, or -1 where there is none.
    """
    strides = np.unique(of_cells)
    lows = np.concatenate([[0.0], LONGEST_SIDE * strides[:-1]]).astype(np.float32)
    highs = np.concatenate([LONGEST_SIDE * strides[:-1], [np.inf]]).astype(np.float32)
    level = np.searchsorted(strides, of_cells)
    sizes = boxes[..., 2:] - boxes[..., :2]
    longest = tf.reduce_max(sizes, axis=-1)[..., tf.newaxis]
    # All of these are [B, N, P].
    here = (longest > lows[level]) & (longest <= highs[level]) & valid[..., tf.newaxis]
    x, y = middles[:, 0], middles[:, 1]
    left, top, right, bottom = (boxes[..., side, tf.newaxis] for side in range(4))
    away = tf.maximum(tf.abs(x - (left + right) / 2), tf.abs(y - (top + bottom) / 2))
    inside = (x > left) & (x < right) & (y > top) & (y < bottom)
    chosen = here & inside & (away < RADIUS * of_cells)
    nearest = tf.argmin(tf.where(here, away, np.float32(np.inf)), axis=-1, output_type=tf.int32)
    fallback = here & (tf.range(len(of_cells)) == nearest[..., tf.newaxis])
    chosen |= fallback & ~tf.reduce_any(chosen, axis=-1, keepdims=True)
    areas = tf.where(chosen, tf.reduce_prod(sizes, axis=-1)[..., tf.newaxis], np.float32(np.inf))
    smallest = tf.argmin(areas, axis=1, output_type=tf.int32)
    return tf.where(tf.reduce_any(chosen, axis=1), smallest, -1)
