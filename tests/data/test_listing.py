"""Listings of images with labels: CSV and JSON lines, any number of labels, splits, and what is wrong in them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from bssl_tf.data.image_set import DataSplits
from bssl_tf.data.listing import labels_of_images, rarest_labels
from bssl_tf.data.load import load_data
from bssl_tf.errors import DataError, MissingDataError

Save = Callable[..., Path]
LABELS = [["cat"], ["cat", "indoors"], [], ["dog", "indoors"]]


def images(root: Path, save: Save, count: int = 24) -> list[tuple[str, list[str]]]:
    """Files with their labels."""
    rows = [(f"photos/{number:02}.png", LABELS[number % 4]) for number in range(count)]
    for number, (file, _) in enumerate(rows):
        save(root / file, number)
    return rows


def as_csv(rows: list[tuple[str, list[str]]]) -> str:
    return "file,labels\n" + "".join(f"{file},{';'.join(labels)}\n" for file, labels in rows)


def load(path: Path, *, label_sets: bool = True, validation: bool = False) -> DataSplits:
    return load_data(
        str(path),
        image_size=28,
        cache_dir=path.parent / "cache",
        labels_needed=False,
        label_sets=label_sets,
        validation=validation,
    )


def test_csv_and_json_lines_give_the_same_and_labels_stay_with_their_images(tmp_path: Path, save: Save) -> None:
    rows = images(tmp_path, save)
    (tmp_path / "a.csv").write_text(as_csv(rows))
    lines = [json.dumps({"file": file, "labels": labels}) for file, labels in rows]
    (tmp_path / "a.jsonl").write_text("\n".join(lines) + "\n\n")
    one, other = load(tmp_path / "a.csv"), load(tmp_path / "a.jsonl")
    assert one.train.fingerprint() == other.train.fingerprint() and one.test is not None
    names, has = labels_of_images(one.train)
    assert names == ("cat", "dog", "indoors") and len(one.train) + len(one.test) == 24
    # Each picture is found among all of them, with the labels of its line.
    every = load_data(str(tmp_path / "photos"), image_size=28, cache_dir=tmp_path / "cache", labels_needed=False).train
    for part in (one.train, one.test):
        names, has = labels_of_images(part)
        for image, row in zip(part.images, has, strict=True):
            [place] = [n for n, known in enumerate(every.images) if np.array_equal(image, known)]
            assert [names[k] for k in np.flatnonzero(row)] == LABELS[place % 4]
    # Every label has its share of the test images.
    assert labels_of_images(one.test)[1].any(axis=0).all()


def test_a_column_names_the_splits(tmp_path: Path, save: Save) -> None:
    rows = images(tmp_path, save)
    splits = ["train", "Training", "test", "val"]
    text = "split,file,labels\n" + "".join(f"{splits[n % 4]},{f},{';'.join(ls)}\n" for n, (f, ls) in enumerate(rows))
    (tmp_path / "a.csv").write_text(text)
    data = load(tmp_path / "a.csv", validation=True)
    assert data.test is not None and data.validation is not None
    assert (len(data.train), len(data.test), len(data.validation)) == (12, 6, 6)
    assert load(tmp_path / "a.csv").validation is None
    (tmp_path / "a.csv").write_text(text.replace("\ntest,", "\nval,"))
    data = load(tmp_path / "a.csv", validation=True)
    assert data.test is not None and (len(data.test), data.validation) == (12, None)


def test_one_label_each_is_a_labelled_set_as_of_folders(
    tmp_path: Path, save: Save, caplog: pytest.LogCaptureFixture
) -> None:
    rows = [(file, ["cat" if number % 2 else "dog"]) for number, (file, _) in enumerate(images(tmp_path, save))]
    (tmp_path / "a.csv").write_text(as_csv(rows))
    data = load(tmp_path / "a.csv", label_sets=False)
    assert data.train.class_names == ("cat", "dog") and data.test is not None
    (tmp_path / "b.csv").write_text(as_csv(images(tmp_path, save)))
    caplog.clear()
    data = load(tmp_path / "b.csv", label_sets=False)
    assert (data.train.labels, data.test, len(data.train)) == (None, None, 24)
    assert "not every image has exactly one label" in caplog.text


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("a.csv", "image,tags\na.png,cat\n", "has no columns file and labels in its first line"),
        ("a.csv", "file,labels\na.png\n", "line 2 of .* has no list of labels"),
        ("a.csv", "file,labels\n,cat\n", "line 2 of .* names no file"),
        ("a.csv", 'file,labels\n"a.png,cat\n', "is not CSV"),
        ("a.csv", "file,labels\na.png,cat\na.png,dog\n", "names a.png more than once"),
        ("a.csv", "file,labels\n../a.png,cat\n", "names ../a.png, which is not below the listing's folder"),
        ("a.csv", "file,labels\n/etc/a.png,cat\n", "is not below the listing's folder"),
        ("a.csv", "file,labels,split\na.png,cat,later\n", "has the split 'later'. Write train, test or validation"),
        ("a.csv", "file,labels,split\na.png,cat,train\nb.png,cat,\n", "names the split of some images only"),
        ("a.csv", "file,labels,split\na.png,cat,test\n", "lists no image of the split train"),
        ("a.csv", "file,labels\n", "lists no images"),
        ("a.csv", b"file,labels\n\xff.png,cat\n", "it is not text in UTF-8"),
        ("a.jsonl", '{"file": "a.png", "labels": "cat"}\n', "line 1 of .* has no list of labels"),
        ("a.jsonl", '{"file": "a.png", "labels": [1]}\n', "line 1 of .* has no list of labels"),
        ("a.jsonl", '{"file": 3, "labels": []}\n', "line 1 of .* names no file"),
        ("a.jsonl", "[]\n", "line 1 of .* names no file"),
        ("a.jsonl", "[" * 100_000, "line 1 of .* is not JSON"),
    ],
)
def test_a_wrong_line_is_named(name: str, text: str | bytes, message: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(DataError, match=message):
        load(tmp_path / name)


def test_a_listing_that_is_missing_is_named(tmp_path: Path) -> None:
    with pytest.raises(MissingDataError, match="does not exist"):
        load(tmp_path / "none.csv")


def test_the_rarest_label_of_each_image_is_that_of_fewest_images() -> None:
    has = np.array([[1, 1, 0], [1, 0, 0], [1, 0, 1], [0, 0, 0], [1, 0, 1]], bool)
    assert rarest_labels(has).tolist() == [1, 0, 2, 3, 2]
