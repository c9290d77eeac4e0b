"""`bssl-tf similar` and `bssl-tf select` on a run folder, on vectors, and without a network."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from bssl_tf.evaluation.linear_probe import load_probe
from bssl_tf.evaluation.selection import margins
from bssl_tf_deploy.tasks.classification import softmax
from bssl_tf_deploy.vectors import read_vectors, unit
from tests.converters.networks import image_set, write_run_folder

Command = Callable[..., "subprocess.CompletedProcess[str]"]
DIFFERENT = 12


@pytest.fixture(scope="module")
def run_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_run_folder(tmp_path_factory.mktemp("run") / "run")


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twelve pictures, each also as a JPEG of high quality, and a file that is none."""
    folder = tmp_path_factory.mktemp("all") / "my photos"
    (folder / "copies").mkdir(parents=True)
    for place, pixels in enumerate(image_set().images[:DIFFERENT]):
        picture = Image.fromarray(np.asarray(pixels)[..., 0])
        picture.save(folder / f"{place}.png")
        picture.save(folder / f"copies/{place}.jpg", quality=98)
    (folder / "bad.png").write_bytes(b"damaged")
    return folder


@pytest.fixture(scope="module")
def vectors(run_folder: Path, photos: Path, bssl_tf: Command) -> Path:
    out = photos.parent / "v.npz"
    assert bssl_tf("embed", run_folder, photos, "--out", out).returncode == 9
    return out


def test_the_most_similar_come_first_with_their_cosines(
    run_folder: Path, photos: Path, vectors: Path, bssl_tf: Command, tmp_path: Path
) -> None:
    page = tmp_path / "found.html"
    done = bssl_tf("similar", run_folder, photos / "3.png", photos, "--count", "5", "--out", page, "--json")
    assert done.returncode == 9, done.stderr
    assert "bad.png cannot be read" in done.stderr and "5 most similar of 24 images" in done.stderr
    found = json.loads(done.stdout)
    known = read_vectors(vectors)
    features = dict(zip(known.images, unit(known.values).astype(np.float64), strict=True))
    expected = sorted((-float(features["3.png"] @ row), name) for name, row in features.items() if name != "3.png")
    assert [match["image"] for match in found["matches"]] == [str(photos / name) for _, name in expected[:5]]
    for match, (negative, _) in zip(found["matches"], expected, strict=False):
        assert match["similarity"] == pytest.approx(-negative, abs=1e-4)
    assert found["matches"][0]["image"].endswith("copies/3.jpg")
    text = page.read_text()
    # What was looked for, and five more.
    assert text.count("data:image/png;base64,") == 6 and "http" not in text.replace("http-equiv", "")

    # The same from the file, whose images may have moved.
    again = bssl_tf(
        *("similar", run_folder, photos / "3.png", vectors, "--count", "5", "--out", page, "--json"),
        *("--folder", photos),
    )
    assert again.returncode == 0, again.stderr
    assert [one["image"] for one in json.loads(again.stdout)["matches"]] == [one["image"] for one in found["matches"]]
    assert page.read_text().count("data:image/png;base64,") == 6
    # Without the folder, the images of the file are not opened.
    plain = bssl_tf("similar", run_folder, photos / "3.png", vectors, "--count", "2", "--out", page)
    best = found["matches"][0]
    assert plain.stdout.splitlines()[0] == f"{best['similarity']:7.4f}  {best['image']}"
    assert "2 of them are on the page by name only" in plain.stderr and "--folder DIR" in plain.stderr
    assert page.read_text().count("data:image/png;base64,") == 1 and best["image"] in page.read_text()


def test_bits_find_the_copy_too(run_folder: Path, photos: Path, bssl_tf: Command, tmp_path: Path) -> None:
    assert bssl_tf("embed", run_folder, photos, "--out", tmp_path / "b.npz", "--packed").returncode == 9
    page = tmp_path / "found.html"
    done = bssl_tf("similar", run_folder, photos / "3.png", tmp_path / "b.npz", "--count", "1", "--out", page)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip().endswith("copies/3.jpg")


def test_vectors_of_another_network_are_refused(
    run_folder: Path, photos: Path, vectors: Path, bssl_tf: Command, tmp_path: Path
) -> None:
    with np.load(vectors) as arrays:
        content = dict(arrays)
    about = json.loads(str(content["about"])) | {"sha256": "1" * 64}
    np.savez(tmp_path / "v.npz", **content | {"about": np.array(json.dumps(about))})
    done = bssl_tf("similar", run_folder, photos / "3.png", tmp_path / "v.npz", "--out", tmp_path / "p.html")
    assert done.returncode == 2 and "another network" in done.stderr and not (tmp_path / "p.html").exists()
    done = bssl_tf("similar", run_folder, photos / "bad.png", vectors, "--out", tmp_path / "p.html")
    assert done.returncode == 9 and "bad.png cannot be read" in done.stderr


@pytest.mark.parametrize("network", [False, True])
def test_copies_are_not_both_chosen_and_a_seed_gives_one_list(
    run_folder: Path, photos: Path, vectors: Path, bssl_tf: Command, tmp_path: Path, network: bool
) -> None:
    out = tmp_path / "list.txt"
    arguments = ["select", photos, "--count", "100", "--out", out, *(["--network", run_folder] if network else [])]
    done = bssl_tf(*arguments, "--json")
    assert done.returncode == 9, done.stderr
    assert "all other photos are near-duplicates" in done.stderr
    found = json.loads(done.stdout)
    paths = [Path(line) for line in out.read_text().splitlines()]
    assert [one["image"] for one in found["chosen"]] == list(map(str, paths))
    assert all(path.is_file() for path in paths)
    assert len({path.stem for path in paths}) == len(paths) == found["among"] // 2 == DIFFERENT
    assert found["network"] == ("binary_resnet" if network else "raw pixels")
    assert (tmp_path / "list.html").read_text().count("data:image/png;base64,") == len(paths)
    before = out.read_bytes()
    assert bssl_tf(*arguments, "--json").stdout == done.stdout and out.read_bytes() == before

    if network:
        # The probe that `evaluate` saved says how sure it is.
        probe, known = load_probe(run_folder / "probe"), read_vectors(vectors)
        sure = margins(softmax(known.values @ probe.weights + probe.bias))
        expected = dict(zip(known.images, sure, strict=True))
        for one in found["chosen"]:
            name = Path(one["image"]).relative_to(photos).as_posix()
            assert one["margin"] == pytest.approx(expected[name], abs=1e-3)


def test_what_has_labels_is_not_chosen(photos: Path, bssl_tf: Command, tmp_path: Path) -> None:
    labelled = tmp_path / "labelled"
    labelled.mkdir()
    for place in range(8):
        (labelled / f"{place}.jpg").write_bytes((photos / f"copies/{place}.jpg").read_bytes())
    (tmp_path / "photos").mkdir()
    for place in range(DIFFERENT):
        (tmp_path / f"photos/{place}.png").write_bytes((photos / f"{place}.png").read_bytes())
    (tmp_path / "photos/a\nb.png").write_bytes((photos / "11.png").read_bytes())
    out = tmp_path / "list.txt"
    done = bssl_tf("select", tmp_path / "photos", "--labelled", labelled, "--out", out)
    assert done.returncode == 9 and "line break in its name" in done.stderr
    assert {Path(line).stem for line in out.read_text().splitlines()} == {"8", "9", "10", "11"}
    done = bssl_tf("select", tmp_path / "photos", "--out", tmp_path / "list.html")
    assert done.returncode == 2 and "Write --out select.txt" in done.stderr
