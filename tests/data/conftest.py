"""What the tests of the data room share."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

import numpy as np
import pytest
from PIL import Image

from bssl_tf.data.image_set import ImageSet


@pytest.fixture
def absent() -> Callable[[str], NoReturn]:
    """Skips the test because something outside of the project is not there; fails where CI is set."""

    def act(what: str) -> NoReturn:
        if os.environ.get("CI"):
            pytest.fail(f"{what}, and CI is set: this machine must have it")
        pytest.skip(what)

    return act


@pytest.fixture
def save() -> Callable[..., Path]:
    """Writes a picture whose content depends on `seed`, in the format that the path's ending names."""

    def act(path: Path, seed: int = 0, size: tuple[int, int] = (40, 30), mode: str = "RGB") -> Path:
        path.parent.mkdir(parents=True, exist_ok=True)
        pixels = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), np.uint8)
        Image.fromarray(pixels).convert(mode).save(path)
        return path

    return act


@pytest.fixture
def make_set() -> Callable[..., ImageSet]:
    """Random images; image i has the value i in its first pixel, so that it can be found again."""

    def act(count: int = 20, size: int = 12, channels: int = 3, classes: int = 0, ratio: float = 1.0) -> ImageSet:
        images = np.random.default_rng(0).integers(0, 256, (count, size, size, channels), np.uint8)
        images[:, 0, 0, 0] = np.arange(count) % 256
        labels = np.arange(count, dtype=np.int64) % classes if classes else None
        names = tuple(f"class {index}" for index in range(classes))
        return ImageSet("made up", images, np.full(count, ratio, np.float32), labels, names)

    return act
