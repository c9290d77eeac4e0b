"""What a run is made of: frozen dataclasses, read from TOML with strict keys, written back with every default.

A preset is a TOML file in `bssl_tf/settings/presets/` (or one of the user's) with a table for each command,
`[teacher]` and `[pretrain]`; in each, a table for each section below. Settings on the command line win over the preset.
"""

from __future__ import annotations

import dataclasses
import difflib
import importlib.resources
import math
import sys
import typing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import tomli_w

from bssl_tf.errors import ConfigError, RunFolderError
from bssl_tf.files import write_text

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

T = TypeVar("T")

# Name -> whether it learns from a teacher.
METHODS = {"s2bnn": True, "bssl": True, "moco": False, "byol": False, "swav": False, "supervised": False}
PROTOCOLS = (
    *("knn-20", "knn-200", "linear-probe", "linear-probe-sgd", "linear-probe-held-out"),
    *("few-shot-svm", "finetune-1%", "finetune-10%"),
)


@dataclass(frozen=True)
class DataConfig:
    """Where images come from.

    Attributes:
        source: `embedded`, `tfds:NAME`, or a folder of images.
        data_dir: where TFDS keeps its data; empty for its own default.
        image_size: pixels a side that the network sees; 0 takes the embedded set's 28, otherwise 224.
        channels: 1 or 3; 0 takes what the data set has.
        max_unreadable_share: more unreadable files than this share of all stops the run.
        download: whether TFDS may download.
        limit: use only so many images of each split, evenly spaced; 0 for all.
    """

    source: str = ""
    data_dir: str = ""
    image_size: int = 0
    channels: int = 0
    max_unreadable_share: float = 0.05
    download: bool = True
    limit: int = 0


@dataclass(frozen=True)
class BackboneConfig:
    """A network of the registry.

    Attributes:
        name: as `bssl_tf/models/README.md` lists it.
        width: channels of its first stage; 0 for the network's own.
        depth: binary convolutions in a stage; 0 for the network's own.
    """

    name: str
    width: int = 0
    depth: int = 0

    def arguments(self) -> dict[str, int]:
        """What the registry's builder takes beside image size and channels."""
        return {key: value for key, value in (("width", self.width), ("depth", self.depth)) if value}


@dataclass(frozen=True)
class TrainingConfig:
    """How a network is optimised. Adam and no weight decay is what both papers use (S2-BNN, section 3.1).

    Attributes:
        epochs: for each of the two stages; a direct training lasts twice as long in its only one.
        batch_size: images a step.
        optimizer: `adam`, or `sgd` with momentum 0.9.
        learning_rate: the optimiser's, at its highest.
        weight_decay: added to the gradient as so much of every weight (L2, as in PyTorch's SGD).
        warmup_epochs: the learning rate rises over so many epochs (schedule `cosine` only).
        schedule: `linear` or `cosine`, both to zero at the end of each stage.
        seed: the one seed that all others derive from.
        threads: threads of one op, 0 for all cores; a run repeats bit for bit only with the same number.
        precision: `float32`, or `bfloat16` for mixed precision: faster on processors with AVX512_BF16 or AMX.
        checkpoint_every_s: seconds between checkpoints within an epoch; every epoch ends with one anyway.
        probe_every: epochs between looks at the network's accuracy (`pretrain.probe`), if there are labels and test
            images, and after the last one of a stage; 0 for none. It changes nothing in training.
        probe_data: a labelled set to look at the network with, as `data.source`; empty for the run's own data.
    """

    epochs: int = 200
    batch_size: int = 256
    optimizer: str = "adam"
    learning_rate: float = 3e-4
    weight_decay: float = 0.0
    warmup_epochs: float = 0.0
    schedule: str = "linear"
    seed: int = 0
    threads: int = 0
    precision: str = "float32"
    checkpoint_every_s: float = 120.0
    probe_every: int = 2
    probe_data: str = ""


