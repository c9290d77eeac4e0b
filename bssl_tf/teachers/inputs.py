"""What a teacher wants to see, and how the student's views become that inside the graph.

A teacher may have been trained at another size, on other channels and on otherwise normalised pixels than its student:

    view, as the student sees it -> pixels from 0 to 1 -> grey or RGB -> resampled -> normalised for the teacher

Resampling is bilinear, and antialiased where it shrinks (its triangle widens with the scale, as in Pillow's BILINEAR).
Enlarging adds no detail: a teacher of 224 px sees a view of 96 px as blurred as it is. Grey views are repeated for
three channels; of RGB ones a single channel gets the luma (ITU-R 601).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from bssl_tf.backend import tf
from bssl_tf.errors import ConfigError
from bssl_tf.preprocessing import MAX_IMAGE_SIZE, MIN_IMAGE_SIZE, Preprocessing
from bssl_tf.settings import FinetuneConfig, PretrainConfig, check_choice

Constants = tuple[tuple[float, ...], tuple[float, ...]]

# ITU-R 601, as Pillow's convert("L").
_LUMA = (0.299, 0.587, 0.114)
# Pixel ranges by name: mean and std of pixel / 255, one number for all channels or one for each.
PIXELS: dict[str, Constants] = {
    "0..1": ((0.0,), (1.0,)),
    "-1..1": ((0.5,), (0.5,)),
    "0..255": ((0.0,), (1 / 255,)),
    "imagenet": ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
    "clip": ((0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)),
}
ONNX_SUFFIX = ".onnx"
LAYOUTS = ("auto", "nchw", "nhwc")


@dataclass(frozen=True)
class TeacherOptions:
    """What a user says of a teacher that does not say it itself.

    Attributes:
        pixels: `auto` (an ONNX file is searched for it, a saved Keras model takes `normalized`), `normalized` for
            (x - mean) / std of the student's data, a key of `PIXELS`, or MEAN/STD in units of pixel / 255, with
            commas between channels.
        image_size: pixels a side; 0 for the teacher's own, or the student's where it takes any.
        layout: of an ONNX model: one of `LAYOUTS`.
        output: of an ONNX model: the name of the tensor with the features; "" to choose one.
    """

    pixels: str = "auto"
    image_size: int = 0
    layout: str = "auto"
    output: str = ""

    def check(self) -> None:
        """Raises `ConfigError` for what can be said before the teacher is opened."""
        check_choice("teacher_layout", self.layout, LAYOUTS)
        if self.image_size and not MIN_IMAGE_SIZE <= self.image_size <= MAX_IMAGE_SIZE:
            raise ConfigError(
                f"teacher_image_size is {self.image_size}", f"Give {MIN_IMAGE_SIZE} to {MAX_IMAGE_SIZE} pixels"
            )
        self.constants()

    def constants(self) -> Constants | None:
        """Mean and std that `pixels` names; None for `auto` and `normalized`. Raises `ConfigError`."""
        if self.pixels in ("auto", "normalized"):
            return None
        if "/" not in self.pixels:
            check_choice("teacher_pixels", self.pixels, ("auto", "normalized", *PIXELS))
            return PIXELS[self.pixels]
        try:
            mean, std = (tuple(float(number) for number in part.split(",")) for part in self.pixels.split("/"))
        except ValueError:
            mean = std = ()
        lengths = (len(mean), len(std))
        if lengths not in ((1, 1), (3, 3)) or not all(map(math.isfinite, mean + std)) or min(std) <= 0:
            raise ConfigError(
                f"teacher_pixels {self.pixels!r} is not a mean and a standard deviation",
                "Give one number each, or one per channel, of pixel / 255: 0.485,0.456,0.406/0.229,0.224,0.225",
            )
        return mean, std


NOTHING_SAID = TeacherOptions()


def teacher_options(config: PretrainConfig | FinetuneConfig) -> TeacherOptions:
    """What a run's settings say of its teacher."""
    return TeacherOptions(
        config.teacher_pixels, config.teacher_image_size, config.teacher_layout, config.teacher_output
    )


@dataclass(frozen=True)
class TeacherInput:
    """The images that a teacher was made for.

    Attributes:
        image_size: pixels a side.
        channels: 1 (grey) or 3 (RGB).
        constants: mean and std of pixel / 255 that it is normalised by, a number for each channel; None for whatever
            the student's views are normalised by.
    """

    image_size: int
    channels: int
    constants: Constants | None = None

    @classmethod
    def of(cls, preprocessing: Preprocessing) -> TeacherInput:
        """That of a network trained or imported here."""
        p = preprocessing
        return cls(p.image_size, p.channels, (p.mean, p.std))

    def with_pixels(self, constants: Constants | None, pixels: str) -> TeacherInput:
        """The same with these constants, one for each channel. Raises `ConfigError` where they do not fit."""
        if constants is None:
            return TeacherInput(self.image_size, self.channels)
        if any(len(values) not in (1, self.channels) for values in constants):
            raise ConfigError(
                f"teacher_pixels {pixels} is for 3 channels, and the teacher's images have {self.channels}",
                "Give a mean and a standard deviation for one channel, such as 0.449/0.226",
            )
        mean, std = (values * (self.channels // len(values)) for values in constants)
        return TeacherInput(self.image_size, self.channels, (mean, std))

    def from_views(self, views: tf.Tensor, student: Preprocessing) -> tf.Tensor:
        """Makes the teacher's images of the student's views.

        Args:
            views: float32 [B, S, S, C], normalised as `student` says.
            student: size, channels and constants of the views.

        Returns:
            float32 [B, image_size, image_size, channels], normalised for the teacher; `views` where nothing differs.
        """
        own = (student.mean, student.std)
        normalised_alike = self.constants is None or self.constants == own
        if not normalised_alike:
            views = views * np.asarray(student.std, np.float32) + np.asarray(student.mean, np.float32)
        if self.channels > student.channels:
            views = tf.repeat(views, self.channels, axis=-1)
        elif self.channels < student.channels:
            views = tf.reduce_sum(views * np.asarray(_LUMA, np.float32), axis=-1, keepdims=True)
        if self.image_size != student.image_size:
            views = tf.image.resize(views, [self.image_size] * 2, method="bilinear", antialias=True)
        if not normalised_alike:
            assert self.constants is not None
            mean, std = (np.asarray(values, np.float32) for values in self.constants)
            views = (views - mean) / std
        return views

    def to_dict(self) -> dict[str, Any]:
        """For records: plain numbers and lists."""
        mean, std = self.constants or (None, None)
        return {
            "image_size": self.image_size,
            "channels": self.channels,
            "mean": mean and list(mean),
            "std": std and list(std),
        }
