"""Weights files of Keras 2 (`model.save_weights("FILE.h5")`, or `model.save`), as larq-zoo hands its own out.

Such a file is HDF5, which is data; but a hostile one may claim sizes that no machine has, or point at other files. Each
weight is compared with the layer that it is for before it is read, so that no more is read than the network holds.
Kernels may be latent ones or binarised, as `larq.context.quantized_scope(True)` saves them: a sign's sign is that sign.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import h5py  # type: ignore[import-untyped]
import numpy as np

from bssl_tf.backend import keras
from bssl_tf.errors import BsslError, ConversionError
from bssl_tf.keras_files.files import open_hdf5, require_fetched, require_own_numbers

_HINT = "Give the file that save_weights('FILE.h5') or save('FILE.h5') writes for this network, with as many classes"
# A network has some hundred layers; a name has some dozen letters.
_MAX_NAMES_BYTES = 2**22


def load_weights_file(model: keras.Model, path: Path) -> None:
    """Gives `model` the weights in the file: by name where the layers are called alike, else in their order.

    Raises:
        ConversionError: the file is missing, damaged, or does not fit; the first layer that does not is named.
    """
    if not path.exists():
        raise ConversionError(f"there is no weights file {path}", "Check the path")
    require_fetched(path)
    try:
        with open_hdf5(path, str(path)) as file:
            pairs = list(_pairs(model, file, str(path)))
    except BsslError:
        raise
    # h5py raises whatever it likes for a damaged file.
    except Exception as error:
        cause = next(iter(str(error).splitlines()), "") or type(error).__name__
        raise ConversionError(f"{path} cannot be read as HDF5 ({cause[:200]})", _HINT) from error
    keras.backend.batch_set_value(pairs)
    for layer in model.submodules:
        # Normalization computes with what it makes of its weights.
        if isinstance(layer, keras.layers.Layer):
            layer.finalize_state()


def _pairs(model: keras.Model, file: h5py.File, path: str) -> Iterator[tuple[Any, np.ndarray]]:
    """Each variable with its value, of its type."""
    root = file["model_weights"] if "layer_names" not in file.attrs and "model_weights" in file else file
    version = root.attrs.get("keras_version", "2.")
    version = version.decode(errors="replace") if isinstance(version, bytes) else str(version)
    if not version.startswith("2."):
        raise ConversionError(f"{path} was saved by Keras {version[:20]}", _HINT)
    groups = {name: root[name] for name in _names(root, "layer_names")}
    saved = {name: [group[one] for one in _names(group, "weight_names")] for name, group in groups.items()}
    saved = {name: weights for name, weights in saved.items() if weights}
    if not saved:
        raise ConversionError(f"{path} has no weights by layer", _HINT)
    # In the order in which Keras saves them.
    wanted = {one.name: one.trainable_weights + one.non_trainable_weights for one in model.layers if one.weights}
    # Keras numbers layers afresh in each process, so that names may differ where networks do not.
    order = list(wanted) if wanted.keys() == saved.keys() else list(saved)
    for name, theirs in zip(wanted, order, strict=False):
        if _shapes(wanted[name]) != _shapes(saved[theirs]):
            raise ConversionError(
                f"{path} does not fit {model.name}: layer {name} has {_said(wanted[name])}, and the file "
                f"{_said(saved[theirs])} for {theirs[:60]}",
                _HINT,
            )
    for ours, others, who in ((wanted, order, path), (order, wanted, model.name)):
        if len(ours) > len(others):
            raise ConversionError(
                f"{path} does not fit {model.name}: {who} has no layer for {list(ours)[len(others)][:60]}", _HINT
            )
    for name, theirs in zip(wanted, order, strict=True):
        for variable, dataset in zip(wanted[name], saved[theirs], strict=True):
            yield variable, _values(variable, dataset, file, path, name)


def _names(group: Any, attribute: str) -> list[str]:
    """A list of names, which Keras splits over several attributes where it is long."""
    found: list[str] = []
    parts = [attribute] if attribute in group.attrs else (f"{attribute}{number}" for number in range(1000))
    for part in parts:
        if part not in group.attrs:
            break
        about = group.attrs.get_id(part)
        if math.prod(about.shape) * about.dtype.itemsize > _MAX_NAMES_BYTES:
            raise ValueError(f"{part} is too long")
        found += [name.decode() if isinstance(name, bytes) else str(name) for name in group.attrs[part]]
    return found


def _shapes(weights: Sequence[Any]) -> list[tuple[int, ...]]:
    return [tuple(weight.shape) for weight in weights]


def _said(weights: Sequence[Any]) -> str:
    """Such as 3x3x64x64 and 64."""
    return " and ".join("x".join(map(str, shape)) or "a number" for shape in _shapes(weights[:8]))


def _values(variable: Any, dataset: Any, file: h5py.File, path: str, layer: str) -> np.ndarray:
    require_own_numbers(dataset, file, path, f"layer {layer}")
    values = np.asarray(dataset[()], variable.dtype.as_numpy_dtype)
    if variable.dtype.is_floating and not np.isfinite(values).all():
        raise ConversionError(f"{path} has NaN or infinity for layer {layer}", "Get the file again, or train again")
    return values