@dataclass(frozen=True)
class AugmentationConfig:
    """Which views the networks see.

    Attributes:
        name: `lite` (S2-BNN) or `moco_v2`.
        min_area: the smallest share of the picture in a crop.
    """

    name: str = "lite"
    min_area: float = 0.2


@dataclass(frozen=True)
class MocoConfig:
    """MoCo v2 (METHOD moco; arXiv 2003.04297), for a teacher or a student, and s2bnn's contrastive part.

    Attributes:
        embedding_width: D of the projection head.
        temperature: of InfoNCE.
        momentum: of the key encoder; 0.999 with long training, 0.99 with a few hundred steps.
        queue_size: negatives kept, a multiple of the batch size.
        head_batch_norm: batch norm inside the projection head.
    """

    embedding_width: int = 128
    temperature: float = 0.2
    momentum: float = 0.999
    queue_size: int = 65536
    head_batch_norm: bool = False


@dataclass(frozen=True)
class S2bnnConfig:
    """Guided distribution calibration (METHOD s2bnn; arXiv 2102.08946).

    Attributes:
        temperature: of both softmaxes.
        head_batch_norm: batch norm inside the projection head; the paper has none.
        contrastive: add MoCo's loss, weighted alike; its settings are the section `moco`, but for the head's.
    """

    temperature: float = 0.2
    head_batch_norm: bool = False
    contrastive: bool = False


@dataclass(frozen=True)
class BsslConfig:
    """Joint classifier training (METHOD bssl; arXiv 2110.08851). Each of its four parts can be switched off.

    Attributes:
        classifier: `joint` trains the classifier on the teacher's features too; `frozen` leaves it random.
        classifier_rate: learning rate of that classifier as a share of the student's. The paper names none (1); the
            slower, the longer until both classifiers agree on a constant.
        feature_similarity: between the classifiers' `outputs`, between the backbones' `features`, or `off`.
        balance_start: weight of the KL term at the first step.
        balance_end: weight of the KL term at the last step; the same value twice switches dynamic balancing off.
        carry_classifier: the second stage goes on with the classifier of the first (modified multi-stage training);
            otherwise with a fresh one.
        temperature: of both softmaxes.
        hidden_width: hidden units of both classifiers.
        output_width: outputs of both classifiers.
    """

    classifier: str = "joint"
    classifier_rate: float = 1.0
    feature_similarity: str = "outputs"
    balance_start: float = 0.1
    balance_end: float = 0.3
    carry_classifier: bool = True
    temperature: float = 0.2
    hidden_width: int = 2000
    output_width: int = 2000


@dataclass(frozen=True)
class ByolConfig:
    """BYOL (METHOD byol; arXiv 2006.07733).

    Attributes:
        hidden_width: hidden units of projection head and predictor.
        embedding_width: outputs of both.
        momentum: of the target network at the first step; rises to 1 along half a cosine.
    """

    hidden_width: int = 512
    embedding_width: int = 128
    momentum: float = 0.99


@dataclass(frozen=True)
class SwavConfig:
    """SwAV (METHOD swav; arXiv 2006.09882) with two crops.

    Attributes:
        hidden_width: hidden units of the projection head.
        embedding_width: its outputs.
        prototypes: K, the clusters; balancing needs about as many images in a batch, as there is no queue here.
        temperature: of the student's softmax.
        epsilon: how soft the balanced assignment is.
        iterations: of Sinkhorn and Knopp's algorithm.
        frozen_epochs: so many epochs of the first stage go by before the prototypes move.
    """

    hidden_width: int = 512
    embedding_width: int = 128
    prototypes: int = 300
    temperature: float = 0.1
    epsilon: float = 0.05
    iterations: int = 3
    frozen_epochs: float = 1.0


