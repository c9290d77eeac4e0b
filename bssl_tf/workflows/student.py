"""The network that `pretrain` trains: from the registry, from the zoo, or one of the user's own (see `models.place`).

    RUN/start/network.json, weights.safetensors   of one's own: its layers, and the weights that it began with

With these a run continues without the user's file.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import logging
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from bssl_tf import zoo
from bssl_tf.backend import keras
from bssl_tf.engine.stages import STAGES, Stage
from bssl_tf.errors import ConfigError, ConversionError, RuntimeUnavailableError
from bssl_tf.models.binarization import named_weights, quantizes_weights, take_weights
from bssl_tf.models.features import ends_in_classes, require_features
from bssl_tf.models.own import describe, open_own, saved_shape
from bssl_tf.models.place import START, check_student, kind_of, require_named, short_name
from bssl_tf.models.registry import BACKBONES
from bssl_tf.models.saved import Network, load_weights, read_network, save_network
from bssl_tf.preprocessing import Preprocessing
from bssl_tf.seeding import named_seed
from bssl_tf.settings import BackboneConfig, PretrainConfig, merge, read_run_config, read_settings
from bssl_tf.teachers.teacher import unknown_labels
from bssl_tf.workflows.check import check_network
from bssl_tf.workflows.given import with_sizes

RANDOM = "random"
_PART = "student"
_log = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class Student:
    """What is trained.

    Attributes:
        network: how to build it, and what to feed it; without `labels_used` of its teacher.
        own: whether it is one of the user's own, which the run keeps in `START`.
        registered: whether it is a network of this package.
        begin: gives a freshly built one the weights to start from; None for those that it was built with.
    """

    network: Network
    own: bool
    registered: bool
    begin: Callable[[keras.Model], None] | None

    def build(self) -> keras.Model:
        """With the weights to start from."""
        student = self.network.build()
        if self.begin is not None:
            self.begin(student)
        return student

    def fingerprint(self) -> str:
        """SHA-256, in hex, over its layers and the weights to start from, if they were not drawn."""
        digest = hashlib.sha256(json.dumps(self.network.layers, sort_keys=True).encode())
        if self.begin is not None:
            for name, weight in sorted(named_weights(self.build()).items()):
                digest.update(name.encode() + np.ascontiguousarray(weight.numpy()).tobytes())
        return digest.hexdigest()

    def stages(self, config: PretrainConfig) -> tuple[Stage, ...]:
        """What is binary when: without quantisers of weights there is nothing to switch on in a second stage."""
        if config.stages == "direct" or self.registered or quantizes_weights(self.network.build()):
            return STAGES[config.stages](config.training.epochs)
        _log.info(
            f"{self.network.backbone} has no quantiser of weights, so that it is trained in one stage of "
            f"{2 * config.training.epochs} epochs"
        )
        return STAGES["direct"](config.training.epochs)

    def save_start(self, out: Path) -> None:
        """Keeps in the run what is needed to build the network again. Raises `StorageError`."""
        if self.own and not (out / START / "network.json").exists():
            save_network(out / START, self.network, {_PART: self.build()})


def settle_student(
    settings: dict[str, Any], out: Path, model: keras.Model | None = None
) -> tuple[dict[str, Any], keras.Model | None]:
    """The settings with what the student decides, its sizes, and its model where there is one in memory.

    Args:
        settings: of `pretrain`.
        out: the run folder; of a run that continues, the student is in it.
        model: the student of a Python program, whose name the settings have.

    Raises:
        NetworkError: there is no such network, or it is not one.
        ConfigError: it has another size than the settings.
    """
    if _name(settings).startswith(zoo.PREFIX):
        return _from_zoo(settings), None
    name = _name(settings)
    kept = out / START
    if (kept / "network.json").exists():
        if model is not None and _shapes(model) != _shapes(read_network(kept).build()):
            raise ConfigError(
                f"the run in {out} was started with another network than {name}", "Choose another folder with out="
            )
        return settings, None
    if (out / "config.toml").exists():
        require_named(_name(read_run_config(out)), name, out)
    kind = kind_of(name) if name else None
    if kind is not None and model is None:
        check_student(name)
    if model is not None:
        require_features(model, name)
        shape = tuple(model.inputs[0].shape[1:])
    elif kind == "saved":
        # Only looked at: TensorFlow must not compute anything before `prepare` has set it up.
        shape = saved_shape(name)
    else:
        return settings, None
    if settings["backbone"].keys() & {"width", "depth", "sizes"}:
        raise ConfigError(f"{name} is built already", "Omit width, depth and sizes, or pass FILE.py:FUNCTION")
    # What is not an image is refused when the model is built.
    found = {"image_size": shape[0], "channels": shape[2]} if len(shape) == 3 and shape[2] in (1, 3) else {}
    return with_sizes(settings, name, {key: int(size) for key, size in found.items() if size}), model


def open_student(config: PretrainConfig, preprocessing: Preprocessing, out: Path, model: keras.Model | None) -> Student:
    """The student of a run.

    Args:
        config: of the run.
        preprocessing: of its images.
        out: the run folder.
        model: what `settle_student` returned.

    Raises:
        NetworkError: there is no such network, or it is not one.
        ConfigError: an argument is out of range.
    """
    name, arguments = config.backbone.name, dict(config.backbone.arguments())
    if config.initial not in ("", RANDOM) and not config.initial.startswith(zoo.PREFIX):
        raise ConfigError(
            f"the setting initial is {config.initial!r}", f"Write {zoo.PREFIX}NAME or {RANDOM}, or omit it"
        )
    folder = out / START
    if (folder / "network.json").exists():
        network = dataclasses.replace(read_network(folder), preprocessing=preprocessing)
        begin = None if config.initial == RANDOM else lambda student: load_weights(folder, {_PART: student})
        return Student(network, True, False, begin)
    if config.initial.startswith(zoo.PREFIX):
        entry = zoo.find(config.initial.removeprefix(zoo.PREFIX)).folder
        network = read_network(entry)
        theirs, sizes = network.preprocessing, (preprocessing.image_size, preprocessing.channels)
        if (network.backbone, network.arguments, theirs.image_size, theirs.channels) != (name, arguments, *sizes):
            raise ConfigError(
                f"initial is {config.initial}, but the settings describe another network or images of another size",
                f"Write --student {config.initial}, which sets them all, and omit initial",
            )
        network = dataclasses.replace(network, preprocessing=preprocessing)
        known = network.layers is None
        return Student(network, not known, known, lambda student: load_weights(entry, {_PART: student}))
    if kind_of(name) is None:
        student = Student(Network(name, preprocessing, arguments), False, name in BACKBONES, None)
        if not student.registered and not (out / "config.toml").exists():
            _advise(student)
        return student
    size, channels = preprocessing.image_size, preprocessing.channels
    if model is None:
        keras.utils.set_random_seed(named_seed(config.training.seed, "student weights"))
        opened = open_own(name, size, channels, arguments)
    else:
        opened = model
    network = Network(short_name(name), preprocessing, arguments, layers=describe(opened, name, size, channels))
    begin = None if config.initial == RANDOM else lambda student: take_weights(student, opened)
    student = Student(network, True, False, begin)
    if not (out / "config.toml").exists():
        _advise(student)
    return student


def labels_of(config: PretrainConfig) -> str | None:
    """Whose labels the weights that a student starts with owe something to, a clause; None if there are none."""
    if config.initial.startswith(zoo.PREFIX):
        return read_network(zoo.find(config.initial.removeprefix(zoo.PREFIX)).folder).labels_used
    name = config.backbone.name
    if config.initial == RANDOM or kind_of(name) in (None, "code"):
        return None
    if kind_of(name) == "memory":
        return f"labels, if any, that are not known (weights of {name}, from Python)"
    return unknown_labels(Path(name))


def _advise(student: Student) -> None:
    """Logs before training what LCE will keep binary of a network that is new here, and what is unusual about it."""
    name, network = student.network.backbone, student.build()
    if ends_in_classes(network):
        _log.warning(
            f"{name} ends in a softmax, and features before it hold more of an image; omit its last layers, or build "
            "it with include_top=False"
        )
    if any(hasattr(layer, "_random_generator") for layer in network.submodules):
        _log.warning(
            f"{name} draws random numbers (dropout, noise): a run that is resumed continues, but does not end with the "
            "same weights bit for bit"
        )
    if network.losses:
        _log.warning(
            f"{name} has regularisers, which are not part of the loss here; use --set training.weight_decay=0.0001"
        )
    try:
        found = check_network(network, name)
    except (ConversionError, RuntimeUnavailableError) as error:
        # LCE has no package for every machine that can train.
        _log.warning(f"it is not known what LCE keeps binary of {name}: {error}")
        return
    for line in found.in_short():
        (_log.info if found.sound else _log.warning)(line)


def _from_zoo(settings: dict[str, Any]) -> dict[str, Any]:
    """A student called `zoo:NAME` is that network, beginning with its weights."""
    name = _name(settings)
    backbone = settings["backbone"]
    read_settings(BackboneConfig, backbone, "backbone.")
    network = read_network(zoo.find(name.removeprefix(zoo.PREFIX)).folder)
    sizes = {key: size for key, size in network.arguments.items() if key not in ("width", "depth")}
    main = {key: size for key, size in network.arguments.items() if key in ("width", "depth")}
    ours = dataclasses.asdict(BackboneConfig(network.backbone, sizes=sizes, **main))
    changed = [key for key, value in backbone.items() if key != "name" and value and value != ours[key]]
    if changed:
        raise ConfigError(f"{name} has a {changed[0]} of its own, {ours[changed[0]]}", f"Omit {changed[0]}")
    # At another size some networks have other strides: the weights would fit and mean something else.
    p = network.preprocessing
    settings = with_sizes(settings, name, {"image_size": p.image_size, "channels": p.channels})
    return merge(settings, {"backbone": ours, "initial": name})


def _name(settings: dict[str, Any]) -> str:
    backbone = settings.get("backbone", {})
    name = backbone.get("name", "") if isinstance(backbone, dict) else ""
    return name if isinstance(name, str) else ""


def _shapes(model: keras.Model) -> list[tuple[int, ...]]:
    return [tuple(weight.shape) for weight in model.weights]
