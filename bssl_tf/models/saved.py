"""A network on disk: a folder with `network.json` (how to build it) and `weights.safetensors`."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from bssl_tf.backend import keras
from bssl_tf.checkpoints import match_tensors, read_tensors, write_tensors
from bssl_tf.errors import NetworkError
from bssl_tf.files import read_json, write_json
from bssl_tf.models.binarization import named_weights, sign_kernels
from bssl_tf.models.own import build_described
from bssl_tf.models.packing import pack, unpack
from bssl_tf.models.registry import build_backbone
from bssl_tf.preprocessing import Preprocessing

FORMAT = 1
# Of what a `Network` has as JSON has it.
_KINDS: dict[str, tuple[type, ...]] = {
    "backbone": (str,),
    "arguments": (dict,),
    "head_batch_norm": (bool,),
    "labels_used": (str, type(None)),
    "layers": (dict, type(None)),
}


@dataclass(frozen=True)
class Network:
    """How to build a backbone and what to feed it.

    Attributes:
        backbone: name in the registry, or where a user's network came from.
        arguments: what the builder takes beside image size and channels.
        preprocessing: image size, channels, and the constants that normalise pixels.
        head: hidden and output widths of the projection head saved with it; empty when there is none.
        head_batch_norm: whether that head has batch norm.
        labels_used: whose labels went into its weights, a clause for "trained with the help of ..."; None for
            nobody's. A student has what its teacher has.
        layers: of a network that is not in the registry, all of it; see `models.own`.
    """

    backbone: str
    preprocessing: Preprocessing
    arguments: dict[str, Any] = field(default_factory=dict)
    head: tuple[int, ...] = ()
    head_batch_norm: bool = False
    labels_used: str | None = None
    layers: dict[str, Any] | None = None

    def build(self) -> keras.Model:
        """The backbone with fresh weights. Raises `NetworkError` or `ConfigError`."""
        if self.layers is not None:
            return build_described(self.layers, self.backbone)
        p = self.preprocessing
        return build_backbone(self.backbone, p.image_size, p.channels, self.arguments)


def save_network(folder: Path, network: Network, parts: dict[str, keras.Model], *, packed: bool = False) -> None:
    """Saves `parts` (the backbone, and perhaps its head) and how to build them.

    Args:
        folder: gets `network.json` and `weights.safetensors`.
        network: how to build it.
        parts: networks by name.
        packed: keep of binary kernels their signs and scales only, a thirtieth of the bytes; see `models.packing`.

    Raises:
        StorageError: the files cannot be written.
    """
    tensors = {
        f"{part}/{name}": weight.numpy()
        for part, model in parts.items()
        for name, weight in named_weights(model).items()
    }
    if packed:
        signs = {id(kernel) for model in parts.values() for kernel in sign_kernels(model)}
        kernels = {
            f"{part}/{name}"
            for part, model in parts.items()
            for name, weight in named_weights(model).items()
            if id(weight) in signs
        }
        tensors = pack(tensors, kernels)
    write_tensors(folder / "weights.safetensors", tensors, {"format": str(FORMAT)})
    description = asdict(network) | {"format": FORMAT, "preprocessing": network.preprocessing.to_dict()}
    if network.layers is None:
        # As before there were users' networks, so that an older version reads it too.
        del description["layers"]
    write_json(folder / "network.json", description)


def read_network(folder: Path) -> Network:
    """Reads `network.json` of `folder`.

    Raises:
        RunFolderError: the file is missing or not JSON.
        NetworkError: it does not describe a network of this version.
    """
    path = folder / "network.json"
    content = read_json(path)
    try:
        if content.pop("format") != FORMAT:
            raise ValueError("unknown format")
        content["preprocessing"] = Preprocessing.from_dict(content["preprocessing"])
        content["head"] = tuple(_width(one) for one in content["head"])
        network = Network(**content)
        for name, kind in _KINDS.items():
            if not isinstance(getattr(network, name), kind):
                raise ValueError(f"{name} is of type {type(getattr(network, name)).__name__}")
        return network
    except (KeyError, TypeError, ValueError) as error:
        raise NetworkError(
            f"{path} does not describe a network ({error})", "Restore the file or train again"
        ) from error


def _width(value: Any) -> int:
    if type(value) is not int or not 1 <= value < 2**31:
        raise ValueError(f"a width is {value!r}")
    return value


def load_weights(folder: Path, parts: dict[str, keras.Model]) -> None:
    """Fills `parts` from `weights.safetensors`; parts in the file that are not asked for are left.

    Raises:
        RunFolderError: the file is missing, corrupt, or does not fit.
    """
    path = folder / "weights.safetensors"
    tensors, _ = read_tensors(path)
    tensors = {name: tensor for name, tensor in unpack(tensors).items() if name.split("/", 1)[0] in parts}
    variables = {f"{part}/{name}": w for part, model in parts.items() for name, w in named_weights(model).items()}
    match_tensors(path, tensors, {name: variable.numpy() for name, variable in variables.items()})
    for name, variable in variables.items():
        variable.assign(tensors[name])
