"""Feature vectors of images in a file, `.npz`, which numpy opens without pickle:

    images      text [N]: the name of each image, relative to the folder if one folder was given
    vectors     float32 [N, D]
    about       text: JSON with the network, the hash of its weights, its preprocessing, D and the folder (`About`)

Packed, `bits` and `thresholds` take the place of `vectors`:

    bits        uint8 [N, ceil(D / 8)]: 1 where a feature is above its threshold. The first feature is the highest bit
                of the first byte, as `numpy.packbits` has it; the last byte is filled up with zeros
    thresholds  float32 [D]: the mean of each feature over the images of the file. Zero would not do, because features
                that end in a ReLU are never below it
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from bssl_tf_deploy.arrays import read_npz
from bssl_tf_deploy.errors import StorageError, UsageError
from bssl_tf_deploy.files import atomic_writer, read_regular
from bssl_tf_deploy.manifest import Preprocessing
from bssl_tf_deploy.strict import StrictError, expect, parse
from bssl_tf_deploy.system_errors import next_step

FORMAT = 1
NPZ = ".npz"
AGAIN = "Make it again with `bssl-tf embed`"
MAX_BYTES = 1 << 34
_SHORTEST = 1e-12


@dataclass(frozen=True)
class About:
    """What vectors are of.

    Attributes:
        format: of the file; this code writes `FORMAT`.
        network: its name.
        sha256: of its weights (of the model, in a bundle), in hexadecimal; vectors of others cannot be compared.
        preprocessing: of images.
        dimensions: D, numbers per image.
        folder: that the names are relative to, as it was given; "" where images were named one by one.
        unreadable: how many images could not be read, and are not in the file.
    """

    format: int
    network: str
    sha256: str
    preprocessing: Preprocessing
    dimensions: int
    folder: str
    unreadable: int


@dataclass(frozen=True, eq=False)
class Vectors:
    """Feature vectors of N images, float or packed.

    Attributes:
        about: what they are of.
        images: N names.
        values: float32 [N, D]; packed, uint8 [N, ceil(D / 8)].
        thresholds: float32 [D] of packed ones; None of float ones.
    """

    about: About
    images: tuple[str, ...]
    values: np.ndarray
    thresholds: np.ndarray | None = None

    def packed(self) -> Vectors:
        """The same as bits: see the top of this file."""
        if self.thresholds is not None:
            return self
        thresholds = self.values.mean(axis=0, dtype=np.float64).astype(np.float32)
        return dataclasses.replace(self, values=np.packbits(self.values > thresholds, axis=1), thresholds=thresholds)

    def directions(self) -> np.ndarray:
        """float32 [N, D] of length one, whose products are cosines; of bits, those of vectors of -1 and 1."""
        if self.thresholds is None:
            return unit(self.values)
        bits = np.unpackbits(self.values, axis=1, count=self.about.dimensions)
        return unit(bits.astype(np.float32) * 2 - 1)

    def direction_of(self, features: np.ndarray) -> np.ndarray:
        """`directions` of other features of the same network, float32 [M, D]."""
        if self.thresholds is None:
            return unit(features)
        return unit((features > self.thresholds).astype(np.float32) * 2 - 1)

    def path(self, image: str) -> Path:
        """Where an image lay. Of a file that a stranger may have made, nothing to open: it may name any file."""
        return Path(self.about.folder) / image


def unit(features: np.ndarray) -> np.ndarray:
    """float32 [N, D] scaled to length one; zeros stay zeros."""
    lengths = np.linalg.norm(features.astype(np.float64), axis=1, keepdims=True)
    scaled: np.ndarray = (features / np.maximum(lengths, _SHORTEST)).astype(np.float32)
    return scaled


def check_output(path: Path, *, overwrite: bool, suffixes: tuple[str, ...] = (NPZ,)) -> None:
    """Before all the work, not after.

    Raises:
        UsageError: its name does not end in one of `suffixes`.
        StorageError: it exists, and is not to be replaced.
    """
    if path.suffix not in suffixes:
        raise UsageError(f"{path} does not end in {' or '.join(suffixes)}", f"Write --out vectors{suffixes[0]}")
    if path.is_dir() or (not overwrite and path.exists()):
        raise StorageError(f"{path} exists already", "Add --overwrite, or choose another --out")


def write_vectors(path: Path, vectors: Vectors) -> None:
    """Writes a file as described at the top, atomically, always the same bytes. Raises `StorageError`."""
    arrays = {
        "images": np.array(vectors.images, np.str_),
        "about": np.array(json.dumps(dataclasses.asdict(vectors.about))),
    }
    if vectors.thresholds is None:
        arrays["vectors"] = vectors.values
    else:
        arrays |= {"bits": vectors.values, "thresholds": vectors.thresholds}
    with atomic_writer(path) as file:
        np.savez_compressed(file, **arrays)


def read_vectors(path: Path) -> Vectors:
    """Reads what `write_vectors` wrote.

    Raises:
        StorageError: the file is missing, damaged, or something else.
    """
    try:
        arrays = read_npz(read_regular(path, MAX_BYTES), MAX_BYTES, text=True)
        return _vectors(arrays)
    except OSError as error:
        raise StorageError(
            f"{path} cannot be read ({error.strerror or type(error).__name__})", next_step(error)
        ) from error
    except (ValueError, RecursionError, StrictError) as error:
        raise StorageError(f"{path} does not hold vectors of images ({error})", AGAIN) from error


def _vectors(arrays: dict[str, np.ndarray]) -> Vectors:
    packed = "bits" in arrays
    expect(set(arrays) == {"images", "about", *(("bits", "thresholds") if packed else ("vectors",))}, "it", "complete")
    images, values = arrays["images"], arrays["bits" if packed else "vectors"]
    expect(images.dtype.kind == "U" and images.ndim == 1, "images", "text [N]")
    expect(arrays["about"].dtype.kind == "U" and arrays["about"].ndim == 0, "about", "text")
    return checked(json.loads(str(arrays["about"])), images.tolist(), values, arrays.get("thresholds"))


def checked(about: object, images: Sequence[str], values: np.ndarray, thresholds: np.ndarray | None) -> Vectors:
    """Vectors as a file of any kind has them, whoever wrote it.

    Args:
        about: what JSON gave.
        images: see `Vectors`, as the others.
        values: see there.
        thresholds: see there.

    Raises:
        StrictError: they do not fit together.
    """
    stated = parse(About, about, "about")
    expect(stated.format == FORMAT, "about.format", str(FORMAT))
    expect(stated.dimensions > 0, "about.dimensions", "above zero")
    packed = thresholds is not None
    width = -(-stated.dimensions // 8) if packed else stated.dimensions
    expect(values.dtype == (np.uint8 if packed else np.float32), "vectors", "of the right type")
    expect(values.shape == (len(images), width), "vectors", f"{[len(images), width]}")
    if thresholds is not None:
        right = thresholds.dtype == np.float32 and thresholds.shape == (stated.dimensions,)
        expect(right, "thresholds", f"float32 [{stated.dimensions}]")
    for one in (thresholds, None if packed else values):
        expect(one is None or bool(np.all(np.isfinite(one))), "vectors", "finite")
    return Vectors(stated, tuple(map(str, images)), values, thresholds)
