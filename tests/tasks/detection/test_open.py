"""Six images of BCCD in all forms, and annotations as damaged and as hostile as they come."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

# isort: off
from bssl_tf.backend import tf  # sets up TensorFlow before tensorflow_datasets imports it
import tensorflow_datasets as tfds
# isort: on

from bssl_tf.errors import DataError, MissingDataError
from bssl_tf.tasks.detection.annotations import Faults
from bssl_tf.tasks.detection.boxes import BoxSet, BoxSplits
from bssl_tf.tasks.detection.open import open_boxes
from bssl_tf.tasks.detection.voc import parse_xml, read_voc

# MIT licence, see the file in it. One box of 00338 has no area.
BCCD = Path(__file__).parent / "bccd"
WIDTH, HEIGHT = 640, 480
SPLITS = {"train": ["00164"], "val": ["00389"], "test": ["00007", "00011"]}
Opened = Callable[..., BoxSplits]


@pytest.fixture
def opened(tmp_path: Path) -> Opened:
    def act(root: Path | str, **options: Any) -> BoxSplits:
        return open_boxes(
            str(root), image_size=64, cache_dir=tmp_path / "cache", **{"max_unreadable_share": 0.3} | options
        )

    return act


@pytest.fixture
def voc(tmp_path: Path) -> Path:
    root = tmp_path / "voc"
    shutil.copytree(BCCD, root)
    return root


def plain_boxes(name: str) -> list[tuple[str, list[float]]]:
    """The boxes of an image by searching its text, pixels."""
    text = (BCCD / "Annotations" / f"BloodImage_{name}.xml").read_text()
    found = []
    for entry in re.findall("<object>.*?</object>", text, re.DOTALL):
        sides = [float(re.findall(f"<{side}>(.*?)</", entry)[0]) for side in ("xmin", "ymin", "xmax", "ymax")]
        if sides[2] > sides[0] and sides[3] > sides[1]:
            found.append((re.findall("<name>(.*?)</", entry)[0], sides))
    return found


def content(part: BoxSet) -> dict[str, list[tuple[str, list[float]]]]:
    """Boxes in pixels by the number of the image, and their classes."""
    scale = np.array([WIDTH, HEIGHT] * 2)
    return {
        re.findall(r"_(\d+)", path)[0]: [
            (part.class_names[kind], (box * scale).round(2).tolist())
            for kind, box in zip(one.classes, one.boxes, strict=True)
        ]
        for path, one in zip(part.paths, part.objects, strict=True)
    }


def yolo(root: Path, data: str = "", **folders: list[str]) -> Path:
    """The same images in the form of YOLO."""
    names = ["RBC", "WBC", "Platelets"]
    for split, images in (folders or SPLITS).items():
        for kind in ("images", "labels"):
            (root / kind / split).mkdir(parents=True, exist_ok=True)
        for name in images:
            shutil.copy(BCCD / "JPEGImages" / f"BloodImage_{name}.jpg", root / "images" / split)
            lines = [
                f"{names.index(kind)} {(box[0] + box[2]) / 2 / WIDTH:.7f} {(box[1] + box[3]) / 2 / HEIGHT:.7f} "
                f"{(box[2] - box[0]) / WIDTH:.7f} {(box[3] - box[1]) / HEIGHT:.7f}\n"
                for kind, box in plain_boxes(name)
            ]
            (root / "labels" / split / f"BloodImage_{name}.txt").write_text("".join(lines))
    listed = "".join(f"{split}: images/{split}\n" for split in (folders or SPLITS))
    (root / "data.yaml").write_text(data or f"{listed}nc: 3\nnames: [{', '.join(names)}]\n")
    return root


def coco(root: Path) -> Path:
    """The same images in the form of COCO."""
    names = {3: "RBC", 1: "WBC", 7: "Platelets"}
    (root / "annotations").mkdir(parents=True)
    for split, images in SPLITS.items():
        (root / f"{split}2017").mkdir()
        made: dict[str, list[Any]] = {"images": [], "annotations": []}
        made["categories"] = [{"id": key, "name": name} for key, name in names.items()]
        for number, name in enumerate(images):
            shutil.copy(BCCD / "JPEGImages" / f"BloodImage_{name}.jpg", root / f"{split}2017")
            made["images"].append(
                {"id": number, "file_name": f"BloodImage_{name}.jpg", "width": WIDTH, "height": HEIGHT}
            )
            for kind, box in plain_boxes(name):
                made["annotations"].append(
                    {
                        "id": len(made["annotations"]),
                        "image_id": number,
                        "category_id": next(key for key, value in names.items() if value == kind),
                        "bbox": [box[0], box[1], box[2] - box[0], box[3] - box[1]],
                        "iscrowd": 0,
                    }
                )
        (root / "annotations" / f"instances_{split}2017.json").write_text(json.dumps(made))
    return root


def test_boxes_of_pascal_voc_are_those_of_its_files(opened: Opened, voc: Path) -> None:
    splits = opened(voc)
    assert splits.validation is not None
    for part, key in ((splits.train, "train"), (splits.test, "test"), (splits.validation, "val")):
        names = (
            [*SPLITS[key], "00338"] if key == "val" or (key == "train" and "00338" in content(part)) else SPLITS[key]
        )
        listed = (BCCD / "ImageSets" / "Main" / f"{key}.txt").read_text()
        names = re.findall(r"_(\d+)", listed)
        assert set(SPLITS[key]) <= set(names)
        known = set(part.class_names)
        expected = {name: [one for one in plain_boxes(name) if one[0] in known] for name in names}
        assert content(part) == expected
        assert part.ratios(np.arange(len(part))) == pytest.approx(WIDTH / HEIGHT)
        assert part.sizes().tolist() == [[WIDTH, HEIGHT]] * len(part)
        assert part.pixels([0]).shape == (1, 73, 73, 3)


def test_all_forms_give_the_same_boxes(opened: Opened, tmp_path: Path) -> None:
    of_yolo, of_coco = opened(yolo(tmp_path / "yolo")), opened(coco(tmp_path / "coco"))
    assert of_yolo.faults == of_coco.faults == ()
    for one, other, key in (
        (of_yolo.train, of_coco.train, "train"),
        (of_yolo.validation, of_coco.validation, "val"),
        (of_yolo.test, of_coco.test, "test"),
    ):
        assert one is not None and other is not None
        expected = {name: plain_boxes(name) for name in SPLITS[key]}
        for found in (one, other):
            assert content(found).keys() == expected.keys()
            for name, boxes in content(found).items():
                assert [kind for kind, _ in boxes] == [kind for kind, _ in expected[name]]
                # Shares with seven digits of 640 pixels.
                np.testing.assert_allclose([box for _, box in boxes], [box for _, box in expected[name]], atol=0.02)
        assert np.array_equal(one.pixels(range(len(one))), other.pixels(range(len(other))))


class Boxes(tfds.core.GeneratorBasedBuilder, skip_registration=True):  # type: ignore[call-arg]
    """The training and test images, as `voc/2007` has them."""

    VERSION = tfds.core.Version("1.0.0")

    def _info(self) -> Any:
        objects = {
            "bbox": tfds.features.BBoxFeature(),
            "label": tfds.features.ClassLabel(names=["RBC", "WBC", "Platelets"]),
            "is_difficult": tf.bool,
            "pose": tfds.features.Text(),
        }
        features = {"image": tfds.features.Image(), "objects": tfds.features.Sequence(objects)}
        return self.dataset_info_from_configs(features=tfds.features.FeaturesDict(features))

    def _split_generators(self, dl_manager: Any) -> dict[str, Any]:
        return {split: self._generate_examples(split) for split in ("train", "test")}

    def _generate_examples(self, split: str) -> Any:
        for name in SPLITS[split]:
            objects = [
                {
                    "bbox": tfds.features.BBox(box[1] / HEIGHT, box[0] / WIDTH, box[3] / HEIGHT, box[2] / WIDTH),
                    "label": kind,
                    "is_difficult": number == 0,
                    "pose": "none",
                }
                for number, (kind, box) in enumerate(plain_boxes(name))
            ]
            yield name, {"image": BCCD / "JPEGImages" / f"BloodImage_{name}.jpg", "objects": objects}


def test_boxes_of_tfds_are_the_same(opened: Opened, tmp_path: Path) -> None:
    Boxes(data_dir=str(tmp_path / "tfds")).download_and_prepare()
    splits = opened("tfds:boxes", data_dir=tmp_path / "tfds", download=False)
    assert len(splits.train) == 1 and len(splits.test) == 2 and splits.validation is None
    found = [(splits.train.class_names[kind]) for kind in splits.train.objects[0].classes]
    expected = plain_boxes("00164")
    assert found == [kind for kind, _ in expected]
    # Shares in float32.
    boxes = splits.train.objects[0].boxes * [WIDTH, HEIGHT, WIDTH, HEIGHT]
    np.testing.assert_allclose(boxes, [box for _, box in expected], atol=1e-3)
    assert splits.train.objects[0].ignored.tolist() == [True] + [False] * (len(expected) - 1)


def test_without_lists_one_image_in_six_is_held_out(opened: Opened, voc: Path) -> None:
    shutil.rmtree(voc / "ImageSets")
    splits = opened(voc)
    assert splits.validation is None and len(splits.train) + len(splits.test) == 6 and len(splits.test) >= 1
    assert not set(splits.train.paths) & set(splits.test.paths)
    again = opened(voc)
    assert again.train.fingerprint() == splits.train.fingerprint() != splits.test.fingerprint()


def test_an_image_that_cannot_be_read_takes_only_its_own_boxes(opened: Opened, voc: Path) -> None:
    before = opened(voc)
    (voc / "JPEGImages" / "BloodImage_00007.jpg").write_bytes(b"not an image")
    after = opened(voc)
    assert [file.path for file in after.skipped_files] == ["JPEGImages/BloodImage_00007.jpg"]
    kept = {name: boxes for name, boxes in content(before.test).items() if name != "00007"}
    assert content(after.test) == kept
    place = before.test.paths.index("JPEGImages/BloodImage_00011.jpg")
    found = after.test.paths.index("JPEGImages/BloodImage_00011.jpg")
    assert np.array_equal(after.test.pixels([found]), before.test.pixels([place]))


def change(voc: Path, name: str, old: str, new: str) -> None:
    file = voc / "Annotations" / f"BloodImage_{name}.xml"
    assert old in file.read_text()
    file.write_text(file.read_text().replace(old, new, 1))


def kinds(splits: BoxSplits) -> dict[str, int]:
    return {kind: sum(fault.kind == kind for fault in splits.faults) for kind in {one.kind for one in splits.faults}}


def test_faults_of_real_annotations_are_counted_and_listed(opened: Opened, voc: Path, tmp_path: Path) -> None:
    first = kinds(opened(voc))
    assert first.get("box without area") == 1
    change(voc, "00007", "<xmax>", "<xmax>9")
    change(voc, "00007", "<name>RBC", "<name>Basophil")
    (voc / "Annotations" / "BloodImage_00011.xml").write_text(
        f"<annotation><size><width>{WIDTH}</width><height>{HEIGHT}</height></size></annotation>"
    )
    shutil.copy(voc / "JPEGImages" / "BloodImage_00007.jpg", voc / "JPEGImages" / "extra.jpg")
    with (voc / "ImageSets" / "Main" / "test.txt").open("a") as file:
        file.write("extra\nnowhere\n../../outside\n")
    splits = opened(voc)
    found = kinds(splits)
    assert found["box past the border (cut)"] == found["image without boxes (kept)"] == 1
    assert found["unknown class"] == first.get("unknown class", 0) + 1
    assert found["image without annotation"] == found["annotation without an image"] == 1
    assert found["name of an image that leads elsewhere"] == 1
    assert all(one.boxes.min(initial=0) >= 0 and one.boxes.max(initial=0) <= 1 for one in splits.test.objects)
    [listed] = [
        text
        for path in (tmp_path / "cache").glob("*.annotations.unreadable.tsv")
        if "nowhere" in (text := path.read_text())
    ]
    assert len(listed.splitlines()) == 1 + len(splits.faults)
    with pytest.raises(
        DataError, match=r"2 of 8 annotations of images .* more than the 1.0% that are tolerated"
    ) as error:
        opened(voc, max_unreadable_share=0.01)
    assert ".annotations.unreadable.tsv" in str(error.value)


def test_an_annotation_of_a_turned_picture_is_left_out(opened: Opened, voc: Path) -> None:
    path = voc / "JPEGImages" / "BloodImage_00007.jpg"
    Image.open(path).transpose(Image.Transpose.ROTATE_90).save(path)
    splits = opened(voc)
    assert "00007" not in content(splits.test) and "00011" in content(splits.test)
    assert kinds(splits)["annotation of a picture of another shape"] == 1


BOMB = "<!DOCTYPE a [<!ENTITY a 'ha'>" + "".join(
    f"<!ENTITY {b} '{f'&{a};' * 10}'>" for a, b in zip("abcdefgh", "bcdefghi", strict=True)
)


@pytest.mark.parametrize(
    ("text", "cause"),
    [
        (BOMB + "]><annotation>&i;</annotation>", "document type"),
        ('<!DOCTYPE a SYSTEM "file:///etc/passwd"><annotation/>', "document type"),
        ("<a>" * 100_000, "nested"),
        ("<annotation><object>", "no element found"),
        ("", "no element found"),
        ('<?xml version="1.0" encoding="no-such"?><annotation/>', "encoding"),
        ("<annotation>\x00</annotation>", "invalid token"),
    ],
)
def test_hostile_xml_is_refused(text: str, cause: str) -> None:
    with pytest.raises(ValueError, match=cause):
        parse_xml(text.encode())


def test_xml_of_other_encodings_is_read() -> None:
    assert parse_xml('<?xml version="1.0" encoding="latin-1"?><a>é</a>'.encode("latin-1")).text == "é"
    assert parse_xml('<?xml version="1.0" encoding="utf-16"?><a>é</a>'.encode("utf-16")).text == "é"
    assert parse_xml("\ufeff<a>é</a>".encode()).text == "é"


@pytest.mark.parametrize("value", ["nan", "inf", "-1e999", "9" * 5000, "0x10", "", "1 2"])
def test_hostile_numbers_cost_their_box(voc: Path, value: str) -> None:
    file = voc / "Annotations" / "BloodImage_00007.xml"
    file.write_text(re.sub("<xmin>.*?</xmin>", f"<xmin>{value}</xmin>", file.read_text(), count=1))
    faults = Faults()
    images = read_voc(voc, faults).images
    assert faults.lost_boxes == 2 and len(images) == 6
    file.write_text(re.sub("<width>.*?</width>", f"<width>{value}</width>", file.read_text()))
    # The size is then that of the picture.
    [image] = [image for image in read_voc(voc, Faults()).images if "00007" in image.path]
    assert len(image.objects) == len(plain_boxes("00007")) - 1


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[" * 100_000, "is not valid JSON"),
        ('{"images": [', "is not valid JSON"),
        ('{"images": [], "x": ' + "9" * 5000 + "}", "a number of 5000 digits"),
        ("[]", "is not of COCO's form"),
        ('{"images": {}}', "has no list images"),
        ('{"images": [], "annotations": 3}', "annotations is not a list"),
        ('{"images": [], "annotations": [], "categories": []}', "names no categories"),
    ],
)
def test_hostile_json_gives_one_line(opened: Opened, tmp_path: Path, text: str, words: str) -> None:
    (tmp_path / "annotations").mkdir()
    (tmp_path / "annotations" / "instances_train.json").write_text(text)
    with pytest.raises(DataError, match=words) as error:
        opened(tmp_path)
    assert len(str(error.value).splitlines()) == 1


def test_odd_entries_of_coco_cost_themselves_alone(opened: Opened, tmp_path: Path) -> None:
    root = coco(tmp_path / "coco")
    file = root / "annotations" / "instances_test2017.json"
    made = json.loads(file.read_text())
    right = made["annotations"][0]
    odd: list[Any] = [
        {"bbox": None},
        {"bbox": [0, 0, "nan", 3]},
        {"category_id": 99},
        {"category_id": [1]},
        {"image_id": 77},
    ]
    made["annotations"] += [right | one for one in odd] + [None, 3]
    made["images"] += [{"id": 50, "file_name": "../../../etc/passwd"}, {"id": 51, "file_name": "nowhere.jpg"}, "x"]
    made["annotations"][1]["iscrowd"] = 1
    file.write_text(json.dumps(made))
    splits = opened(root, max_unreadable_share=0.5)
    assert {name: len(boxes) for name, boxes in content(splits.test).items()} == {
        name: len(plain_boxes(name)) for name in SPLITS["test"]
    }
    assert sum(one.ignored.sum() for one in splits.test.objects) == 1
    assert kinds(splits) == {
        "box that is not four numbers": 2,
        "unknown class": 2,
        "annotation of no image": 3,
        "image without a name in this folder": 2,
        "annotation without an image": 1,
    }


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("names: [", "is not valid YAML"),
        ("[" * 800, "is not valid YAML"),
        ("- a", "is not of YOLO's form"),
        ("train: images/train", "names no classes"),
        ("names: {x: a}\ntrain: images/train", "keys are not whole numbers"),
        ("names: [a, b, c]\ntrain: /etc", "names no images below"),
        ("names: [a]\ntrain: ../../..", "names no images below"),
        ("a: &a [x,x,x]\nb: &b [*a,*a,*a]\nc: &c [*b,*b,*b]\nnames: [*c,*c]", "names no classes"),
        ("names: !!python/object/apply:os.system ['true']", "names no images below"),
    ],
)
def test_hostile_yaml_gives_one_line(opened: Opened, tmp_path: Path, text: str, words: str) -> None:
    root = yolo(tmp_path / "yolo", text)
    with pytest.raises(DataError, match=words) as error:
        opened(root)
    assert len(str(error.value).splitlines()) == 1


def test_labels_of_yolo_may_be_polygons_missing_or_odd(opened: Opened, tmp_path: Path) -> None:
    root = yolo(
        tmp_path / "yolo", "train: ../train/images\nval: images/val\nnames: {0: 'no', 1: b}\n", train=[], val=["00007"]
    )
    (root / "train" / "images").mkdir(parents=True)
    (root / "train" / "labels").mkdir()
    for name in ("00390", "00164"):
        shutil.copy(BCCD / "JPEGImages" / f"BloodImage_{name}.jpg", root / "train" / "images")
    lines = ["0 0.1 0.2 0.5 0.2 0.3 0.7", "0 0.5 0.5", "7 0.5 0.5 0.1 0.1", "x 0 0 1 1", "1 nan 0.5 0.1 0.1"]
    (root / "train" / "labels" / "BloodImage_00390.txt").write_text("\n".join(lines))
    splits = opened(root, max_unreadable_share=0.9)
    # Without test images those of validation are for testing.
    assert splits.validation is None and len(splits.test) == 1 and splits.train.class_names == ("no", "b")
    by_path = dict(zip(splits.train.paths, splits.train.objects, strict=True))
    np.testing.assert_allclose(by_path["train/images/BloodImage_00390.jpg"].boxes, [[0.1, 0.2, 0.5, 0.7]], atol=1e-6)
    assert len(by_path["train/images/BloodImage_00164.jpg"]) == 0
    assert kinds(splits)["box that is not four numbers"] == 3


def test_what_is_nowhere_and_what_is_no_such_data_set_are_refused(opened: Opened, tmp_path: Path) -> None:
    with pytest.raises(MissingDataError, match="does not exist"):
        opened(tmp_path / "nowhere")
    (tmp_path / "plain").mkdir()
    with pytest.raises(DataError, match="holds no annotations of a form that is known"):
        opened(tmp_path / "plain")


@pytest.mark.parametrize("name", [" ", "x" * 201])
def test_names_that_no_bundle_may_have_are_refused_before_training(opened: Opened, tmp_path: Path, name: str) -> None:
    root = coco(tmp_path / "coco")
    for file in (root / "annotations").iterdir():
        file.write_text(file.read_text().replace('"name": "WBC"', f'"name": "{name}"'))
    with pytest.raises(DataError, match=r"a class of .* is called .* Give names of 1 to 200 characters"):
        opened(root)
