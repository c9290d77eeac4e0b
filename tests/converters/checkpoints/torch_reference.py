"""Checkpoints and what PyTorch computes with them; run by a Python that has torch: `torch_reference.py WHAT FOLDER`.

WHAT is `small` (all that the reader must read, in both formats), `resnet50` (MoCo's three files, v2 in the legacy
format, and SwAV's, one backbone with four heads), `basic` (torchvision's ResNet-18 and 34) or `lite0`: networks that
are written out plainly here, on dicts of tensors, with random weights and random statistics. Or `cifar10_teacher`:
what docs/cifar10_teacher.py trains on FOLDER/data. NAME.npz holds what is expected. Nothing of bssl-tf is imported.
"""

from __future__ import annotations

import argparse
import importlib
import sys
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

# By name, so that type checkers do without it where it is not installed.
torch: Any = importlib.import_module("torch")
F: Any = torch.nn.functional
State = dict[str, Any]


def small(folder: Path) -> None:
    model = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.BatchNorm1d(4))
    optimizer = torch.optim.SGD(model.parameters(), 0.1, momentum=0.9)
    model(torch.randn(5, 3)).square().sum().backward()
    optimizer.step()
    base = torch.randn(4, 6)
    kinds = ("float64", "float32", "float16", "int64", "int32", "int16", "int8", "uint8", "bool", "complex64")
    tensors: State = {kind: (3 * torch.randn(2, 3)).to(getattr(torch, kind)) for kind in kinds}
    bfloat16 = torch.randn(7).to(torch.bfloat16)
    tensors |= {"rows": base[1:3], "columns": base[:, 2:5].t(), "flipped": base.permute(1, 0), "one": base[2, 3]}
    tensors |= {"parameter": torch.nn.Parameter(torch.randn(2)), "empty": torch.zeros(0, 3), "list": [base, (base[0],)]}
    content = {
        "epoch": 3,
        "arch": "resnet50",
        "best": 0.5,
        "args": argparse.Namespace(lr=0.1),
        "state_dict": model.state_dict(),
        "optimizer": optimizer.state_dict(),
        "more": tensors | {"bfloat16": bfloat16},
    }
    expected = {f"state_dict/{key}": value for key, value in model.state_dict().items()}
    for index, state in optimizer.state_dict()["state"].items():
        expected[f"optimizer/state/{index}/momentum_buffer"] = state["momentum_buffer"]
    expected |= {f"more/{key}": value for key, value in tensors.items() if key != "list"}
    expected |= {"more/bfloat16": bfloat16.float(), "more/list/0": base, "more/list/1/0": base[0]}
    torch.save(content, folder / "small.zip.pth")
    torch.save(content, folder / "small.legacy.pth", _use_new_zipfile_serialization=False)
    torch.save(content, folder / "small.protocol4.pth", pickle_protocol=4)
    save_arrays(folder / "small.npz", expected)


def convolution_weights(state: State, name: str, filters: int, channels: int, size: int) -> None:
    state[f"{name}.weight"] = torch.randn(filters, channels, size, size) * (2 / (channels * size * size)) ** 0.5


def norm_weights(state: State, name: str, width: int) -> None:
    state[f"{name}.weight"] = torch.rand(width) + 0.5
    state[f"{name}.bias"] = torch.randn(width) * 0.2
    state[f"{name}.running_mean"] = torch.randn(width) * 0.2
    state[f"{name}.running_var"] = torch.rand(width) * 1.5 + 0.5
    state[f"{name}.num_batches_tracked"] = torch.tensor(7)


def dense_weights(state: State, name: str, units: int, width: int) -> None:
    state[f"{name}.weight"] = torch.randn(units, width) * (2 / width) ** 0.5
    state[f"{name}.bias"] = torch.randn(units)


def norm(state: State, name: str, x: Any, epsilon: float) -> Any:
    parts = (state[f"{name}.{part}"] for part in ("running_mean", "running_var", "weight", "bias"))
    return F.batch_norm(x, *parts, training=False, eps=epsilon)