@dataclass(frozen=True)
class TeacherConfig:
    """A run of `bssl-tf teacher`.

    Attributes:
        method: `moco` or `byol`.
    """

    method: str = "moco"
    data: DataConfig = field(default_factory=DataConfig)
    backbone: BackboneConfig = field(default_factory=lambda: BackboneConfig("float_resnet"))
    augmentation: AugmentationConfig = field(default_factory=lambda: AugmentationConfig("moco_v2"))
    moco: MocoConfig = field(default_factory=MocoConfig)
    byol: ByolConfig = field(default_factory=ByolConfig)
    training: TrainingConfig = field(
        default_factory=lambda: TrainingConfig(schedule="cosine", warmup_epochs=1.0, learning_rate=1e-3)
    )


@dataclass(frozen=True)
class PretrainConfig:
    """A run of `bssl-tf pretrain`.

    Attributes:
        method: `s2bnn`, `bssl`, or a baseline without a teacher: `moco`, `byol`, `swav`, `supervised`.
        stages: `progressive` binarises activations first and weights in a second stage; `direct` both at once.
        teacher: a run folder of `bssl-tf teacher`, or a saved Keras model (.keras or .h5).
        teacher_pixels: what a saved Keras model wants: `normalized`, `0..1`, `-1..1` or `0..255`.
        initial: `zoo:NAME`, whose weights the student begins with; empty for random ones.
        teacher_cache_epochs: the views of so many epochs are shown again and again, and what the teacher says of them
            is kept on disk; 0 draws fresh views in every epoch.
    """

    method: str = "s2bnn"
    stages: str = "progressive"
    teacher: str = ""
    teacher_pixels: str = "normalized"
    initial: str = ""
    teacher_cache_epochs: int = 0
    data: DataConfig = field(default_factory=DataConfig)
    backbone: BackboneConfig = field(default_factory=lambda: BackboneConfig("binary_resnet"))
    augmentation: AugmentationConfig = field(default_factory=AugmentationConfig)
    training: TrainingConfig = field(default_factory=TrainingConfig)
    s2bnn: S2bnnConfig = field(default_factory=S2bnnConfig)
    bssl: BsslConfig = field(default_factory=BsslConfig)
    moco: MocoConfig = field(default_factory=MocoConfig)
    byol: ByolConfig = field(default_factory=ByolConfig)
    swav: SwavConfig = field(default_factory=SwavConfig)


def check_choice(name: str, value: str, choices: typing.Iterable[str]) -> None:
    """Raises `ConfigError`, with the nearest known name, unless `value` is one of `choices`."""
    known = sorted(choices)
    if value not in known:
        near = difflib.get_close_matches(value, known, n=1)
        hint = f"Did you mean {near[0]!r}? " if near else ""
        raise ConfigError(f"{name} is {value!r}", f"{hint}Choose one of {', '.join(known)}")


def from_dict(kind: type[T], content: dict[str, Any], where: str = "") -> T:
    """Builds a configuration from nested tables.

    Args:
        kind: one of the dataclasses above.
        content: as read from TOML; missing keys take their default.
        where: prefix of the names in messages.

    Raises:
        ConfigError: a key is unknown (the nearest known one is named) or a value has the wrong type.
    """
    fields = {f.name: f for f in dataclasses.fields(kind)}  # type: ignore[arg-type]
    hints = typing.get_type_hints(kind)
    values: dict[str, Any] = {}
    for key, value in content.items():
        name = f"{where}{key}"
        if key not in fields:
            near = difflib.get_close_matches(key, fields, n=1)
            hint = f"Did you mean {where}{near[0]}? " if near else ""
            raise ConfigError(f"unknown setting {name}", f"{hint}Known here: {', '.join(fields)}")
        wanted = hints[key]
        if dataclasses.is_dataclass(wanted):
            if not isinstance(value, dict):
                raise ConfigError(f"{name} is {value!r}, not a table", f"Write [{name}] and its settings below it")
            default = _default(fields[key])
            merged = dataclasses.asdict(default) | value if default is not None else value
            values[key] = from_dict(typing.cast(type[Any], wanted), merged, f"{name}.")
        else:
            values[key] = _scalar(name, value, wanted)
    return kind(**values)


