"""How a network is optimised, which views it sees, and which network it is."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from bssl_tf.settings.reading import NotNegative, NotNegativeInt, Positive, PositiveInt, Table


@dataclass(frozen=True)
class TrainingConfig(Table):
    """How a network is optimised. Adam and no weight decay is what both papers use (S2-BNN, section 3.1).

    Attributes:
        epochs: for each of the two stages; a direct training lasts twice as long in its only one.
        batch_size: images per step.
        optimizer: `adam`, or `sgd` with momentum 0.9.
        learning_rate: the optimiser's peak learning rate.
        weight_decay: this share of every weight is added to its gradient (L2, as in PyTorch's SGD).
        warmup_epochs: the learning rate rises over this many epochs (schedule `cosine` only).
        schedule: `linear` or `cosine`, both to zero at the end of each stage.
        seed: the one seed that all others derive from.
        threads: threads of one op, 0 for all cores; a run repeats bit for bit only with the same number.
        precision: `float32`, or `bfloat16` for mixed precision: faster on processors with AVX512_BF16 or AMX.
        checkpoint_every_s: seconds between checkpoints within an epoch; every epoch ends with one anyway.
        probe_every: epochs between looks at the network's accuracy (`engine.probe`), if there are labels and test
            images, and after the last one of a stage; 0 for none. It changes nothing in training.
        probe_data: a labelled set to look at the network with, as `data.source`; empty for the run's own data.
    """

    epochs: PositiveInt = 200
    batch_size: PositiveInt = 256
    optimizer: Literal["adam", "sgd"] = "adam"
    learning_rate: Positive = 3e-4
    weight_decay: NotNegative = 0.0
    warmup_epochs: NotNegative = 0.0
    schedule: Literal["linear", "cosine"] = "linear"
    seed: NotNegativeInt = 0
    threads: NotNegativeInt = 0
    precision: Literal["float32", "bfloat16"] = "float32"
    checkpoint_every_s: Positive = 120.0
    probe_every: NotNegativeInt = 2
    probe_data: str = ""


@dataclass(frozen=True)
class AugmentationConfig(Table):
    """Which views the networks see.

    Attributes:
        name: `lite` (S2-BNN) or `moco_v2`.
        min_area: the smallest share of the picture in a crop.
    """

    name: str = "lite"
    min_area: float = 0.2


@dataclass(frozen=True)
class BackboneConfig(Table):
    """A network of the registry.

    Attributes:
        name: as `bssl_tf/models/README.md` lists it.
        width: channels of its first stage; 0 for the network's own.
        depth: binary convolutions per stage; 0 for the network's own.
    """

    name: str
    width: int = 0
    depth: int = 0

    def arguments(self) -> dict[str, int]:
        """What the registry's builder takes beside image size and channels."""
        return {key: value for key, value in (("width", self.width), ("depth", self.depth)) if value}
