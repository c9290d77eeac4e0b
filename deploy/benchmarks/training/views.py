"""Random views in plain PyTorch, as `bssl_tf.data.augmentation` makes them with the strengths "lite"."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.data import DataLoader, IterableDataset, get_worker_info

NUMBERS_PER_VIEW = 13
_MIN_AREA, _MAX_AREA = 0.2, 1.0
_MIN_RATIO, _MAX_RATIO = 3 / 4, 4 / 3
_STRENGTHS = (0.4, 0.4, 0.4, 0.1)
_JITTER, _GREY, _BLUR, _FLIP = 0.6, 0.2, 0.2, 0.5
_MIN_SIGMA, _MAX_SIGMA, _LEAST_UPPER_SIGMA, _SIGMA_SIZE = 0.1, 2.0, 0.75, 224
_LUMA = torch.tensor([0.299, 0.587, 0.114])
_TO_YIQ = torch.tensor([[0.299, 0.587, 0.114], [0.595716, -0.274453, -0.321263], [0.211456, -0.522591, 0.311135]])
_FROM_YIQ = torch.linalg.inv(_TO_YIQ)


def augment(images: Tensor, numbers: Tensor, image_size: int) -> Tensor:
    """One random view of each image.

    Args:
        images: uint8 [B, 3, S, S], channels last in memory, of square originals.
        numbers: float32 [B, 13] in 0 to 1, the random numbers.
        image_size: side of the views, pixels.

    Returns:
        float32 [B, 3, image_size, image_size] in 0 to 1.
    """
    random = numbers.unbind(1)
    views = _crop_and_flip(images, random[:4], random[4] < _FLIP, image_size)
    views = _jitter(views, random[5:11])
    scale = image_size / _SIGMA_SIZE
    low, high = _MIN_SIGMA * scale, max(_MAX_SIGMA * scale, _LEAST_UPPER_SIGMA)
    return _blur(views, random[11] < _BLUR, low + (high - low) * random[12])


def _crop_and_flip(images: Tensor, random: tuple[Tensor, ...], flip: Tensor, size: int) -> Tensor:
    area, shape, top, left = random
    share = _MIN_AREA + (_MAX_AREA - _MIN_AREA) * area
    narrowest, widest = share.clamp(_MIN_RATIO, _MAX_RATIO), (1 / share).clamp(_MIN_RATIO, _MAX_RATIO)
    ratio = torch.exp(narrowest.log() * (1 - shape) + widest.log() * shape)
    height = torch.minimum((share / ratio).sqrt(), (1 / ratio).clamp(max=1.0))
    width = (height * ratio).clamp(max=1.0)
    y, x = top * (1 - height), left * (1 - width)
    cells = (torch.arange(size) + 0.5) / size
    across = torch.where(flip[:, None], 1 - cells, cells)
    rows = 2 * (y[:, None] + height[:, None] * cells) - 1
    columns = 2 * (x[:, None] + width[:, None] * across) - 1
    count = len(images)
    grid = torch.stack(
        [columns[:, None, :].expand(count, size, size), rows[:, :, None].expand(count, size, size)], dim=3
    )
    return F.grid_sample(images.float(), grid, mode="bilinear", padding_mode="border", align_corners=False) / 255.0


def _jitter(views: Tensor, random: tuple[Tensor, ...]) -> Tensor:
    jitter = (random[0] < _JITTER).float()
    drawn = [limit * (2 * number - 1) * jitter for limit, number in zip(_STRENGTHS, random[1:5], strict=True)]
    brightness, contrast, saturation = (1 + number for number in drawn[:3])
    grey = (random[5] < _GREY).float()
    angle, colour = 2 * math.pi * drawn[3], (1 - grey) * saturation
    cos, sin = colour * angle.cos(), colour * angle.sin()
    zero, one = torch.zeros_like(angle), torch.ones_like(angle)
    turn = torch.stack([one, zero, zero, zero, cos, -sin, zero, sin, cos], dim=1).reshape(-1, 3, 3)
    matrix = (_FROM_YIQ @ turn @ _TO_YIQ) * (contrast * brightness)[:, None, None]
    offset = (1 - contrast) * brightness * (views.mean(dim=(2, 3)) @ _LUMA)
    count, channels, height, width = views.shape
    pixels = views.permute(0, 2, 3, 1).reshape(count, -1, channels)
    mixed = (pixels @ matrix.transpose(1, 2) + offset[:, None, None]).clamp_(0.0, 1.0)
    return mixed.reshape(count, height, width, channels).permute(0, 3, 1, 2)


def _blur(views: Tensor, chosen: Tensor, sigma: Tensor) -> Tensor:
    places = torch.arange(views.shape[-1], dtype=torch.float32)
    distance = (places[:, None] - places[None, :]).square()
    weights = torch.softmax(-distance / (2 * sigma[chosen].square())[:, None, None], dim=2)[:, None]
    views[chosen] = weights @ views[chosen] @ weights.transpose(2, 3)
    return views


class Views(IterableDataset):
    """Endless batches of views, normalised, float32 [B, 3, S, S], channels last in memory.

    Args:
        images: uint8 [N, S, S, 3].
        batch_size: B.
        image_size: S of the views, pixels.
        mean, std: of pixel / 255, a number for each channel.
        seed: of order and views.
    """

    def __init__(
        self,
        images: np.ndarray,
        batch_size: int,
        image_size: int,
        mean: tuple[float, ...],
        std: tuple[float, ...],
        seed: int,
    ) -> None:
        super().__init__()
        self._images = torch.from_numpy(images).permute(0, 3, 1, 2)
        self._batch_size, self._image_size, self._seed = batch_size, image_size, seed
        self._mean, self._std = (torch.tensor(values)[:, None, None] for values in (mean, std))

    def __iter__(self) -> Iterator[Tensor]:
        info = get_worker_info()
        random = torch.Generator().manual_seed(self._seed + (info.id if info else 0))
        while True:
            order = torch.randperm(len(self._images), generator=random)
            for chosen in order.split(self._batch_size):
                if len(chosen) == self._batch_size:
                    numbers = torch.rand(len(chosen), NUMBERS_PER_VIEW, generator=random)
                    yield self.normalised(augment(self._images[chosen], numbers, self._image_size))

    def normalised(self, views: Tensor) -> Tensor:
        """Views as the networks take them."""
        return ((views - self._mean) / self._std).contiguous(memory_format=torch.channels_last)

    def loader(self) -> DataLoader[Tensor]:
        """One process that prepares two batches ahead."""
        return DataLoader(self, batch_size=None, num_workers=1, prefetch_factor=2)
