"""Real TFDS data sets, made on the spot, and the ones beside the project where they are there."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, ClassVar, NoReturn

import numpy as np
import pytest

# isort: off
from bssl_tf.backend import tf  # sets up TensorFlow before tensorflow_datasets imports it
import tensorflow_datasets as tfds
# isort: on

from bssl_tf.data.image_set import DataSplits
from bssl_tf.data.load import load_data
from bssl_tf.errors import DataError
from tests.data.logged import logged

tf.config.experimental.enable_op_determinism()
SHARED = Path(__file__).parents[2].parent / "shared" / "tfds"


class Tiny(tfds.core.GeneratorBasedBuilder, skip_registration=True):  # type: ignore[call-arg]
    """Random pictures; the label of picture i is i modulo 3, or -1 in the splits that hide theirs."""

    VERSION = tfds.core.Version("1.0.0")
    SIZES: ClassVar[dict[str, int]] = {"train": 30, "test": 6}
    HIDDEN: ClassVar[tuple[str, ...]] = ()
    SHAPE: ClassVar[tuple[int | None, int | None, int]] = (20, 20, 3)
    FEATURES: ClassVar[tuple[str, ...]] = ("image", "label")
    DTYPE: ClassVar[type] = np.uint8

    def _info(self) -> Any:
        known = {
            "image": tfds.features.Image(shape=self.SHAPE, dtype=self.DTYPE),
            "label": tfds.features.ClassLabel(names=["ant", "bee", "cat"]),
            "text": tfds.features.Text(),
        }
        features = tfds.features.FeaturesDict({name: known[name] for name in self.FEATURES})
        return self.dataset_info_from_configs(features=features)

    def _split_generators(self, dl_manager: Any) -> dict[str, Any]:
        return {split: self._generate_examples(split) for split in self.SIZES}

    def _generate_examples(self, split: str) -> Iterator[tuple[int, dict[str, Any]]]:
        for index in range(self.SIZES[split]):
            height, width, channels = self.SHAPE
            pixels: Any = np.full((height or 10, width or 20 + index, channels), index, self.DTYPE)
            known = {"image": pixels, "label": -1 if split in self.HIDDEN else index % 3, "text": "words"}
            yield index, {name: known[name] for name in self.FEATURES}


class TinyPlain(Tiny):
    pass


class TinyHiddenTest(Tiny):
    SIZES: ClassVar[dict[str, int]] = {"train": 30, "test": 6, "validation": 9}
    HIDDEN: ClassVar[tuple[str, ...]] = ("test",)


class TinyMoreSplits(Tiny):
    SIZES: ClassVar[dict[str, int]] = {"train": 30, "test": 6, "validation": 1, "extra": 7}


class TinyTrainOnly(Tiny):
    SIZES: ClassVar[dict[str, int]] = {"train": 60}
    SHAPE: ClassVar[tuple[int | None, int | None, int]] = (None, None, 1)


class TinyUnlabelled(Tiny):
    FEATURES: ClassVar[tuple[str, ...]] = ("image",)


class TinyWords(Tiny):
    FEATURES: ClassVar[tuple[str, ...]] = ("text", "label")


class TinyFloats(Tiny):
    SHAPE: ClassVar[tuple[int | None, int | None, int]] = (20, 20, 1)
    DTYPE: ClassVar[type] = np.float32


class TinyTestOnly(Tiny):
    SIZES: ClassVar[dict[str, int]] = {"test": 6}


class TinyOffline(Tiny):
    def _split_generators(self, dl_manager: Any) -> dict[str, Any]:
        raise ConnectionError("no route to host")


class TinyConfigs(Tiny):
    BUILDER_CONFIGS: ClassVar[list[Any]] = [
        tfds.core.BuilderConfig(name=name, version=tfds.core.Version("2.1.0")) for name in ("left", "right")
    ]


def load(name: str, place: Path, lines: list[str] | None = None, **options: Any) -> DataSplits:
    options = {"image_size": 16, "data_dir": place / "tfds", "cache_dir": place / "cache", **options}
    with logged(lines):
        return load_data(f"tfds:{name}", **options)


def prepared(place: Path, builder: type[Tiny] = TinyPlain) -> Path:
    made = builder(data_dir=str(place / "tfds"))
    made.download_and_prepare()
    return Path(made.data_dir)


def test_it_prepares_what_is_not_there_and_then_reads_it(tmp_path: Path) -> None:
    lines: list[str] = []
    data = load("tiny_plain", tmp_path, lines)
    assert data.name == "tfds:tiny_plain"
    assert data.test is not None
    assert (len(data.train), len(data.test)) == (30, 6)
    assert data.train.images.shape == (30, 20, 20, 3)
    assert data.train.class_names == ("ant", "bee", "cat")
    for images in (data.train, data.test):  # TFDS shuffles what it prepares
        assert np.array_equal(images.images[:, 0, 0, 0] % 3, images.require_labels())
    assert any("downloading tfds:tiny_plain" in line for line in lines)
    again: list[str] = []
    assert load("tiny_plain", tmp_path, again, download=False).train.fingerprint() == data.train.fingerprint()
    assert again == []


def test_nothing_is_printed_to_stdout(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    load("tiny_plain", tmp_path)
    assert capfd.readouterr().out == ""


def test_hidden_labels_make_the_next_split_the_test(tmp_path: Path) -> None:
    data = load("tiny_hidden_test", tmp_path)
    assert data.test is not None
    assert len(data.test) == 9


def test_splits_that_are_not_used_are_reported_with_their_counts_each_time(tmp_path: Path) -> None:
    for name, expected in (
        ("tiny_more_splits", ["7 images: not used: split extra", "1 image: not used: split validation"]),
        ("tiny_hidden_test", ["6 images: not used: split test"]),
        ("tiny_unlabelled", ["6 images: not used: split test"]),
        ("tiny_plain", []),
    ):
        for _ in range(2):  # decoded, and from the cache
            lines: list[str] = []
            load(name, tmp_path, lines)
            assert sorted(line for line in lines if "not used" in line) == sorted(
                f"tfds:{name}: {one}" for one in expected
            )


def test_without_a_test_split_a_part_of_each_class_is_held_out(tmp_path: Path) -> None:
    lines: list[str] = []
    data = load("tiny_train_only", tmp_path, lines)
    assert data.test is not None
    assert len(data.train) + len(data.test) == 60
    assert np.bincount(data.test.require_labels()).tolist() == [4, 3, 3]
    seen = np.concatenate([data.train.images[:, 5, 5, 0], data.test.images[:, 5, 5, 0]])
    assert np.array_equal(np.sort(seen), np.arange(60))
    assert any("held out" in line for line in lines)
    # Sizes that differ are squashed, and remembered.
    assert data.train.images.shape[1:] == (18, 18, 1)
    np.testing.assert_allclose(data.train.aspect_ratios, (20 + data.train.images[:, 5, 5, 0].astype(float)) / 10)


def test_without_labels_there_is_nothing_to_test_on(tmp_path: Path) -> None:
    data = load("tiny_unlabelled", tmp_path)
    assert (data.train.labels, data.test) == (None, None)


def test_channels_and_limit_are_heeded(tmp_path: Path) -> None:
    data = load("tiny_plain", tmp_path, channels=1, limit=5)
    assert data.test is not None
    assert data.train.images.shape == (5, 20, 20, 1)
    assert len(data.test) == 5


def test_configurations_and_versions_are_chosen_by_name(tmp_path: Path) -> None:
    assert len(load("tiny_configs/left", tmp_path).train) == 30
    assert len(load("tiny_configs", tmp_path, download=False).train) == 30
    load("tiny_configs/right:2.1.0", tmp_path)
    assert len(load("tiny_configs/right:2.*.*", tmp_path, download=False).train) == 30
    with pytest.raises(DataError, match=r"several configurations in .*: left, right\. Choose one: tfds:NAME/CONFIG"):
        load("tiny_configs", tmp_path)


def test_the_newest_version_is_taken(tmp_path: Path) -> None:
    first = prepared(tmp_path)
    for version in ("1.10.0", "1.9.0"):
        (first.parent / version).mkdir()
        for file in first.iterdir():
            content = file.read_bytes().replace(b'"1.0.0"', f'"{version}"'.encode())
            (first.parent / version / file.name).write_bytes(content)
    (first / "dataset_info.json").unlink()
    (first.parent / "1.9.0" / "dataset_info.json").unlink()
    assert len(load("tiny_plain", tmp_path, download=False).train) == 30


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("", r"'' is not the name of a TFDS data set\. Write tfds:NAME"),
        ("kaggle:mnist", "'kaggle:mnist' is not the name of a TFDS data set"),
        ("mnst", r"TFDS has no data set mnst, and none is in .*Did you mean tfds:mnist\?"),
        ("tiny_plane", r"Did you mean tfds:tiny_plain\?"),
        ("qqqqqqqq", r"TFDS has no data set qqqqqqqq.*catalog"),
        ("cifar10", r"tfds:cifar10 is not in .*downloads are not allowed\. Omit --no-download"),
    ],
)
def test_names_that_lead_nowhere_are_errors_with_a_next_step(tmp_path: Path, spec: str, message: str) -> None:
    with pytest.raises(DataError, match=message):
        load(spec, tmp_path, download=False)


def test_local_names_are_suggested_too(tmp_path: Path) -> None:
    (tmp_path / "tfds" / "my_own_beetles").mkdir(parents=True)
    with pytest.raises(DataError, match=r"Did you mean tfds:my_own_beetles\?"):
        load("my_own_betles", tmp_path, download=False)
    with pytest.raises(DataError, match=r"holds no prepared tfds:my_own_beetles \(prepared: none\)"):
        load("my_own_beetles", tmp_path)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("tiny_offline", r"could not be downloaded and prepared .*ConnectionError: .*no route.*Check the network"),
        ("tiny_words", r"no feature `image` that is an image \(its features: label, text\)\. Choose a data set for"),
        ("tiny_floats", "the images of tfds:tiny_floats are .*float32.*8-bit"),
        ("tiny_test_only", r"no images in a split `train` \(splits: \{'test': 6\}\)"),
    ],
)
def test_data_sets_that_do_not_fit_are_errors_with_a_next_step(tmp_path: Path, name: str, message: str) -> None:
    with pytest.raises(DataError, match=message):
        load(name, tmp_path)


def flip(file: Path) -> None:
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 0xFF
    file.write_bytes(content)


@pytest.mark.parametrize(
    "damage",
    [
        lambda folder: flip(next(folder.glob("*train.tfrecord*"))),
        lambda folder: next(folder.glob("*train.tfrecord*")).write_bytes(b"short"),
        lambda folder: next(folder.glob("*train.tfrecord*")).unlink(),
        lambda folder: (folder / "dataset_info.json").write_text("{"),
        lambda folder: (folder / "dataset_info.json").unlink(),
        lambda folder: (folder / "features.json").write_text("{"),
        lambda folder: (folder / "features.json").write_text("{}"),
    ],
)
def test_damaged_files_are_errors_with_a_next_step(tmp_path: Path, damage: Callable[[Path], object]) -> None:
    damage(prepared(tmp_path))
    with pytest.raises(DataError, match=r"the prepared data set .* is damaged .*Delete that folder and prepare"):
        load("tiny_plain", tmp_path, download=False)


def test_the_photographs_beside_the_project_load(tmp_path: Path, absent: Callable[[str], NoReturn]) -> None:
    if not (SHARED / "tiny_imagenet_100").is_dir():
        absent("there is no ../shared/tfds/tiny_imagenet_100 beside the project")
    data = load("tiny_imagenet_100", tmp_path, data_dir=SHARED, image_size=32, limit=300, download=False)
    assert data.test is not None
    assert data.train.images.shape == (300, 64, 64, 3)
    assert len(data.test) == 300
    assert len(data.train.class_names) == 100
    # Photographs: bright and dark, in colour.
    assert 60 < data.train.images.mean() < 180
    assert np.abs(data.train.images[..., 0].astype(int) - data.train.images[..., 2]).mean() > 5


@pytest.mark.parametrize("builder", [TinyPlain, TinyHiddenTest, TinyUnlabelled, TinyTrainOnly])
def test_streaming_reads_what_is_decoded_otherwise(tmp_path: Path, builder: type[Tiny]) -> None:
    name = prepared(tmp_path, builder).parent.name
    streamed, mapped = (load(name, tmp_path, loading=way) for way in ("streaming", "mapped"))
    assert (streamed.train.loading, mapped.train.loading) == ("streamed", "mapped from disk")
    assert streamed.train.class_names == mapped.train.class_names
    assert (streamed.test is None) == (mapped.test is None)
    for ours, theirs in ((streamed.train, mapped.train), (streamed.test, mapped.test)):
        if ours is None or theirs is None or builder is TinyTrainOnly:  # which holds out others
            continue
        np.testing.assert_array_equal(ours.images[:], theirs.images)
        assert (ours.labels is None) == (theirs.labels is None)
        if ours.labels is not None and theirs.labels is not None:
            np.testing.assert_array_equal(ours.labels, theirs.labels)
    assert len(streamed.train) == len(mapped.train)
