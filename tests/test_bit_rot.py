"""One bit of a file flips, anywhere: what is read is what was written, or it is refused, replaced or made again.

Never other weights, images or settings with status 0.
"""

from __future__ import annotations

import dataclasses
import logging
import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from bssl_tf import zoo
from bssl_tf.backend import tf
from bssl_tf.checkpoints import read_tensors, write_tensors
from bssl_tf.data.augmentation import PRESETS
from bssl_tf.data.image_set import ImageSet
from bssl_tf.data.load import load_data
from bssl_tf.data.views import Batch
from bssl_tf.engine import teacher_cache
from bssl_tf.engine.configuration import MOVABLE, configured, settled
from bssl_tf.engine.inputs import Inputs
from bssl_tf.engine.run_folder import RunFolder
from bssl_tf.errors import BsslError
from bssl_tf.files import write_json
from bssl_tf.methods.recipe import Outcome, Recipe
from bssl_tf.models.binary_resnet import binary_resnet
from bssl_tf.models.saved import Network, load_weights, read_network, save_network
from bssl_tf.preprocessing import Preprocessing
from bssl_tf.settings import PretrainConfig, TrainingConfig, differences, write_config
from bssl_tf_deploy.bundle import read_bundle
from tests.faults.mutations import same

FEW, MANY = 48, 3000
READY = "fashion-mnist-28"
Read = Callable[[], object]


def offsets(size: int, count: int, chance: random.Random) -> list[int]:
    """Bytes to damage: a third each from the head, the end and anywhere."""
    ends = min(size, 1500)
    return [
        (chance.randrange(ends), size - 1 - chance.randrange(ends), chance.randrange(size))[number % 3]
        for number in range(count)
    ]


