"""A student of one's own, from a tiny training to the same outputs on the device's runtime, without its file."""

from __future__ import annotations

import logging
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

import bssl_tf
from bssl_tf import zoo
from bssl_tf.backend import keras, lq
from bssl_tf.engine.configuration import settled
from bssl_tf.engine.run_folder import RunFolder
from bssl_tf.errors import ConfigError, NetworkError, RunFolderError, RuntimeUnavailableError
from bssl_tf.files import read_records, write_json
from bssl_tf.methods.registry import over_preset
from bssl_tf.models.binarization import named_weights
from bssl_tf.models.own import open_own
from bssl_tf.models.saved import Network, load_weights, read_network, save_network
from bssl_tf.preprocessing import Preprocessing
from bssl_tf.settings import PretrainConfig, read_run_config, read_settings
from bssl_tf.workflows.early import before_training
from bssl_tf.workflows.networks import open_network
from bssl_tf.workflows.networks_beside import has_stock_networks
from bssl_tf.workflows.pretrain import pretrain
from bssl_tf.workflows.student import Student, open_student, settle_student
from bssl_tf_deploy import load
from bssl_tf_deploy.library import host_target

FILE = Path(__file__).parent / "own_network.py"
TINY: dict[str, Any] = {"method": "supervised", "limit": 96, "batch_size": 32, "epochs": 1, "threads": 1}


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    # TensorFlow has started in this process already, so that threads cannot be set any more.
    for place in ("engine.preparation", "workflows.evaluate"):
        monkeypatch.setattr(f"bssl_tf.{place}.configure", lambda *arguments, **options: None)


def weights(run: Path) -> dict[str, np.ndarray]:
    network = read_network(run / "student").build()
    load_weights(run / "student", {"student": network})
    return {name: weight.numpy() for name, weight in named_weights(network).items()}


def trained_again(run: Path) -> None:
    """Resumes a run as if it had been killed in the middle, without its student, which it has kept."""
    sorted((run / "checkpoints").iterdir())[-1].unlink()
    shutil.rmtree(run / "student")
    bssl_tf.pretrain("embedded", out=run, resume=True, **TINY)


