"""Trains the teacher of `bssl-tf compare cifar10` without labels, with PyTorch on a GPU.

    python docs/cifar10_teacher.py DIR/cifar10_jpeg75/1.0.0 --out cifar10-teacher.pth
    bssl-tf import-teacher float_resnet cifar10-teacher.pth --image-size 32 --out runs/cifar10/teacher

It takes minutes, and a day or more on two cores. The network is `bssl_tf.models.float_resnet` with a projection head,
layer for layer; the loss is SimCLR's (Chen et al., ICML 2020, arXiv 2002.05709, section 2.1) in bfloat16. Labels are of
use for `--hold-out` alone, which reports how near images of a class lie, and nothing is chosen by the test images.
Needs PyTorch, numpy and Pillow only, so that a machine with a GPU needs no more.
"""

from __future__ import annotations

import argparse
import io
import json
import math
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn

MEAN, STD = (0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)
WIDTH, DEPTH, EMBEDDING_WIDTH = 64, 1, 128
_WARMUP_EPOCHS = 10
_NEIGHBOURS = 20


class Block(nn.Module):
    """A basic block; padded as Keras pads, right and bottom only where it halves."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.stride = stride
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, padding=0 if stride == 2 else 1, bias=False)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        if stride == 2:
            self.downsample = nn.Sequential(nn.Conv2d(inputs, outputs, 1, 2, bias=False), nn.BatchNorm2d(outputs))

    def forward(self, x: Tensor) -> Tensor:
        padded = F.pad(x, (0, 1, 0, 1)) if self.stride == 2 else x
        y = self.bn2(self.conv2(F.relu(self.bn1(self.conv1(padded)))))
        return F.relu(y + (self.downsample(x) if self.stride == 2 else x))


class Teacher(nn.Module):
    """`float_resnet` for 32 px, and a head d-d-128 with batch norm: [B, 3, 32, 32] to features and embedding."""

    def __init__(self, width: int, depth: int) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(3, width, 3, padding=1, bias=False), nn.BatchNorm2d(width)
        inputs = width
        for stage in (1, 2, 3):
            outputs = width * 2 ** (stage - 1)
            first = Block(inputs, outputs, 1 if stage == 1 else 2)
            rest = (Block(outputs, outputs, 1) for _ in range(1, depth))
            self.add_module(f"layer{stage}", nn.Sequential(first, *rest))
            inputs = outputs
        hidden = nn.Linear(inputs, inputs, bias=False), nn.BatchNorm1d(inputs)
        self.fc = nn.Sequential(*hidden, nn.ReLU(), nn.Linear(inputs, EMBEDDING_WIDTH))
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        x = F.max_pool2d(F.relu(self.bn1(self.conv1(images))), 2)
        features = self.layer3(self.layer2(self.layer1(x))).mean((2, 3))
        return features, self.fc(features)


def read_split(folder: Path, split: str) -> tuple[Tensor, Tensor]:
    """A split of the data set as TensorFlow Datasets keeps it: uint8 [N, 3, 32, 32] and int64 [N]."""
    images, labels = [], []
    for file in sorted(folder.glob(f"*-{split}.tfrecord-*")):
        for example in _records(file.read_bytes()):
            features = _features(example)
            images.append(np.asarray(Image.open(io.BytesIO(features["image"]))))
            # A list of one number, of which a class needs one byte.
            labels.append(features["label"][-1])
    if not images:
        sys.exit(f"{folder} holds no *-{split}.tfrecord-* files: name the folder of a version of cifar10_jpeg75")
    return torch.from_numpy(np.stack(images).transpose(0, 3, 1, 2).copy()), torch.tensor(labels)


def _records(data: bytes) -> Iterator[bytes]:
    """A length and its checksum before each record, another checksum after it."""
    place = 0
    while place < len(data):
        length = int.from_bytes(data[place : place + 8], "little")
        yield data[place + 12 : place + 12 + length]
        place += 16 + length


def _features(example: bytes) -> dict[str, bytes]:
    """The first value of each feature of a tf.train.Example, whose messages are fields of bytes within such fields."""
    (features,) = _fields(example)
    found = {}
    for entry in _fields(features):
        name, feature = _fields(entry)
        (values,) = _fields(feature)
        found[name.decode()] = next(_fields(values), values)
    return found


def _fields(message: bytes) -> Iterator[bytes]:
    """The fields of a Protocol Buffers message that are bytes, in order; none of one that holds numbers."""
    place = 0
    while place < len(message) and message[place] & 7 == 2:
        length = shift = 0
        more = True
        while more:
            place += 1
            byte = message[place]
            length, shift, more = length | (byte & 127) << shift, shift + 7, byte > 127
        place += 1 + length
        yield message[place - length : place]


def views_of(images: Tensor, generator: torch.Generator) -> Tensor:
    """A random view of each image: crop, flip, jitter, grey; uint8 [B, 3, S, S] to float32, normalised."""
    count, device = len(images), images.device

    def uniform(low: float, high: float) -> Tensor:
        return low + (high - low) * torch.rand(count, device=device, generator=generator)

    def chosen(probability: float) -> Tensor:
        return (uniform(0, 1) < probability).float()

    area, ratio = uniform(0.2, 1), torch.exp(uniform(math.log(3 / 4), math.log(4 / 3)))
    width, height = (area * ratio).sqrt().clamp(max=1), (area / ratio).sqrt().clamp(max=1)
    theta = torch.zeros(count, 2, 3, device=device)
    theta[:, 0, 0], theta[:, 1, 1] = width * (1 - 2 * chosen(0.5)), height
    theta[:, 0, 2], theta[:, 1, 2] = (1 - width) * uniform(-1, 1), (1 - height) * uniform(-1, 1)
    x = images.float() / 255
    grid = F.affine_grid(theta, list(x.shape), align_corners=False)
    x = F.grid_sample(x, grid, padding_mode="border", align_corners=False)

    jitter = chosen(0.8)
    brightness, contrast, saturation = (1 + jitter * uniform(-0.4, 0.4) for _ in range(3))
    colour = saturation * (1 - chosen(0.2))
    angle = 2 * math.pi * jitter * uniform(-0.1, 0.1)
    yiq = torch.tensor([[0.299, 0.587, 0.114], [0.595716, -0.274453, -0.321263], [0.211456, -0.522591, 0.311135]])
    to_yiq, zero = yiq.to(device), torch.zeros(count, device=device)
    cos, sin = colour * angle.cos(), colour * angle.sin()
    turn = torch.stack([zero + 1, zero, zero, zero, cos, -sin, zero, sin, cos], 1).view(-1, 3, 3)
    matrix = torch.linalg.inv(to_yiq) @ turn @ to_yiq
    luma = torch.einsum("bchw,c->b", x, to_yiq[0]) / (x.shape[2] * x.shape[3])
    x = torch.einsum("bij,bjhw->bihw", matrix * (brightness * contrast)[:, None, None], x)
    x = (x + ((1 - contrast) * brightness * luma)[:, None, None, None]).clamp(0, 1)
    return normalised(x)


def normalised(x: Tensor) -> Tensor:
    mean, std = (torch.tensor(values, device=x.device)[:, None, None] for values in (MEAN, STD))
    return ((x - mean) / std).to(memory_format=torch.channels_last)


def contrastive_loss(embeddings: Tensor, temperature: float) -> Tensor:
    """Normalised temperature-scaled cross-entropy; rows i and i + B of [2B, D] are views of one image."""
    unit = F.normalize(embeddings.float(), dim=1)
    similarity = unit @ unit.T / temperature
    similarity.fill_diagonal_(-math.inf)
    count = len(unit) // 2
    partners = torch.arange(2 * count, device=unit.device).roll(count)
    return F.cross_entropy(similarity, partners)


@torch.no_grad()
def features_of(network: Teacher, images: Tensor) -> Tensor:
    """Float32 [N, D], with the moving averages of batch norm."""
    network.eval()
    found = [network(normalised(part.float() / 255))[0] for part in images.split(2000)]
    network.train()
    return torch.cat(found)


def nearest_neighbours(known: Tensor, labels: Tensor, asked: Tensor, answers: Tensor) -> float:
    """Top-1 in percent of a vote of the 20 nearest by cosine, weighted by exp(similarity / 0.07)."""
    known, asked = F.normalize(known), F.normalize(asked)
    right = 0
    for part, truth in zip(asked.split(1000), answers.split(1000), strict=True):
        near, places = (part @ known.T).topk(_NEIGHBOURS)
        votes = torch.zeros(len(part), int(labels.max()) + 1, device=part.device)
        votes.scatter_add_(1, labels[places], (near / 0.07).exp())
        right += int((votes.argmax(1) == truth).sum())
    return 100 * right / len(asked)


def train(given: argparse.Namespace) -> Teacher:
    """The trained network; prints a line of JSON now and then."""
    torch.manual_seed(given.seed)
    device = torch.device(given.device)
    images, labels = (part[: given.limit].to(device) for part in read_split(given.folder, "train"))
    held_out = len(images) // 10 if given.hold_out else 0
    asked, answers = images[:held_out], labels[:held_out]
    images, labels = images[held_out:], labels[held_out:]
    network = Teacher(given.width, given.depth).to(device, memory_format=torch.channels_last)
    generator = torch.Generator(device).manual_seed(given.seed)
    no_decay = [weights for weights in network.parameters() if weights.ndim == 1]
    decayed = [weights for weights in network.parameters() if weights.ndim > 1]
    groups = [{"params": decayed, "weight_decay": given.weight_decay}, {"params": no_decay, "weight_decay": 0.0}]
    optimizer = torch.optim.SGD(groups, lr=given.learning_rate, momentum=0.9, nesterov=True)
    steps = len(images) // given.batch_size
    total, began = given.epochs * steps, time.monotonic()
    warmup = min(_WARMUP_EPOCHS * steps, total // 4)
    for epoch in range(given.epochs):
        order = torch.randperm(len(images), device=device, generator=generator)
        losses = torch.zeros((), device=device)
        for step in range(steps):
            number = epoch * steps + step
            part = min(1.0, (number + 1) / warmup) if warmup else 1.0
            rate = part * given.learning_rate * 0.5 * (1 + math.cos(math.pi * number / total))
            for group in optimizer.param_groups:
                group["lr"] = rate
            batch = images[order[step * given.batch_size : (step + 1) * given.batch_size]]
            with torch.autocast(device.type, torch.bfloat16):
                _, embeddings = network(torch.cat([views_of(batch, generator), views_of(batch, generator)]))
            loss = contrastive_loss(embeddings, given.temperature)
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
            losses += loss.detach()
        if epoch + 1 == given.epochs or (epoch + 1) % given.report_every == 0:
            line = {"epoch": epoch + 1, "loss": round(float(losses) / steps, 4)}
            # Of images that were trained on, each is its own nearest neighbour, which tells nothing.
            if held_out:
                known, unseen = features_of(network, images), features_of(network, asked)
                line["knn_held_out"] = round(nearest_neighbours(known, labels, unseen, answers), 2)
            line["seconds"] = round(time.monotonic() - began, 1)
            print(json.dumps(line), flush=True)
    return network


def main() -> None:
    """Trains, and writes the state dictionary."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="of a version of the data set: cifar10_jpeg75/1.0.0")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--width", type=int, default=WIDTH)
    parser.add_argument("--depth", type=int, default=DEPTH)
    parser.add_argument("--epochs", type=int, default=375)
    parser.add_argument("--batch-size", type=int, default=1024)
    parser.add_argument("--learning-rate", type=float, default=0.5)
    parser.add_argument("--weight-decay", type=float, default=5e-4)
    parser.add_argument("--temperature", type=float, default=0.1)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--limit", type=int, help="of the images, to try it out")
    parser.add_argument("--hold-out", action="store_true", help="keep one image in ten to measure settings with")
    parser.add_argument("--report-every", type=int, default=25, help="epochs")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    given = parser.parse_args()
    network = train(given)
    torch.save({name: value.cpu().contiguous() for name, value in network.state_dict().items()}, given.out)


if __name__ == "__main__":
    main()
