from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from bssl_tf.data.building import held_out, store_size
from bssl_tf.data.class_names import lookalikes, nearest
from bssl_tf.data.image_set import DataSplits
from bssl_tf.data.load import load_data
from bssl_tf.data.open import count_images
from bssl_tf.errors import DataError
from bssl_tf.settings import DataConfig
from tests.data.logged import logged

Save = Callable[..., Path]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    folder = tmp_path / "photos"
    folder.mkdir()
    return folder


def load(root: Path, lines: list[str] | None = None, **options: Any) -> DataSplits:
    options = {"image_size": 28, "cache_dir": root.parent / "cache", **options}
    with logged(lines):
        return load_data(str(root), **options)


def classes(root: Path, save: Save, names: str = "cat dog", count: int = 12, start: int = 0) -> None:
    for offset, name in enumerate(names.split()):
        for index in range(count):
            save(root / name / f"{index:03}.png", start + 100 * offset + index)


def test_class_folders_become_labels_and_a_part_is_held_out(root: Path, save: Save) -> None:
    classes(root, save)
    lines: list[str] = []
    data = load(root, lines)
    assert data.train.class_names == ("cat", "dog")
    assert data.test is not None
    assert len(data.train) + len(data.test) == 24
    assert set(data.test.require_labels().tolist()) == {0, 1}
    assert data.train.images.shape[1:] == (32, 32, 3)  # 28 * 8 / 7
    np.testing.assert_allclose(data.train.aspect_ratios, 4 / 3)
    assert any("held out" in line for line in lines)


def test_labels_and_pixels_belong_together(root: Path) -> None:
    for name, colour in (("black", 0), ("white", 255)):
        for index in range(4):
            path = root / name / "deep" / f"{index}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.new("RGB", (10, 10), (colour,) * 3).save(path)
    data = load(root)
    assert data.test is not None
    for images in (data.train, data.test):
        assert np.array_equal(images.images[:, 0, 0, 0] == 255, images.require_labels() == 1)


@pytest.mark.parametrize(
    ("train_name", "test_name"),
    [
        *(("train", name) for name in ("test", "val", "valid", "validation", "dev", "eval", "Val", "TEST", "test_set")),
        *(("Train", "Test"), ("Training", "Testing"), ("TRAIN", "VALID"), ("training_set", "test_set")),
        *(("train-images", "val images"), ("trainset", "testset")),
    ],
)
def test_train_and_test_folders_are_splits(root: Path, save: Save, train_name: str, test_name: str) -> None:
    classes(root / train_name, save)
    classes(root / test_name, save, count=3, start=900)
    lines: list[str] = []
    data = load(root, lines)
    assert data.test is not None
    assert (len(data.train), len(data.test)) == (24, 6)
    assert data.test.class_names == data.train.class_names == ("cat", "dog")
    assert not [line for line in lines if "not used" in line or "held out" in line]


def test_images_beside_the_splits_in_use_are_told_with_their_count(root: Path, save: Save) -> None:
    classes(root / "train", save)
    classes(root / "test", save, count=3)
    classes(root / "val", save, count=2)
    save(root / "unlabeled" / "deep" / "1.png")
    save(root / "sample.png")
    (root / "notes").mkdir()
    lines: list[str] = []
    data = load(root, lines)
    assert data.test is not None and len(data.test) == 6
    told = [line for line in lines if "not used" in line]
    assert told == [f"{root}: not used: unlabeled (1 image), val (4 images), beside the folders (1 image)"]


def test_validation_images_have_a_folder_of_their_own_where_they_are_asked_for(root: Path, save: Save) -> None:
    """Its classes may be fewer; the test images are the same either way."""
    classes(root / "train", save)
    classes(root / "test", save, count=3, start=500)
    classes(root / "val", save, "dog", count=2, start=900)
    lines: list[str] = []
    alone, asked = load(root, lines), load(root, validation=True)
    assert alone.validation is None and any("not used: val (2 images)" in line for line in lines)
    assert asked.validation is not None and asked.validation.require_labels().tolist() == [1, 1]
    for one in (alone, asked):
        assert one.test is not None and len(one.test) == 6
    assert asked.test is not None and alone.test is not None and asked.test.fingerprint() == alone.test.fingerprint()
    assert asked.train.fingerprint() == alone.train.fingerprint()
    # Alone beside the training images, it is for testing.
    shutil.rmtree(root / "test")
    data = load(root, validation=True)
    assert data.test is not None and (len(data.test), data.validation) == (2, None)
    classes(root / "test", save, count=3, start=500)
    classes(root / "val", save, "bird", start=700)
    with pytest.raises(DataError, match=r"val has classes that .*train lacks: bird"):
        load(root, validation=True)


