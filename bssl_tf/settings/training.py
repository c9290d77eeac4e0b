"""Optimisation, augmentation and backbone."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Literal

from bssl_tf.settings.reading import NotNegative, NotNegativeInt, Positive, PositiveInt, Table

# A student that is code of the user's own, FILE.py:FUNCTION.
CODE = re.compile(r"(?P<file>.*\.py)(?::(?P<function>.*))?", re.DOTALL)


@dataclass(frozen=True)
class TrainingConfig(Table):
    """Optimisation. Both papers use Adam without weight decay (S2-BNN, section 3.1).

    Attributes:
        epochs: epochs per stage; the only stage of `stages = "direct"` is twice as long.
        batch_size: images per step.
        accumulate: parts in which a batch is computed, one after another, where memory is short. Gradients are
            averaged, but batch norm, and what compares images, see one part at a time.
        optimizer: `adam`, or `sgd` with momentum 0.9.
        learning_rate: the optimiser's peak learning rate.
        weight_decay: this share of every weight is added to its gradient (L2, as in PyTorch's SGD).
        warmup_epochs: epochs over which the learning rate first rises (schedule `cosine` only).
        schedule: `linear` or `cosine` decay, to zero at the end of each stage.
        seed: the seed from which all others are derived.
        threads: threads of one op, 0 for all cores; only the same number reproduces a run bit for bit.
        device: `auto` for a GPU where TensorFlow sees one, `cpu`, `gpu`, or `gpu:N` for the GPU with that number.
        distribute: devices that share each batch: `none` for one device, `mirrored` for all GPUs of this machine,
            `multiworker` for the workers in TF_CONFIG, or `tpu`. The losses are those of one device.
        synchronized_batch_norm: whether batch norm on several devices uses statistics of the whole batch; otherwise
            each device uses its own part, and the moving averages are the first device's.
        precision: `float32`; `bfloat16` for convolutions in it, faster on GPUs, TPUs, and processors with AVX512_BF16
            or AMX; `float16` for convolutions in it with scaled losses, for GPUs without bfloat16. Signs, thresholds,
            batch norm, heads and losses are always float32.
        xla: whether XLA compiles each step, on one device. It takes longer to start, and other processors and networks
            gain or lose by it: `--profile` shows it.
        deterministic: whether a run on a GPU is to repeat bit for bit, which takes time, and stops at an operation
            that cannot; on a CPU every run does.
        checkpoint_every_s: seconds between checkpoints within an epoch; every epoch also ends with one.
        probe_every: epochs between probes of the network's accuracy (`engine.probe`), which need labels and test
            images; a stage also ends with one; 0 for none. Probes do not affect training.
        patience: the last stage ends after this many probes in a row that were no better than one before them; 0 for
            never.
        probe_data: a labelled set for the probes, as in `data.source`; empty for the run's own data.
        tensorboard: whether TensorBoard, where it is installed, can show the curves: `tensorboard --logdir RUN`.
        track: another tool that shows them: `wandb`, `mlflow` or `none`.
    """

    epochs: PositiveInt = 200
    batch_size: PositiveInt = 256
    accumulate: PositiveInt = 1
    optimizer: Literal["adam", "sgd"] = "adam"
    learning_rate: Positive = 3e-4
    weight_decay: NotNegative = 0.0
    warmup_epochs: NotNegative = 0.0
    schedule: Literal["linear", "cosine"] = "linear"
    seed: NotNegativeInt = 0
    threads: NotNegativeInt = 0
    device: str = "auto"
    distribute: Literal["none", "mirrored", "multiworker", "tpu"] = "none"
    synchronized_batch_norm: bool = True
    precision: Literal["float32", "bfloat16", "float16"] = "float32"
    xla: bool = False
    deterministic: bool = True
    checkpoint_every_s: Positive = 120.0
    probe_every: NotNegativeInt = 2
    patience: NotNegativeInt = 0
    probe_data: str = ""
    tensorboard: bool = True
    track: Literal["none", "wandb", "mlflow"] = "none"


@dataclass(frozen=True)
class AugmentationConfig(Table):
    """Random views of the images.

    Attributes:
        name: `lite` (S2-BNN), `moco_v2`, or `weak` (crops and flips, which keep labels).
        min_area: the smallest area of a crop, as a share of the image.
        flip: whether half of the views are mirror images; not where left and right, or writing, matter.
    """

    name: Literal["lite", "moco_v2", "weak"] = "lite"
    min_area: float = 0.2
    flip: bool = True


# Registered networks without a binary layer: teachers.
FLOAT_NETWORKS = frozenset({"efficientnet_lite0", "float_resnet", "resnet18", "resnet34", "resnet50"})


@dataclass(frozen=True)
class BackboneConfig(Table):
    """A network.

    Attributes:
        name: as listed in `bssl_tf/models/README.md`, or called so by an installed package; of a student also
            FILE.py:FUNCTION or a saved Keras model.
        width: channels of its first stage; 0 for the network's own default.
        depth: binary convolutions per stage; 0 for the network's own default.
        sizes: other whole numbers that the builder of a network of one's own takes, by name.
    """

    name: str
    width: int = 0
    depth: int = 0
    sizes: dict[str, int] = field(default_factory=dict)

    def arguments(self) -> dict[str, int]:
        """Arguments of the builder, other than image size and channels."""
        return {key: value for key, value in (("width", self.width), ("depth", self.depth)) if value} | self.sizes
