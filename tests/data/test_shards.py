from __future__ import annotations

import gzip
import io
import json
import os
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import pytest
from PIL import Image

import bssl_tf as bt
from bssl_tf.backend import tf
from bssl_tf.data import pack as packing
from bssl_tf.data.image_set import DataSplits
from bssl_tf.data.load import load_data
from bssl_tf.data.streamed import StreamedSet
from bssl_tf.errors import DataError, RunFolderError
from tests.data.logged import logged

Save = Callable[..., Path]
FORMATS = ("tar", "tfrecord", "array_record")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    folder = tmp_path / "photos"
    folder.mkdir()
    return folder


@pytest.fixture(params=FORMATS)
def form(request: pytest.FixtureRequest, absent: Callable[[str], NoReturn]) -> str:
    if request.param == "array_record":
        try:
            import array_record.python.array_record_module  # noqa: F401
        except ImportError:
            absent("the package array_record")
    return str(request.param)


def load(root: Path, lines: list[str] | None = None, **options: Any) -> DataSplits:
    options = {"image_size": 28, "cache_dir": root.parent / "cache", "loading": "streaming", **options}
    with logged(lines):
        return load_data(str(root), **options)


def classes(root: Path, save: Save, count: int = 12) -> None:
    for offset, name in enumerate(("cat", "dog")):
        for index in range(count):
            save(root / name / f"{index:03}.v{index}.jpg", 100 * offset + index, (28 + index % 3, 30))


def same(one: DataSplits, other: DataSplits) -> None:
    for first, second in ((one.train, other.train), (one.test, other.test)):
        assert first is not None and second is not None
        np.testing.assert_array_equal(first.images[:], second.images[:])
        np.testing.assert_array_equal(first.require_labels(), second.require_labels())
        assert first.class_names == second.class_names


def test_shards_hold_what_the_folder_holds(root: Path, save: Save, form: str) -> None:
    classes(root, save)
    packed = bt.pack(root, root.parent / "shards", shard_format=form, shard_mb=0.01)
    assert packed.shards > 3 and packed.images == {"train": 20, "test": 4} and not packed.skipped
    assert (packed.folder / "classes.json").exists() and not (packed.folder / "packing.json").exists()
    folder, shards = load(root), load(packed.folder)
    same(shards, folder)
    # A run that was begun on one of them can go on with the other.
    assert shards.train.fingerprint() == folder.train.fingerprint()
    assert load(packed.folder, loading="mapped").train.fingerprint() == load(root, loading="mapped").train.fingerprint()
    assert load(packed.folder, loading="auto").train.loading == "mapped from disk"


def test_shards_of_unlabelled_images_have_no_labels(root: Path, save: Save, form: str) -> None:
    for index in range(5):
        save(root / f"{index}.png", index)
    packed = bt.pack(root, root.parent / "shards", shard_format=form)
    data = load(packed.folder)
    assert data.test is None and data.train.labels is None
    np.testing.assert_array_equal(data.train.images[:], load(root).train.images[:])


def test_one_shard_can_be_named(root: Path, save: Save, form: str) -> None:
    classes(root, save)
    packed = bt.pack(root, root.parent / "shards", shard_format=form)
    [shard] = packed.folder.glob("train-*")
    data = load(shard)
    assert len(data.train) + len(data.test or ()) == 20
    assert data.train.class_names == ("cat", "dog")


def test_packing_that_was_stopped_continues(root: Path, save: Save, monkeypatch: pytest.MonkeyPatch) -> None:
    classes(root, save)
    whole = bt.pack(root, root.parent / "whole", shard_mb=0.01)
    write, written = packing._write, list[str]()

    def stopping(*arguments: Any) -> Any:
        if len(written) == 2:
            raise KeyboardInterrupt
        written.append(arguments[2].name)
        return write(*arguments)

    monkeypatch.setattr(packing, "_write", stopping)
    with pytest.raises(KeyboardInterrupt):
        bt.pack(root, root.parent / "shards", shard_mb=0.01)
    with pytest.raises(DataError, match=r"is not complete, .* Run it again"):
        load(root.parent / "shards")
    assert len(list((root.parent / "shards").glob("*.tar"))) == 2
    written.clear()

    def counting(*arguments: Any) -> Any:
        written.append(arguments[2].name)
        return write(*arguments)

    monkeypatch.setattr(packing, "_write", counting)
    packed = bt.pack(root, root.parent / "shards", shard_mb=0.01)
    assert len(written) == packed.shards - 2
    assert (packed.images, packed.shards) == (whole.images, whole.shards)
    for file in whole.folder.iterdir():
        assert (packed.folder / file.name).read_bytes()[:512] == file.read_bytes()[:512]
    same(load(packed.folder), load(root))


