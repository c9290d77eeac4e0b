"""The network that fine-tuning starts from: that of a run, one of the zoo, or one with random weights.

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
from bssl_tf.models.registry import check_backbone
from bssl_tf.models.saved import Network, load_weights, read_network, save_network
from bssl_tf.preprocessing import Preprocessing
from bssl_tf.seeding import named_seed
from bssl_tf.settings import BackboneConfig, FinetuneConfig, merge, read_run_config
from bssl_tf.workflows.given import with_sizes
from bssl_tf.workflows.run_folders import start_part

_PART = "student"


@dataclass(frozen=True)
class Start:
    """What fine-tuning starts from.

    Attributes:
        folder: where it is; None for random weights.
        part: what it is called there, `student` or `teacher`.
        network: how to build it, and what to feed it.
        seed: of the run, which random weights are drawn with.
    """

    folder: Path | None
    network: Network
    part: str = _PART
    seed: int = 0

    def build(self) -> keras.Model:
        """The network with its weights. Raises `RunFolderError` where they are damaged."""
        if self.folder is None:
            keras.utils.set_random_seed(named_seed(self.seed, "student weights"))
            return self.network.build()
        network = self.network.build()
        load_weights(self.folder, {self.part: network})
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


def settle_start(settings: dict[str, Any], out: Path, *, resizes: bool) -> tuple[dict[str, Any], Start | None]:
    """The settings with what the network decides, its size and that of its images; and the network.

    Args:
        settings: of `finetune`.
        out: the run folder; a run that continues has kept its network.
        resizes: whether images may have another size than the network was trained for.

    Returns:
        None for the network where it is to have random weights: `from_random` makes it when the data is known.

    Raises:
        ConfigError: none is named, or two; or the settings describe another network than it is.
        NetworkError: the zoo has none of that name.
        RunFolderError: it is not a run folder, or not finished.
    """
    kept = out / START
    name, given = settings.get("student", ""), settings.get("backbone", {})
    begun = read_run_config(out) if (out / "config.toml").exists() else {}
    if not isinstance(name, str):
        raise ConfigError(f"student is {name!r}, which is not a str", "Give the run folder, or zoo:NAME")
    name = name or begun.get("student", "")
    fresh = (given if isinstance(given, dict) else {}).get("name") or begun.get("backbone", {}).get("name")
    if (kept / "network.json").exists():
        start = Start(kept, read_network(kept))
    elif not name and isinstance(fresh, str) and fresh:
        check_backbone(fresh)
        return settings, None
    else:
        folder, part = start_part(name)
        # A teacher's projection head is not a part of what is fine-tuned.
        start = Start(folder, dataclasses.replace(read_network(folder), head=(), head_batch_norm=False), part)
    network = start.network
    sizes = {key: size for key, size in network.arguments.items() if key not in ("width", "depth")}
    main = {key: size for key, size in network.arguments.items() if key in ("width", "depth")}
    backbone = dataclasses.asdict(BackboneConfig(network.backbone, sizes=sizes, **main))
    if isinstance(given, dict) and (changed := [key for key, value in given.items() if value != backbone.get(key)]):
        raise ConfigError(f"{name} has a {changed[0]} of its own, {backbone.get(changed[0])}", f"Omit {changed[0]}")
    p = network.preprocessing
    settings = with_sizes(settings, name, {"channels": p.channels})
    if not resizes:
        settings = with_sizes(settings, name, {"image_size": p.image_size})
    elif not begun:
        settings = merge({"data": {"image_size": p.image_size}}, settings)
    return merge(settings, {"backbone": backbone}), start


def from_random(config: FinetuneConfig, preprocessing: Preprocessing) -> Start:
    """A network of the registry with random weights, drawn with the run's seed. Raises `NetworkError`."""
    backbone = config.backbone
    return Start(None, Network(backbone.name, preprocessing, dict(backbone.arguments())), seed=config.training.seed)
