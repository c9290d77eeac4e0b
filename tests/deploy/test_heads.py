"""Heads that are learned on the device: their file, what they answer, and the commands."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from bssl_tf.data.load import load_data
from bssl_tf_deploy import heads as store
from bssl_tf_deploy.bundle import Bundle, check_free, read_bundle
from bssl_tf_deploy.cli import main
from bssl_tf_deploy.errors import BsslError, BundleError, StorageError, UsageError
from bssl_tf_deploy.files import with_checksum
from bssl_tf_deploy.heads import Head, changing, read_head, undo, write_head
from bssl_tf_deploy.learning import MAX_PHOTOS, fit, logistic_regression, spread, with_class, without_class
from bssl_tf_deploy.runtime import load
from bssl_tf_deploy.tasks.classification import softmax

RNG = np.random.default_rng(0)
LABELS = ("cat", "dog", "owl")
D = 6


def clusters(counts: tuple[int, ...], noise: float = 1.0) -> tuple[np.ndarray, np.ndarray]:
    """Features around a centre for each class, and the classes, mixed."""
    centres = 3 * np.eye(len(counts), D) + 2
    classes = np.random.default_rng(3).permutation(np.repeat(np.arange(len(counts)), counts))
    features = centres[classes] + np.random.default_rng(4).normal(0, noise, (len(classes), D))
    return features.astype(np.float32), classes


def learned(kind: Any = "linear", counts: tuple[int, ...] = (40, 30, 20), percent: float = 5.0, **more: Any) -> Head:
    return fit(kind, "0" * 64, LABELS[: len(counts)], *clusters(counts, **more), percent)


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """24 photos of each of four classes."""
    pictures = load_data("embedded", image_size=28).test
    assert pictures is not None
    folder = tmp_path_factory.mktemp("photos")
    for number, name in enumerate(("bag", "boot", "shirt", "others")):
        (folder / name).mkdir()
        for place in np.flatnonzero(pictures.labels == (8, 9, 0, 1)[number])[:24]:
            Image.fromarray(pictures.images[place, ..., 0]).save(folder / name / f"{place:04}.png")
    return folder


@pytest.fixture
def bundle(real_bundle: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(real_bundle, tmp_path / "bundle"))


@pytest.fixture
def opened(bundle: Path) -> Bundle:
    return read_bundle(bundle)


def command(*arguments: object, prelude: str = "") -> subprocess.CompletedProcess[str]:
    """`bssl-tf-deploy` in a process of its own."""
    code = f"import sys\n{prelude}\nfrom bssl_tf_deploy.cli import main\nmain(sys.argv[1:])\n"
    words = [sys.executable, "-c", code, *map(str, arguments)]
    return subprocess.run(words, capture_output=True, text=True, check=False)


def here(*arguments: object) -> int:
    """`bssl-tf-deploy` in this process; its exit status."""
    with pytest.raises(SystemExit) as left:
        main(list(map(str, arguments)))
    assert isinstance(left.value.code, int)
    return left.value.code


def some(photos: Path, tmp_path: Path, *names: str) -> Path:
    folder = tmp_path / "some"
    for name in names:
        shutil.copytree(photos / name, folder / name)
    return folder


def test_a_class_is_learned_added_and_forgotten_on_the_device(bundle: Path, photos: Path, tmp_path: Path) -> None:
    """What a person does, in the order of the guide, in processes of their own."""
    listed = [str(file) for file in sorted((photos / "others").iterdir())]
    done = command("learn", bundle, some(photos, tmp_path, "bag", "boot"), "--json")
    assert done.returncode == 0, done.stderr
    made = json.loads(done.stdout)
    assert made["classes"] == {"bag": 24, "boot": 24}
    # Random weights, but bags are not boots: chance is 50 %.
    assert made["held_out_accuracy_percent"] > 80
    done = command("learn", bundle, "--add-class", "shirt", photos / "shirt")
    assert done.returncode == 0, done.stderr
    assert "3 classes, 72 photos" in done.stdout
    # A bundle that learned is the bundle that was exported.
    predictor = load(bundle, head="learned")
    predictor.verify_golden()
    right = 0
    for name in ("bag", "boot", "shirt"):
        answers = predictor.classify(sorted((photos / name).iterdir()))
        right += sum(answer[0][0] == name for answer in answers)
    assert right > 55
    # What runs a head needs neither scikit-learn nor the host.
    blocked = "sys.modules['sklearn'] = sys.modules['scipy'] = None"
    done = command("run", bundle, *listed[:2], "--head", "learned", "--json", prelude=blocked)
    assert done.returncode == 0, done.stderr
    for record, name in zip(json.loads(done.stdout), listed, strict=False):
        expected = predictor.classify(name)[0]
        assert [(one["label"], one["score"]) for one in record["classes"]] == expected
    done = command("forget", bundle, "boot", "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["classes"] == {"bag": 24, "shirt": 24}
    done = command("learn", bundle, "--undo", "--json", prelude=blocked)
    assert done.returncode == 0, done.stderr
    assert list(json.loads(done.stdout)["classes"]) == ["bag", "boot", "shirt"]
    assert predictor.classify(listed[0]) == load(bundle, head="learned").classify(listed[0])


def test_without_scikit_learn_class_means_are_learned_and_the_rest_is_refused(
    bundle: Path, photos: Path, tmp_path: Path
) -> None:
    folder = some(photos, tmp_path, "bag", "boot")
    blocked = "sys.modules['sklearn'] = None"
    done = command("learn", bundle, folder, prelude=blocked)
    assert done.returncode == 10 and not list((bundle / "heads").iterdir())
    assert done.stderr.count("\n") == 1 and "pip install 'bssl-tf-deploy[learn]'" in done.stderr
    done = command("learn", bundle, folder, "--method", "prototypes", prelude=blocked)
    assert done.returncode == 0, done.stderr
    assert "class means on 128 features: 2 classes, 48 photos" in done.stdout


def test_verify_measures_each_class_and_names_what_was_learned_from(
    bundle: Path, photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = some(photos, tmp_path, "bag", "boot")
    held = tmp_path / "held"
    for name in ("bag", "boot"):
        (held / name).mkdir(parents=True)
        for file in sorted((folder / name).iterdir())[::3]:
            file.rename(held / name / file.name)
    shutil.copytree(photos / "others", held / "unknown")
    (held / "bag" / "torn.png").write_bytes(b"torn")
    assert here("learn", bundle, folder, "--method", "prototypes") == 0
    capsys.readouterr()
    assert here("verify", bundle, "--head", "learned", "--data", held, "--json") == 9
    captured = capsys.readouterr()
    assert "torn.png" in captured.err and "1 photos could not be read" in captured.err
    found = json.loads(captured.out)
    assert found["photos"] == 40 and found["learned_from"] == 0 and len(found["unreadable"]) == 1
    predictor, right = load(bundle, head="learned"), 0
    for name, one in found["classes"].items():
        answers = [
            predictor.classify(file)[0][0][0] for file in sorted((held / name).iterdir()) if file.name != "torn.png"
        ]
        assert (one["photos"], one["right"]) == (len(answers), answers.count(name))
        assert one["unknown"] == answers.count("unknown")
        right += one["right"]
    assert found["accuracy_percent"] == pytest.approx(100 * right / 40)
    assert here("verify", bundle, "--head", "learned", "--data", folder) == 0
    assert "the head was learned from 32 of these photos" in capsys.readouterr().out
    # Without a head, the bundle's own classes, of which none is called bag.
    assert here("verify", bundle, "--data", folder) == 2
    assert "folders of no known class: bag, boot" in capsys.readouterr().err
    assert here("verify", bundle, "--json") == 0
    assert json.loads(capsys.readouterr().out) == {"golden_images": 4, "heads": ["learned"]}


def test_verify_measures_the_bundles_own_classes(
    bundle: Path, photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(photos / "bag", tmp_path / "own" / "class 3")
    assert here("verify", bundle, "--data", tmp_path / "own", "--json") == 0
    answers = load(bundle).classify(sorted((tmp_path / "own" / "class 3").iterdir()), top=1)
    found = json.loads(capsys.readouterr().out)["classes"]["class 3"]
    assert found == {"photos": 24, "right": sum(one[0][0] == "class 3" for one in answers), "unknown": 0}


def test_several_heads_answer_from_one_run_of_the_network(
    bundle: Path, opened: Bundle, photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert here("learn", bundle, some(photos, tmp_path, "bag", "boot"), "--head", "one", "--method", "prototypes") == 0
    assert here("learn", bundle, photos, "--head", "two", "--method", "prototypes", "--unknown", "50") == 0
    both = load(bundle, heads=["one", "two"])
    file = str(next(iter(sorted((photos / "bag").iterdir()))))
    calls, run = [], both._interpreter.run
    both._interpreter.run = lambda inputs: calls.append(1) or run(inputs)  # type: ignore[method-assign,func-returns-value]
    [answer] = both.answers(file, 9)
    assert len(calls) == 1
    assert answer == {name: load(bundle, head=name).classify(file, 9)[0] for name in ("one", "two")}
    assert [len(answer[name]) for name in ("one", "two")] == [2, 4]
    with pytest.raises(BundleError, match="Use answers"):
        both.classify(file)
    capsys.readouterr()
    for form in ("--json", "--csv"):
        assert here("run", bundle, file, "--head", "one", "--head", "two", "--top", "1", form) == 0
    out = capsys.readouterr().out
    rows = out[out.index("\nimage,") + 1 :].splitlines()
    assert json.loads(out[: out.index("\nimage,")])[0]["heads"]["two"]["classes"][0]["label"] == answer["two"][0][0]
    assert rows[0] == "image,error,one_label_1,one_score_1,two_label_1,two_score_1"
    assert rows[1].split(",")[2::2] == [answer["one"][0][0], answer["two"][0][0]]


def test_a_file_of_answers_is_not_continued_with_another_head(
    bundle: Path, photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, out = some(photos, tmp_path, "bag", "boot"), tmp_path / "answers.csv"
    assert here("learn", bundle, folder, "--method", "prototypes") == 0
    (folder / "bag" / "gone.png").symlink_to("nowhere")
    arguments = ["run", bundle, folder, "--csv", "--out", out, "--head", "learned"]
    assert here(*arguments) == 9
    lines = out.read_text().splitlines(keepends=True)

    def interrupted(state: dict[str, Any]) -> None:
        out.write_text("".join(lines[:5]))
        (tmp_path / ".answers.csv.run.json").write_text(json.dumps(state))

    from bssl_tf_deploy.running import RunSettings, _state

    settings = RunSettings(images=(str(folder),), format="csv", out=out)
    state = _state(load(bundle, head="learned"), settings, 3)
    assert state is not None
    interrupted(state)
    assert here(*arguments) == 9 and out.read_text().splitlines(keepends=True) == lines
    interrupted(state)
    assert here("learn", bundle, folder, "--method", "prototypes", "--unknown", "20") == 9
    for given in (arguments, arguments[:-2]):
        capsys.readouterr()
        assert here(*given) == 8
        assert "was started with another heads" in capsys.readouterr().err


@pytest.mark.parametrize("counts", [(40, 30), (40, 30, 20)])
def test_scores_are_those_of_scikit_learn(counts: tuple[int, ...]) -> None:
    head, (features, classes) = learned(counts=counts), clusters(counts)
    order = np.argsort(classes, kind="stable")
    model, mean, std = logistic_regression(features[order], classes[order])
    more = RNG.normal(2, 3, (50, D)).astype(np.float32)
    expected = model.predict_proba((more.astype(np.float64) - mean) / std)
    # float32 against float64.
    np.testing.assert_allclose(softmax(head.logits(more)), expected, atol=1e-5)
    assert head.scores(more).argmax(axis=1).tolist() == expected.argmax(axis=1).tolist()


def test_prototypes_are_the_nearest_class_mean_by_cosine() -> None:
    head, (features, classes) = learned("prototypes"), clusters((40, 30, 20))
    for row in RNG.normal(2, 3, (20, D)).astype(np.float32):
        cosines = []
        for one in range(3):
            mean = np.mean([feature / np.linalg.norm(feature) for feature in features[classes == one]], axis=0)
            cosines.append(row @ mean / np.linalg.norm(row) / np.linalg.norm(mean))
        np.testing.assert_allclose(head.logits(row[np.newaxis])[0], cosines, atol=1e-5)


@pytest.mark.parametrize("kind", ["linear", "prototypes"])
@pytest.mark.parametrize("noise", [0.2, 2.0])
def test_unknown_takes_no_more_of_the_right_answers_than_was_allowed(kind: str, noise: float) -> None:
    """On photos that were held out; and none of them with 0 %."""
    for percent in (0.0, 20.0):
        about = learned(kind, percent=percent, noise=noise).about
        right = sum(about.held_out.right)
        wrong_or_unknown = sum(about.held_out.unknown)
        assert wrong_or_unknown <= percent / 100 * right + (90 - right)
        assert percent or not about.confidence or wrong_or_unknown <= 90 - right


@pytest.mark.parametrize("kind", ["linear", "prototypes"])
def test_what_looks_like_nothing_learned_is_unknown(kind: str) -> None:
    head, (features, _) = learned(kind, noise=0.3), clusters((40, 30, 20), 0.3)
    # Between all classes; and, for cosines, far away from all of them.
    between = features.mean(axis=0, keepdims=True)
    assert head.unknown(between)[0] and head.unknown(features).mean() < 0.2
    if kind == "prototypes":
        assert head.unknown(-features).all()


def test_the_temperature_makes_confidence_match_accuracy_on_other_photos() -> None:
    head, (features, classes) = learned(noise=2.5, counts=(150, 150, 150)), clusters((3000, 3000, 3000), 2.5)
    scores = head.scores(features)
    confidence, accuracy = scores.max(axis=1).mean(), (scores.argmax(axis=1) == classes).mean()
    # Two standard errors of the accuracy of 450 held-out photos that it was fitted to.
    assert abs(confidence - accuracy) < 0.05
    assert 0.5 < accuracy < 0.95


@pytest.mark.parametrize("kind", ["linear", "prototypes"])
def test_a_class_that_is_added_and_forgotten_again_leaves_the_head_as_it_was(kind: str) -> None:
    before = learned(kind)
    more = with_class(before, "fox", clusters((25,))[0] - 4)
    assert more.about.labels == (*LABELS, "fox") and more.about.photos == (40, 30, 20, 25)
    again = without_class(more, "fox")
    assert again.about == before.about
    np.testing.assert_array_equal(again.weights, before.weights)
    # The same as learned together, so that nothing is lost without the old photos.
    features, classes = clusters((40, 30, 20))
    features = np.concatenate([features, clusters((25,))[0] - 4])
    classes = np.concatenate([classes, np.full(25, 3)])
    together = fit(kind, "0" * 64, (*LABELS, "fox"), features, classes, 5.0)  # type: ignore[arg-type]
    np.testing.assert_array_equal(together.weights, more.weights)


def test_many_photos_are_thinned_evenly() -> None:
    assert spread(3, 5).tolist() == [0, 1, 2]
    assert spread(1001, 3).tolist() == [0, 500, 1000]
    more = with_class(learned("prototypes"), "fox", np.ones((MAX_PHOTOS + 7, D), np.float32))
    assert more.about.photos[-1] == MAX_PHOTOS


def test_what_cannot_be_learned_is_refused_in_one_line() -> None:
    head = learned("prototypes")
    refusals: list[tuple[Callable[[], Head], str]] = [
        (lambda: learned(counts=(40,)), "one class only, cat"),
        (lambda: learned(counts=(40, 4, 0)), r"too few photos could be read of dog \(4\), owl \(0\)"),
        (lambda: with_class(head, "cat", np.ones((9, D), np.float32)), "has the class cat already"),
        (lambda: with_class(head, "unknown", np.ones((9, D), np.float32)), "cannot be one of them"),
        (lambda: without_class(head, "fox"), "has no class fox, only cat, dog, owl"),
        (lambda: without_class(without_class(head, "cat"), "dog"), "one class only, owl"),
    ]
    for refused, message in refusals:
        with pytest.raises(UsageError, match=message):
            refused()


@pytest.mark.parametrize(
    ("arguments", "status", "message"),
    [
        (["learn"], 2, "no photos were given"),
        (["learn", "--head", "x", "photos", "photos"], 2, "more than one folder was given"),
        (["learn", "photos", "--undo"], 2, "Omit FOLDER"),
        (["learn", "photos", "--add-class", "x", "--method", "prototypes"], 2, "Omit them"),
        (["learn", "photos", "--head", "../x"], 2, "is not the name of a head"),
        (["learn", "nowhere"], 2, "nowhere is not a folder"),
        (["learn", "empty"], 2, "holds no folders of photos"),
        (["learn", "photos", "--add-class", "x"], 7, "has no head learned"),
        (["learn", "--undo"], 7, "has no previous head learned"),
        (["forget", "cat"], 7, "Learn one from photos"),
        (["run", "x.png", "--head", "learned"], 7, "has no head learned"),
        (["verify", "--head", "learned"], 7, "has no head learned"),
    ],
)
def test_mistakes_end_in_one_line_with_a_next_step(
    arguments: list[str],
    status: int,
    message: str,
    real_bundle: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    copy = shutil.copytree(real_bundle, tmp_path / "bundle")
    for name in ("photos/a", "empty"):
        (tmp_path / name).mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    assert here(arguments[0], copy, *arguments[1:]) == status
    captured = capsys.readouterr()
    assert message in captured.err and captured.err.count("\n") == 1 and not captured.out


def of(opened: Bundle, head: Head) -> Head:
    return dataclasses.replace(
        head, about=dataclasses.replace(head.about, model=opened.manifest.files["model.tflite"].sha256)
    )


def same(one: Head, other: Head) -> bool:
    return all(np.array_equal(getattr(one, name), getattr(other, name)) for name in ("weights", "bias", "kept"))


def test_a_head_is_read_as_it_was_written_and_the_one_before_is_kept(opened: Bundle) -> None:
    first, second, third = (of(opened, learned("prototypes", percent=percent)) for percent in (0.0, 5.0, 10.0))
    (opened.path / "heads").mkdir()
    path = write_head(opened, "h", first)
    content = path.read_bytes()
    again = read_head(opened, "h")
    assert same(again, first) and dataclasses.replace(again.about, arrays={}) == first.about
    write_head(opened, "h", second)
    write_head(opened, "h", third)
    assert undo(opened, "h").about.unknown_percent == 5.0
    assert read_head(opened, "h").about.unknown_percent == 5.0
    assert undo(opened, "h").about.unknown_percent == 10.0
    # A damaged head can be undone, and never takes the place of the one that was kept.
    path.write_bytes(content[:-50])
    write_head(opened, "h", first)
    assert path.read_bytes() == content
    assert undo(opened, "h").about.unknown_percent == 5.0
    assert store.head_names(opened) == ["h"]


def lies(head: Head) -> Iterator[tuple[str, dict[str, Any], dict[str, Any]]]:
    """What is changed in a head's file: its name, of `about`, of the arrays."""
    yield "another format", {"format": 2}, {}
    yield "one class", {"labels": ["cat"]}, {}
    yield "a class twice", {"labels": ["cat", "cat", "owl"]}, {}
    yield "unknown as a class", {"labels": ["cat", "dog", "unknown"]}, {}
    yield "no temperature", {"temperature": 0.0}, {}
    yield "negative photos", {"photos": [-1, 60, 31]}, {}
    yield "more photos", {"photos": [41, 30, 20]}, {}
    yield "no similarity", {"similarity": None}, {}
    yield "a key more", {"more": 1}, {}
    yield "another weight", {}, {"weights": head.weights + 1}
    yield "other features", {}, {"kept": head.kept[:, :3]}
    yield "float64", {}, {"bias": head.bias.astype(np.float64)}
    yield "not finite", {}, {"bias": np.full(3, np.nan, np.float32)}
    yield "an object", {}, {"bias": np.array([print], object)}
    yield "no JSON", {}, {"about": np.array("{")}
    yield "a list", {}, {"about": np.array("[]")}
    yield "an array more", {}, {"more": head.bias}