def _default(spec: dataclasses.Field[Any]) -> Any:
    return None if spec.default_factory is dataclasses.MISSING else spec.default_factory()


def _scalar(name: str, value: Any, wanted: Any) -> Any:
    if wanted is float and isinstance(value, int) and not isinstance(value, bool):
        value = float(value)
    if type(value) is not wanted:  # isinstance would take true for 1
        raise ConfigError(
            f"{name} is {value!r}, which is no {wanted.__name__}", f"Give a value of type {wanted.__name__}"
        )
    if wanted is float and not math.isfinite(value):
        raise ConfigError(f"{name} is {value}", "Give a finite value")
    return value


def merge(base: dict[str, Any], over: dict[str, Any]) -> dict[str, Any]:
    """Nested tables of `base` with those of `over` laid on top; neither is changed."""
    merged = dict(base)
    for key, value in over.items():
        both = isinstance(value, dict) and isinstance(merged.get(key), dict)
        merged[key] = merge(merged[key], value) if both else value
    return merged


def differences(old: Any, new: dict[str, Any], where: str = "") -> list[str]:
    """Names the settings in the tables `new` that differ from the configuration `old`."""
    found = []
    for key, value in new.items():
        current = getattr(old, key, None)
        if isinstance(value, dict):
            found += differences(current, value, f"{where}{key}.")
        elif value != current:
            found.append(f"{where}{key} is {current!r} there and {value!r} here")
    return found


def read_toml(path: Path) -> dict[str, Any]:
    """Reads a TOML file. Raises `ConfigError` when it is missing or not TOML."""
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise ConfigError(f"{path} is missing", "Check the path") from error
    except (OSError, ValueError, RecursionError) as error:
        raise ConfigError(f"{path} is not valid TOML ({error})", "Mend the file, or remove it") from error


def read_run_config(run: Path) -> dict[str, Any]:
    """The tables of a run folder's config.toml.

    Raises:
        RunFolderError: `run` is no run folder.
        ConfigError: the file is not TOML.
    """
    path = run / "config.toml"
    if not path.is_file():
        raise RunFolderError(f"{run} is no run folder (it has no config.toml)", "Check the path")
    return read_toml(path)


def command_of(content: dict[str, Any]) -> str:
    """Which command began the run with these tables: `pretrain` or `teacher`."""
    return "pretrain" if "s2bnn" in content else "teacher"


def presets() -> list[str]:
    """Names of the presets that come with the package."""
    folder = importlib.resources.files("bssl_tf.settings.presets")
    return sorted(item.name.removesuffix(".toml") for item in folder.iterdir() if item.name.endswith(".toml"))


def read_preset(name: str, command: str) -> dict[str, Any]:
    """The table of `command` in the preset called `name`, or in the TOML file of that path.

    Raises:
        ConfigError: there is no such preset, or it says nothing about the command.
    """
    if name.endswith(".toml"):
        content = read_toml(Path(name))
    else:
        check_choice("the preset", name, presets())
        text = (
            importlib.resources.files("bssl_tf.settings.presets").joinpath(f"{name}.toml").read_text(encoding="utf-8")
        )
        content = tomllib.loads(text)
    unknown = content.keys() - {"teacher", "pretrain", "compare"}
    if unknown:
        raise ConfigError(
            f"preset {name} has an unknown table {sorted(unknown)[0]}", "Known: teacher, pretrain, compare"
        )
    if command not in content:
        raise ConfigError(f"preset {name} has no table [{command}]", "Choose a preset that has one")
    if not isinstance(content[command], dict):
        raise ConfigError(f"[{command}] in preset {name} is no table", f"Write [{command}] and its settings below it")
    return dict(content[command])


def write_config(path: Path, config: Any) -> None:
    """Writes all settings, defaults too, as TOML. Raises `StorageError`."""
    write_text(path, tomli_w.dumps(dataclasses.asdict(config)))
