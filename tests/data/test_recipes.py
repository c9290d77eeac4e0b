"""Data sets made of public ones: of a public one made here, in the form in which TFDS has it."""

from __future__ import annotations

import errno
import io
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
from PIL import Image

# isort: off
from bssl_tf.backend import tf  # sets up TensorFlow before tensorflow_datasets imports it
import tensorflow_datasets as tfds
from tensorflow_datasets.core import hashing
# isort: on

import bssl_tf as bt
from bssl_tf.data import recipes
from bssl_tf.data.load import load_data
from bssl_tf.errors import ConfigError, DataError, StorageError
from bssl_tf.workflows.make_data import NAMES
from tests.data.logged import logged

SIZE = {"train": 12, "test": 5}


class Cifar10(tfds.core.GeneratorBasedBuilder, skip_registration=True):  # type: ignore[call-arg]
    """The real one's features and names of examples, with pictures of noise."""

    name = "cifar10"
    VERSION: ClassVar[Any] = tfds.core.Version("3.0.2")

    def _info(self) -> Any:
        about = {
            "id": tfds.features.Text(),
            "image": tfds.features.Image(shape=(32, 32, 3)),
            "label": tfds.features.ClassLabel(names=["airplane", "automobile", "bird"]),
        }
        return tfds.core.DatasetInfo(builder=self, features=tfds.features.FeaturesDict(about))

    def _split_generators(self, dl_manager: Any) -> dict[str, Any]:
        return {split: self._generate_examples(split) for split in SIZE}

    def _generate_examples(self, split: str) -> Iterator[tuple[int, dict[str, Any]]]:
        for index in range(SIZE[split]):
            yield index, {"id": f"{split}_{index:05d}", "image": picture(split, index), "label": index % 3}


def picture(split: str, index: int) -> np.ndarray:
    noise = np.random.default_rng([len(split), index]).integers(0, 256, (4, 4, 3), np.uint8)
    return np.asarray(Image.fromarray(noise).resize((32, 32)))


@pytest.fixture
def public(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with the public set, and the recipe for that many images."""
    Cifar10(data_dir=str(tmp_path)).download_and_prepare()
    known = recipes.RECIPES["cifar10_jpeg75"]
    monkeypatch.setitem(recipes.RECIPES, "cifar10_jpeg75", recipes.Recipe("cifar10", SIZE, known.sha256))
    return tmp_path


def examples(folder: Path, split: str) -> list[Any]:
    [file] = folder.glob(f"*-{split}.tfrecord-00000-of-00001")
    return [tf.train.Example.FromString(record.numpy()).features.feature for record in tf.data.TFRecordDataset(file)]


def test_every_image_is_re_encoded_and_they_are_in_the_order_of_their_names_hashes(
    public: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lines: list[str] = []
    with logged(lines):
        made = bt.make_data("cifar10_jpeg75", data_dir=public, download=False)
    assert made.folder == public / "cifar10_jpeg75" / "1.0.0" and made.source == "tfds:cifar10_jpeg75"
    assert not made.identical
    assert "is not bit for bit the data set of this project's figures" in lines[-1]
    for split, count in SIZE.items():
        found = {one["id"].bytes_list.value[0].decode(): one for one in examples(made.folder, split)}
        names = [f"{split}_{index:06d}" for index in range(count)]
        assert list(found) == sorted(names, key=hashing.Hasher(split).hash_key)
        for index, name in enumerate(names):
            [content] = found[name]["image"].bytes_list.value
            file = io.BytesIO()
            Image.fromarray(picture(split, index)).save(file, "JPEG", quality=75)
            assert content == file.getvalue()
            assert found[name]["label"].int64_list.value == [index % 3]
    # A set that is there is compared, not made again; the public one is not needed for that.
    sums = {split: recipes._sha256(next(made.folder.glob(f"*-{split}.tfrecord*"))) for split in SIZE}
    monkeypatch.setitem(recipes.RECIPES, "cifar10_jpeg75", recipes.Recipe("cifar10", SIZE, sums))  # type: ignore[arg-type]
    (public / "cifar10").rename(public / "elsewhere")
    with logged(lines):
        assert bt.make_data("cifar10_jpeg75", data_dir=public, download=False).identical
    data = load_data("tfds:cifar10_jpeg75", data_dir=public, image_size=32, cache_dir=public / "cache", download=False)
    assert len(data.train) == 12 and data.train.class_names == ("airplane", "automobile", "bird")


def test_a_public_set_of_another_size_is_refused_and_nothing_is_left(
    public: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(recipes.RECIPES, "cifar10_jpeg75", recipes.Recipe("cifar10", {"train": 13, "test": 5}, {}))
    with pytest.raises(DataError, match=re.escape("{'train': 12, 'test': 5} images in place of {'train': 13")) as error:
        bt.make_data("cifar10_jpeg75", data_dir=public, download=False)
    assert str(error.value).count("error[data]") == 1
    assert not (public / "cifar10_jpeg75" / "1.0.0").exists()


def test_a_full_disk_is_not_the_public_sets_fault(public: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(pixels: np.ndarray) -> bytes:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(recipes, "jpeg", full)
    with pytest.raises(StorageError, match="No space left"):
        bt.make_data("cifar10_jpeg75", data_dir=public, download=False)
    assert not (public / "cifar10_jpeg75" / "1.0.0").exists()


def test_a_damaged_public_set_is_named(public: Path) -> None:
    [file] = public.glob("cifar10/3.0.2/*-test.tfrecord*")
    file.write_bytes(file.read_bytes()[:-9])
    with pytest.raises(DataError, match=r"cifar10/3\.0\.2 is damaged \(ValueError: cifar10-.* has a record.*Delete"):
        bt.make_data("cifar10_jpeg75", data_dir=public, download=False)


def test_wrong_names_and_missing_sets_are_one_clear_line(tmp_path: Path) -> None:
    assert set(NAMES) == set(recipes.RECIPES)
    with pytest.raises(ConfigError, match=r"cifar10_jpg75.*cifar10_jpeg75"):
        bt.make_data("cifar10_jpg75", data_dir=tmp_path)
    with pytest.raises(DataError, match=r"tfds:cifar10 is not in .* and downloads are not allowed"):
        bt.make_data("cifar10_jpeg75", data_dir=tmp_path, download=False)


SHARED = Path(__file__).parents[2].parent / "shared" / "tfds" / "cifar10_jpeg75" / "1.0.0"


@pytest.mark.slow
def test_the_set_of_the_figures_is_written_bit_for_bit_from_its_own_images(tmp_path: Path, absent: Any) -> None:
    """The encoder apart, which needs the original pixels: names, features, order and container."""
    if not SHARED.exists():
        absent(f"there is no {SHARED}")

    class Again(recipes._Cifar10Jpeg75, skip_registration=True):  # type: ignore[call-arg]
        name = "cifar10_jpeg75"

        def _generate_examples(self, split: str) -> Iterator[tuple[str, dict[str, Any]]]:
            as_stored = {"image": tfds.decode.SkipDecoding()}
            for one in self._source.as_dataset(
                split=split, shuffle_files=False, decoders=as_stored
            ).as_numpy_iterator():
                key = one["id"].decode()
                yield key, {"id": key, "image": io.BytesIO(one["image"]), "label": int(one["label"])}

    Again(SHARED, tmp_path).download_and_prepare()
    for split, expected in recipes.RECIPES["cifar10_jpeg75"].sha256.items():
        file = tmp_path / "cifar10_jpeg75" / "1.0.0" / f"cifar10_jpeg75-{split}.tfrecord-00000-of-00001"
        assert recipes._sha256(file) == expected
