"""`bssl-tf embed` on a run folder; `tests/deploy/test_embedding.py` has bundles and the file itself."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from bssl_tf_deploy.manifest import Preprocessing
from bssl_tf_deploy.preprocess import load_image
from bssl_tf_deploy.vectors import read_vectors
from tests.conftest import require_or_skip
from tests.converters.networks import backbone, image_set, write_run_folder

Command = Callable[..., "subprocess.CompletedProcess[str]"]
IMAGES = 5


@pytest.fixture(scope="module")
def run_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_run_folder(tmp_path_factory.mktemp("run") / "run")


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    folder = tmp_path / "photos"
    folder.mkdir()
    for place, pixels in enumerate(image_set().images[:IMAGES]):
        Image.fromarray(np.asarray(pixels)[..., 0]).save(folder / f"{place}.png")
    return folder


def expected_features(run: Path, photos: Path) -> np.ndarray:
    saved = json.loads((run / "student/network.json").read_text())["preprocessing"]
    p = Preprocessing(28, 28, 1, tuple(saved["mean"]), tuple(saved["std"]))
    images = np.concatenate([load_image(photos / f"{place}.png", p) for place in range(IMAGES)])
    features: np.ndarray = backbone(28, 1)(images, training=False).numpy()
    return features


def test_features_of_a_run_are_those_of_its_network(run_folder: Path, photos: Path, bssl_tf: Command) -> None:
    out = photos.parent / "v.npz"
    done = bssl_tf("embed", run_folder, photos, "--out", out)
    assert done.returncode == 0, done.stderr
    assert done.stdout == f"{out}: 5 images, 128 numbers (float32) each, of binary_resnet\n"
    found = read_vectors(out)
    assert found.images == tuple(f"{place}.png" for place in range(IMAGES))
    np.testing.assert_allclose(found.values, expected_features(run_folder, photos), atol=1e-4)

    (photos / "bad.png").write_bytes(b"damaged")
    done = bssl_tf("embed", run_folder, photos, "--out", out, "--overwrite", "--packed", "--json")
    assert done.returncode == 9
    about = json.loads(done.stdout)
    assert about["images"] == IMAGES and about["packed"] and about["sha256"] == found.about.sha256
    assert "bad.png cannot be read" in done.stderr
    above = found.values > found.values.mean(axis=0)
    np.testing.assert_array_equal(read_vectors(out).values, np.packbits(above, axis=1))


def test_mistakes_are_found_before_the_work(run_folder: Path, photos: Path, bssl_tf: Command) -> None:
    out = photos.parent / "v.npz"
    out.touch()
    done = bssl_tf("embed", run_folder, photos, "--out", out)
    assert done.returncode == 8 and "--overwrite" in done.stderr and out.stat().st_size == 0
    done = bssl_tf("embed", run_folder, photos, "--out", photos.parent / "v.csv")
    assert done.returncode == 2 and ".npz or .parquet" in done.stderr
    done = bssl_tf("embed", photos, photos, "--out", photos.parent / "w.npz")
    assert done.returncode == 5 and len(done.stderr.strip().splitlines()) == 1
    unfinished = shutil.copytree(run_folder, photos.parent / "run", ignore=shutil.ignore_patterns("student"))
    done = bssl_tf("embed", unfinished, photos, "--out", photos.parent / "w.npz")
    assert done.returncode == 5 and "is not finished" in done.stderr


@pytest.mark.parametrize("packed", [False, True])
def test_parquet_holds_the_same(run_folder: Path, photos: Path, bssl_tf: Command, packed: bool) -> None:
    try:
        import pyarrow.parquet as parquet
    except ImportError:
        parquet = None
    require_or_skip(parquet is not None, "pyarrow is not installed")
    options = ["--packed"] if packed else []
    for name in ("v.npz", "v.parquet"):
        done = bssl_tf("embed", run_folder, photos, "--out", photos.parent / name, *options)
        assert done.returncode == 0, done.stderr
    table, expected = parquet.read_table(photos.parent / "v.parquet"), read_vectors(photos.parent / "v.npz")
    assert table["image"].to_pylist() == list(expected.images)
    about = json.loads(table.schema.metadata[b"bssl_tf"])
    assert about["sha256"] == expected.about.sha256
    if packed:
        assert table["bits"].to_pylist() == [row.tobytes() for row in expected.values]
        assert expected.thresholds is not None
        np.testing.assert_allclose(about["thresholds"], expected.thresholds, rtol=1e-6)
    else:
        np.testing.assert_array_equal(np.array(table["vector"].to_pylist(), np.float32), expected.values)


def test_parquet_without_its_package_is_one_line(
    run_folder: Path, photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import sys

    import bssl_tf as bt
    from bssl_tf.errors import RuntimeUnavailableError

    monkeypatch.setitem(sys.modules, "pyarrow", None)
    monkeypatch.setitem(sys.modules, "pyarrow.parquet", None)
    with pytest.raises(RuntimeUnavailableError, match=r"pip install 'bssl-tf\[parquet\]'"):
        bt.embed(run_folder, photos, out=photos.parent / "v.parquet")
    assert not (photos.parent / "v.parquet").exists()