def test_test_images_of_unlabelled_training_images_are_told(root: Path, save: Save) -> None:
    for index in range(5):
        save(root / "train" / f"{index}.png", index)
    classes(root / "valid", save, count=2)
    lines: list[str] = []
    data = load(root, lines)
    assert (len(data.train), data.train.labels, data.test) == (5, None, None)
    assert f"{root}: not used: valid (4 images)" in lines


def test_test_folders_alone_are_not_classes(root: Path, save: Save) -> None:
    classes(root / "Test", save)
    classes(root / "valid", save)
    with pytest.raises(DataError, match=r"has Test and valid, but no folder of training images\. Call that folder"):
        load(root)


def test_two_training_folders_are_refused(root: Path, save: Save) -> None:
    classes(root / "Train", save)
    classes(root / "training", save)
    with pytest.raises(DataError, match=r"has Train and training, both for training\. Put their images"):
        load(root)


@pytest.mark.parametrize(
    "name",
    [
        *("@eaDir", "#recycle", "$RECYCLE.BIN", "System Volume Information", "__MACOSX", "lost+found", "Thumbs"),
        *(".thumbnails", "@Recycle", "THUMBS"),
    ],
)
@pytest.mark.parametrize("place", [".", "cat", "cat/deep"])
def test_folders_of_the_system_are_skipped_at_every_depth(root: Path, save: Save, name: str, place: str) -> None:
    classes(root, save)
    save(root / "cat" / "deep" / "1.png", 500)
    expected = load(root)
    classes(root / place / name, save, "dog x", 6, start=700)
    lines: list[str] = []
    data = load(root, lines)
    assert data.train.class_names == ("cat", "dog")
    assert data.train.fingerprint() == expected.train.fingerprint()
    assert [line for line in lines if "system files" in line] == [
        f"{root}: hidden and system files are skipped: {name} (12 files)"
    ]


def test_folders_of_the_system_beside_splits_are_no_split(root: Path, save: Save) -> None:
    classes(root / "train", save)
    classes(root / "test" / "@eaDir", save)
    save(root / "__MACOSX" / "train" / "._1.png")
    lines: list[str] = []
    data = load(root, lines)
    assert data.test is not None and len(data.train) + len(data.test) == 24
    assert f"{root}: hidden and system files are skipped: @eaDir (24 files), __MACOSX (1 file)" in lines


def test_files_of_the_system_are_counted_and_named_in_one_line(root: Path, save: Save) -> None:
    classes(root, save)
    for name in ("Thumbs.db", "cat/Thumbs.db", "cat/desktop.ini", "cat/.DS_Store"):
        (root / name).write_bytes(b"x")
    for name in ("._000.png", "cat/._000.png", "cat/._001.png", "dog/.hidden.png"):
        (root / name).write_bytes(b"Mac OS X")
    lines: list[str] = []
    data = load(root, lines)
    assert data.test is not None and len(data.train) + len(data.test) == 24 and not data.skipped_files
    assert [line for line in lines if "system files" in line] == [
        f"{root}: hidden and system files are skipped: .* (1 file), ._* (3 files), Thumbs.db (2 files), "
        "desktop.ini (1 file)"
    ]


def test_links_that_lead_back_end_and_bring_nothing_twice(root: Path, save: Save) -> None:
    for split in ("train", "test"):
        classes(root / split, save, count=2)
        (root / split / "cat" / "up").symlink_to(root / split)
        (root / split / "cat" / "top").symlink_to(root)
    data = load(root)
    assert data.test is not None
    assert data.train.require_labels().tolist() == data.test.require_labels().tolist() == [0, 0, 1, 1]


