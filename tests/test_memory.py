"""Sizes that the memory cannot hold are refused before the memory is taken, and those that it can are not."""

from __future__ import annotations

import resource
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from bssl_tf import memory
from bssl_tf.backend import keras, tf
from bssl_tf.data.embedded import load_embedded
from bssl_tf.errors import ConfigError, MemoryShortageError
from bssl_tf.evaluation.protocols import FeatureBank, Subject
from bssl_tf.memory import available_bytes, bounded_variables, require_activations, require_memory
from bssl_tf.methods.guided import Guided, GuidedConfig
from bssl_tf.models.own import build_described
from bssl_tf.models.registry import build_backbone
from bssl_tf.preprocessing import Preprocessing
from bssl_tf.settings import PretrainConfig, read_settings

MEMINFO = "MemTotal: 9000 kB\nMemAvailable: 4000 kB\nCached: 100 kB\nSwapFree: 1000 kB\nHugePages_Total: 0\n"


def machine(root: Path, **files: str) -> Path:
    for name, content in {"proc/meminfo": MEMINFO, **files}.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(content)
    return root


@pytest.mark.parametrize(
    ("files", "kib"),
    [
        ({}, 5000),
        ({"proc/meminfo": ""}, None),
        ({"sys/fs/cgroup/memory.max": "2048000\n", "sys/fs/cgroup/memory.current": "1024000\n"}, 1100),
        ({"sys/fs/cgroup/memory.max": "2048000\n", "sys/fs/cgroup/memory.current": "51200\n"}, 2000),
        ({"sys/fs/cgroup/memory.max": "max\n", "sys/fs/cgroup/memory.current": "1024000\n"}, 5000),
        (
            {
                "sys/fs/cgroup/memory/memory.limit_in_bytes": "1024000\n",
                "sys/fs/cgroup/memory/memory.usage_in_bytes": "2048000\n",
            },
            0,
        ),
    ],
)
def test_what_is_available_is_the_least_of_the_machines_and_the_containers(
    tmp_path: Path, files: dict[str, str], kib: int | None
) -> None:
    assert available_bytes(machine(tmp_path, **files)) == (None if kib is None else 1024 * kib)


def test_a_limit_of_the_address_space_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    page = resource.getpagesize()
    monkeypatch.setattr(resource, "getrlimit", lambda _: (100 * page, 200 * page))
    assert available_bytes(machine(tmp_path, **{"proc/self/statm": "40 3 3\n"})) == 60 * page


def test_this_machine_has_memory() -> None:
    found = available_bytes()
    assert found is not None and found > 1 << 28
    require_memory(1 << 20, "a test", "test")


@pytest.fixture
def megabyte(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "available_bytes", lambda: 1_000_000)


@pytest.mark.usefixtures("megabyte")
@pytest.mark.parametrize(("units", "copies", "fits"), [(240, 1, True), (260, 1, False), (61, 4, True), (65, 4, False)])
def test_variables_are_counted_with_what_training_adds(units: int, copies: int, fits: bool) -> None:
    """A layer of 1,000 to `units` has 4,000 * `units` bytes."""
    layer = keras.layers.Dense(units, use_bias=False)
    if fits:
        with bounded_variables("a layer", "width", copies):
            layer(keras.Input(1000))
        return
    with (
        pytest.raises(MemoryShortageError, match=r"a layer needs at least .*Choose a smaller width"),
        bounded_variables("a layer", "width", copies),
    ):
        layer(keras.Input(1000))


@pytest.mark.usefixtures("megabyte")
def test_what_is_not_trained_is_there_once_and_all_variables_count_together() -> None:
    with bounded_variables("queues", "queue", copies=4):
        tf.Variable(tf.zeros([200, 1000]), trainable=False)
    with pytest.raises(MemoryShortageError), bounded_variables("queues", "queue", copies=4):
        _ = [tf.Variable(tf.zeros([200, 1000]), trainable=False) for _ in range(2)]


@pytest.mark.usefixtures("megabyte")
def test_copies_that_are_let_go_do_not_count() -> None:
    """A student is copied for its quantisers, its batch norm and its precision in turn, and the last one is trained."""

    def network() -> keras.Model:
        image = keras.Input(1000)
        return keras.Model(image, keras.layers.Dense(60, use_bias=False)(image))  # 240,000 bytes

    with bounded_variables("training", "width", copies=4):
        for _ in range(8):
            made = network()
    with pytest.raises(MemoryShortageError), bounded_variables("training", "width", copies=4):
        assert len([network() for _ in range(5)]) == 5
    assert made.count_params() == 60_000


