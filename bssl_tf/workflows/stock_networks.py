"""The float32 and int8 networks that `bssl-tf bench` times beside the binary one, made once and kept in the cache.

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
from importlib import metadata
from pathlib import Path

from bssl_tf.errors import StorageError
from bssl_tf.files import cache_dir, write_bytes
from bssl_tf.models.registry import names
from bssl_tf_deploy.manifest import Manifest

NAMES = ("float32", "int8")
log = logging.getLogger(__name__)
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
    network, p = manifest.network, manifest.preprocessing
    path = cache_dir() / "networks" / f"{_key(manifest)}.zip"
    kept = _read(path)
    if kept is not None:
        return kept
    log.info(
        "making the float32 and int8 networks of %s's shape (about half a minute, kept for next time)",
        network.backbone,
    )
    # Loads TensorFlow, which nothing that was refused before should wait for.
    from bssl_tf.models.registry import build_backbone
    from bssl_tf_converters.lce import float_reference

    backbone = build_backbone(network.backbone, p.height, p.channels, network.arguments)
    made = float_reference.stock_networks(backbone, len(manifest.table.labels))
    try:
        write_bytes(path, _packed(made))
    except StorageError as error:
        # They can be timed all the same.
        log.warning("they are not kept: %s", error.what)
    return made


def _key(manifest: Manifest) -> str:
    network, p = manifest.network, manifest.preprocessing
    shape = [network.backbone, p.height, p.channels, network.arguments, len(manifest.table.labels)]
    versions = [metadata.version(name) for name in _PACKAGES]
    digest = hashlib.sha256(json.dumps([shape, versions], sort_keys=True).encode())
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
