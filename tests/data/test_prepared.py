"""A prepared TFDS data set from a stranger: no module it names is imported, and nothing that it claims is believed."""

from __future__ import annotations

import json
import os
import re
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from bssl_tf.data.load import load_data
from bssl_tf.data.tfrecords import MAX_RECORD_BYTES
from bssl_tf.errors import DataError
from tests.faults.originals import make_tfds

SHARD = "tiny-train.tfrecord-00000-of-00001"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "tfds" / "tiny" / "1.0.0"
    make_tfds(made)
    return made


def load(place: Path) -> int:
    data = load_data(
        "tfds:tiny",
        image_size=8,
        data_dir=place / "tfds",
        cache_dir=place / "cache",
        download=False,
        labels_needed=False,
    )
    return len(data.train)


def edit(file: Path, change: Callable[[Any], None]) -> None:
    content = json.loads(file.read_text())
    change(content)
    file.write_text(json.dumps(content))


def test_a_sound_one_is_read(folder: Path, tmp_path: Path) -> None:
    assert load(tmp_path) == 4


STRANGER = "stranger_of_the_tests.Feature"


def as_class(content: Any) -> None:
    content["featuresDict"]["features"]["more"] = {"pythonClassName": STRANGER, "text": {}}


def as_class_by_its_other_name(content: Any) -> None:
    content["featuresDict"]["features"]["more"] = {"python_class_name": STRANGER, "text": {}}


def in_text(content: Any) -> None:
    inner = {"more": {"type": STRANGER, "content": {}}}
    del content["featuresDict"]
    content["jsonFeature"] = {"json": json.dumps(inner)}


def of_older_versions(content: Any) -> None:
    content.clear()
    content |= {
        "type": "tensorflow_datasets.core.features.features_dict.FeaturesDict",
        "content": {"more": {"type": STRANGER, "content": {}}},
    }


@pytest.mark.parametrize("change", [as_class, as_class_by_its_other_name, in_text, of_older_versions])
def test_a_module_that_it_names_is_not_imported(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change: Callable[[Any], None]
) -> None:
    (tmp_path / "stranger_of_the_tests.py").write_text("import pathlib\npathlib.Path(__file__ + '.ran').touch()\n")
    monkeypatch.syspath_prepend(tmp_path)
    edit(folder / "features.json", change)
    with pytest.raises(DataError, match=re.escape(STRANGER) + ".* no other code is run"):
        load(tmp_path)
    assert not list(tmp_path.glob("*.ran")) and "stranger_of_the_tests" not in sys.modules


@pytest.mark.parametrize("name", ["features.json", "dataset_info.json", "label.labels.txt", SHARD])
@pytest.mark.parametrize("kind", ["pipe", "zero"])
def test_other_things_than_files_are_refused_at_once(folder: Path, tmp_path: Path, name: str, kind: str) -> None:
    (folder / name).unlink()
    if kind == "pipe":
        os.mkfifo(folder / name)
    else:
        (folder / name).symlink_to("/dev/zero")
    with pytest.raises(DataError, match=r"[Nn]ot a regular file"):
        load(tmp_path)


def many_examples(folder: Path) -> None:
    edit(folder / "dataset_info.json", lambda info: info["splits"][0].update(shardLengths=["1000000000000"]))


def many_splits(folder: Path) -> None:
    edit(folder / "dataset_info.json", lambda info: info.update(splits=[{"name": f"s{n}"} for n in range(2000)]))


def many_classes(folder: Path) -> None:
    def change(content: Any) -> None:
        content["featuresDict"]["features"]["label"]["classLabel"]["numClasses"] = "1000000000000"

    edit(folder / "features.json", change)


def elsewhere(folder: Path) -> None:
    (folder.parent / SHARD).write_bytes((folder / SHARD).read_bytes())
    template = "../{DATASET}-{SPLIT}.{FILEFORMAT}-{SHARD_X_OF_Y}"
    edit(folder / "dataset_info.json", lambda info: info["splits"][0].update(filepathTemplate=template))


def holes(folder: Path) -> None:
    os.truncate(folder / SHARD, 5 * 10**9)


def nested(folder: Path) -> None:
    (folder / "features.json").write_text('{"x":' * 500 + "1" + "}" * 500)


@pytest.mark.parametrize("change", [many_examples, many_splits, many_classes, elsewhere, holes, nested])
def test_what_it_claims_is_not_believed(folder: Path, tmp_path: Path, change: Callable[[Path], None]) -> None:
    change(folder)
    began = time.process_time()
    with pytest.raises(DataError, match="is damaged"):
        load(tmp_path)
    assert time.process_time() - began < 5


def masked_crc32c(content: bytes) -> int:
    """Of TFRecord."""
    crc = 0xFFFFFFFF
    for byte in content:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ 0x82F63B78 * (crc & 1)
    crc ^= 0xFFFFFFFF
    return ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF


@pytest.mark.parametrize("length", [MAX_RECORD_BYTES + 1, 2**40, 2**64 - 1])
def test_a_record_that_claims_more_than_there_is_takes_no_memory(folder: Path, tmp_path: Path, length: int) -> None:
    """With a right checksum of its length; TensorFlow would take the memory first."""
    head = length.to_bytes(8, "little")
    (folder / SHARD).write_bytes(head + masked_crc32c(head).to_bytes(4, "little") + b"x" * 100)
    with pytest.raises(DataError, match=f"a record of {length:,} bytes"):
        load(tmp_path)


def test_a_label_without_a_class_is_named(folder: Path, tmp_path: Path) -> None:
    (folder / "label.labels.txt").unlink()

    def change(content: Any) -> None:
        content["featuresDict"]["features"]["label"]["classLabel"]["numClasses"] = "1"

    edit(folder / "features.json", change)
    with pytest.raises(DataError, match="a label of train is 1, and there are 1 classes"):
        load(tmp_path)