def flip_each(files: list[Path], read: Read, count: int) -> int:
    """Reads after each of `count` flips in all `files` together; returns how many were refused."""
    seed = random.SystemRandom().randrange(2**32)
    chance = random.Random(seed)
    expected, refused = read(), 0
    for file in files:
        whole = file.read_bytes()
        for offset in offsets(len(whole), max(1, count // len(files)), chance):
            bit = chance.randrange(8)
            damaged = bytearray(whole)
            damaged[offset] ^= 1 << bit
            file.write_bytes(damaged)
            try:
                assert same(read(), expected), f"seed {seed}: {file.name} with bit {bit} of byte {offset} flipped"
            except BsslError as error:
                refused += 1
                assert "\n" not in str(error) and error.next_step
            finally:
                file.write_bytes(whole)
    return refused


@pytest.fixture(params=[FEW, pytest.param(MANY, marks=pytest.mark.slow)])
def count(request: pytest.FixtureRequest) -> int:
    return int(request.param)


def test_tensors_and_their_metadata(tmp_path: Path, count: int, rng: np.random.Generator) -> None:
    path = tmp_path / "file.safetensors"
    tensors = {f"part/{i}": rng.standard_normal((8, 3 + i)).astype(np.float32) for i in range(9)}
    write_tensors(path, tensors | {"count": np.array(3)}, {"step": "3", "sums": '{"loss": 0.5}'})

    def read() -> object:
        found, metadata = read_tensors(path)
        return found, metadata

    assert flip_each([path], read, count) > 0.9 * count


def test_a_checkpoint_falls_back_to_the_one_before(
    tmp_path: Path, count: int, rng: np.random.Generator, caplog: pytest.LogCaptureFixture
) -> None:
    run = RunFolder(tmp_path)
    for step in (1, 2):
        run.save_checkpoint(step, "only", {"w": rng.standard_normal(300).astype(np.float32)}, {"loss": 0.1 * step})
    before, newest = (
        (tensors, {key: value for key, value in about.items() if key != "sums"})
        for tensors, about in map(read_tensors, run.checkpoints())
    )
    taken = set()

    def read() -> bool:
        caplog.clear()
        found = run.latest_checkpoint()
        assert found is not None
        content = (found.tensors, {"step": str(found.step), "stage": found.stage})
        if same(content, newest) and found.sums == {"loss": 0.2}:
            taken.add(2)
            return True
        [line] = [one for one in caplog.messages if "Trying the previous checkpoint" in one]
        assert line.startswith(f"error[run-folder]: {run.checkpoints()[-1]}")
        taken.add(1)
        return same(content, before) and found.sums == {"loss": 0.1}

    caplog.set_level(logging.WARNING)
    assert flip_each(run.checkpoints()[-1:], read, count) == 0
    assert 1 in taken


def test_a_networks_weights_and_description(tmp_path: Path, count: int) -> None:
    network = Network("binary_resnet", Preprocessing(28, 1, (0.25,), (0.5,)), {"depth": 1}, labels_used="nobody")
    student = binary_resnet(28, 1, depth=1)
    save_network(tmp_path, network, {"student": student})

    def read() -> object:
        load_weights(tmp_path, {"student": student})
        return read_network(tmp_path), student.get_weights()

    assert flip_each([tmp_path / "weights.safetensors", tmp_path / "network.json"], read, count // 4) > 0.8 * count // 4


def test_a_runs_settings(tmp_path: Path, count: int) -> None:
    run = settled(PretrainConfig, {"method": "moco", "data": {"source": "embedded"}})
    write_json(tmp_path / "environment.json", {"config": run.tables(), "threads": 1})
    write_config(tmp_path / "config.toml", run.tables())

    def read() -> object:
        found = configured(PretrainConfig, {}, tmp_path)
        return {name: "" for name in differences(run.tables(), found.tables()) if name not in MOVABLE}

    flip_each([tmp_path / "config.toml", tmp_path / "environment.json"], read, count // 2)


def test_cached_images_are_decoded_again(
    tmp_path: Path, count: int, rng: np.random.Generator, caplog: pytest.LogCaptureFixture
) -> None:
    for number in range(6):
        folder = tmp_path / "photos" / f"class{number % 2}"
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (9, 8, 3), np.uint8)).save(folder / f"{number}.png")

    def load() -> object:
        caplog.clear()
        data = load_data(str(tmp_path / "photos"), image_size=8, cache_dir=tmp_path / "cache")
        again = [one for one in caplog.messages if "are not used" in one]
        assert len(again) == any(one.startswith("decoding") for one in caplog.messages)
        assert data.test is not None
        return data.train.fingerprint(), data.test.fingerprint(), data.skipped_files

    load()
    caplog.set_level(logging.INFO)
    [index] = (tmp_path / "cache").glob("*/index.json")
    files = [path for path in index.parent.iterdir() if path.name.startswith(("index", "train"))]
    assert len(files) == 5
    assert flip_each(files, load, count) == 0


class _Recipe(Recipe):
    """Asks for a teacher's outputs, and no more."""

    teacher_outputs = staticmethod(lambda view: tf.reduce_mean(view, axis=(1, 3)))

    def losses(self, batch: Batch, scheduled: tf.Tensor) -> Outcome:
        raise NotImplementedError


def test_a_teachers_kept_outputs_are_computed_again(
    tmp_path: Path,
    count: int,
    rng: np.random.Generator,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setenv("BSSL_TF_CACHE", str(tmp_path))
    images = ImageSet("eight", rng.integers(0, 256, (8, 8, 8, 1), np.uint8), np.ones(8, np.float32), None)
    inputs = Inputs(images, Preprocessing(8, 1, (0.5,), (0.5,)), PRESETS["lite"])
    config = TrainingConfig(batch_size=4, epochs=2)

    def read() -> object:
        caplog.clear()
        found, _ = teacher_cache.with_teacher_cache(inputs, _Recipe(), config, 2, "fingerprint")
        again = [one for one in caplog.messages if "is not used: it is damaged" in one]
        assert len(again) == any(one.startswith("computing") for one in caplog.messages)
        assert found.teacher is not None
        return np.array(found.teacher)

    read()
    caplog.set_level(logging.INFO)
    [path] = tmp_path.glob("*.teacher.npy")
    content = path.read_bytes()
    # The real one takes a tenth of a second.
    real = teacher_cache._write
    written = []

    def write(growing: Any, *arguments: Any) -> None:
        written.append(growing)
        if len(written) < 5:
            real(growing, *arguments)
            assert path.read_bytes() == content
        path.write_bytes(content)

    monkeypatch.setattr(teacher_cache, "_write", write)
    assert flip_each([path], read, count) == 0
    assert len(written) == count


def test_an_entry_of_the_zoo(tmp_path: Path, count: int) -> None:
    place = shutil.copytree(zoo.find(READY).folder, tmp_path / READY)

    def read() -> object:
        entry = zoo.find(READY, tmp_path)
        return dataclasses.asdict(entry), read_network(entry.folder), read_tensors(place / "weights.safetensors")[0]

    files = [place / name for name in ("entry.json", "network.json", "weights.safetensors")]
    assert flip_each(files, read, count) > 0.5 * count


def test_every_file_of_a_bundle(tmp_path: Path, count: int) -> None:
    bundle = shutil.copytree(zoo.find(READY).folder / "bundle", tmp_path / "bundle")

    def read() -> object:
        found = read_bundle(bundle)
        return found.manifest, found.model, found.golden_inputs, found.golden_outputs

    files = sorted(path for path in bundle.rglob("*") if path.is_file())
    assert flip_each(files, read, count) > 0.5 * count