def test_a_test_folder_may_lack_a_class_but_not_add_one(root: Path, save: Save) -> None:
    classes(root / "train", save, "ant bee cat")
    classes(root / "test", save, "cat", 2)
    data = load(root)
    assert data.test is not None
    assert data.test.require_labels().tolist() == [2, 2]
    classes(root / "test", save, "dog eel", 2)
    classes(root / "test", save, "Bees", 3)
    expected = (
        r"test has classes that .*train lacks: Bees \(3 images; did you mean bee\?\), dog \(2 images\), eel \(2 im"
    )
    with pytest.raises(DataError, match=expected):
        load(root)


def test_classes_that_are_probably_one_are_named_with_their_counts(root: Path, save: Save) -> None:
    classes(root, save, "roses tulip", 4)
    classes(root, save, "rose Tulip", 2)
    lines: list[str] = []
    load(root, lines)
    told = [line for line in lines if "two classes" in line]
    assert [line.partition(": ")[2].partition(";")[0] for line in told] == [
        "Tulip (2 images) and tulip (4 images) are two classes",
        "rose (2 images) and roses (4 images) are two classes",
    ]


@pytest.mark.parametrize(
    ("name", "known", "expected"),
    [
        ("rose", ["roses", "tulips"], "roses"),
        ("Ankle boot", ["ankle-boot", "boot"], "ankle-boot"),
        ("sneker", ["sneaker", "sandal"], "sneaker"),
        ("goat", ["boat"], None),
        ("woman", ["man"], None),
        ("class11", ["class1", "class12"], None),
        ("n01440764", ["n01440765"], None),
        ("rose", ["rose"], None),
    ],
)
def test_the_class_that_was_meant(name: str, known: list[str], expected: str | None) -> None:
    assert nearest(name, known) == expected
    assert bool(lookalikes({name: 1, **dict.fromkeys(known, 2)})) == (expected is not None)


def test_a_flat_test_folder_has_no_labels_and_gives_way(root: Path, save: Save) -> None:
    classes(root / "train", save)
    save(root / "test" / "1.png")
    classes(root / "val", save, count=2)
    lines: list[str] = []
    data = load(root, lines)
    assert data.test is not None
    assert len(data.test) == 4
    assert f"{root / 'test'} has no class folders and cannot be used for testing" in lines
    assert f"{root}: not used: test (1 image)" in lines
    shutil.rmtree(root / "val")
    assert len(load(root).train) < 24  # held out from train instead


def test_train_may_be_a_class_of_vehicles(root: Path, save: Save) -> None:
    classes(root, save, "boat car train")
    assert load(root).train.class_names == ("boat", "car", "train")


def test_a_lone_flat_train_folder_is_an_unlabelled_split(root: Path, save: Save) -> None:
    for index in range(3):
        save(root / "train" / f"{index}.png", index)
    assert load(root).train.labels is None


def test_flat_and_mixed_folders_have_no_labels(root: Path, save: Save) -> None:
    for index in range(5):
        save(root / f"{index}.jpg", index)
    data = load(root)
    assert (len(data.train), data.train.labels, data.test) == (5, None, None)
    classes(root, save, "2023 2024", 2)
    lines: list[str] = []
    mixed = load(root, lines)
    assert (len(mixed.train), mixed.train.labels) == (9, None)
    assert any("images beside its sub-folders" in line for line in lines)
    with pytest.raises(DataError, match="has no labels"):
        mixed.train.require_labels()


def test_other_files_are_ignored_without_a_word(root: Path, save: Save) -> None:
    classes(root, save)
    for name in (".DS_Store", "Thumbs.db", "notes.txt", ".hidden.png", "cat/labels.csv"):
        (root / name).write_text("not an image")
    save(root / ".thumbnails" / "1.png")
    os.mkfifo(root / "cat" / "pipe.png")  # reading it would hang
    lines: list[str] = []
    data = load(root, lines)
    assert data.skipped_files == ()
    assert data.test is not None
    assert len(data.train) + len(data.test) == 24


