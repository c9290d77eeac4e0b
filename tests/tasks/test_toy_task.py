"""A task of another package, found by entry points alone, goes the whole way: trained, exported, read, run, decoded."""

from __future__ import annotations

import importlib
import json
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from bssl_tf.backend import keras, tf
from bssl_tf.data.augmentation import WEAK
from bssl_tf.data.image_set import ImageSet
from bssl_tf.data.views import Sampling
from bssl_tf.errors import BundleError, ConfigError
from bssl_tf.models.registry import build_backbone
from bssl_tf.preprocessing import Preprocessing
from bssl_tf.tasks import find_task
from bssl_tf.workflows.export import Conversion, export_subject
from bssl_tf.workflows.exported import Exported
from bssl_tf.workflows.subjects import Subject
from bssl_tf_deploy import load
from bssl_tf_deploy.bundle import read_bundle
from bssl_tf_deploy.files import without_checksum
from bssl_tf_deploy.library import host_target
from bssl_tf_deploy.manifest import FORMAT, NetworkDescription
from bssl_tf_deploy.running import RunSettings, run
from bssl_tf_deploy.runtime import load_runtime
from bssl_tf_deploy.tasks import find_task as find_device_task
from tests.tasks.toy import OUTPUTS, HostSpot, Spot, Table, distance, truth

NAME, SIZE = "brightest-place", 32
PREPROCESSING = Preprocessing(SIZE, 3, (0.2,) * 3, (0.25,) * 3)


@pytest.fixture(scope="module", autouse=True)
def installed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """What an installed distribution would leave beside its modules."""
    folder = tmp_path_factory.mktemp("site")
    about = folder / "brightest_place-1.0.dist-info"
    about.mkdir()
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: brightest-place\nVersion: 1.0\n")
    (about / "entry_points.txt").write_text(
        f"[bssl_tf.tasks]\n{NAME} = tests.tasks.toy:HostSpot\nbroken = tests.tasks.toy:nothing\n"
        "no-task = builtins:dict\n\n"
        f"[bssl_tf_deploy.tasks]\n{NAME} = tests.tasks.toy:DeviceSpot\nbroken = tests.tasks.toy:nothing\n"
    )
    sys.path.insert(0, str(folder))
    importlib.invalidate_caches()
    yield
    sys.path.remove(str(folder))
    find_task.cache_clear()
    find_device_task.cache_clear()


def pictures(count: int, seed: int) -> ImageSet:
    """Dark noise with one bright spot each."""
    rng = np.random.default_rng(seed)
    images = rng.integers(0, 60, (count, SIZE, SIZE, 3), dtype=np.uint8)
    for image, (y, x), light in zip(
        images, rng.integers(4, SIZE - 4, (count, 2)), rng.integers(120, 255, count), strict=True
    ):
        image[y - 2 : y + 3, x - 2 : x + 3] = light - 5
        image[y, x] = light
    return ImageSet(f"spots {seed}", images, np.ones(count, np.float32), None)


@pytest.fixture(scope="module")
def subject() -> Subject:
    """A small network, trained for a moment by what the task says."""
    task, train = find_task(NAME), pictures(200, 0)
    keras.utils.set_random_seed(0)
    model = task.network(build_backbone("quicknet_tiny", SIZE, 3, {}), (), SIZE, SIZE)
    optimizer = keras.optimizers.Adam(0.003)
    optimizer.build(model.trainable_variables)
    losses = []

    @tf.function
    def train_step(images: tf.Tensor, targets: dict[str, tf.Tensor]) -> tf.Tensor:
        with tf.GradientTape() as tape:
            outputs = dict(zip(task.outputs(model), model(images, training=True), strict=True))
            loss = task.losses(outputs, targets)["loss"]
        optimizer.apply_gradients(
            zip(tape.gradient(loss, model.trainable_variables), model.trainable_variables, strict=True)
        )
        return loss

    for example in task.batches(train, Sampling(PREPROCESSING, WEAK, 32, 0, 0, 60)):
        losses.append(float(train_step(example.images, dict(example.targets))))
    assert np.mean(losses[-5:]) < 0.5 * np.mean(losses[:5])
    test = pictures(60, 1)
    return Subject(
        task, Table("share of white", None), model, PREPROCESSING, test, train, NetworkDescription("spot", {}), None
    )


@pytest.fixture(scope="module", params=["float32", "uint8"])
def exported(request: pytest.FixtureRequest, subject: Subject, tmp_path_factory: pytest.TempPathFactory) -> Exported:
    wanted = Conversion(host_target(), input=request.param, images=60)
    return export_subject(subject, wanted, tmp_path_factory.mktemp("toy") / "bundle")