def test_damaged_and_foreign_heads_are_refused_in_one_line(opened: Bundle) -> None:
    head = of(opened, learned("prototypes"))
    (opened.path / "heads").mkdir()
    path = write_head(opened, "h", head)
    content = path.read_bytes()
    with np.load(path) as arrays:
        whole = dict(arrays)
    about = json.loads(str(whole["about"]))
    del about["content_sha256"]
    for name, stated, changed in lies(head):
        text = np.array(json.dumps(with_checksum(about | stated)))
        np.savez(path, **({**whole, "about": text} | changed))
        with pytest.raises(BundleError, match="is not a head, or is damaged") as refused:
            read_head(opened, "h")
        assert "\n" not in str(refused.value), name
    # Any byte of it.
    for place in RNG.integers(0, len(content), 100):
        damaged = bytearray(content)
        damaged[place] ^= 0x55
        path.write_bytes(damaged)
        with contextlib.suppress(BundleError):
            assert same(read_head(opened, "h"), head)
    path.write_bytes(content)
    other = dataclasses.replace(head, about=dataclasses.replace(head.about, model="1" * 64))
    write_head(opened, "h", other)
    with pytest.raises(BundleError, match="learned on another network"):
        read_head(opened, "h")


def test_a_head_of_another_width_is_refused(opened: Bundle, photos: Path) -> None:
    (opened.path / "heads").mkdir()
    write_head(opened, "h", of(opened, learned("prototypes")))
    predictor = load(opened, head="h")
    with pytest.raises(BundleError, match="a head reads 6 features, and there are 128"):
        predictor.classify(next((photos / "bag").iterdir()))