def test_an_empty_class_folder_is_reported(root: Path, save: Save) -> None:
    classes(root, save)
    (root / "eel").mkdir()
    lines: list[str] = []
    assert load(root, lines).train.class_names == ("cat", "dog")
    assert any("eel holds no images and is ignored" in line for line in lines)


def test_links_are_followed_and_loops_end(root: Path, save: Save) -> None:
    classes(root, save)
    classes(root.parent / "elsewhere", save, "fox", 6, start=500)
    (root / "fox").symlink_to(root.parent / "elsewhere" / "fox")
    (root / "cat" / "loop").symlink_to(root)
    (root / "dog" / "again").symlink_to(root / "dog")
    (root / "dog" / "self").symlink_to(root / "dog" / "self")
    data = load(root)
    assert data.train.class_names == ("cat", "dog", "fox")
    assert data.test is not None
    assert len(data.train) + len(data.test) == 30


def test_formats_and_sizes_may_be_mixed(root: Path, save: Save) -> None:
    for index, ending in enumerate(("png", "jpg", "JPEG", "webp", "bmp", "gif", "tif")):
        save(root / f"{index}.{ending}", index, (30 + index, 20))
    data = load(root)
    assert len(data.train) == 7
    np.testing.assert_allclose(data.train.aspect_ratios, [(30 + index) / 20 for index in range(7)])


@pytest.mark.parametrize(
    ("common", "image_size", "stored"),
    [((28, 28), 28, 28), ((56, 56), 28, 56), ((57, 57), 28, 32), ((28, 30), 28, 32), (None, 224, 256), (None, 8, 9)],
)
def test_small_square_pictures_keep_their_size(common: tuple[int, int] | None, image_size: int, stored: int) -> None:
    assert store_size(common, image_size) == stored


def test_uniform_squares_are_stored_as_they_are(root: Path, save: Save) -> None:
    for index in range(4):
        save(root / f"{index}.png", index, (20, 20))
    (root / "broken.png").write_bytes(b"")  # does not count
    data = load(root, image_size=10, max_unreadable_share=0.5)
    np.testing.assert_array_equal(data.train.images[2], np.asarray(Image.open(root / "2.png")))


def test_grey_is_made_where_it_is_asked_for(root: Path, save: Save) -> None:
    for index in range(3):
        save(root / f"{index}.png", index, (20, 20))
    data = load(root, channels=1)
    np.testing.assert_array_equal(data.train.images[1, ..., 0], np.asarray(Image.open(root / "1.png").convert("L")))


def test_files_of_other_kinds_are_counted_by_ending(root: Path, save: Save) -> None:
    for index in range(8):
        save(root / f"{index}.png", index)
    for name in ("a.HEIC", "deep/b.heic", "c.mp4", "d", "e.dng", "f.txt", "g.json", ".hidden.heic"):
        (root / name).parent.mkdir(exist_ok=True)
        (root / name).write_bytes(b"")
    lines: list[str] = []
    assert len(load(root, lines).train) == 8
    told = [line for line in lines if "other endings" in line]
    assert told == [f"{root}: 5 files with other endings are left out (.heic: 2, .mp4: 1, none: 1, ...)"]
    for name in ("c.mp4", "d", "e.dng", "deep/b.heic"):
        (root / name).unlink()
    lines.clear()
    load(root, lines)
    assert f"{root}: 1 file with another ending is left out (.heic: 1)" in lines
    (root / "a.HEIC").unlink()
    lines.clear()
    load(root, lines)
    assert not any("left out" in line for line in lines)


def test_a_single_unreadable_file_is_named(root: Path, save: Save) -> None:
    for index in range(24):
        save(root / f"{index:02}.png", index)
    (root / "07b.png").write_bytes(b"")
    lines: list[str] = []
    load(root, lines)
    assert "1 file was skipped as unreadable: 07b.png (the file is empty)" in lines


