"""A fine-tuned network on disk: its backbone in `student/`, as in any run, and what its task put on top in `head/`.

RUN/head/head.json             task, classes, the size of images, and whether it is a float twin
RUN/head/weights.safetensors   the head's weights, by name
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bssl_tf.backend import keras
from bssl_tf.checkpoints import match_tensors, read_tensors, write_tensors
from bssl_tf.errors import ConfigError, RunFolderError
from bssl_tf.files import read_json, write_json
from bssl_tf.models.binarization import float_twin, named_weights
from bssl_tf.models.saved import Network, load_weights, read_network, save_network
from bssl_tf.preprocessing import Preprocessing
from bssl_tf.settings import NotNegativeInt, Table, read_settings
from bssl_tf.tasks import find_task
from bssl_tf.tasks.task import Task

HEAD = "head"
_PART = "student"
_AGAIN = "Restore it, or fine-tune again"


@dataclass(frozen=True)
class _Description(Table):
    """What head.json holds; `image_size` is 0 for that of the backbone, `image_width` for a square."""

    task: str
    class_names: list[str]
    image_size: NotNegativeInt = 0
    image_width: NotNegativeInt = 0
    float_twin: bool = False


@dataclass(frozen=True, eq=False)
class FineTuned:
    """A network with its head.

    Attributes:
        task: what it is for.
        class_names: K names.
        network: how to build the backbone.
        preprocessing: what to feed the network.
        backbone: the part below the head.
        model: from [B, H, W, C] float32 to the task's outputs; it shares the backbone's layers, or has their copies.
        float_twin: whether nothing in it is quantised; see `models.binarization.float_twin`.
    """

    task: Task[Any]
    class_names: tuple[str, ...]
    network: Network
    preprocessing: Preprocessing
    backbone: keras.Model
    model: keras.Model
    float_twin: bool = False


def has_head(run: Path) -> bool:
    """Whether `run` holds a fine-tuned network."""
    return (run / HEAD / "head.json").is_file()


def save_fine_tuned(
    run: Path,
    task: Task[Any],
    class_names: tuple[str, ...],
    network: Network,
    model: keras.Model,
    backbone: keras.Model,
    preprocessing: Preprocessing,
    *,
    float_twin: bool = False,
) -> None:
    """Saves a trained network of `task.network`, the backbone last: when it is there, the run is finished.

    Args:
        run: the run folder.
        task: what the network is for.
        class_names: K names.
        network: of its backbone.
        model: the network.
        backbone: with the weights that it started from; it gets those of `model`. Layers that a head does not use keep
            theirs.
        preprocessing: of the network's images.
        float_twin: whether nothing in `model` is quantised.

    Raises:
        StorageError: the files cannot be written.
    """
    weights, of_backbone = named_weights(model), named_weights(backbone)
    for name, variable in of_backbone.items():
        if name in weights:
            variable.assign(weights[name])
    head = {name: weight.numpy() for name, weight in weights.items() if name not in of_backbone}
    write_tensors(run / HEAD / "weights.safetensors", head, {})
    p = preprocessing
    described = _Description(task.name, list(class_names), p.image_size, p.image_width, float_twin)
    write_json(run / HEAD / "head.json", dataclasses.asdict(described))
    save_network(run / _PART, network, {_PART: backbone})


def load_fine_tuned(run: Path) -> FineTuned:
    """What `save_fine_tuned` saved.

    Raises:
        RunFolderError: a file is missing, damaged, or does not fit.
        ConfigError: its task is not installed.
    """
    path = run / HEAD / "head.json"
    try:
        described = read_settings(_Description, read_json(path))
    except ConfigError as error:
        raise RunFolderError(f"{path} is damaged ({error.what})", _AGAIN) from error
    except RunFolderError as error:
        raise error.with_next_step(_AGAIN) from error
    task = find_task(described.task)
    network = read_network(run / _PART)
    backbone = network.build()
    load_weights(run / _PART, {_PART: backbone})
    preprocessing = network.preprocessing
    if described.image_size:
        preprocessing = dataclasses.replace(
            preprocessing, image_size=described.image_size, image_width=described.image_width
        )
    model = task.network(backbone, described.class_names, preprocessing.height, preprocessing.width)
    below = named_weights(backbone)
    head = {name: weight for name, weight in named_weights(model).items() if name not in below}
    tensors, _ = read_tensors(path.with_name("weights.safetensors"))
    match_tensors(path, tensors, {name: weight.numpy() for name, weight in head.items()})
    for name, weight in head.items():
        weight.assign(tensors[name])
    if described.float_twin:
        backbone, model = float_twin(backbone), float_twin(model)
    names = tuple(described.class_names)
    return FineTuned(task, names, network, preprocessing, backbone, model, described.float_twin)