def test_packing_never_writes_over_something_else(root: Path, save: Save, tmp_path: Path) -> None:
    classes(root, save)
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine.txt").write_text("mine")
    with pytest.raises(RunFolderError, match="is not empty"):
        bt.pack(root, tmp_path / "full")
    packed = bt.pack(root, tmp_path / "shards")
    with pytest.raises(RunFolderError, match="is not empty"):
        bt.pack(root, packed.folder)


def test_files_that_cannot_be_read_are_skipped_and_named_unless_they_are_many(root: Path, save: Save) -> None:
    classes(root, save)
    (root / "cat" / "000.v0.jpg").write_bytes(b"")
    with pytest.raises(
        DataError, match=r"1 of 24 images .* cannot be read \(first: cat/000\.v0\.jpg: the file is empty\)"
    ):
        bt.pack(root, root.parent / "strict", max_unreadable_share=0.01)
    packed = bt.pack(root, root.parent / "shards")
    assert packed.skipped == 1 and sum(packed.images.values()) == 23
    assert "cat/000.v0.jpg\tthe file is empty" in (packed.folder / "unreadable.tsv").read_text()
    assert len(load(packed.folder).train) + len(load(packed.folder).test or ()) == 23


def add(tar: tarfile.TarFile, name: str, content: bytes) -> None:
    member = tarfile.TarInfo(name)
    member.size = len(content)
    tar.addfile(member, io.BytesIO(content))


def jpeg(seed: int) -> bytes:
    file = io.BytesIO()
    pixels = np.random.default_rng(seed).integers(0, 256, (30, 40, 3), np.uint8)
    Image.fromarray(pixels).save(file, "JPEG")
    return file.getvalue()


def test_web_datasets_of_others_are_read(root: Path) -> None:
    """Labels as .cls or .json, other members between, splits as words of names, links and folders."""
    for split, count in (("train", 12), ("validation", 6), ("test", 2)):
        with tarfile.open(root / f"imagenet1k-{split}-0000.tar", "w") as tar:
            folder = tarfile.TarInfo("deep")
            folder.type = tarfile.DIRTYPE
            tar.addfile(folder)
            for index in range(count):
                add(tar, f"deep/{index:05}.txt", b"a caption")
                add(tar, f"deep/{index:05}.jpg", jpeg(index))
                if split == "test":
                    continue
                if index % 2:
                    add(tar, f"deep/{index:05}.cls", str(3 + index % 3).encode())
                else:
                    add(tar, f"deep/{index:05}.json", json.dumps({"label": 3 + index % 3, "width": 40}).encode())
            link = tarfile.TarInfo("deep/link.jpg")
            link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
            tar.addfile(link)
    lines: list[str] = []
    data = load(root, lines)
    assert (len(data.train), len(data.test or ())) == (12, 6)
    assert data.train.class_names == ("3", "4", "5")
    assert data.train.require_labels().tolist() == [index % 3 for index in range(12)]
    assert any("2 images: not used: split test" in line for line in lines)
    assert data.test is not None
    np.testing.assert_array_equal(data.train.images[4], data.test.images[4])


def record(**features: Any) -> bytes:
    made = {
        name: tf.train.Feature(bytes_list=tf.train.BytesList(value=[value]))
        if isinstance(value, bytes)
        else tf.train.Feature(int64_list=tf.train.Int64List(value=[value]))
        for name, value in features.items()
    }
    content: bytes = tf.train.Example(features=tf.train.Features(feature=made)).SerializeToString()
    return content


def test_tfrecords_of_tensorflows_imagenet_script_are_read(root: Path) -> None:
    for split, count in (("train", 12), ("validation", 6)):
        with tf.io.TFRecordWriter(str(root / f"{split}-00000-of-00001")) as writer:
            for index in range(count):
                features = {"image/encoded": jpeg(index), "image/class/label": 1 + index % 2, "image/format": b"JPEG"}
                writer.write(record(**features))
    data = load(root)
    assert (len(data.train), len(data.test or ())) == (12, 6)
    assert data.train.class_names == ("1", "2")


