"""The networks that `bssl-tf bench` times beside the binary one. What is made here is made once and kept in the cache.

    CACHE/networks/KEY.zip      float32.tflite and int8.tflite

The key is a hash over all that they depend on, so that a file is never stale, only unused. Their weights mean nothing:
they are timed.
"""

from __future__ import annotations

import hashlib
import importlib.util
import io
import json
import logging
import zipfile
from collections.abc import Callable, Iterable, Mapping
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING

from bssl_tf.errors import ConfigError, StorageError
from bssl_tf.files import cache_dir, write_bytes
from bssl_tf.models.registry import names
from bssl_tf_deploy.files import read_regular
from bssl_tf_deploy.manifest import MAX_FILE_BYTES, Manifest
from bssl_tf_deploy.record import BINARY
from bssl_tf_deploy.system_errors import next_step

if TYPE_CHECKING:
    from bssl_tf.backend import keras

NAMES = ("float32", "int8")
# What an engineer would pick instead; see `bssl_tf.models.opponents`.
OPPONENTS = ("mobilenet_v2", "mobilenet_v3_small", "efficientnet_lite0")
log = logging.getLogger(__name__)
_SMALLEST_PX = 32
_PACKAGES = ("bssl-tf", "tensorflow", "tf-keras", "larq")
# In a checkout they change under the same version.
_SOURCES = {"bssl_tf": ("models/*.py",), "bssl_tf_converters": ("lce/float_reference.py", "lce/deployable.py")}


def has_stock_networks(manifest: Manifest) -> bool:
    """Whether `stock_networks` can make them: for classifiers, and where it is known how to build the backbone."""
    known = manifest.training is not None and manifest.task == "classification"
    # A bundle does not hold the layers of a user's network.
    return known and manifest.network.backbone in names()


def stock_networks(manifest: Manifest) -> dict[str, bytes]:
    """The networks of a bundle's shape by `NAMES`, from the cache where they are there.

    Args:
        manifest: of a bundle whose network was trained here.

    Raises:
        NetworkError: this version knows no such network.
        ConversionError: TensorFlow cannot convert it.
    """
    network = manifest.network

    def build(image_size: int, channels: int) -> keras.Model:
        from bssl_tf.models.registry import build_backbone

        return build_backbone(network.backbone, image_size, channels, network.arguments)

    words = f"{network.backbone}'s shape"
    return _kept([network.backbone, network.arguments], words, manifest, build)


def check_opponents(opponents: Iterable[str], manifest: Manifest) -> None:
    """Raises `ConfigError` for one that there is not, or that cannot do what the bundle's network does."""
    for name in opponents:
        if name not in OPPONENTS:
            raise ConfigError(
                f"{name!r} is neither NAME=FILE nor one of {', '.join(OPPONENTS)}", "Write --beside mine=FILE.tflite"
            )
        if manifest.task == "detection":
            raise ConfigError(f"{name} classifies, and the bundle's network detects", f"Omit --beside {name}")
        if manifest.preprocessing.height < _SMALLEST_PX:
            raise ConfigError(
                f"{name} takes images of {_SMALLEST_PX} px or more, and those of the bundle have "
                f"{manifest.preprocessing.height}",
                f"Omit --beside {name}, or train with a larger --image-size",
            )


def opponents_of(manifest: Manifest, opponents: Iterable[str]) -> dict[str, bytes]:
    """Networks that an engineer would pick instead, with random weights and for images of the bundle's size.

    Args:
        manifest: of the bundle.
        opponents: any of `OPPONENTS`.

    Returns:
        Of each `NAME_float32` and `NAME_int8`, both with float32 input and output.

    Raises:
        ConfigError: see `check_opponents`.
        ConversionError: TensorFlow cannot convert it.
    """
    opponents = tuple(dict.fromkeys(opponents))
    check_opponents(opponents, manifest)
    found = {}
    for name in opponents:

        def build(image_size: int, channels: int, name: str = name) -> keras.Model:
            from bssl_tf.models.opponents import build_opponent

            return build_opponent(name, image_size, channels)

        for form, model in _kept(["opponent", name], name, manifest, build).items():
            found[f"{name}_{form}"] = model
    return found


def opponent_names(opponents: Iterable[str]) -> list[str]:
    """The names of what `opponents_of` gives."""
    return [f"{name}_{form}" for name in dict.fromkeys(opponents) for form in NAMES]


def words_of(beside: Mapping[str, Path], opponents: Iterable[str]) -> list[str]:
    """Both as the option `--beside` takes them."""
    return [*(f"{name}={file}" for name, file in beside.items()), *opponents]


def read_models(beside: Mapping[str, Path]) -> dict[str, bytes]:
    """A user's own models by name. Raises `ConfigError` where a name or a file is of no use."""
    found = {}
    for name, file in beside.items():
        # It becomes the name of a file on the device.
        if not name.isidentifier() or name == BINARY or name in opponent_names(OPPONENTS):
            raise ConfigError(f"{name!r} cannot name a network", "Name it for example mine: --beside mine=FILE")
        try:
            found[name] = read_regular(file, MAX_FILE_BYTES)
        except OSError as error:
            raise ConfigError(f"{file} cannot be read ({error.strerror})", next_step(error)) from error
    return found


def _kept(
    about: list[object], words: str, manifest: Manifest, build: Callable[[int, int], keras.Model]
) -> dict[str, bytes]:
    """The float32 and int8 forms of what `build` makes of image size and channels, from the cache where they are."""
    p, classes = manifest.preprocessing, len(manifest.table.labels)
    path = cache_dir() / "networks" / f"{_key([*about, p.height, p.channels, classes])}.zip"
    kept = _read(path)
    if kept is not None:
        return kept
    log.info("making the float32 and int8 networks of %s (kept for next time)", words)
    # Loads TensorFlow, which nothing that was refused before should wait for.
    from bssl_tf_converters.lce import float_reference

    made = float_reference.stock_networks(build(p.height, p.channels), classes)
    try:
        write_bytes(path, _packed(made))
    except StorageError as error:
        # They can be timed all the same.
        log.warning("they are not kept: %s", error.what)
    return made


def _key(about: list[object]) -> str:
    versions = [metadata.version(name) for name in _PACKAGES]
    digest = hashlib.sha256(json.dumps([about, versions], sort_keys=True).encode())
    for package, patterns in _SOURCES.items():
        found = importlib.util.find_spec(package)
        assert found is not None and found.origin is not None
        for pattern in patterns:
            for file in sorted(Path(found.origin).parent.glob(pattern)):
                digest.update(file.read_bytes())
    return digest.hexdigest()


def _packed(networks: dict[str, bytes]) -> bytes:
    file = io.BytesIO()
    # Weights that were drawn do not get smaller.
    with zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive:
        for name in NAMES:
            archive.writestr(f"{name}.tflite", networks[name])
    return file.getvalue()


def _read(path: Path) -> dict[str, bytes] | None:
    """The kept networks; None where there are none, or the file is damaged, which its checksums tell."""
    try:
        with zipfile.ZipFile(path) as archive:
            return {name: archive.read(f"{name}.tflite") for name in NAMES}
    # A damaged archive raises errors of many kinds.
    except Exception:
        return None