def test_both_halves_are_found_by_their_entry_points() -> None:
    assert isinstance(find_task(NAME), HostSpot)
    assert find_device_task(NAME).table is Table
    for find, error in ((find_task, ConfigError), (find_device_task, BundleError)):
        with pytest.raises(error, match="brightest-place, broken, classification"):
            find("telepathy")
        with pytest.raises(error, match=r"'broken' cannot be loaded from tests\.tasks\.toy:nothing"):
            find("broken")
    with pytest.raises(ConfigError, match=r"builtins:dict is not a task"):
        find_task("no-task")


def test_the_bundle_has_two_named_outputs_and_the_tasks_own_table(exported: Exported, subject: Subject) -> None:
    bundle = read_bundle(exported.path)
    manifest = bundle.manifest
    assert (manifest.format, manifest.task) == (FORMAT, NAME)
    assert {one.name: one.shape for one in manifest.outputs} == {"place": (1, 2), "brightness": (1, 1)}
    assert manifest.binary.binary_convolutions == 6
    assert set(manifest.parity.outputs) == set(OUTPUTS)
    assert manifest.parity.agreement >= 59 / 60
    assert isinstance(manifest.table, Table) and manifest.table.unit == "share of white"
    places = truth(subject.image_set, np.arange(60))[0]
    assert manifest.table.mean_distance == pytest.approx(distance(exported.converted.found["place"], places))
    with np.load(exported.path / "golden.npz") as golden:
        assert set(golden) == {"input/image", "output/place", "output/brightness"}
    text = " ".join((exported.path / "README.md").read_text().split())
    assert "Finds the brightest place of an image." in text
    assert "output `place` float32 [1, 2], x and y as shares of the input" in text
    assert "classes" not in text


def test_our_runtime_and_lces_give_what_keras_gives(exported: Exported, subject: Subject) -> None:
    bundle = read_bundle(exported.path)
    own, lce = load(bundle, runtime="own"), load(bundle, runtime="lce")
    pixels = np.asarray(subject.image_set.images[:20])
    images = PREPROCESSING.normalise(pixels)
    expected = dict(zip(OUTPUTS, subject.model(images, training=False), strict=True))
    given = pixels if bundle.manifest.inputs[0].dtype == "uint8" else images
    for predictor in (own, lce):
        predictor.verify_golden()
        outputs = predictor.run_tensor(given)
        for name in OUTPUTS:
            # A sign within rounding of zero may flip in an image.
            within = np.max(np.abs(outputs[name] - expected[name].numpy()), axis=1) <= 1e-3
            assert np.count_nonzero(~within) <= 2, name
    assert own.check_against(load_runtime(bundle, 1, "lce"), pixels) >= 0


def test_answers_are_places_in_the_picture_that_was_given(
    exported: Exported, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Of a wide picture the network sees the middle; the place is one of the whole."""
    predictor = load(exported.path)
    [file] = list((exported.path / "examples").glob("0-spot.png"))
    square = Image.open(file)
    wide = Image.new("RGB", (3 * SIZE, SIZE))
    wide.paste(square, (SIZE, 0))
    wide.save(tmp_path / "wide.png")
    [alone] = predictor.answers([file])
    [within] = predictor.answers([tmp_path / "wide.png"])
    assert isinstance(alone, Spot)
    assert (within.x, within.y) == (pytest.approx(1 / 3 + alone.x / 3, abs=1e-6), pytest.approx(alone.y, abs=1e-6))
    with pytest.raises(BundleError, match="is for brightest-place, not for classification"):
        predictor.classify([file])
    assert run(predictor, RunSettings((str(file),), format="json")) == 0
    [record] = json.loads(capsys.readouterr().out)
    assert record == {"image": str(file), "x": alone.x, "y": alone.y, "brightness": alone.brightness}
    run(predictor, RunSettings((str(file),), outputs=True))
    assert [line.split()[1] for line in capsys.readouterr().out.splitlines()] == [
        one.name for one in predictor.bundle.manifest.outputs
    ]


def test_a_bundle_whose_outputs_contradict_its_task_is_refused(exported: Exported) -> None:
    content = without_checksum(json.loads((exported.path / "manifest.json").read_text()))
    content["outputs"][0]["shape"], content["outputs"][1]["shape"] = [1, 3], [1, 1]
    from bssl_tf_deploy.manifest import Manifest

    with pytest.raises(BundleError, match=r"outputs is not place \[1, 2\] and brightness \[1, 1\]"):
        Manifest.from_dict(content)
