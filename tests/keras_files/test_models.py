"""Models of every form are opened as they were saved, and no code in them is run."""

from __future__ import annotations

import functools
import json
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py  # type: ignore[import-untyped]
import numpy as np
import pytest

from bssl_tf.backend import keras, lq, tf
from bssl_tf.errors import BsslError, ConversionError
from bssl_tf.keras_files.models import open_model
from bssl_tf.models.layers import LearnedShift
from bssl_tf.workflows.networks import open_network
from bssl_tf_deploy.quiet import captured_output
from tests.converters.networks import backbone, embedded_images, write_run_folder
from tests.converters.tflite.test_model import mutated

layers = keras.layers
FORMS = ["model.h5", "model.keras", "saved_model"]


@functools.cache
def model() -> keras.Model:
    """Layers of Keras, larq and ours, TensorFlow functions, quantisers by name, function and class; trained a step."""
    keras.utils.set_random_seed(0)
    image = keras.Input((8, 8, 32), name="picture")
    x = lq.layers.QuantConv2D(
        32,
        3,
        padding="same",
        pad_values=1.0,
        input_quantizer=lq.quantizers.SteSign(clip_value=1.5),
        kernel_quantizer="magnitude_aware_sign",
        kernel_constraint="weight_clip",
        kernel_regularizer=keras.regularizers.l2(1e-4),
    )(image)
    x = LearnedShift(name="shift")(layers.BatchNormalization()(x))
    x = tf.nn.relu(x * 2.0)[:, 1:] + 0.5
    x = layers.Activation(lq.quantizers.ste_sign)(layers.Activation("tanh")(x))
    built = keras.Model(image, layers.Dense(3)(layers.GlobalAveragePooling2D()(x)), name="mixed")
    built.compile("adam", "mse")
    built.fit(images(), np.ones((4, 3)), verbose=0)
    return built


