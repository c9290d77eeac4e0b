"""A mistake that needs no network to be found is found before TensorFlow is loaded, which takes seconds."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

# Arguments -> status, message. FOLDER is an empty place, TAKEN a folder with a file, RUN and UNFINISHED are runs.
MISTAKES: list[tuple[str, int, str]] = [
    ("teacher --data embedded --out FOLDER --method mocco", 3, "Did you mean 'moco'"),
    ("teacher --data embedded --out FOLDER --backbone float_resnt", 12, "Did you mean float_resnet"),
    ("teacher --data embedded --out FOLDER --preset dem", 3, "Did you mean 'demo'"),
    ("teacher --data embedded --out FOLDER --set training.epoch=2", 3, "Did you mean training.epochs"),
    ("teacher --data embedded --out FOLDER --set augmentation.name=lit", 3, "Did you mean 'lite'"),
    ("teacher --data embedded --out FOLDER --image-size 4", 4, "image_size is 4"),
    ("teacher --data embedded --out FOLDER --probe-data FOLDER/nowhere", 4, "nowhere does not exist"),
    ("teacher --data FOLDER/nowhere --out FOLDER", 4, "nowhere does not exist"),
    ("teacher --data embedded --out TAKEN", 5, "is not empty and holds no run"),
    ("pretrain --method moco --data embedded --out TAKEN/letter.txt --dry-run", 5, "is a file, not a folder"),
    ("teacher --out FOLDER", 3, "no data set is named"),
    ("teacher --pretrained efficientnet_lite9 --out FOLDER", 3, "Did you mean 'efficientnet_lite0'"),
    ("teacher --pretrained --out TAKEN", 5, "is not an empty folder"),
    ("teacher --pretrained --image-size 4 --out FOLDER", 3, "image_size"),
    ("pretrain --data embedded --out FOLDER --method s2bn", 3, "Did you mean 's2bnn'"),
    ("pretrain --data embedded --out FOLDER --teacher FOLDER/nowhere", 12, "there is no teacher at"),
    ("pretrain --data embedded --out FOLDER --method moco --student quicknot", 12, "Did you mean quicknet"),
    ("pretrain --data embedded --out FOLDER --method moco --student zoo:nothing", 12, "the zoo has no 'nothing'"),
    ("pretrain --data embedded --out RUN --method moco", 5, "already holds a run"),
    ("finetune --data embedded --out FOLDER", 3, "no network is named to start from"),
    ("finetune UNFINISHED --data embedded --out FOLDER", 5, "is not finished"),
    ("finetune RUN --data FOLDER/nowhere --out FOLDER", 4, "nowhere does not exist"),
    ("finetune RUN --data embedded --out FOLDER --class-weights evn", 3, "class_weights is 'evn'"),
    ("finetune RUN --data embedded --out FOLDER --teacher FOLDER/nowhere", 12, "there is no teacher at"),
    ("evaluate FOLDER/nowhere", 5, "is not a run folder"),
    ("evaluate RUN --protocol knn-2", 3, "Did you mean 'knn-20'"),
    ("evaluate RUN --data FOLDER/nowhere", 4, "nowhere does not exist"),
    ("evaluate UNFINISHED", 5, "is not finished"),
    ("export FOLDER/nowhere --target arm64", 5, "is not a run folder"),
    ("export FOLDER/nowhere.h5 --target arm64", 6, "there is no model at"),
    ("export RUN --target arm64 --out TAKEN", 7, "exists and is not a bundle"),
    ("export RUN --target arm64 --data embedded", 2, "--data does not go with a run folder"),
    ("export UNFINISHED --target arm64", 5, "is not finished"),
    ("import-teacher moco_v4 FOLDER/moco.pth --out FOLDER", 3, "Did you mean 'moco_v3'"),
    ("import-teacher moco_v2 FOLDER/moco.pth --out FOLDER", 12, "there is no checkpoint at"),
    ("import-teacher moco_v2 FOLDER/moco.pth --out TAKEN", 5, "is not an empty folder"),
    ("check FOLDER/nowhere", 6, "there is no model at"),
    ("check FOLDER/nowhere.keras --explain", 6, "there is no model at"),
    ("compare cifar11", 3, "Did you mean 'cifar10'"),
    ("compare cifar10 --only s2bn", 3, "has no row 's2bn'"),
    ("data make cifar10", 3, "Did you mean 'cifar10_jpeg75'"),
]
PROGRAM = """
import contextlib, io, json, sys
from bssl_tf.cli.main import main
found = []
for arguments in json.loads(sys.stdin.read()):
    said, status = io.StringIO(), 0
    sys.argv = ["bssl-tf", *arguments]
    with contextlib.redirect_stderr(said):
        try:
            main()
        except SystemExit as stop:
            status = stop.code
    heavy = [name for name in ("tensorflow", "tf_keras", "larq") if name in sys.modules]
    found.append([status, said.getvalue(), heavy])
print(json.dumps(found))
"""


@pytest.fixture(scope="module")
def answers(tmp_path_factory: pytest.TempPathFactory) -> list[tuple[int, str, list[str]]]:
    """What a process says to all of them, one after the other, and the heavy packages that it has loaded by then."""
    place = tmp_path_factory.mktemp("early")
    places = {name: str(place / name.lower()) for name in ("FOLDER", "TAKEN", "RUN", "UNFINISHED")}
    for name in ("TAKEN", "RUN/student", "UNFINISHED"):
        (place / name.lower()).mkdir(parents=True)
    (place / "taken" / "letter.txt").write_text("keep")
    for name in ("run", "unfinished"):
        (place / name / "config.toml").write_text('command = "pretrain"\n')
    (place / "run" / "student" / "network.json").write_text("{}")
    calls = []
    for line, _, _ in MISTAKES:
        for name, path in places.items():
            line = line.replace(name, path)
        calls.append(line.split())
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM], input=json.dumps(calls), capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    assert sorted(path.name for path in place.iterdir()) == ["run", "taken", "unfinished"]
    return [tuple(answer) for answer in json.loads(done.stdout.splitlines()[-1])]


@pytest.mark.parametrize("index", range(len(MISTAKES)), ids=[line.replace("/", " ") for line, _, _ in MISTAKES])
def test_it_is_found_before_tensorflow_is_loaded(index: int, answers: list[tuple[int, str, list[str]]]) -> None:
    _, status, message = MISTAKES[index]
    found_status, said, heavy = answers[index]
    assert message in said and (found_status, heavy) == (status, [])
    assert len(said.splitlines()) == 1 or status == 2