def test_unreadable_files_are_counted_named_and_skipped(root: Path, save: Save) -> None:
    for index in range(48):
        save(root / f"{index:02}.png", index)
    (root / "07a.jpg").write_text("text")
    (root / "07b\twith\nbreaks.png").write_bytes(b"")
    lines: list[str] = []
    data = load(root, lines)
    assert len(data.train) == 48
    assert [file.path for file in data.skipped_files] == ["07a.jpg", "07b\twith\nbreaks.png"]
    assert any("2 files were skipped as unreadable" in line for line in lines)
    listed = next(Path(line.rsplit(": see ", 1)[1]) for line in lines if ": see " in line)
    assert listed.name.endswith("unreadable.tsv")
    assert listed.read_text().splitlines() == [
        "path\tcause",
        "07a.jpg\tnot an image that Pillow knows",
        "07b\\twith\\nbreaks.png\tthe file is empty",
    ]
    np.testing.assert_array_equal(load(root).train.images, data.train.images)
    with pytest.raises(DataError, match="2 of 50 images"):  # from the cache, under a stricter setting
        load(root, max_unreadable_share=0.01)


def test_too_many_unreadable_files_stop_the_run(root: Path, save: Save) -> None:
    for index in range(9):
        save(root / f"{index}.png", index)
    (root / "bad.png").symlink_to(root / "nowhere.png")
    with pytest.raises(
        DataError, match=r"1 of 10 images of .* \(first: bad\.png: No such file.*more than the 5\.0% .*\.tsv\. Repair"
    ) as caught:
        load(root)
    assert Path(str(caught.value).split("listed in ")[1].split(".tsv")[0] + ".tsv").exists()
    assert len(load(root, max_unreadable_share=0.1).train) == 9


def test_file_names_may_hold_any_bytes(root: Path, save: Save) -> None:
    for index in range(30):
        save(root / f"{index}.png", index)
    odd = os.fsdecode(b"caf\xe9.png")
    (root / odd).write_bytes(b"")
    assert [file.path for file in load(root).skipped_files] == [odd]
    assert [file.path for file in load(root).skipped_files] == [odd]


def test_a_limit_keeps_some_of_each_class(root: Path, save: Save) -> None:
    classes(root, save)
    data = load(root, limit=4)
    assert data.test is not None
    assert len(data.train) == 4
    assert set(data.train.require_labels().tolist()) == {0, 1}
    assert len(data.test) <= 4
    classes(root, save, "ant bee eel", 3)
    assert len(load(root, limit=2).train) == 2


def test_where_labels_are_not_needed_folders_may_be_anything(root: Path, save: Save) -> None:
    """Photos as a camera leaves them, for training without labels."""
    classes(root / "card", save, "DCIM", 12)
    data = load(root / "card", labels_needed=False)
    assert len(data.train) == 12 and data.train.labels is None and data.test is None
    classes(root / "years", save, "2019 2020", 12)
    for file in (root / "years" / "2020").iterdir():
        file.write_bytes(b"")
    data = load(root / "years", labels_needed=False, max_unreadable_share=0.6)
    assert set(data.train.require_labels().tolist()) == {0}


def errors(root: Path, save: Save) -> dict[str, tuple[Callable[[], object], str]]:
    one, single, half = root / "one", root / "single", root / "half"

    def lone() -> None:
        save(one / "1.png")
        load(one)

    def one_class() -> None:
        classes(single, save, "cat")
        load(single)

    def dead_class() -> None:
        classes(half, save)
        for file in (half / "dog").iterdir():
            file.write_bytes(b"")
        load(half, max_unreadable_share=0.6)

    def dead_test() -> None:
        classes(root / "dead" / "train", save)
        (root / "dead" / "test" / "cat").mkdir(parents=True)
        (root / "dead" / "test" / "cat" / "1.png").write_bytes(b"")
        load(root / "dead")

    def empty_split() -> None:
        (root / "hollow" / "train").mkdir(parents=True)
        classes(root / "hollow" / "test", save)
        load(root / "hollow")

    return {
        "absent": (lambda: load(root / "nowhere"), r"nowhere does not exist\. Check the path"),
        "file": (lambda: load(save(root / "x.png")), r"x\.png is not a folder\. Give a folder"),
        "empty": (lambda: load(root), r"photos holds no images \(known endings: .*\.png.*\)\. Give a folder"),
        "lone": (lone, r"has 1 training images, and at least 2 are needed\. Add images"),
        "one class": (one_class, r"has only one class \(cat\)\. Add a sub-folder"),
        "dead class": (dead_class, r"no readable training image of: dog\. Add images, or remove"),
        "dead test": (dead_test, r"no test image of .* can be read\. Repair"),
        "empty split": (empty_split, r"hollow/train holds no images"),
    }