def images() -> np.ndarray:
    return np.random.default_rng(0).normal(0, 1, (4, 8, 8, 32)).astype(np.float32)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The model in every form. Not to be changed."""
    path = tmp_path_factory.mktemp("models")
    for form in FORMS:
        model().save(path / form)
    return path


@pytest.mark.parametrize("form", FORMS)
def test_a_model_comes_back_as_it_was_saved(form: str, folder: Path) -> None:
    opened = open_model(str(folder / form))
    np.testing.assert_array_equal(opened(images()).numpy(), model()(images()).numpy())
    assert opened.name == "mixed"
    assert any(isinstance(layer, LearnedShift) for layer in opened.layers)


def test_a_sequential_model_too(tmp_path: Path) -> None:
    built = keras.Sequential([keras.Input((8, 8, 32)), layers.Conv2D(4, 3), layers.Flatten(), layers.Dense(2)])
    for form in FORMS:
        built.save(tmp_path / form)
        opened = open_model(str(tmp_path / form))
        np.testing.assert_array_equal(opened(images()).numpy(), built(images()).numpy())


def test_a_run_folder_is_its_student_with_the_probe(tmp_path: Path) -> None:
    run = write_run_folder(tmp_path / "run")
    assert open_network(str(run)).output_shape == (None, 10)
    shutil.rmtree(run / "probe")
    pictures = embedded_images(28, 1, 4)
    np.testing.assert_array_equal(open_network(str(run))(pictures).numpy(), backbone(28, 1)(pictures).numpy())


def test_a_network_of_larq_zoo_by_name() -> None:
    pytest.importorskip("larq_zoo")
    assert open_model("larq_zoo:QuickNetSmall").input_shape == (None, 224, 224, 3)
    with pytest.raises(ConversionError, match=r"no network 'QuickNut'\. Choose one of BiRealNet, .*QuickNet"):
        open_model("larq_zoo:QuickNut")


def change_config(path: Path, change: Callable[[dict[str, Any]], None]) -> None:
    """Edits the JSON inside an .h5 file."""
    with h5py.File(path, "r+") as file:
        config = json.loads(file.attrs["model_config"])
        change(config)
        file.attrs["model_config"] = json.dumps(config)


def first_layer(class_name: str, **config: Any) -> Callable[[dict[str, Any]], None]:
    def change(content: dict[str, Any]) -> None:
        layer = content["config"]["layers"][1]
        layer["class_name"] = class_name
        layer["config"] |= config

    return change


def bytecode(content: dict[str, Any]) -> None:
    first_layer("Lambda", function=["4wAAAAA=", None, None], function_type="lambda")(content)


def module_of_anybody(content: dict[str, Any]) -> None:
    content["config"]["layers"][1]["config"]["kernel_initializer"] = {
        "module": "antigravity", "class_name": "Zeros", "config": {}, "registered_name": None
    }  # fmt: skip


def function_of_anybody(content: dict[str, Any]) -> None:
    first_layer("Activation", activation={"module": "os", "class_name": "function", "config": "system"})(content)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (bytecode, "has a Lambda layer, which is Python code inside the file"),
        (first_layer("TFOpLambda", function="io.write_file"), r"uses the function tf\.io\.write_file"),
        (first_layer("TFOpLambda", function="py_function"), r"uses the function tf\.py_function"),
        (module_of_anybody, "uses Zeros of the module antigravity"),
        (function_of_anybody, "uses the function system"),
        (
            first_layer("MyLayer"),
            r"uses the layer or object MyLayer in layer \w+, which is not a known part of Keras 2",
        ),
        (first_layer("QuantConv2D", filters="many"), "cannot be loaded"),
        (lambda content: content.clear(), "does not describe a model"),
    ],
    ids=["bytecode", "writes a file", "calls Python", "imports", "calls", "unknown layer", "wrong type", "empty"],
)
def test_what_would_run_code_or_is_unknown_is_refused_in_one_line(
    change: Callable[[dict[str, Any]], None], message: str, folder: Path, tmp_path: Path
) -> None:
    path = Path(shutil.copy(folder / "model.h5", tmp_path))
    change_config(path, change)
    with pytest.raises(ConversionError, match=message) as caught:
        open_model(str(path))
    assert "\n" not in str(caught.value)


def test_lambda_layers_are_refused_in_every_form(tmp_path: Path) -> None:
    image = keras.Input((8, 8, 32))
    built = keras.Model(image, layers.Lambda(lambda x: x + 1)(image))
    for form in FORMS:
        built.save(tmp_path / form)
        with pytest.raises(ConversionError, match="has a Lambda layer"):
            open_model(str(tmp_path / form))


def test_keras_3_files_are_told_by_their_code(folder: Path, tmp_path: Path) -> None:
    import keras as keras_3  # type: ignore[import-untyped]

    image = keras_3.Input((8, 8, 3))
    built = keras_3.Model(image, keras_3.layers.ReLU()(image))
    for name in ("new.keras", "new.h5"):
        built.save(tmp_path / name)
        with pytest.raises(ConversionError, match=r"saved by Keras 3\.[0-9.]+ \[keras-3\]\. Build it with tf-keras"):
            open_model(str(tmp_path / name))
    exported = shutil.copytree(folder / "saved_model", tmp_path / "exported")
    (exported / "keras_metadata.pb").unlink()
    with pytest.raises(ConversionError, match=r"without Keras 2's description of its layers \[keras-3\]"):
        open_model(str(exported))


def test_what_is_no_model_is_refused(folder: Path, tmp_path: Path) -> None:
    model().save_weights(tmp_path / "weights.h5")
    (tmp_path / "text.h5").write_text("no model")
    (tmp_path / "empty").mkdir()
    with zipfile.ZipFile(tmp_path / "other.keras", "w") as archive:
        archive.writestr("text", "no model")
    for name, message in (
        ("weights.h5", "holds weights but no model"),
        ("text.h5", "is not a Keras model"),
        ("empty", "is neither a run folder nor a SavedModel"),
        ("other.keras", "cannot be loaded"),
        ("none.h5", "there is no model at"),
    ):
        with pytest.raises(ConversionError, match=message):
            open_model(str(tmp_path / name))


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("kept", [0.3, 0.9])
def test_a_file_that_was_cut_is_one_line(form: str, kept: float, folder: Path, tmp_path: Path) -> None:
    path = tmp_path / form
    if (folder / form).is_dir():
        shutil.copytree(folder / form, path)
        cut = next((path / "variables").glob("variables.data*"))
    else:
        cut = Path(shutil.copy(folder / form, path))
    content = cut.read_bytes()
    cut.write_bytes(content[: int(kept * len(content))])
    with pytest.raises(ConversionError) as caught:
        open_model(str(path))
    assert "\n" not in str(caught.value)


def test_a_model_written_as_a_class_is_refused(tmp_path: Path) -> None:
    class Custom(keras.Model):
        def call(self, inputs: Any, training: bool = False) -> Any:
            return inputs + 1

    built = Custom()
    built(images())
    built.save(tmp_path / "custom")
    with pytest.raises(ConversionError, match="holds graphs of a model written as a class"):
        open_model(str(tmp_path / "custom"))


def open_mutants(whole: Path, place: Path, count: int) -> None:
    """Opens `count` copies of a model in which bytes of one file were changed; each opens, or is one line."""
    rng = np.random.default_rng(count)
    for _ in range(count):
        if whole.is_dir():
            shutil.copytree(whole, place, dirs_exist_ok=True)
            files = sorted(file for file in place.rglob("*") if file.is_file())
            file = files[rng.integers(len(files))]
        else:
            file = Path(shutil.copy(whole, place))
        file.write_bytes(mutated(file.read_bytes(), rng))
        try:
            with captured_output():
                open_model(str(place))
        except BsslError as error:
            assert "\n" not in str(error)


@pytest.mark.parametrize("form", FORMS)
def test_a_mutated_model_opens_or_is_one_line(form: str, folder: Path, tmp_path: Path) -> None:
    open_mutants(folder / form, tmp_path / form, 12)


@pytest.mark.slow
@pytest.mark.parametrize("form", FORMS)
def test_1200_mutated_models_open_or_are_one_line(form: str, folder: Path, tmp_path: Path) -> None:
    open_mutants(folder / form, tmp_path / form, 400)