def test_a_shard_that_cannot_be_read_is_named_with_a_next_step(root: Path, save: Save) -> None:
    classes(root, save)
    packed = bt.pack(root, root.parent / "shards", shard_format="tfrecord")
    [shard] = packed.folder.glob("train-*")
    whole = shard.read_bytes()
    shard.write_bytes(whole[:-50])
    with pytest.raises(
        DataError, match=r"train-00000-of-00001\.tfrecord cannot be read as \.tfrecord .* Copy it again"
    ):
        load(packed.folder)
    shard.write_bytes(whole.replace(b"image", b"bytes"))
    with pytest.raises(DataError, match="cannot be read as"):
        load(packed.folder)
    shard.unlink()
    with gzip.open(shard.with_name(shard.name + ".gz"), "wb") as file:
        file.write(whole)
    with pytest.raises(DataError, match=r"is compressed, so there is no random access to its images\. Unpack it"):
        load(packed.folder)


def test_two_kinds_of_shards_in_one_folder_are_refused(root: Path, save: Save) -> None:
    classes(root, save)
    one, other = (bt.pack(root, root.parent / name, shard_format=name) for name in ("tar", "tfrecord"))
    for file in other.folder.glob("train-*"):
        file.rename(one.folder / file.name)
    with pytest.raises(DataError, match=r"shards of several kinds \(\.tar, \.tfrecord\)"):
        load(one.folder)


def test_an_archive_beside_what_was_unpacked_from_it_is_not_a_shard(root: Path, save: Save) -> None:
    classes(root, save)
    with tarfile.open(root / "photos.tar", "w") as tar:
        add(tar, "cat/0.jpg", jpeg(0))
    assert len(load(root, loading="mapped").train) == 20


def test_a_shard_that_was_cut_after_it_was_listed_costs_its_images_only(root: Path, save: Save) -> None:
    classes(root, save)
    packed = bt.pack(root, root.parent / "shards", shard_mb=0.01)
    data = load(packed.folder, max_unreadable_share=0.5)
    last = sorted(packed.folder.glob("train-*"))[-1]
    with last.open("r+b") as file:
        file.truncate(1000)
    assert isinstance(data.train, StreamedSet)
    data.train.images[:]
    assert 0 < len(data.train.images.unreadable) < 10


def test_damaged_images_in_shards_are_counted_where_shards_are_mapped(root: Path, save: Save) -> None:
    classes(root, save)
    (root / "dog" / "001.v1.jpg").write_bytes(jpeg(1)[:300])
    packed = bt.pack(root, root.parent / "shards")
    data = load(packed.folder, loading="mapped")
    [skipped] = data.skipped_files
    assert skipped.path.startswith("train-00000-of-00001.tar, byte ") or skipped.path.startswith("test-")


def test_labels_without_a_class_are_refused(root: Path, save: Save) -> None:
    classes(root, save)
    packed = bt.pack(root, root.parent / "shards")
    (packed.folder / "classes.json").write_text('["cat"]')
    with pytest.raises(DataError, match=r"the train images have labels without a class: 1\."):
        load(packed.folder)
    (packed.folder / "classes.json").write_text("{")
    with pytest.raises(DataError, match="or remove it to call classes by number"):
        load(packed.folder)


def hostile_tar(path: Path, kind: bytes, size: int) -> None:
    """A member that claims `size` bytes which are not there."""
    member = tarfile.TarInfo("1.jpg")
    member.type, member.size = kind, size
    path.write_bytes(member.tobuf(tarfile.GNU_FORMAT) + bytes(4096))


@pytest.mark.parametrize("kind", [tarfile.REGTYPE, tarfile.GNUTYPE_LONGNAME, tarfile.XHDTYPE])
def test_sizes_that_a_tar_file_only_claims_take_no_memory(root: Path, kind: bytes) -> None:
    hostile_tar(root / "train-0.tar", kind, 1 << 40)
    with pytest.raises(DataError, match=r"train-0\.tar cannot be read as \.tar"):
        load(root)


def test_records_that_only_claim_their_length_are_refused(root: Path) -> None:
    for content in (bytes(64), (1 << 62).to_bytes(8, "little") + bytes(64)):
        (root / "train-0.tfrecord").write_bytes(content)
        with pytest.raises(DataError, match=r"train-0\.tfrecord has a record of "):
            load(root)


@pytest.mark.parametrize("label", [b"99999999999999999999", b"4294967296", b"cat", b"9" * 60_000])
def test_labels_that_are_no_classes_are_refused(root: Path, label: bytes) -> None:
    with tarfile.open(root / "train-0.tar", "w") as tar:
        add(tar, "1.jpg", jpeg(0))
        add(tar, "1.cls", label)
    with pytest.raises(DataError, match="cannot be read as"):
        load(root)


def test_a_shard_that_is_a_pipe_is_not_waited_for(root: Path) -> None:
    os.mkfifo(root / "train-0.tar")
    with pytest.raises(DataError, match="cannot be read as"):
        load(root)