@pytest.mark.parametrize("moment", ["write", "rename"])
def test_a_writer_that_is_killed_leaves_the_old_head_or_the_new(moment: str, opened: Bundle, tmp_path: Path) -> None:
    first, second = (of(opened, learned("prototypes", percent=percent)) for percent in (5.0, 10.0))
    (opened.path / "heads").mkdir()
    write_head(opened, "h", first)
    write_head(opened, "new", second)
    # Stops before the new head is renamed: at its first sync, or when the old one was kept.
    code = (
        "import os, sys, time\nfrom pathlib import Path\n"
        "from bssl_tf_deploy import bundle, heads\n"
        "opened = bundle.read_bundle(Path(sys.argv[1]))\n"
        "def stop(*_):\n    print('here', flush=True)\n    time.sleep(60)\n"
        "replace = Path.replace\n"
        "Path.replace = lambda path, to: stop() if to.name == 'h.npz' else replace(path, to)\n"
        + ("os.fsync = stop\n" if moment == "write" else "")
        + "heads.write_head(opened, 'h', heads.read_head(opened, 'new'))\n"
    )
    with subprocess.Popen([sys.executable, "-c", code, str(opened.path)], stdout=subprocess.PIPE) as writer:
        assert writer.stdout is not None
        assert writer.stdout.readline() == b"here\n"
        writer.send_signal(signal.SIGKILL)
    assert same(read_head(opened, "h"), first) and read_head(opened, "h").about.unknown_percent == 5.0
    assert (opened.path / "heads" / "h.previous.npz").exists() is (moment == "rename")
    assert store.head_names(opened) == ["h", "new"]
    write_head(opened, "h", second)
    assert undo(opened, "h").about.unknown_percent == 5.0


def test_two_processes_never_change_a_head_at_once(opened: Bundle) -> None:
    with changing(opened), pytest.raises(StorageError, match="another process"), changing(opened):
        pass
    with changing(opened):
        pass


def test_a_full_disk_leaves_both_heads(opened: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    first, second = (of(opened, learned("prototypes", percent=percent)) for percent in (5.0, 10.0))
    (opened.path / "heads").mkdir()
    write_head(opened, "h", first)
    write_head(opened, "h", second)
    before = {path.name: path.read_bytes() for path in (opened.path / "heads").iterdir()}

    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(np, "savez", full)
    with pytest.raises(StorageError, match="No space left"):
        write_head(opened, "h", first)
    assert {path.name: path.read_bytes() for path in (opened.path / "heads").iterdir()} == before


def test_export_never_replaces_a_bundle_with_heads(opened: Bundle) -> None:
    (opened.path / "heads").mkdir()
    check_free(opened.path, overwrite=True)
    path = write_head(opened, "h", of(opened, learned("prototypes")))
    with pytest.raises(BsslError, match="heads that were learned there"):
        check_free(opened.path, overwrite=True)
    path.unlink()
    check_free(opened.path, overwrite=True)
