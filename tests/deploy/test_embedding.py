"""Features out of a bundle, and the file that they are written to."""

from __future__ import annotations

import dataclasses
import json
import struct
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from bssl_tf_deploy.bundle import read_bundle
from bssl_tf_deploy.embedding import FeatureNetwork, bundle_features, embed
from bssl_tf_deploy.errors import BundleError, ImageError, StorageError, UsageError
from bssl_tf_deploy.features import features_model
from bssl_tf_deploy.predictor import Prepared
from bssl_tf_deploy.preprocess import load_view, normalise
from bssl_tf_deploy.runtime import load
from bssl_tf_deploy.vectors import About, Vectors, check_output, read_vectors, unit, write_vectors
from tests.converters.networks import backbone
from tests.deploy.bundles import manifest

RNG = np.random.default_rng(0)
ABOUT = About(1, "net", "0" * 64, manifest().preprocessing, 11, "photos", 2)
FLOATS = Vectors(ABOUT, ("a.jpg", "sub/ü.png", "\udcff.png"), RNG.normal(1, 1, (3, 11)).astype(np.float32))


@pytest.mark.parametrize("runtime", ["own", "lce"])
def test_features_of_a_bundle_are_those_of_the_keras_network(real_bundle: Path, runtime: str) -> None:
    predictor = load(real_bundle, runtime=runtime)
    network = bundle_features(predictor, runtime=runtime)
    [images] = predictor.bundle.golden_inputs
    found, expected = network.features(images), backbone(28, 1)(images, training=False).numpy()
    # Sums in another order, of some hundred float32.
    np.testing.assert_allclose(found, expected, atol=1e-4)
    assert network.scores is not None
    scores = network.scores(images)
    best = np.argmax(predictor.bundle.golden_outputs[0], axis=1)
    assert np.argmax(scores, axis=1).tolist() == best.tolist()
    np.testing.assert_allclose(scores.sum(axis=1), 1)


def test_the_bundle_stays_as_it_is(real_bundle: Path) -> None:
    bundle = read_bundle(real_bundle)
    before = bytes(bundle.model)
    changed = features_model(bundle.model)
    assert bundle.model == before and changed[: len(before)] != before
    assert sum(one != other for one, other in zip(before, changed, strict=False)) <= 4


@pytest.mark.parametrize("model", [b"", b"TFL3", bytes(100), b"\xff" * 100, struct.pack("<I", 4) + bytes(3)])
def test_what_is_not_a_model_is_refused(model: bytes) -> None:
    with pytest.raises(BundleError, match="Export it again"):
        features_model(model)


def test_damaged_models_are_refused_or_changed_but_never_crash(real_bundle: Path) -> None:
    model = read_bundle(real_bundle).model
    # Where the tables are that are read; the rest are weights.
    places = RNG.integers(0, len(model), 300)
    for place in (*range(0, 64), *places):
        damaged = bytearray(model)
        damaged[place] ^= 0xFF
        try:
            features_model(bytes(damaged))
        except BundleError:
            continue


def plain_network(prepare: Callable[..., Prepared] | None = None) -> FeatureNetwork:
    """Its features are the mean colours of an image."""
    p = manifest().preprocessing

    def prepared(image: object) -> Prepared:
        pixels, view = load_view(image, p)  # type: ignore[arg-type]
        return Prepared(normalise(pixels, p.mean, p.std), view)

    return FeatureNetwork("net", "0" * 64, p, prepare or prepared, lambda batch: batch.mean(axis=(1, 2)))


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    folder = tmp_path / "photos"
    (folder / "sub").mkdir(parents=True)
    for place in range(70):
        colour = tuple(RNG.integers(0, 256, 3).tolist())
        Image.new("RGB", (9, 9), colour).save(folder / ("sub" if place % 2 else "") / f"{place:02}.png")
    (folder / "30.png").write_bytes(b"damaged")
    return folder


def test_every_image_gets_its_own_features_and_unreadable_ones_are_counted(photos: Path) -> None:
    network = plain_network()
    found = embed(network, [str(photos)])
    vectors = found.vectors
    assert len(vectors.images) == 69 and vectors.about.unreadable == 1
    assert vectors.about.folder == str(photos)
    assert "sub/31.png" in vectors.images and "30.png" not in vectors.images
    [line] = found.unreadable
    assert "30.png cannot be read" in line
    for name, row in zip(vectors.images, vectors.values, strict=True):
        alone = network.features(network.prepare(vectors.path(name)).tensor)
        np.testing.assert_array_equal(row, alone[0])


def test_images_named_one_by_one_keep_their_names(photos: Path) -> None:
    given = [str(photos / "02.png"), str(photos / "sub/01.png")]
    found = embed(plain_network(), given).vectors
    assert list(found.images) == given and found.about.folder == ""