@pytest.mark.parametrize(
    "case", ["absent", "file", "empty", "lone", "one class", "dead class", "dead test", "empty split"]
)
def test_every_error_says_what_and_what_next(root: Path, save: Save, case: str) -> None:
    act, message = errors(root, save)[case]
    with pytest.raises(DataError, match=message):
        act()


def test_a_folder_that_may_not_be_listed_is_an_error(root: Path, save: Save, monkeypatch: pytest.MonkeyPatch) -> None:
    classes(root, save)

    def refuse(path: Path) -> None:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(os, "scandir", refuse)  # root may read anything
    with pytest.raises(DataError, match=r"cannot be listed .*Permission denied.*Check its permissions"):
        load(root)


@given(st.lists(st.tuples(st.text(max_size=8), st.integers(0, 3)), max_size=60, unique_by=lambda pair: pair[0]))
def test_every_class_of_two_has_images_on_both_sides(pairs: list[tuple[str, int]]) -> None:
    keys, labels = [key for key, _ in pairs], [label for _, label in pairs]
    kept = held_out(keys, labels)
    for label in set(labels):
        members = kept[np.array(labels) == label]
        assert len(members) == 1 or 0 < members.sum() < len(members)
        assert len(members) > 1 or not members[0]


@pytest.mark.parametrize(
    ("sizes", "expected"),
    [
        ([40] * 12, [7] * 8 + [6] * 4),  # 80 of 480
        ([60] * 4, [10] * 4),
        ([6, 12, 600], [1, 2, 100]),
        ([11, 8, 11], [2, 1, 2]),  # shares of 1.83, 1.33 and 1.83; 5 in all
        ([1, 2, 3], [0, 1, 1]),
        ([5], [1]),
        ([1], [0]),
        ([], []),
    ],
)
def test_one_in_six_is_held_out_of_each_class(sizes: list[int], expected: list[int]) -> None:
    labels = [label for label, size in enumerate(sizes) for _ in range(size)]
    keys = [f"{label}/{index}.png" for index, label in enumerate(labels)]
    kept = held_out(keys, labels)
    assert np.bincount(np.array(labels, int)[kept], minlength=len(sizes)).tolist() == expected
    # Names decide, not the order in which they come.
    again = held_out(keys[::-1], labels[::-1])
    assert [key for key, one in zip(keys[::-1], again, strict=True) if one][::-1] == [
        *(key for key, one in zip(keys, kept, strict=True) if one),
    ]


@given(st.lists(st.integers(0, 4), max_size=200))
def test_no_class_is_an_image_off_its_share(labels: list[int]) -> None:
    kept = held_out([str(index) for index in range(len(labels))], labels)
    for label in set(labels):
        size, found = labels.count(label), int(kept[np.array(labels) == label].sum())
        assert abs(found - size / 6) < 1 or (size > 1 and found == 1)


def test_a_further_image_moves_few_others() -> None:
    keys = [f"cat/{index}.png" for index in range(1000)]
    before, after = held_out(keys[:900], [0] * 900), held_out(keys, [0] * 1000)[:900]
    assert before.sum() == 150
    # A share that is taken from more images: what is replaced is by the new ones.
    assert np.all(before | ~after) or np.all(after | ~before)
    assert np.count_nonzero(before != after) < 15


def test_images_are_counted_without_being_opened(root: Path, save: Save) -> None:
    classes(root / "train", save, "cat dog", 3)
    save(root / "loose.png")
    (root / "train" / "cat" / "broken.jpg").write_bytes(b"")
    (root / "notes.txt").write_text("no image")
    assert count_images(DataConfig(str(root))) == 8
    assert count_images(DataConfig(str(root), limit=5)) == 5
    assert count_images(DataConfig("embedded")) is count_images(DataConfig("tfds:mnist")) is None
    assert count_images(DataConfig(str(root / "nowhere"))) is None
