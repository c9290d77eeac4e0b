"""What is measured, and what is expected of it. Loads neither TensorFlow nor PyTorch, nor anything of this project."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

FLOAT32, BFLOAT16 = "float32", "bfloat16"
PRECISIONS = (FLOAT32, BFLOAT16)
# How many times as fast as PyTorch a step is to be, and which share of it waiting for input may be at most.
GOALS = {FLOAT32: 1.8, BFLOAT16: 1.5}
MOST_INPUT_SHARE = 0.03

# Of both sides: S2-BNN's paper, and the preset `cifar10`.
TEMPERATURE = 0.2
EMBEDDING_WIDTH = 128
LEARNING_RATE = 3e-4
ADAM_EPSILON = 1e-7
TEACHER = "float_resnet"
TEACHER_SIZES = {"width": 64, "depth": 1}
# Of the pixels of a view, as of an ImageNet teacher.
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


@dataclass(frozen=True)
class Case:
    """A network, trained at one image size and precision.

    Attributes:
        network: the student, a name of `bssl_tf.models.registry.BACKBONES`.
        image_size: side of the views, and of the stored images, pixels.
        precision: `float32` or `bfloat16`, see `training.precision`; PyTorch's is autocast.
        batch_size: images in a step.
        threads: of one operation, on both sides; each may use another core for its input.
        images: random ones, uint8, in memory.
        seed: of images, weights and views.
        sizes: arguments of the network's builder.
    """

    network: str
    image_size: int
    precision: str
    batch_size: int
    threads: int
    images: int
    seed: int = 0
    sizes: Mapping[str, int] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """In words, for messages."""
        return f"{self.network} at {self.image_size} px, {self.precision}"

    def to_dict(self) -> dict[str, Any]:
        """For JSON; `Case(**values)` reverses it."""
        return dataclasses.asdict(self)


# Network, its sizes, image size, batch. At 32 px QuickNet and ReActNet keep so much of their resolution that windows of
# a larger batch take minutes, and at 224 px its activations do not fit into small machines.
SUBJECTS: tuple[tuple[str, Mapping[str, int], int, int], ...] = (
    ("binary_resnet", {"width": 32, "depth": 3}, 32, 128),
    ("quicknet", {}, 32, 32),
    ("reactnet_a", {}, 32, 32),
    ("quicknet", {}, 224, 16),
    ("reactnet_a", {}, 224, 16),
)


def all_cases(threads: int, seed: int) -> list[Case]:
    """Everything that the benchmark measures, the small networks first."""
    return [
        Case(network, size, precision, batch, threads, images=16 * batch, seed=seed, sizes=sizes)
        for network, sizes, size, batch in SUBJECTS
        for precision in PRECISIONS
    ]