def test_a_nested_network_of_a_users_own_file_goes_all_the_way(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    mine = tmp_path / "mine.py"
    shutil.copyfile(FILE, mine)
    (tmp_path / "beside.py").write_text("DEPTH = 1\n")
    student, out = f"{mine}:network", tmp_path / "run"
    run = bssl_tf.pretrain("embedded", out=out, student=student, settings={"backbone.sizes.branches": 2}, **TINY)
    assert "of mine.py:network LCE keeps 2 convolutions binary, and computes 1 in float" in caplog.text
    # Two stages: of the first one's network only the activations are binary, at any depth.
    assert [r["stage"] for r in read_records(out / "metrics.jsonl") if "probe" not in r] == [
        "binary_activations",
        "binary_weights",
    ]
    mine.unlink()
    trained = weights(out)
    assert len(trained) == 15 and not any("#" in name for name in trained)
    found = run.evaluate(protocols=["linear-probe"])
    assert [row.features for row in found.rows][:2] == ["student", "control: untrained student"]
    made = run.export(target=host_target())
    assert (
        made.manifest.network.backbone == "mine.py:network"
        and str(tmp_path) not in (made.path / "manifest.json").read_text()
    )
    assert made.converted.report.binary_convolutions == 2
    predictor = load(made.path, runtime="own")
    predictor.verify_golden()
    views = np.random.default_rng(0).uniform(-1, 1, (8, 28, 28, 1)).astype(np.float32)
    expected = open_network(str(out))(views, training=False).numpy()
    outputs = np.concatenate([predictor.run_tensor(view[None])["logits"] for view in views])
    np.testing.assert_allclose(outputs, expected, rtol=1e-4, atol=1e-4)
    assert not has_stock_networks(made.manifest)


def small(name: str = "small", *, kernel: str | None = "ste_tern", size: int | None = 28, channels: int = 1) -> Any:
    """A network in a program: quantisers of other kinds than ours."""
    layers = keras.layers
    image = keras.Input((size, size, channels))
    x = layers.BatchNormalization()(layers.Conv2D(32, 3, strides=2, use_bias=False)(image))
    activations = lq.quantizers.DoReFa(k_bit=2, mode="activations")
    x = lq.layers.QuantConv2D(32, 3, strides=2, input_quantizer=activations, kernel_quantizer=kernel)(x)
    return keras.Model(image, layers.GlobalAveragePooling2D()(layers.BatchNormalization()(x)), name=name)


def opened(settings: dict[str, Any], out: Path, model: Any = None) -> tuple[PretrainConfig, Student]:
    """As `pretrain` does it."""
    settings, model = settle_student(settings, out, model)
    config = read_settings(PretrainConfig, {"training": {"epochs": 2}, **settings})
    return config, open_student(config, Preprocessing(28, 1, (0.5,), (0.5,)), out, model)


def test_a_model_of_a_program_is_trained_from_its_weights_and_kept(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    model, out = small(kernel=None), tmp_path / "run"
    model.layers[1].kernel.assign_add(np.full(model.layers[1].kernel.shape, 3.0))
    before = model.get_weights()
    settings = {"training.learning_rate": 1e-9, "training.optimizer": "sgd"}
    run = bssl_tf.pretrain("embedded", out=out, student=model, settings=settings, **TINY)
    assert "small has no quantiser of weights, so that it is trained in one stage of 2 epochs" in caplog.text
    assert "has an input quantiser and no kernel quantiser" in caplog.text
    for mine, then in zip(model.get_weights(), before, strict=True):
        np.testing.assert_array_equal(mine, then)
    # At this rate only statistics move.
    trained = weights(out)
    np.testing.assert_allclose(trained[f"{model.layers[1].name}/kernel"], before[0], atol=1e-6)
    trained_again(out)
    for name, weight in weights(out).items():
        np.testing.assert_array_equal(weight, trained[name])
    network = read_network(run.network)
    assert network.labels_used and "weights of model:small, from Python" in network.labels_used
    assert read_run_config(out)["backbone"]["name"] == "model:small"
    assert "student" in (out / "environment.json").read_text()

    with pytest.raises(ConfigError, match="started with another network than model:small"):
        bssl_tf.pretrain(out=out, student=small(channels=3), resume=True)
    kept = read_network(out / "start")
    save_network(out / "start", kept, {"student": kept.build()})
    with pytest.raises(RunFolderError, match="layers and weights of the student are not those"):
        bssl_tf.pretrain(out=out, resume=True)


@pytest.mark.parametrize("form", ["net.h5", "net.keras", "saved"])
def test_a_saved_model_brings_its_weights_and_its_size(form: str, tmp_path: Path) -> None:
    model, out = small(), tmp_path / "run"
    model.save(tmp_path / form)
    name = str(tmp_path / form)
    config, student = opened({"backbone": {"name": name}}, out)
    assert (config.data.image_size, config.data.channels) == (28, 1)
    assert student.network.backbone == form
    for mine, theirs in zip(student.build().get_weights(), model.get_weights(), strict=True):
        np.testing.assert_array_equal(mine, theirs)
    # Ternary weights go off and on like binary ones.
    assert [stage.binary_weights for stage in student.stages(config)] == [False, True]
    student.save_start(out)
    shutil.rmtree(tmp_path / form) if form == "saved" else (tmp_path / form).unlink()
    _, again = opened({"backbone": {"name": name}}, out)
    assert again.fingerprint() == student.fingerprint()


def test_one_of_the_zoo_is_kept_like_ones_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _, first = opened({"backbone": {"name": "model:small"}}, tmp_path / "run", small())
    (tmp_path / "mine").mkdir()
    save_network(tmp_path / "mine", first.network, {"student": first.build()}, packed=True)
    facts = {"method": "moco", "data": "x", "command": "x", "commit": "x", "protocol": "x", "top1": 1.0}
    zoo.write_entry(tmp_path, "mine", facts)
    monkeypatch.setattr(zoo, "zoo_folder", lambda: tmp_path)
    config, student = opened({"backbone": {"name": "zoo:mine"}}, tmp_path / "second")
    assert (config.initial, config.backbone.name, student.own) == ("zoo:mine", "model:small", True)
    # Ternary kernels were not reduced to their signs.
    for mine, theirs in zip(student.build().get_weights(), first.build().get_weights(), strict=True):
        np.testing.assert_array_equal(mine, theirs)
    student.save_start(tmp_path / "second")
    _, again = opened({"backbone": {"name": "zoo:mine"}}, tmp_path / "second")
    assert again.fingerprint() == student.fingerprint()


def config_of(student: str) -> dict[str, Any]:
    return {"method": "moco", "backbone": {"name": student}, "data": {"source": "embedded"}}


def test_a_saved_model_can_be_drawn_anew_and_takes_no_other_size(tmp_path: Path) -> None:
    model = small(size=None)
    model.save(tmp_path / "net.h5")
    name = {"name": str(tmp_path / "net.h5")}
    config, student = opened({"backbone": name, "initial": "random"}, tmp_path / "run")
    # One of any size is kept for the size that it is trained for.
    assert config.data.image_size == 0 and student.build().input_shape == (None, 28, 28, 1)
    assert np.any(student.build().get_weights()[0] != model.get_weights()[0])
    for settings, message in (
        ({"backbone": name, "data": {"channels": 3}}, "is for channels 1, not 3"),
        ({"backbone": name | {"width": 64}}, "is built already. Omit width"),
    ):
        with pytest.raises(ConfigError, match=message):
            settle_student(settings, tmp_path / "run")


@pytest.mark.parametrize(
    ("student", "message"),
    [
        ("{tmp}/nothing.py:net", "there is no file"),
        ("{tmp}/mine.py", "does not name a function of the file. Write --student {tmp}/mine.py:FUNCTION"),
        ("{tmp}/mine.py:network()", "does not name a function of the file"),
        ("{tmp}/mine.py:other", "has no function other. It defines flat, maps, fails, two"),
        ("{tmp}/broken.py:net", "is not Python"),
        ("{tmp}/nothing.h5", "there is no saved model"),
        ("{tmp}", "is a folder without a SavedModel"),
        ("{tmp}/net.onnx", "there is no saved model"),
        ("model:mine", "was a model in the memory of a Python program"),
        ("quicknett", "Did you mean quicknet?"),
    ],
)
def test_what_is_not_there_is_told_before_tensorflow_is_loaded(student: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(ODD)
    (tmp_path / "broken.py").write_text("def net(:\n")
    with pytest.raises(NetworkError) as caught:
        before_training(PretrainConfig, config_of(student.format(tmp=tmp_path)), tmp_path / "run", resume=False)
    assert message.format(tmp=tmp_path) in str(caught.value)


def test_code_is_run_only_if_this_command_names_it(tmp_path: Path) -> None:
    """A run folder or a preset may come from a stranger, with the file that it names."""
    (tmp_path / "mine.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\ndef net(image_size, channels): ...\n")
    out, name = tmp_path / "run", f"{tmp_path}/mine.py:net"
    settings = config_of(name)
    run = settled(PretrainConfig, settings)
    RunFolder.create(out, run.tables(), {"config": run.tables()})
    for resume in (
        lambda: before_training(PretrainConfig, {}, out, resume=True),
        lambda: pretrain({}, out, resume=True),
    ):
        with pytest.raises(NetworkError, match=r"has not kept its student.*repeat --student FILE\.py:FUNCTION"):
            resume()
    preset = tmp_path / "preset.toml"
    preset.write_text(f"[pretrain.backbone]\nname = {name!r}\n")
    with pytest.raises(ConfigError, match=r"names code to run.*Pass it as --student"):
        over_preset("pretrain", str(preset), {})
    assert not (tmp_path / "ran").exists()
    before_training(PretrainConfig, settings, out, resume=True)


def test_a_file_may_have_dataclasses_and_import_late(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(
        "from __future__ import annotations\n"
        "from dataclasses import dataclass\n"
        "from bssl_tf.backend import keras\n"
        "@dataclass\nclass Sizes:\n    width: int = 4\n"
        "def net(image_size, channels):\n"
        "    from late_part import head\n"
        "    image = keras.Input((image_size, image_size, channels))\n"
        "    return keras.Model(image, head(keras.layers.Conv2D(Sizes().width, 3)(image)))\n"
    )
    (tmp_path / "late_part.py").write_text(
        "from bssl_tf.backend import keras\nhead = keras.layers.GlobalAveragePooling2D()\n"
    )
    assert open_own(f"{tmp_path}/mine.py:net", 28, 1, {}).output_shape == (None, 4)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"initial": "imagenet"}, "initial is 'imagenet'. Write zoo:NAME or random"),
        ({"initial": "zoo:mine"}, "initial is zoo:mine, but the settings describe another network"),
        ({"initial": "zoo:mine", "backbone": {"name": "quicknet_tiny", "width": 64}}, "describe another network"),
    ],
)
def test_what_a_run_begins_with_is_what_its_settings_say(
    settings: dict[str, Any], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    preprocessing = Preprocessing(28, 1, (0.5,), (0.5,))
    write_json(
        tmp_path / "network.json",
        {"format": 1, "backbone": "quicknet_tiny", "preprocessing": preprocessing.to_dict(), "arguments": {}}
        | {"head": [], "head_batch_norm": False},
    )
    monkeypatch.setattr(zoo, "find", lambda name: SimpleNamespace(folder=tmp_path))
    with pytest.raises(ConfigError) as caught:
        opened({"method": "moco", **settings}, tmp_path / "run")
    assert message in str(caught.value)


def test_where_lce_is_not_installed_a_network_is_trained_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def missing(*_: object) -> None:
        raise RuntimeUnavailableError("LCE's converter is not here", "Use another machine")

    monkeypatch.setattr("bssl_tf.workflows.student.check_network", missing)
    opened({"backbone": {"name": "model:small"}}, tmp_path / "run", small())
    assert "it is not known what LCE keeps binary of model:small" in caplog.text
    assert "regularisers" not in caplog.text


def test_what_is_not_trained_as_the_network_says_is_stated(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("bssl_tf.workflows.student.check_network", lambda *_: SimpleNamespace(in_short=list))
    layers, image = keras.layers, keras.Input((28, 28, 1))
    x = layers.Conv2D(8, 3, kernel_regularizer="l2")(layers.Dropout(0.1)(image))
    model = keras.Model(image, layers.Softmax()(layers.GlobalAveragePooling2D()(x)), name="odd")
    opened({"backbone": {"name": "model:odd"}}, tmp_path / "run", model)
    for words in ("has regularisers, which are not part of the loss", "ends in a softmax", "draws random numbers"):
        assert f"model:odd {words}" in caplog.text


ODD = """
import tensorflow as tf
layers = tf.keras.layers

def flat(image_size, channels):
    image = tf.keras.Input((image_size, image_size, 3))
    return tf.keras.Model(image, layers.Flatten()(image))

def maps(image_size, channels):
    image = tf.keras.Input((image_size, image_size, channels))
    return tf.keras.Model(image, layers.Conv2D(8, 3)(image))

def fails(image_size, channels):
    raise ValueError("no such thing\\nat all")

def two(image_size, channels):
    image = tf.keras.Input((image_size, image_size, channels))
    return tf.keras.Model(image, [layers.Flatten()(image), layers.Flatten()(image)])

class Own(layers.Layer):
    def call(self, inputs):
        return inputs * 2

def own(image_size, channels):
    image = tf.keras.Input((image_size, image_size, channels))
    return tf.keras.Model(image, layers.Flatten()(Own(name="mine")(image)))

def lambdas(image_size, channels):
    image = tf.keras.Input((image_size, image_size, channels))
    return tf.keras.Model(image, layers.Flatten()(layers.Lambda(lambda x: x + 1, name="plus")(image)))

class Net(tf.keras.Model):
    def call(self, inputs):
        return tf.reduce_mean(inputs, [1, 2])

def written_as_a_class(image_size, channels):
    return Net()

def does_more(image_size, channels):
    class More(tf.keras.Model):
        def call(self, *arguments, **options):
            return super().call(*arguments, **options) + 1.0
    image = tf.keras.Input((image_size, image_size, channels))
    return More(image, layers.Flatten()(image))

def number(image_size, channels):
    return 3
"""


@pytest.mark.parametrize(
    ("function", "sizes", "message"),
    [
        ("flat", {}, "takes [28, 28, 3], and was to be built for [28, 28, 1]. Begin it with keras.Input"),
        ("flat", {"width": 3}, "does not take these arguments"),
        ("maps", {}, "gives [26, 26, 8], not one vector of features for each image. End it with keras.layers.Global"),
        ("fails", {}, "cannot be built for 28 px and 1 channels (ValueError: no such thing)"),
        ("two", {}, "has 1 inputs and 2 outputs"),
        ("own", {}, "uses the layer or object Own in layer mine, which is not a known part of Keras 2"),
        ("own", {}, "offer the network as a package with an entry point bssl_tf.networks"),
        ("lambdas", {}, "has a Lambda layer, which is Python code"),
        ("written_as_a_class", {}, "is a Net, whose layers cannot be listed before it is called"),
        ("does_more", {}, "computes something else than its layers"),
        ("number", {}, "is a builtins.int, not a Keras 2 model"),
    ],
)
def test_what_a_network_lacks_is_told_in_one_line(
    function: str, sizes: dict[str, int], message: str, tmp_path: Path
) -> None:
    (tmp_path / "mine.py").write_text(ODD)
    name = f"{tmp_path}/mine.py:{function}"
    with pytest.raises(NetworkError) as caught:
        opened({"backbone": {"name": name, **sizes}}, tmp_path / "run")
    assert message in str(caught.value) and "\n" not in str(caught.value)


def test_a_run_of_a_stranger_runs_no_code(tmp_path: Path) -> None:
    """What a run keeps of a network is read by the door for Keras files, wherever it comes from."""
    layers: dict[str, Any] = {
        "class_name": "Sequential",
        "config": {
            "name": "evil",
            "layers": [
                {"class_name": "InputLayer", "config": {"batch_input_shape": [None, 28, 28, 1], "name": "image"}},
                {"class_name": "Lambda", "config": {"name": "run", "function": ["4wAAAA==", None, None]}},
            ],
        },
    }
    network = Network("evil.py:net", Preprocessing(28, 1, (0.5,), (0.5,)), layers=layers)
    with pytest.raises(NetworkError, match=r"evil\.py:net has a Lambda layer"):
        network.build()
    layers["config"]["layers"].pop()
    layers["config"]["layers"].append({"class_name": "Dense", "config": {"units": "many"}})
    with pytest.raises(NetworkError, match=r"evil\.py:net cannot be built from its layers"):
        network.build()
