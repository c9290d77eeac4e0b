"""Data sets that this project makes of public ones, so that its figures can be measured again."""

from __future__ import annotations

import contextlib
import hashlib
import io
import logging
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from PIL import Image

from bssl_tf.data.prepared import damage, largest_record, open_prepared, tfds
from bssl_tf.data.tfds_source import data_root, prepared_folder
from bssl_tf.data.tfrecords import MAX_FILE_BYTES
from bssl_tf.errors import DataError
from bssl_tf.files import open_regular

_log = logging.getLogger(__name__)
_SPLITS = ("train", "test")


@dataclass(frozen=True)
class Recipe:
    """A data set that is made of another.

    Attributes:
        source: TFDS's name of the other.
        size: images in each split.
        sha256: of each split's file, as it was when the figures of this project were measured.
    """

    source: str
    size: dict[str, int]
    sha256: dict[str, str]


RECIPES = {
    "cifar10_jpeg75": Recipe(
        "cifar10",
        {"train": 50_000, "test": 10_000},
        {
            "train": "5be2c363f041df1299d2da2c9f3dd2d5b4f561892cd945c6ebd642f09bd73701",
            "test": "6d64a5ba5982eca000ea55a9cee5cd3a2d406e90e4083004666a99ef7ca9c7f2",
        },
    ),
}


@dataclass(frozen=True)
class MadeData:
    """A data set that was made.

    Attributes:
        folder: with its files.
        source: how commands name it: `--data SOURCE`, with `--data-dir` for another folder than TFDS's own.
        identical: whether its files are, bit for bit, those of this project's figures.
    """

    folder: Path
    source: str
    identical: bool


class _Cifar10Jpeg75(tfds.core.GeneratorBasedBuilder, skip_registration=True):  # type: ignore[call-arg]
    """CIFAR-10, re-encoded as JPEG at quality 75."""

    name = "cifar10_jpeg75"
    VERSION: ClassVar[Any] = tfds.core.Version("1.0.0")

    def __init__(self, source: Path, data_dir: Path) -> None:
        self._folder = source
        self._source = open_prepared(source)
        super().__init__(data_dir=str(data_dir))

    def _info(self) -> Any:
        about = {
            "id": tfds.features.Text(),
            "image": tfds.features.Image(shape=(32, 32, 3), encoding_format="jpeg"),
            "label": tfds.features.ClassLabel(names=self._source.info.features["label"].names),
        }
        description = "CIFAR-10 re-encoded as JPEG at quality 75: never compare with published CIFAR-10 figures."
        features = tfds.features.FeaturesDict(about)
        keys = ("image", "label")
        return tfds.core.DatasetInfo(
            builder=self, description=description, features=features, supervised_keys=keys, disable_shuffling=False
        )

    def _split_generators(self, dl_manager: Any) -> dict[str, Any]:
        return {split: self._generate_examples(split) for split in _SPLITS}

    def _generate_examples(self, split: str) -> Iterator[tuple[str, dict[str, Any]]]:
        # TFDS calls them train_00000 and so on, in the order of the original files. The writer sorts by a hash of the
        # key, so the key decides over the order of the images, and with it over every training run.
        with damage(self._folder):
            largest_record(self._source, split)
        images = self._source.as_dataset(split=split, shuffle_files=False).as_numpy_iterator()
        while True:
            # What fails in writing is not the fault of what is read.
            with damage(self._folder):
                example = next(images, None)
            if example is None:
                return
            key = f"{split}_{int(example['id'].decode().rpartition('_')[2]):06d}"
            yield key, {"id": key, "image": io.BytesIO(jpeg(example["image"])), "label": int(example["label"])}


def jpeg(pixels: np.ndarray) -> bytes:
    """uint8 [S, S, 3] as a JPEG file of quality 75, as Pillow writes it."""
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "JPEG", quality=75)
    return file.getvalue()


def make_data(name: str, data_dir: Path | None, *, download: bool) -> MadeData:
    """Makes the data set `name`; see `bssl_tf.workflows.make_data`."""
    recipe = RECIPES[name]
    root = data_root(data_dir)
    folder = root / name / "1.0.0"
    if not folder.exists():
        source = prepared_folder(recipe.source, root, download)
        _log.info("making %s of %s", folder, source)
        # TFDS prints what it does; stdout is for results.
        with contextlib.redirect_stdout(sys.stderr):
            builder = _Cifar10Jpeg75(source, root)
            found = {split: builder._source.info.splits[split].num_examples for split in _SPLITS}
            if found != recipe.size:
                raise DataError(
                    f"{source} holds {found} images in place of {recipe.size}",
                    "Delete that folder and try again",
                )
            builder.download_and_prepare(download_config=tfds.download.DownloadConfig(try_download_gcs=False))
    sums = {split: _sha256(folder / f"{name}-{split}.tfrecord-00000-of-00001") for split in _SPLITS}
    return MadeData(folder, f"tfds:{name}", sums == recipe.sha256)


def _sha256(path: Path) -> str | None:
    """None where there is no such file."""
    digest = hashlib.sha256()
    try:
        with open_regular(path, MAX_FILE_BYTES) as file:
            while part := file.read(1 << 20):
                digest.update(part)
    except FileNotFoundError:
        return None
    return digest.hexdigest()
