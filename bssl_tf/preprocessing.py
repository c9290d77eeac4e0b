"""What every image goes through before the network, in numpy and Pillow so that host and device agree."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from bssl_tf.errors import ConfigError
from bssl_tf_deploy.preprocess import normalise
from bssl_tf_deploy.resizing import resized

MIN_IMAGE_SIZE = 8
MAX_IMAGE_SIZE = 1024


@dataclass(frozen=True)
class Preprocessing:
    """Size and normalisation: the network sees (pixel / 255 - mean) / std.

    Attributes:
        image_size: side of the network's input, pixels; of one that is not a square, its height.
        channels: 1 (grey) or 3 (RGB).
        mean: one for each channel, in units of pixel / 255.
        std: one for each channel, in units of pixel / 255, above zero.
        image_width: width of an input that is not a square, which detectors may have; 0 for a square.

    Raises:
        ConfigError: a value is out of range.
    """

    image_size: int
    channels: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    image_width: int = 0

    def __post_init__(self) -> None:
        problems = []
        if not MIN_IMAGE_SIZE <= self.image_size <= MAX_IMAGE_SIZE:
            problems.append(f"image_size {self.image_size} is not in {MIN_IMAGE_SIZE} to {MAX_IMAGE_SIZE}")
        if self.image_width and not MIN_IMAGE_SIZE <= self.image_width <= MAX_IMAGE_SIZE:
            problems.append(f"image_width {self.image_width} is not in {MIN_IMAGE_SIZE} to {MAX_IMAGE_SIZE}")
        if self.channels not in (1, 3):
            problems.append(f"channels {self.channels} is not 1 or 3")
        if len(self.mean) != self.channels or len(self.std) != self.channels:
            problems.append("mean and std need one number for each channel")
        if not all(np.isfinite(self.mean)) or not all(np.isfinite(self.std)) or not all(s > 0 for s in self.std):
            problems.append("mean must be finite, and std finite and above zero")
        if problems:
            raise ConfigError(f"preprocessing: {'; '.join(problems)}", "Restore the values that were saved in training")

    @property
    def height(self) -> int:
        """Of the network's input, pixels."""
        return self.image_size

    @property
    def width(self) -> int:
        """Of the network's input, pixels."""
        return self.image_width or self.image_size

    def to_dict(self) -> dict[str, object]:
        """Plain numbers and lists, for JSON and TOML."""
        values = {key: list(value) if isinstance(value, tuple) else value for key, value in asdict(self).items()}
        # Of squares, as they were written before there was anything else.
        return values if self.image_width else {key: value for key, value in values.items() if key != "image_width"}

    @classmethod
    def from_dict(cls, values: Mapping[str, object]) -> Preprocessing:
        """The reverse of `to_dict`.

        Raises:
            ConfigError: a key is unknown or missing, or a value has the wrong type or is out of range.
        """
        # A square has no width of its own.
        expected, given = ({*one} - {"image_width"} for one in ([field.name for field in fields(cls)], values))
        if given != expected:
            odd = ", ".join(sorted(given ^ expected))
            raise ConfigError(
                f"preprocessing has unknown or missing keys: {odd}",
                f"Give exactly {', '.join(sorted(expected))}",
            )
        return cls(
            _integer(values, "image_size"),
            _integer(values, "channels"),
            _numbers(values, "mean"),
            _numbers(values, "std"),
            _integer(values, "image_width") if "image_width" in values else 0,
        )

    def normalise(self, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        """(pixel / 255 - mean) / std in float32; uint8 [..., C] to float32 [..., C]."""
        return normalise(pixels, self.mean, self.std)

    def central_squares(self, images: NDArray[np.uint8], aspect_ratios: NDArray[np.float32]) -> NDArray[np.uint8]:
        """The central square of each picture, in true geometry, resized to `image_size`.

        The resize is the device's (`bssl_tf_deploy.resizing`), antialiased and rounded to uint8. A square picture of
        `image_size` is taken as it is.

        Args:
            images: uint8 [B, S, S, C], each squashed from its true shape to a square.
            aspect_ratios: float32 [B], width / height of the originals.

        Returns:
            uint8 [B, image_size, image_size, C].
        """
        if images.shape[1] == self.image_size and bool(np.all(aspect_ratios == 1)):
            return images
        squares = np.empty((len(images), self.image_size, self.image_size, self.channels), np.uint8)
        for square, image, ratio in zip(squares, images, aspect_ratios, strict=True):
            square[...] = _central_square(image, float(ratio), self.image_size)
        return squares


def _central_square(image: NDArray[np.uint8], ratio: float, size: int) -> NDArray[np.uint8]:
    """uint8 [S, S, C] squashed from width / height = `ratio` to uint8 [size, size, C] of its central square."""
    stored = image.shape[0]
    width, height = stored * min(1 / ratio, 1.0), stored * min(ratio, 1.0)
    left, top = (stored - width) / 2, (stored - height) / 2
    picture = Image.fromarray(image[..., 0] if image.shape[2] == 1 else image)
    square = resized(picture, size, size, (left, top, left + width, top + height))
    return np.asarray(square, np.uint8).reshape(size, size, image.shape[2])


def _integer(values: Mapping[str, object], key: str) -> int:
    value = values[key]
    if isinstance(value, bool) or not isinstance(value, int):
        raise ConfigError(f"preprocessing.{key} is {value!r}", "Give a whole number")
    return value


def _numbers(values: Mapping[str, object], key: str) -> tuple[float, ...]:
    value = values[key]
    if not isinstance(value, Sequence) or isinstance(value, str):
        raise ConfigError(f"preprocessing.{key} is {value!r}", "Give a list of numbers, one for each channel")
    if not all(isinstance(number, (int, float)) and not isinstance(number, bool) for number in value):
        raise ConfigError(f"preprocessing.{key} is {value!r}", "Give a list of numbers, one for each channel")
    return tuple(float(number) for number in value)