def resnet50_state() -> State:
    state: State = {}
    convolution_weights(state, "conv1", 64, 3, 7)
    norm_weights(state, "bn1", 64)
    channels = 64
    for stage, blocks in enumerate((3, 4, 6, 3)):
        width = 64 << stage
        for block in range(blocks):
            name = f"layer{stage + 1}.{block}"
            shapes = ((width, channels, 1), (width, width, 3), (4 * width, width, 1))
            for number, shape in enumerate(shapes, start=1):
                convolution_weights(state, f"{name}.conv{number}", *shape)
                norm_weights(state, f"{name}.bn{number}", shape[0])
            if block == 0:
                convolution_weights(state, f"{name}.downsample.0", 4 * width, channels, 1)
                norm_weights(state, f"{name}.downsample.1", 4 * width)
            channels = 4 * width
    return state


def basic_state(blocks: tuple[int, ...]) -> State:
    """ResNet-18 and 34: two 3x3 convolutions a block."""
    state: State = {}
    convolution_weights(state, "conv1", 64, 3, 7)
    norm_weights(state, "bn1", 64)
    channels = 64
    for stage, count in enumerate(blocks):
        width = 64 << stage
        for block in range(count):
            name = f"layer{stage + 1}.{block}"
            for number, before in ((1, channels), (2, width)):
                convolution_weights(state, f"{name}.conv{number}", width, before, 3)
                norm_weights(state, f"{name}.bn{number}", width)
            if channels != width:
                convolution_weights(state, f"{name}.downsample.0", width, channels, 1)
                norm_weights(state, f"{name}.downsample.1", width)
            channels = width
    dense_weights(state, "fc", 1000, 512)
    return state


def basic(state: State, blocks: tuple[int, ...], x: Any) -> Any:
    """[B, 3, S, S] to [B, 512]."""
    x = F.relu(norm(state, "bn1", F.conv2d(x, state["conv1.weight"], stride=2, padding=3), 1e-5))
    x = F.max_pool2d(x, 3, 2, 1)
    for stage, count in enumerate(blocks):
        for block in range(count):
            name = f"layer{stage + 1}.{block}."
            stride = 2 if stage and not block else 1
            y = F.conv2d(x, state[f"{name}conv1.weight"], stride=stride, padding=1)
            y = F.relu(norm(state, f"{name}bn1", y, 1e-5))
            y = norm(state, f"{name}bn2", F.conv2d(y, state[f"{name}conv2.weight"], padding=1), 1e-5)
            if f"{name}downsample.0.weight" in state:
                x = F.conv2d(x, state[f"{name}downsample.0.weight"], stride=stride)
                x = norm(state, f"{name}downsample.1", x, 1e-5)
            x = F.relu(x + y)
    return x.mean((2, 3))


def basic_files(folder: Path) -> None:
    images = torch.randn(2, 3, 75, 75)
    expected = {"images": images}
    for name, blocks in (("resnet18", (2, 2, 2, 2)), ("resnet34", (3, 4, 6, 3))):
        state = basic_state(blocks)
        torch.save(OrderedDict(state), folder / f"{name}.pth")
        expected[name] = basic(state, blocks, images)
    save_arrays(folder / "basic.npz", expected)


