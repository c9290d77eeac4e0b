"""The networks in plain PyTorch, as `bssl_tf.models` defines them; their parts are called as the layers there.

A layer `stage1_block2_conv` there is `stage1_block2.conv` here, so that weights go over by name (`weights`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class _Sign(torch.autograd.Function):
    """sign(x) with sign(0) = +1; the gradient is 2 - 2 |x| on [-1, 1] (Bi-Real Net, ECCV 2018, section 3.2)."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return torch.where(x >= 0, 1.0, -1.0).to(x.dtype)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        (x,) = ctx.saved_tensors
        return gradient * (2 - 2 * x.abs()).clamp_(min=0)


class _ClippedSign(torch.autograd.Function):
    """sign(x) with sign(0) = +1; the gradient goes straight through where |x| <= 1."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return torch.where(x >= 0, 1.0, -1.0).to(x.dtype)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        (x,) = ctx.saved_tensors
        return gradient * (x.abs() <= 1)


class Conv(nn.Conv2d):
    """A convolution without bias whose output has the input's size over its stride; what is added lies right and below.

    PyTorch's own padding is the same on all sides; it is used wherever that is what is wanted.
    """

    pad_value = 0.0

    def __init__(self, incoming: int, filters: int, size: int, stride: int = 1, groups: int = 1) -> None:
        super().__init__(incoming, filters, size, stride=stride, groups=groups, bias=False)

    def padding_of(self, x: Tensor) -> tuple[int, int]:
        """Pixels before and after, of both axes: images are square."""
        side, size, stride = x.shape[-1], self.kernel_size[0], self.stride[0]
        total = max((-(-side // stride) - 1) * stride + size - side, 0)
        return total // 2, total - total // 2

    def forward(self, x: Tensor) -> Tensor:
        """[B, C, H, W] to [B, D, H / stride, W / stride]."""
        before, after = self.padding_of(x)
        if before == after and self.pad_value == 0.0:
            return F.conv2d(x, self.weight, None, self.stride, before, groups=self.groups)
        x = F.pad(x, (before, after, before, after), value=self.pad_value)
        return F.conv2d(x, self.weight, None, self.stride, groups=self.groups)


class BinaryConv(Conv):
    """A convolution of signs by signs, with the mean of the latent weights' sizes as scale of each output channel."""

    pad_value = 1.0

    def forward(self, x: Tensor) -> Tensor:
        """[B, C, H, W] to [B, D, H / stride, W / stride]."""
        scale = self.weight.detach().abs().mean(dim=(1, 2, 3), keepdim=True)
        kernel = scale * _ClippedSign.apply(self.weight)
        x = _Sign.apply(x)
        before, after = self.padding_of(x)
        if before or after:
            x = F.pad(x, (before, after, before, after), value=self.pad_value)
        return F.conv2d(x, kernel, None, self.stride)


def _norm(channels: int) -> nn.BatchNorm2d:
    return nn.BatchNorm2d(channels, eps=1e-5, momentum=0.1)


def _pooled(x: Tensor) -> Tensor:
    return x.mean(dim=(2, 3))


class _BinaryBlock(nn.Module):
    def __init__(self, incoming: int, filters: int, stride: int) -> None:
        super().__init__()
        self.conv = BinaryConv(incoming, filters, 3, stride)
        self.norm = _norm(filters)
        self._stride = stride

    def forward(self, x: Tensor) -> Tensor:
        shortcut = x
        if self._stride == 2:
            pooled = F.avg_pool2d(x, 2)
            shortcut = torch.cat([pooled, pooled], dim=1)
        return self.norm(F.relu(self.conv(x))) + shortcut


class _Blocks(nn.Module):
    """Named blocks, one after another."""

    def _add(self, name: str, block: nn.Module) -> None:
        self.add_module(name, block)
        self._order: list[str] = [*getattr(self, "_order", []), name]

    def _through_blocks(self, x: Tensor) -> Tensor:
        for name in self._order:
            x = getattr(self, name)(x)
        return x


