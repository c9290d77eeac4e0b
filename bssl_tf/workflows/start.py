"""The network that fine-tuning starts from: the student of a run, or one of the zoo.

RUN/start/network.json, weights.safetensors   the network, kept in the fine-tuning run
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from bssl_tf.backend import keras
from bssl_tf.errors import ConfigError
from bssl_tf.models.binarization import named_weights
from bssl_tf.models.place import START
from bssl_tf.models.saved import Network, load_weights, read_network, save_network
from bssl_tf.settings import BackboneConfig, merge, read_run_config
from bssl_tf.workflows.given import with_sizes
from bssl_tf.workflows.run_folders import start_folder

_PART = "student"


@dataclass(frozen=True)
class Start:
    """What fine-tuning starts from.

    Attributes:
        folder: where it is.
        network: how to build it, and what to feed it.
    """

    folder: Path
    network: Network

    def build(self) -> keras.Model:
        """The network with its weights. Raises `RunFolderError` where they are damaged."""
        network = self.network.build()
        load_weights(self.folder, {_PART: network})
        return network

    def fingerprint(self) -> str:
        """SHA-256, in hex, over layers and weights."""
        network = self.network
        about = [network.backbone, network.arguments, network.layers, network.preprocessing.to_dict()]
        digest = hashlib.sha256(json.dumps(about, sort_keys=True).encode())
        for name, weight in sorted(named_weights(self.build()).items()):
            digest.update(name.encode() + np.ascontiguousarray(weight.numpy()).tobytes())
        return digest.hexdigest()

    def save(self, out: Path) -> None:
        """Keeps it in the run `out`, unless it is there. Raises `StorageError`."""
        if not (out / START / "network.json").exists():
            save_network(out / START, self.network, {_PART: self.build()})


def settle_start(settings: dict[str, Any], out: Path) -> tuple[dict[str, Any], Start]:
    """The settings with what the network decides, its size and that of its images; and the network.

    Args:
        settings: of `finetune`.
        out: the run folder; a run that continues has kept its network.

    Raises:
        ConfigError: no student is named, or the settings describe another network than it is.
        NetworkError: the zoo has none of that name.
        RunFolderError: the run is not a student's, or not finished.
    """
    kept = out / START
    name = settings.get("student", "")
    if not name and (out / "config.toml").exists():
        name = read_run_config(out).get("student", "")
    if not isinstance(name, str):
        raise ConfigError(f"student is {name!r}, which is not a str", "Give the run folder, or zoo:NAME")
    if (kept / "network.json").exists():
        start = Start(kept, read_network(kept))
    else:
        folder = start_folder(name)
        start = Start(folder, read_network(folder))
    network = start.network
    sizes = {key: size for key, size in network.arguments.items() if key not in ("width", "depth")}
    main = {key: size for key, size in network.arguments.items() if key in ("width", "depth")}
    backbone = dataclasses.asdict(BackboneConfig(network.backbone, sizes=sizes, **main))
    given = settings.get("backbone", {})
    if isinstance(given, dict) and (changed := [key for key, value in given.items() if value != backbone.get(key)]):
        raise ConfigError(f"{name} has a {changed[0]} of its own, {backbone.get(changed[0])}", f"Omit {changed[0]}")
    p = network.preprocessing
    settings = with_sizes(settings, name, {"image_size": p.image_size, "channels": p.channels})
    return merge(settings, {"backbone": backbone}), start
