"""Keras files of strangers: nothing in them is run, as a teacher or otherwise, and each is refused in one line."""

from __future__ import annotations

import contextlib
import json
import os
import resource
import signal
import subprocess
import sys
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import h5py  # type: ignore[import-untyped]
import numpy as np
import pytest

from bssl_tf.backend import keras
from bssl_tf.errors import BsslError, ConversionError, NetworkError
from bssl_tf.keras_files.files import _REHEARSAL
from bssl_tf.keras_files.models import input_shape, open_model
from bssl_tf.keras_files.weights import load_weights_file
from bssl_tf.preprocessing import Preprocessing
from bssl_tf.teachers.teacher import load_teacher
from tests.keras_files.hostile import SUFFIXES, Config, layer, operation, strangers, write_model

PREPROCESSING = Preprocessing(28, 1, (0.25,), (0.5,))
NAMES = sorted(strangers(Path()))


def contents(folder: Path) -> dict[str, bytes | None]:
    return {str(path.relative_to(folder)): path.read_bytes() if path.is_file() else None for path in folder.rglob("*")}


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that a hostile file may reach."""
    folder = tmp_path / "place"
    (folder / "kept").mkdir(parents=True)
    (folder / "victim").write_text("victim")
    monkeypatch.chdir(folder)
    return folder


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("name", NAMES)
def test_a_hostile_teacher_touches_nothing_and_is_refused_in_one_line(
    name: str, suffix: str, place: Path, tmp_path: Path
) -> None:
    stranger, what = strangers(place)[name]
    path = write_model(tmp_path / f"teacher{suffix}", stranger)
    before = contents(place)
    with pytest.raises(NetworkError) as refused:
        load_teacher(str(path), PREPROCESSING)
    assert contents(place) == before
    assert what in refused.value.what
    assert "a known part of Keras 2, larq or bssl_tf. Build the model from their layers" in str(refused.value)
    assert "\n" not in str(refused.value)
    # By the same loader.
    with pytest.raises(ConversionError) as other:
        open_model(str(path))
    assert other.value.what == refused.value.what
    assert contents(place) == before


def test_the_commands_refuse_a_hostile_file_with_their_status(
    place: Path, tmp_path: Path, bssl_tf: Callable[..., Any]
) -> None:
    stranger = operation("io.write_file", str(place / "marker"), contents="here")
    path = write_model(tmp_path / "teacher.h5", stranger)
    before = contents(place)
    for arguments, status in (
        (("pretrain", "--method", "s2bnn", "--data", "embedded", "--teacher", path, "--out", tmp_path / "run"), 12),
        (("evaluate", path, "--data", "embedded"), 12),
        (("check", path), 6),
    ):
        done = bssl_tf(*arguments)
        assert done.returncode == status, (arguments, done.stderr)
        assert "uses the function tf.io.write_file in layer evil" in done.stderr
        assert "Traceback" not in done.stderr
        assert contents(place) == before


def test_names_of_layers_cannot_forge_lines(tmp_path: Path) -> None:
    stranger = layer("MyLayer\n\x1b[2J", {"name": "a\nerror\x1b[1m"})
    for suffix in SUFFIXES:
        with pytest.raises(NetworkError) as refused:
            load_teacher(str(write_model(tmp_path / f"teacher{suffix}", stranger)), PREPROCESSING)
        assert str(refused.value).isprintable()


def nested(config: Config) -> None:
    inner: Any = 0.0
    for _ in range(300):
        inner = [inner]
    config["config"]["layers"][2]["config"]["extra"] = inner


def nested_beyond_the_parser(path: Path) -> None:
    with h5py.File(path, "r+") as file:
        file.attrs["model_config"] = "[" * 20_000 + "]" * 20_000


def test_what_is_nested_too_deeply_is_one_line(tmp_path: Path) -> None:
    harmless = layer("Activation", {"activation": "linear"})
    for suffix in SUFFIXES:
        path = write_model(tmp_path / f"teacher{suffix}", harmless, nested)
        with pytest.raises(NetworkError, match="a configuration nested more than 100 deep"):
            load_teacher(str(path), PREPROCESSING)
    nested_beyond_the_parser(tmp_path / "teacher.h5")
    with pytest.raises(NetworkError, match=r"cannot be loaded \(maximum recursion depth"):
        load_teacher(str(tmp_path / "teacher.h5"), PREPROCESSING)


def rewritten(path: Path, change: Callable[[dict[str, bytes]], None]) -> Path:
    """A .keras file with other members, compressed."""
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    change(members)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return path


def many(members: dict[str, bytes]) -> None:
    members.update({f"assets/{number}": b"" for number in range(1001)})


def large_weights(members: dict[str, bytes]) -> None:
    members["model.weights.h5"] = bytes(80 << 20)


def large_config(members: dict[str, bytes]) -> None:
    members["config.json"] = b" " * ((64 << 20) + 1)


def compressed_numbers(members: dict[str, bytes], tmp_path: Path) -> None:
    """A kernel of 4 GB in a few kB."""
    path = tmp_path / "weights.h5"
    path.write_bytes(members["model.weights.h5"])
    with h5py.File(path, "r+") as file:
        found: list[str] = []
        file.visititems(lambda name, item: found.append(name) if isinstance(item, h5py.Dataset) else None)
        del file[found[0]]
        file.create_dataset(found[0], (1 << 30,), "f4", chunks=(1 << 20,), compression="gzip")
    members["model.weights.h5"] = path.read_bytes()


def linked_inside(members: dict[str, bytes], tmp_path: Path) -> None:
    path = tmp_path / "weights.h5"
    path.write_bytes(members["model.weights.h5"])
    with h5py.File(path, "r+") as file:
        file["again"] = h5py.SoftLink("/_layer_checkpoint_dependencies")
    members["model.weights.h5"] = path.read_bytes()


# Keras goes through the layers until each has its inputs, and never ends where one cannot have them.
@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize(
    "node",
    [
        ["conv", True, {}],
        ["pool", 1, 0, {}],
        ["evil", 0, 0, {}],
        ["top", 0, 0, {}],
        ["image", 0, 0, {"mask": ["pool", 7, 0]}],
    ],
    ids=str,
)
def test_layers_that_never_have_their_inputs_are_refused(node: list[Any], suffix: str, tmp_path: Path) -> None:
    def change(config: Config) -> None:
        layers = {one["config"]["name"]: one for one in config["config"]["layers"]}
        if node[0] == "top":  # a circle of four
            layers["conv"]["inbound_nodes"] = [[["evil", 0, 0, {}]]]

    path = write_model(tmp_path / f"model{suffix}", layer("ReLU", {}, [[node]]), change)
    with in_seconds(20), pytest.raises(ConversionError) as refused:
        open_model(str(path))
    assert "\n" not in str(refused.value)
    assert "whose inputs no layer gives, or that are inputs of each other" in refused.value.what


@contextlib.contextmanager
def in_seconds(seconds: int) -> Iterator[None]:
    def late(*_: object) -> None:
        raise KeyboardInterrupt  # no `Exception`, which would be made a message of

    before = signal.signal(signal.SIGALRM, late)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_layers_in_any_order_are_built(suffix: str, tmp_path: Path) -> None:
    """Keras then needs as many rounds as there are layers."""
    path = write_model(tmp_path / f"model{suffix}", layer("ReLU", {}), lambda c: c["config"]["layers"].reverse())
    assert open_model(str(path)).count_params() == 4 * 9 + 4 + 4 * 6 + 6


def test_what_unpacks_to_more_than_its_model_holds_is_not_unpacked(tmp_path: Path) -> None:
    harmless = layer("Activation", {"activation": "linear"})
    cases: list[tuple[Callable[[dict[str, bytes]], None], str]] = [
        (many, "has more than 1000 parts"),
        (large_weights, "model.weights.h5 is larger than the weights of its model"),
        (large_config, "config.json is too large"),
        (lambda members: compressed_numbers(members, tmp_path), "than any weight of its model"),
        (lambda members: linked_inside(members, tmp_path), "has links inside"),
    ]
    for change, message in cases:
        path = rewritten(write_model(tmp_path / "teacher.keras", harmless), change)
        with pytest.raises(NetworkError, match=message) as refused:
            load_teacher(str(path), PREPROCESSING)
        assert "\n" not in str(refused.value)


def test_a_compressed_weight_of_an_h5_file_is_not_unpacked(tmp_path: Path) -> None:
    path = write_model(tmp_path / "teacher.h5", layer("Activation", {"activation": "linear"}))
    with h5py.File(path, "r+") as file:
        group = file["model_weights/top/top"]
        del group["bias:0"]
        group.create_dataset("bias:0", (1 << 40,), "f4", chunks=(1 << 20,), compression="gzip")
    with pytest.raises(NetworkError, match="layer top has 4x6 and 6, and the file 4x6 and 1099511627776"):
        load_teacher(str(path), PREPROCESSING)


def with_endless_heap(path: Path) -> None:
    """Damages an HDF5 file so that its library does not get past the free space behind the text of its attributes."""
    data = bytearray(path.read_bytes())
    heap = data.index(b"GCOL")
    end = heap + int.from_bytes(data[heap + 8 : heap + 16], "little")
    place = heap + 16
    while number := int.from_bytes(data[place : place + 2], "little"):
        size = int.from_bytes(data[place + 8 : place + 16], "little")
        place += 16 + -(-size // 8) * 8
        assert place < end, number
    data[place + 8 : place + 16] = bytes(8)
    path.write_bytes(data)


def test_an_hdf5_file_that_its_library_never_ends_reading_is_refused(tmp_path: Path) -> None:
    text = {"class_name": "Sequential", "config": {"layers": []}}
    model, weights = tmp_path / "model.h5", tmp_path / "weights.h5"
    harmless = write_model(tmp_path / "harmless.keras", layer("Activation", {"activation": "linear"}))
    for path in (model, weights):
        with h5py.File(path, "w") as file:
            file.attrs["model_config"] = json.dumps(text)
            file.attrs["layer_names"] = "top"
        with_endless_heap(path)
    keras_file = rewritten(harmless, lambda members: members.update({"model.weights.h5": weights.read_bytes()}))
    known = keras.Sequential([keras.layers.Dense(1, input_shape=(1,))])
    readers: list[tuple[Path, Callable[[], object]]] = [
        (model, lambda: open_model(str(model))),
        (model, lambda: input_shape(model)),
        (model, lambda: load_teacher(str(model), PREPROCESSING)),
        (weights, lambda: load_weights_file(known, weights)),
        (keras_file, lambda: open_model(str(keras_file))),
    ]
    for path, read in readers:
        with pytest.raises(BsslError) as refused:
            read()
        assert f"{path} is damaged: HDF5's library never finishes reading it, or crashes" in refused.value.what
        assert "\n" not in str(refused.value)


def test_hdf5_is_read_within_limits_that_a_user_has_set(tmp_path: Path) -> None:
    """A limit may not be raised above those."""
    sound, endless = tmp_path / "sound.h5", tmp_path / "endless.h5"
    for path in (sound, endless):
        with h5py.File(path, "w") as file:
            file.attrs["model_config"] = "{}"
    with_endless_heap(endless)
    inherited = {resource.RLIMIT_AS: 3 << 30, resource.RLIMIT_CPU: 1}

    def limited() -> None:
        for kind, most in inherited.items():
            resource.setrlimit(kind, (most, most))

    alone = os.environ | {"OPENBLAS_NUM_THREADS": "1"}
    ended = [
        subprocess.run([sys.executable, "-I", _REHEARSAL, path], preexec_fn=limited, env=alone, check=False).returncode
        for path in (sound, endless)
    ]
    assert ended[0] == 0 and ended[1] < 0


def test_only_regular_files_are_read(tmp_path: Path) -> None:
    """A pipe would be waited on for ever."""
    folder = tmp_path / "saved_model"
    image = keras.Input((28, 28, 1))
    keras.Model(image, keras.layers.Flatten()(image)).save(folder)
    variables = folder / "variables" / "variables.index"
    variables.unlink()
    for pipe in (tmp_path / "pipe.h5", tmp_path / "pipe.keras", variables):
        os.mkfifo(pipe)
    for path in (tmp_path / "pipe.h5", tmp_path / "pipe.keras", folder, Path("/dev/zero")):
        with pytest.raises(BsslError, match="Not a regular file") as refused:
            load_teacher(str(path), PREPROCESSING)
        assert "\n" not in str(refused.value)
        with pytest.raises(ConversionError, match="Not a regular file"):
            open_model(str(path))


@pytest.mark.parametrize("form", [".h5", ".hdf5", ".keras", ""])
def test_a_harmless_file_with_layers_of_many_kinds_is_a_teacher(form: str, tmp_path: Path) -> None:
    """What Keras' own loader made of it, and not only convolutions: wrappers, constants, recurrence, functions."""
    # Another test of this process may have made ops deterministic, which then want a seed.
    keras.utils.set_random_seed(0)
    layers = keras.layers
    image = keras.Input((28, 28, 1))
    x = layers.Normalization(mean=0.1, variance=2.0)(image)
    x = layers.Conv2D(4, 3, kernel_initializer="he_normal", kernel_regularizer="l2", activation="swish")(x)
    x = layers.LeakyReLU()(layers.BatchNormalization()(x)) * [1.0, 2.0, 3.0, 4.0]
    inner = keras.Sequential([layers.Conv2D(4, 1, kernel_initializer="zeros"), layers.Identity()])
    x = keras.backend.concatenate([x, inner(x)])
    x = layers.TimeDistributed(layers.Bidirectional(layers.SimpleRNN(3)))(x)
    x = layers.Dropout(0.5)(keras.backend.mean(x, axis=1))
    built = keras.Model(image, layers.Dense(6, activation=keras.activations.relu, bias_constraint="non_neg")(x))
    built.compile("adam", "mse")
    images = np.random.default_rng(0).normal(0, 1, (3, 28, 28, 1)).astype(np.float32)
    built.fit(images, np.ones((3, 6)), verbose=0)
    path = tmp_path / f"teacher{form}"
    if form == ".hdf5":
        built.save(path, save_format="h5")
    else:
        built.save(path)
    teacher = load_teacher(str(path), PREPROCESSING)
    np.testing.assert_array_equal(teacher.backbone(images), built(images))
    theirs = keras.models.load_model(path, compile=False)
    np.testing.assert_array_equal(teacher.backbone(images), theirs(images))


def test_without_a_hostile_layer_the_files_of_these_tests_are_good(tmp_path: Path) -> None:
    for suffix in SUFFIXES:
        path = write_model(tmp_path / f"teacher{suffix}", layer("Activation", {"activation": "linear"}))
        assert load_teacher(str(path), PREPROCESSING).feature_width == 6
        assert open_model(str(path)).get_layer("evil").activation is keras.activations.linear


@pytest.mark.slow
def test_every_class_and_every_function_is_built_without_side_effect_or_refused(tmp_path: Path) -> None:
    place = tmp_path / "place"
    (place / "kept").mkdir(parents=True)
    (place / "victim").write_text("victim")
    before = contents(place)
    place.chmod(0o555)
    try:
        done = subprocess.run(
            [sys.executable, "-B", "-m", "tests.keras_files.fuzzing", place],
            capture_output=True,
            text=True,
            timeout=1800,
            cwd=Path(__file__).parents[2],
            check=False,
        )
    finally:
        place.chmod(0o755)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["effects"] == []
    assert found["not refused"] == []
    assert contents(place) == before
    assert found["classes refused"] > 100 and found["classes built"] > 50
    assert found["functions refused"] > 2000 and found["functions built"] > 100