class BinaryResNet(_Blocks):
    """`bssl_tf.models.binary_resnet`."""

    def __init__(self, image_size: int, width: int = 32, depth: int = 4) -> None:
        super().__init__()
        self.stem_conv = Conv(3, width, 3, 2)
        self.stem_norm = _norm(width)
        self._pool = image_size >= 64
        incoming = width
        for stage in range(1, (4 if image_size >= 128 else 3) + 1):
            for block in range(1, depth + 1):
                filters, stride = width * 2 ** (stage - 1), 2 if stage > 1 and block == 1 else 1
                self._add(f"stage{stage}_block{block}", _BinaryBlock(incoming, filters, stride))
                incoming = filters
        self.features = incoming

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem_norm(self.stem_conv(x))
        if self._pool:
            x = F.max_pool2d(x, 3, 2, ceil_mode=True)
        return _pooled(self._through_blocks(x))


class _ResidualBinary(nn.Module):
    def __init__(self, filters: int) -> None:
        super().__init__()
        self.conv = BinaryConv(filters, filters, 3)
        self.norm = _norm(filters)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(F.relu(self.conv(x))) + x


class _Transition(nn.Module):
    def __init__(self, incoming: int, filters: int) -> None:
        super().__init__()
        self.blur = Conv(incoming, incoming, 3, 2, groups=incoming)
        self.blur.weight.requires_grad = False
        self.widen = Conv(incoming, filters, 1)
        self.norm = _norm(filters)

    def forward(self, x: Tensor) -> Tensor:
        x = F.max_pool2d(F.relu(x), 2, stride=1)
        return self.norm(self.widen(self.blur(x)))


def _stem_stride(image_size: int) -> int:
    return 4 if image_size >= 128 else 2 if image_size >= 64 else 1


