"""What `make photos` splits, runs and shows."""

from __future__ import annotations

from pathlib import Path

import click
import numpy as np
import pytest
from PIL import Image

from bssl_tf.cli.main import LazyGroup
from docs import photos
from docs.tables import accuracy_on_photos


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Five classes of 240 photos, of which two are the same picture, and one is in two classes."""
    rng = np.random.default_rng(0)
    for number in range(1200):
        path = tmp_path / "photos" / "abcde"[number % 5] / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (4, 4, 3), np.uint8)).save(path)
    for copy, of in (("a/copy.png", "a/0.png"), ("b/copy.png", "a/5.png")):
        (tmp_path / "photos" / copy).write_bytes((tmp_path / "photos" / of).read_bytes())
    return tmp_path / "photos"


def test_no_photo_that_is_tested_on_is_learned_from(folder: Path, tmp_path: Path) -> None:
    found = photos.photos_in(folder)
    assert len(found) == 1199 and [one.digest for one in found] == sorted(one.digest for one in found)
    photos.write_split(found, tmp_path)
    names = {path.name for path in (tmp_path / "unlabelled").iterdir()}
    assert len(names) == 449
    splits = {path.name: path for path in tmp_path.glob("labelled-*")}
    assert len(splits) == 7
    tests = [{path.name for path in split.glob("test/*/*")} for split in splits.values()]
    assert all(one == tests[0] for one in tests) and len(tests[0]) == 750 and not tests[0] & names
    for name, split in splits.items():
        train = {path.name for path in split.glob("train/*/*")}
        assert train <= names and len(train) == (449 if "all" in name else int(name.split("-")[1])), name
        assert len({len(list(one.iterdir())) for one in (split / "train").iterdir()}) == 1 or "all" in name
    assert splits["labelled-100-seed0"] != splits["labelled-100-seed1"]
    draws = [{path.name for path in splits[f"labelled-100-seed{s}"].glob("train/*/*")} for s in photos.SEEDS]
    assert draws[0] != draws[1] != draws[2] != draws[0]


def test_its_commands_are_ones_of_the_command_line() -> None:
    commands, group = list(photos.commands()), LazyGroup()
    for name, *words in commands:
        command = group.get_command(click.Context(group), name)
        assert command is not None and command.make_context(name, list(words)).params
    made = [words[words.index("--out") + 1] for words in commands if "--out" in words]
    assert len(made) == len(set(made)) == 24
    # What is started from, and what teaches, was made before.
    for place, (name, *words) in enumerate(commands):
        before = {
            *made[: sum("--out" in one for one in commands[:place])],
            str(photos.TEACHER),
            str(photos.LARGE_TEACHER),
        }
        named = {words[words.index("--teacher") + 1]} if "--teacher" in words else set()
        named |= {words[0]} if name in ("finetune", "evaluate") and words[0] != "--student" else set()
        assert named <= before, (name, words)


def test_a_class_of_too_few_photos_is_named() -> None:
    some = [photos.Photo(Path("a.jpg"), "ab"[number % 20 == 0], str(number)) for number in range(200)]
    with pytest.raises(SystemExit, match="b has 10 photos"):
        photos.drawn(some, "100", 0)


def test_the_table_has_means_over_seeds_of_each_row() -> None:
    def record(run: str, data: str, features: str, protocol: str, top1: float) -> dict[str, object]:
        row = {"features": features, "scores": {protocol: [top1]}}
        return {"run": f"runs/photos/{run}", "data": f"runs/photos/{data}", "rows": [row]}

    records = [
        record("tuned-250-seed0", "labelled-250-seed0", "student", "fine-tuned", 70.0),
        record("tuned-250-seed1", "labelled-250-seed1", "student", "fine-tuned", 72.0),
        record("tuned-all-seed0", "labelled-all", "student", "fine-tuned", 80.0),
        record("teacher-224px", "labelled-250-seed0", "float teacher", "linear-probe", 66.0),
        record("teacher-224px", "labelled-250-seed1", "float teacher", "linear-probe", 66.0),
        record("teacher-250-seed0", "labelled-250-seed0", "student", "fine-tuned", 71.0),
        record("student-seed0", "labelled-100-seed0", "control: raw pixels", "linear-probe", 40.0),
    ]
    cells = {line.split(" | ")[0].strip("| "): line for line in accuracy_on_photos(records).splitlines()}
    assert "|  | 71.0 ± 1.4 | 80.0 |" in cells["**fine-tuned, taught by the fine-tuned float network**"]
    assert "|  | 66.0 |  |" in cells["float network, linear probe, 224 px"]
    assert "|  | 71.0 |  |" in cells["float network, fine-tuned, 128 px"]
    assert "| 40.0 |  |  |" in cells["_control: raw pixels_"]
    assert accuracy_on_photos([]) == "Not measured yet.\n"