def test_without_a_readable_image_there_is_nothing_to_write(photos: Path) -> None:
    with pytest.raises(ImageError, match=r"none of 1 images can be read; the first: .*30.png cannot be read"):
        embed(plain_network(), [str(photos / "30.png")])


def test_vectors_are_read_as_they_were_written_by_us_and_by_numpy(tmp_path: Path) -> None:
    path = tmp_path / "v.npz"
    write_vectors(path, FLOATS)
    again = read_vectors(path)
    assert again.images == FLOATS.images and again.about == ABOUT and again.thresholds is None
    np.testing.assert_array_equal(again.values, FLOATS.values)
    with np.load(path, allow_pickle=False) as arrays:
        assert arrays["images"].tolist() == list(FLOATS.images)
        assert json.loads(str(arrays["about"]))["network"] == "net"
    write_vectors(tmp_path / "again.npz", FLOATS)
    assert (tmp_path / "again.npz").read_bytes() == path.read_bytes()


def test_bits_state_what_is_above_the_mean_first_feature_first(tmp_path: Path) -> None:
    packed = FLOATS.packed()
    assert packed.values.dtype == np.uint8 and packed.values.shape == (3, 2)
    for row, floats in zip(packed.values, FLOATS.values, strict=True):
        above = floats > FLOATS.values.mean(axis=0)
        assert f"{row[0]:08b}{row[1]:08b}" == "".join("01"[int(bit)] for bit in above) + "00000"
    write_vectors(tmp_path / "v.npz", packed)
    again = read_vectors(tmp_path / "v.npz")
    np.testing.assert_array_equal(again.values, packed.values)
    # The cosine of vectors of -1 and 1 is 1 - 2 * (share of bits that differ).
    signs = np.where(FLOATS.values > FLOATS.values.mean(axis=0), 1, -1)
    expected = 1 - 2 * (signs[:, None] != signs[None]).mean(axis=2)
    np.testing.assert_allclose(again.directions() @ again.directions().T, expected, atol=1e-6)
    np.testing.assert_allclose(again.direction_of(FLOATS.values), again.directions())


def test_features_of_zero_have_no_direction() -> None:
    assert np.array_equal(unit(np.zeros((1, 4), np.float32)), np.zeros((1, 4)))


LIES = {
    "without names": {"vectors": FLOATS.values},
    "too few names": {"images": np.array(["a"])},
    "another type": {"vectors": FLOATS.values.astype(np.float64)},
    "another width": {"vectors": FLOATS.values[:, :5]},
    "not finite": {"vectors": np.full((3, 11), np.nan, np.float32)},
    "no JSON": {"about": np.array("{")},
    "other JSON": {"about": np.array("[]")},
    "another format": {"about": np.array(json.dumps(dataclasses.asdict(dataclasses.replace(ABOUT, format=2))))},
    "both kinds": {"bits": FLOATS.packed().values},
}


@pytest.mark.parametrize("name", LIES)
def test_other_files_are_refused_in_one_line(name: str, tmp_path: Path) -> None:
    path = tmp_path / "v.npz"
    write_vectors(path, FLOATS)
    with np.load(path) as arrays:
        content = dict(arrays)
    if name == "without names":
        del content["images"]
    np.savez(path, **{**content, **LIES[name]})
    with pytest.raises(StorageError, match="does not hold vectors of images"):
        read_vectors(path)


@given(st.binary(max_size=200))
def test_any_bytes_are_refused(content: bytes) -> None:
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "v.npz"
        path.write_bytes(content)
        with pytest.raises(StorageError):
            read_vectors(path)


def test_a_file_is_not_replaced_unless_that_is_wanted(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"--out vectors\.npz"):
        check_output(tmp_path / "v.txt", overwrite=False)
    (tmp_path / "v.npz").touch()
    with pytest.raises(StorageError, match="--overwrite"):
        check_output(tmp_path / "v.npz", overwrite=False)
    check_output(tmp_path / "v.npz", overwrite=True)


def test_the_devices_command_writes_the_file_without_the_host(real_bundle: Path, photos: Path, tmp_path: Path) -> None:
    out = tmp_path / "v.npz"
    arguments = ["embed", str(real_bundle), str(photos), "--out", str(out), "--packed", "--json"]
    program = (
        "import sys\nfrom bssl_tf_deploy.cli import main\n"
        f"try:\n    main({arguments!r})\n"
        "finally:\n"
        "    heavy = ('bssl_tf', 'tensorflow', 'sklearn')\n"
        "    print([name for name in heavy if name in sys.modules], file=sys.stderr)\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 9, done.stderr
    assert done.stderr.splitlines()[-1] == "[]"
    about, found = json.loads(done.stdout), read_vectors(out)
    assert (about["images"], about["dimensions"], about["packed"]) == (69, 128, True)
    assert len(about["unreadable"]) == 1 and "30.png" in about["unreadable"][0]
    assert found.values.shape == (69, 16) and found.about.sha256 == about["sha256"]