class QuickNet(_Blocks):
    """`bssl_tf.models.quicknet.quicknet`."""

    def __init__(self, image_size: int, width: int = 64) -> None:
        super().__init__()
        stride = _stem_stride(image_size)
        self.stem_conv = Conv(3, width // 4, 3, min(stride, 2))
        self.stem_norm = _norm(width // 4)
        self.stem_depthwise = Conv(width // 4, width // 4, 3, max(stride // 2, 1), groups=width // 4)
        self.stem_depthwise_norm = _norm(width // 4)
        self.stem_widen = Conv(width // 4, width, 1)
        self.stem_widen_norm = _norm(width)
        for section in range(1, 5):
            filters = width * 2 ** (section - 1)
            if section > 1:
                self._add(f"section{section}_transition", _Transition(filters // 2, filters))
            for block in range(1, 5):
                self._add(f"section{section}_block{block}", _ResidualBinary(filters))
        self.features = filters

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.stem_norm(self.stem_conv(x)))
        x = self.stem_depthwise_norm(self.stem_depthwise(x))
        x = self.stem_widen_norm(self.stem_widen(x))
        return _pooled(F.relu(self._through_blocks(x)))


class Shift(nn.Module):
    """One learned number added to each channel (ReActNet, ECCV 2020, section 4.2)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.shift = nn.Parameter(torch.zeros(channels, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        return x + self.shift


class _ReactBlock(nn.Module):
    def __init__(self, incoming: int, filters: int, stride: int) -> None:
        super().__init__()
        self._stride, self._halves = stride, filters // incoming
        self.spatial_threshold = Shift(incoming)
        self.spatial_conv = BinaryConv(incoming, incoming, 3, stride)
        self.spatial_norm = _norm(incoming)
        self.channel_threshold = Shift(incoming)
        for name in self._names():
            self.add_module(f"{name}_conv", BinaryConv(incoming, incoming, 1))
            self.add_module(f"{name}_norm", _norm(incoming))
        for part, channels in (("spatial", incoming), ("channel", filters)):
            self.add_module(f"{part}_shift_in", Shift(channels))
            self.add_module(f"{part}_prelu", nn.PReLU(channels))
            self.add_module(f"{part}_shift_out", Shift(channels))

    def _names(self) -> list[str]:
        return ["channel"] if self._halves == 1 else ["channel1", "channel2"]

    def _rprelu(self, x: Tensor, part: str) -> Tensor:
        for layer in ("shift_in", "prelu", "shift_out"):
            x = getattr(self, f"{part}_{layer}")(x)
        return x

    def forward(self, x: Tensor) -> Tensor:
        shortcut = F.avg_pool2d(x, 2) if self._stride == 2 else x
        x = self.spatial_norm(self.spatial_conv(self.spatial_threshold(x))) + shortcut
        x = self._rprelu(x, "spatial")
        signed = self.channel_threshold(x)
        halves = [getattr(self, f"{name}_norm")(getattr(self, f"{name}_conv")(signed)) + x for name in self._names()]
        return self._rprelu(halves[0] if len(halves) == 1 else torch.cat(halves, dim=1), "channel")


class ReActNetA(_Blocks):
    """`bssl_tf.models.reactnet.reactnet_a`."""

    _BLOCKS = ((2, 1), (4, 2), (4, 1), (8, 2), (8, 1), (16, 2), *[(16, 1)] * 5, (32, 2), (32, 1))

    def __init__(self, image_size: int, width: int = 32) -> None:
        super().__init__()
        stem_stride = _stem_stride(image_size)
        self.stem_conv = Conv(3, width, 3, min(stem_stride, 2))
        self.stem_norm = _norm(width)
        incoming = width
        for block, (factor, stride) in enumerate(self._BLOCKS, start=1):
            strides = 1 if block == 2 and stem_stride < 4 else stride
            self._add(f"block{block}", _ReactBlock(incoming, factor * width, strides))
            incoming = factor * width
        self.features = incoming

    def forward(self, x: Tensor) -> Tensor:
        return _pooled(self._through_blocks(self.stem_norm(self.stem_conv(x))))


class _FloatBlock(nn.Module):
    def __init__(self, incoming: int, filters: int, stride: int) -> None:
        super().__init__()
        self.conv1, self.conv1_norm = Conv(incoming, filters, 3, stride), _norm(filters)
        self.conv2, self.conv2_norm = Conv(filters, filters, 3), _norm(filters)
        self._stride = stride
        if stride > 1:
            self.shortcut, self.shortcut_norm = Conv(incoming, filters, 1, stride), _norm(filters)

    def forward(self, x: Tensor) -> Tensor:
        shortcut = x if self._stride == 1 else self.shortcut_norm(self.shortcut(x))
        y = F.relu(self.conv1_norm(self.conv1(x)))
        return F.relu(self.conv2_norm(self.conv2(y)) + shortcut)


class FloatResNet(_Blocks):
    """`bssl_tf.models.float_resnet`."""

    def __init__(self, image_size: int, width: int = 32, depth: int = 2) -> None:
        super().__init__()
        self.stem_conv = Conv(3, width, 3, 2 if image_size >= 64 else 1)
        self.stem_norm = _norm(width)
        incoming = width
        for stage in range(1, (4 if image_size >= 128 else 3) + 1):
            for block in range(1, depth + 1):
                filters, stride = width * 2 ** (stage - 1), 2 if stage > 1 and block == 1 else 1
                self._add(f"stage{stage}_block{block}", _FloatBlock(incoming, filters, stride))
                incoming = filters
        self.features = incoming

    def forward(self, x: Tensor) -> Tensor:
        x = F.max_pool2d(F.relu(self.stem_norm(self.stem_conv(x))), 2)
        return _pooled(self._through_blocks(x))


class Head(nn.Module):
    """`bssl_tf.models.heads.mlp_head` of two layers without batch norm."""

    def __init__(self, incoming: int, width: int) -> None:
        super().__init__()
        self.head_dense1 = nn.Linear(incoming, incoming)
        self.head_dense2 = nn.Linear(incoming, width)

    def forward(self, x: Tensor) -> Tensor:
        return self.head_dense2(F.relu(self.head_dense1(x)))


NETWORKS: Mapping[str, Callable[..., Any]] = {
    "binary_resnet": BinaryResNet,
    "quicknet": QuickNet,
    "reactnet_a": ReActNetA,
    "float_resnet": FloatResNet,
}