def test_memory_is_estimated_where_the_gpu_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    """As with `--device cpu`, for which GPUs are hidden from TensorFlow and still there."""
    cpu, gpu = SimpleNamespace(device_type="CPU"), SimpleNamespace(device_type="GPU")
    monkeypatch.setattr(memory, "available_bytes", lambda: 1_000_000)
    monkeypatch.setattr(tf.config, "list_physical_devices", lambda *_: [cpu, gpu])
    for visible, refused in (([cpu], True), ([cpu, gpu], False)):
        monkeypatch.setattr(tf.config, "get_visible_devices", lambda *_, seen=visible: seen)
        with pytest.raises(MemoryShortageError) if refused else nullcontext(), bounded_variables("it", "width"):
            tf.Variable(tf.zeros([300, 1000]))


@pytest.mark.usefixtures("megabyte")
def test_outputs_of_convolutions_count_for_each_image_and_view() -> None:
    image = keras.Input((8, 8, 3))
    model = keras.Model(image, keras.layers.Conv2D(4, 3, padding="same")(image))
    require_activations([model], views=2, batch_size=488)  # below: 4 bytes * 8 * 8 * 4 for each
    with pytest.raises(MemoryShortageError, match="a step of 978 images"):
        require_activations([model], views=2, batch_size=489)


@pytest.mark.usefixtures("megabyte")
def test_a_convolution_that_is_used_at_two_sizes_counts_where_it_was_first_used() -> None:
    image, shared = keras.Input((8, 8, 1)), keras.layers.Conv2D(4, 3, padding="same")
    maps = [shared(image), shared(keras.layers.MaxPool2D()(image))]
    model = keras.Model(image, [keras.layers.GlobalAveragePooling2D()(one) for one in maps])
    require_activations([model], views=2, batch_size=488)
    with pytest.raises(MemoryShortageError, match="a step of 978 images"):
        require_activations([model], views=2, batch_size=489)


@pytest.mark.usefixtures("megabyte")
def test_a_model_in_a_file_is_refused_before_its_weights_are_there() -> None:
    """Of a few bytes, whose layers a stranger may have written."""
    image: dict[str, Any] = {"class_name": "InputLayer", "config": {"batch_input_shape": [None, 1000], "name": "image"}}
    for units, fits in ((240, True), (260, False)):
        dense = {"class_name": "Dense", "config": {"units": units, "use_bias": False, "name": "dense"}}
        model = {"class_name": "Sequential", "config": {"name": "net", "layers": [image, dense]}}
        with nullcontext() if fits else pytest.raises(MemoryShortageError, match=r"net needs at least"):
            build_described(model, "net")


@pytest.mark.usefixtures("megabyte")
def test_the_queue_of_a_teachers_vectors_is_refused_before_it_is_there() -> None:
    image = keras.Input((8, 8, 1))
    student = keras.Model(image, keras.layers.GlobalAveragePooling2D()(image))
    teacher: Any = SimpleNamespace(embed=None, embedding_width=16)
    Guided(student, teacher, GuidedConfig(queue_size=7800), batch_size=8)  # 2 * 4 bytes * 16 for each
    with pytest.raises(MemoryShortageError, match=r"a queue of 7824 needs .* smaller guided\.queue_size"):
        Guided(student, teacher, GuidedConfig(queue_size=7824), batch_size=8)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--method", "byol", "--width", "3200000"], "binary_resnet needs at least"),
        (["--method", "moco", "--set", "moco.queue_size=2147483392"], "a queue of 2147483392 needs at least"),
        (["--method", "swav", "--set", "swav.prototypes=2000000000"], "training needs at least"),
    ],
)
def test_sizes_beyond_the_memory_end_the_command(
    bssl_tf: Callable[..., Any], tmp_path: Path, arguments: list[str], words: str
) -> None:
    done = bssl_tf("pretrain", "--data", "embedded", "--limit", 600, "--out", tmp_path / "run", *arguments)
    assert done.returncode == MemoryShortageError.exit_status
    assert words in done.stderr and "Choose a smaller" in done.stderr and not (tmp_path / "run").exists()


def test_sizes_that_overflow_are_refused() -> None:
    for argument, size in (("depth", 10**9), ("width", 10**24)):
        with pytest.raises(ConfigError, match=f"{argument} is {size}"):
            build_backbone("binary_resnet", 28, 1, {argument: size})
    with pytest.raises(ConfigError, match="2147483647 or less"):
        read_settings(PretrainConfig, {"training": {"epochs": 10**20}})


@pytest.mark.usefixtures("megabyte")
def test_features_of_more_images_than_fit_are_refused_after_the_first_batch() -> None:
    images = load_embedded()[1].head(600)
    seen: list[int] = []

    def features(batch: np.ndarray) -> np.ndarray:
        seen.append(len(batch))
        return np.zeros((len(batch), 500), np.float32)  # 1,200,000 bytes for 600

    bank = FeatureBank(Subject("wide", features), images, images.head(400), Preprocessing(28, 1, (0.5,), (0.5,)), 0)
    with pytest.raises(MemoryShortageError, match=r"features of 600 images needs? .*Choose a smaller --limit"):
        _ = bank.train_features
    assert len(seen) == 1
    assert bank.test_features.shape == (400, 500)
