"""Random views of images with boxes: crop or zoom out, flip, colour. The random numbers come from the caller.

A view is a rectangle on the picture, which may reach past its border: what lies there is grey. Colours change after
that; never to grey, since colour tells classes apart, and nothing is blurred, since small objects would be lost.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from bssl_tf.tasks.detection.boxes import Objects
from bssl_tf_deploy.boxes import FILL, letterbox
from bssl_tf_deploy.tasks.task import View

# How many random numbers make a view of one image.
NUMBERS_PER_VIEW = 9
_LUMA = np.array([0.299, 0.587, 0.114], np.float32)


@dataclass(frozen=True)
class BoxAugmentation:
    """How strong a random view differs from its picture.

    Attributes:
        crop_probability: of a view that is not the whole picture in its frame.
        min_scale, max_scale: the view's side, as a share of the side of the picture in its frame, drawn log-uniformly;
            above 1 it zooms out.
        max_stretch: the view is up to this factor wider, or higher, than the picture's shape; at least 1.
        min_visible: a box of which a smaller share is in the view counts for nothing there.
        flip_probability: left becomes right.
        brightness, contrast, saturation: a factor drawn uniformly from 1 - strength to 1 + strength.
    """

    crop_probability: float = 0.8
    min_scale: float = 0.5
    max_scale: float = 1.5
    max_stretch: float = 1.2
    min_visible: float = 0.3
    flip_probability: float = 0.5
    brightness: float = 0.3
    contrast: float = 0.3
    saturation: float = 0.3


def random_view(
    ratio: float, numbers: NDArray[np.float32], augmentation: BoxAugmentation, width: int, height: int
) -> View:
    """Where the view lies on a picture of width / height = `ratio`: [9] numbers in 0 to 1, of which it takes five."""
    # The picture in its frame, as it is evaluated: (0, 0, 1, 1) is the picture.
    frame_width, frame_height = max(1.0, width / height / ratio), max(1.0, ratio * height / width)
    if numbers[0] >= augmentation.crop_probability:
        return View((1 - frame_width) / 2, (1 - frame_height) / 2, (1 + frame_width) / 2, (1 + frame_height) / 2)
    scale = augmentation.min_scale * (augmentation.max_scale / augmentation.min_scale) ** float(numbers[1])
    stretch = augmentation.max_stretch ** float(numbers[2] - 0.5)
    wide, high = frame_width * scale * stretch, frame_height * scale / stretch
    # A view smaller than the picture lies within it, a larger one around it.
    left, top = (1 - wide) * float(numbers[3]), (1 - high) * float(numbers[4])
    return View(left, top, left + wide, top + high)


def seen(objects: Objects, view: View, *, flip: bool, min_visible: float) -> Objects:
    """The objects in a view, as shares of the view, cut at its border.

    One of which less than `min_visible` is seen is ignored, as neither a hit nor a miss can be asked for; one of which
    nothing is seen is not there.
    """
    scale = np.array([view.right - view.left, view.bottom - view.top] * 2)
    moved = (objects.boxes.astype(np.float64) - [view.left, view.top] * 2) / scale
    if flip:
        moved = np.stack([1 - moved[:, 2], moved[:, 1], 1 - moved[:, 0], moved[:, 3]], axis=1)
    cut = np.clip(moved, 0, 1)
    whole, visible = (np.prod(np.maximum(one[:, 2:] - one[:, :2], 0), axis=1) for one in (moved, cut))
    there = visible > 0
    hidden = visible < min_visible * whole
    return Objects(cut[there].astype(np.float32), objects.classes[there], (objects.ignored | hidden)[there])


def render(pixels: NDArray[np.uint8], view: View, width: int, height: int, *, flip: bool) -> NDArray[np.uint8]:
    """The pixels of a view: uint8 [S, S, C], squashed, to uint8 [height, width, C]; grey beyond the picture.

    Bilinear, with a filter that widens where it shrinks, as letterboxes of evaluation and of the device have it.
    """
    stored = pixels.shape[0]
    scale_x, scale_y = width / (view.right - view.left), height / (view.bottom - view.top)
    # The part of the input that shows the picture, in whole pixels, and the part of the picture that lies there.
    left, right = round(max(0.0, -view.left * scale_x)), round(min(width, (1 - view.left) * scale_x))
    top, bottom = round(max(0.0, -view.top * scale_y)), round(min(height, (1 - view.top) * scale_y))
    canvas = np.full((height, width, pixels.shape[2]), FILL, np.uint8)
    if right > left and bottom > top:
        part = np.array(
            [
                view.left + left / scale_x,
                view.top + top / scale_y,
                view.left + right / scale_x,
                view.top + bottom / scale_y,
            ]
        )
        box = np.clip(part, 0, 1) * stored
        image = Image.fromarray(pixels[..., 0] if pixels.shape[2] == 1 else pixels)
        shown = image.resize((right - left, bottom - top), Image.Resampling.BILINEAR, box=tuple(box.tolist()))
        canvas[top:bottom, left:right] = np.asarray(shown, np.uint8).reshape(bottom - top, right - left, -1)
    return canvas[:, ::-1] if flip else canvas


def augmented(
    pixels: NDArray[np.uint8],
    ratio: float,
    objects: Objects,
    numbers: NDArray[np.float32],
    augmentation: BoxAugmentation,
    width: int,
    height: int,
) -> tuple[NDArray[np.uint8], Objects]:
    """One random view of an image, which depends on its own random numbers alone.

    Args:
        pixels: uint8 [S, S, C], squashed to a square; C 1 or 3.
        ratio: width / height of the picture.
        objects: on the picture.
        numbers: float32 [9] in 0 to 1, 1 excluded.
        augmentation: the strengths.
        width, height: of the view, pixels.

    Returns:
        uint8 [height, width, C], and the objects as shares of the view.
    """
    view = random_view(ratio, numbers, augmentation, width, height)
    flip = bool(numbers[5] < augmentation.flip_probability)
    shown = render(pixels, view, width, height, flip=flip)
    return _coloured(shown, numbers[6:9], augmentation), seen(
        objects, view, flip=flip, min_visible=augmentation.min_visible
    )


def framed(pixels: NDArray[np.uint8], ratio: float, width: int, height: int) -> tuple[NDArray[np.uint8], View]:
    """The whole picture as evaluation and the device have it: uint8 [S, S, C], squashed, to [height, width, C]."""
    image = Image.fromarray(pixels[..., 0] if pixels.shape[2] == 1 else pixels)
    return letterbox(image, width, height, ratio)


def _coloured(
    pixels: NDArray[np.uint8], numbers: NDArray[np.float32], augmentation: BoxAugmentation
) -> NDArray[np.uint8]:
    strengths = (augmentation.brightness, augmentation.contrast, augmentation.saturation)
    brightness, contrast, saturation = (1 + s * (2 * float(n) - 1) for s, n in zip(strengths, numbers, strict=True))
    values = pixels.astype(np.float32)
    if pixels.shape[2] == 3:
        grey = (values @ _LUMA)[..., np.newaxis]
        values = grey + np.float32(saturation) * (values - grey)
    mean = values.mean()
    values = np.float32(brightness) * (mean + np.float32(contrast) * (values - mean))
    return np.clip(np.rint(values), 0, 255).astype(np.uint8)