def resnet50(state: State, x: Any) -> Any:
    """[B, 3, S, S] to [B, 2048]; the 3x3 convolution has the stride, as in torchvision."""

    def convolution(y: Any, name: str, number: str, stride: int = 1) -> Any:
        weight = state[f"{name}conv{number}.weight"]
        y = F.conv2d(y, weight, stride=stride, padding=weight.shape[-1] // 2)
        return norm(state, f"{name}bn{number}", y, 1e-5)

    x = F.max_pool2d(F.relu(convolution(x, "", "1", 2)), 3, 2, 1)
    for stage, blocks in enumerate((3, 4, 6, 3)):
        for block in range(blocks):
            name = f"layer{stage + 1}.{block}."
            stride = 2 if stage and not block else 1
            y = F.relu(convolution(x, name, "1"))
            y = F.relu(convolution(y, name, "2", stride))
            y = convolution(y, name, "3")
            if not block:
                x = F.conv2d(x, state[f"{name}downsample.0.weight"], stride=stride)
                x = norm(state, f"{name}downsample.1", x, 1e-5)
            x = F.relu(x + y)
    return x.mean((2, 3))


def dense(state: State, name: str, x: Any) -> Any:
    return F.linear(x, state[f"{name}.weight"], state[f"{name}.bias"])


def resnet50_files(folder: Path) -> None:
    backbone = resnet50_state()
    moco: State = {}
    swav: State = {}
    dense_weights(moco, "fc.0", 2048, 2048)
    dense_weights(moco, "fc.2", 128, 2048)
    dense_weights(swav, "projection_head.0", 2048, 2048)
    norm_weights(swav, "projection_head.1", 2048)
    dense_weights(swav, "projection_head.3", 128, 2048)

    images = torch.randn(2, 3, 64, 64)
    features = resnet50(backbone, images)
    moco_out = dense(moco, "fc.2", F.relu(dense(moco, "fc.0", features)))
    hidden = norm(swav, "projection_head.1", dense(swav, "projection_head.0", features), 1e-5)
    swav_out = dense(swav, "projection_head.3", F.relu(hidden))
    first: State = {}
    dense_weights(first, "fc", 128, 2048)
    third: State = {}
    dense_weights(third, "fc.0", 4096, 2048)
    norm_weights(third, "fc.1", 4096)
    dense_weights(third, "fc.3", 256, 4096)
    norm_weights(third, "fc.4", 256)
    # Neither dense layer has a bias, and the last batch norm has no weight and bias.
    for key in ("fc.0.bias", "fc.3.bias", "fc.4.weight", "fc.4.bias"):
        del third[key]
    inside = F.relu(norm(third, "fc.1", F.linear(features, third["fc.0.weight"]), 1e-5))
    last = F.linear(inside, third["fc.3.weight"])
    third_out = F.batch_norm(last, third["fc.4.running_mean"], third["fc.4.running_var"], training=False, eps=1e-5)
    expected = {"images": images, "features": features, "moco_v2": moco_out, "swav": swav_out}
    expected |= {"moco_v1": dense(first, "fc", features), "moco_v3": third_out}
    for version, prefix, head in (("moco_v1", "encoder_q", first), ("moco_v3", "base_encoder", third)):
        named = {f"module.{prefix}.{key}": value for key, value in (backbone | head).items()}
        named |= {f"module.{other}.conv1.weight": torch.zeros(1) for other in ("encoder_k", "momentum_encoder")}
        torch.save({"epoch": 1, "arch": "resnet50", "state_dict": named}, folder / f"{version}.pth.tar")
    save_arrays(folder / "resnet50.npz", expected)

    weights = [torch.nn.Parameter(value.clone()) for value in moco.values()]
    optimizer = torch.optim.SGD(weights, 0.03, momentum=0.9)
    sum(weight.sum() for weight in weights).backward()
    optimizer.step()
    state = OrderedDict((f"module.encoder_q.{key}", value) for key, value in (backbone | moco).items())
    state |= {f"module.encoder_k.{key}": value + 1 for key, value in backbone.items() if key.startswith("bn1.")}
    state |= {"module.queue": torch.randn(128, 64), "module.queue_ptr": torch.zeros(1, dtype=torch.int64)}
    state._metadata = OrderedDict({"": {"version": 1}})  # type: ignore[attr-defined]
    content = {"epoch": 800, "arch": "resnet50", "state_dict": state, "optimizer": optimizer.state_dict()}
    torch.save(content, folder / "moco_v2.pth.tar", _use_new_zipfile_serialization=False)
    prototypes = {"prototypes.weight": torch.randn(30, 128)}
    released = OrderedDict((f"module.{key}", value) for key, value in (backbone | swav | prototypes).items())
    torch.save(released, folder / "swav.pth.tar")


# Of each stage: blocks, kernel size, stride, expansion, channels (table 1 of EfficientNet's paper, B0).
LITE0 = (
    *((1, 3, 1, 1, 16), (2, 3, 2, 6, 24), (2, 5, 2, 6, 40), (3, 3, 2, 6, 80)),
    *((3, 5, 1, 6, 112), (4, 5, 2, 6, 192), (1, 3, 1, 6, 320)),
)


def lite0_state() -> State:
    state: State = {}
    convolution_weights(state, "_conv_stem", 32, 3, 3)
    norm_weights(state, "_bn0", 32)
    channels, number = 32, 0
    for blocks, size, _, expansion, filters in LITE0:
        for _ in range(blocks):
            name, wide = f"_blocks.{number}.", channels * expansion
            if expansion > 1:
                convolution_weights(state, f"{name}_expand_conv", wide, channels, 1)
                norm_weights(state, f"{name}_bn0", wide)
            convolution_weights(state, f"{name}_depthwise_conv", wide, 1, size)
            norm_weights(state, f"{name}_bn1", wide)
            convolution_weights(state, f"{name}_project_conv", filters, wide, 1)
            norm_weights(state, f"{name}_bn2", filters)
            channels, number = filters, number + 1
    convolution_weights(state, "_conv_head", 1280, 320, 1)
    norm_weights(state, "_bn1", 1280)
    dense_weights(state, "_fc", 1000, 1280)
    return state


def lite0(state: State, x: Any) -> Any:
    """[B, 3, S, S] to [B, 1280]; pads as TensorFlow does, with the odd row and column at the bottom right."""

    def convolution(y: Any, conv: str, bn: str, stride: int = 1, groups: int = 1) -> Any:
        weight, side = state[f"{conv}.weight"], y.shape[-1]
        total = max((-(-side // stride) - 1) * stride + weight.shape[-1] - side, 0)
        before, behind = total // 2, total - total // 2
        y = F.pad(y, (before, behind, before, behind))
        return norm(state, bn, F.conv2d(y, weight, stride=stride, groups=groups), 1e-3)

    x = F.relu6(convolution(x, "_conv_stem", "_bn0", 2))
    number = 0
    for blocks, _, first_stride, expansion, _ in LITE0:
        for block in range(blocks):
            name, y = f"_blocks.{number}.", x
            if expansion > 1:
                y = F.relu6(convolution(y, f"{name}_expand_conv", f"{name}_bn0"))
            stride = 1 if block else first_stride
            y = F.relu6(convolution(y, f"{name}_depthwise_conv", f"{name}_bn1", stride, y.shape[1]))
            y = convolution(y, f"{name}_project_conv", f"{name}_bn2")
            x = x + y if block else y
            number += 1
    return F.relu6(convolution(x, "_conv_head", "_bn1")).mean((2, 3))


def lite0_files(folder: Path) -> None:
    state = lite0_state()
    torch.save(OrderedDict(state), folder / "lite0.pth", _use_new_zipfile_serialization=False)
    images = {side: torch.randn(2, 3, side, side) for side in (64, 75)}
    expected = {f"images{side}": batch for side, batch in images.items()}
    save_arrays(folder / "lite0.npz", expected | {f"features{s}": lite0(state, batch) for s, batch in images.items()})


def cifar10_teacher(folder: Path) -> None:
    """Trains a few steps as its command does, and computes with what that saved."""
    sys.path.insert(0, str(Path(__file__).parents[3] / "docs"))
    recipe: Any = importlib.import_module("cifar10_teacher")
    options = ("--epochs", "2", "--batch-size", "8", "--device", "cpu", "--hold-out", "--report-every", "1")
    sys.argv = ["cifar10_teacher.py", str(folder / "data"), "--out", str(folder / "teacher.pth"), *options]
    recipe.main()
    network = recipe.Teacher(recipe.WIDTH, recipe.DEPTH)
    network.load_state_dict(torch.load(folder / "teacher.pth"))
    network.eval()
    images, labels = recipe.read_split(folder / "data", "train")
    with torch.no_grad():
        features, embeddings = network(recipe.normalised(images.float() / 255))
    save_arrays(
        folder / "cifar10_teacher.npz",
        {"images": images, "labels": labels, "features": features, "embeddings": embeddings},
    )


def save_arrays(path: Path, tensors: State) -> None:
    arrays: dict[str, Any] = {name: tensor.detach().numpy() for name, tensor in tensors.items()}
    np.savez(path, **arrays)


WHAT: dict[str, Callable[[Path], None]] = {
    "small": small,
    "resnet50": resnet50_files,
    "basic": basic_files,
    "lite0": lite0_files,
    "cifar10_teacher": cifar10_teacher,
}

if __name__ == "__main__":
    torch.manual_seed(20211015)
    WHAT[sys.argv[1]](Path(sys.argv[2]))
