"""Two devices compute what one computes: virtual CPUs of one process (mirrored), and two processes (multiworker)."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bssl_tf.backend import tf
from bssl_tf.checkpoints import read_tensors
from bssl_tf.engine.distribution import Distribution, distribution_of
from bssl_tf.errors import ConfigError, WorkerError
from bssl_tf.methods import registry

WORKER = [sys.executable, "-m", "tests.engine.distributed"]
LAUNCH = [sys.executable, "-m", "bssl_tf", "launch", "--workers", "2"]


def run(what: str, kind: str, out: Path, *more: object, status: int = 0) -> str:
    command = [*(LAUNCH if kind == "multiworker" else []), *WORKER, what, kind, str(out), *map(str, more)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == status, done.stderr
    return done.stderr


@pytest.fixture(scope="module")
def mirrored(tmp_path_factory: pytest.TempPathFactory) -> Any:
    out = tmp_path_factory.mktemp("mirrored") / "found.json"
    run("losses", "mirrored", out)
    return json.loads(out.read_text())


@pytest.fixture(scope="module")
def workers(tmp_path_factory: pytest.TempPathFactory) -> Any:
    out = tmp_path_factory.mktemp("workers") / "found.json"
    run("losses", "multiworker", out)
    return json.loads(out.read_text())


def test_on_two_devices_every_method_has_the_losses_of_one(mirrored: Any) -> None:
    assert mirrored["1"].keys() == set(registry.names_for("pretrain"))
    assert_same_losses(mirrored["1"], mirrored["2"])


@pytest.mark.parametrize("what", ["", "fine-tuning on "])
def test_with_two_workers_every_method_has_the_losses_of_one(mirrored: Any, workers: Any, what: str) -> None:
    assert_same_losses(mirrored[f"{what}1"], workers[f"{what}2"])


def test_on_two_devices_a_binary_network_has_the_losses_of_one(mirrored: Any) -> None:
    one, two = mirrored["binary on 1"], mirrored["binary on 2"]
    assert len(one) == len(two) > 1 and one[0]["loss"] != one[-1]["loss"]
    for number, (expected, parts) in enumerate(zip(one, two, strict=True)):
        assert parts == pytest.approx(expected, rel=1e-5, abs=1e-6), f"step {number}"


def test_on_two_devices_fine_tuning_has_the_losses_of_one(mirrored: Any) -> None:
    """With and without a teacher, and images that it alone labels; for one label per image, and for several."""
    one = mirrored["fine-tuning on 1"]
    assert {name for name, steps in one.items() if "distillation" in steps[0]} == {"taught", "taught, unlabelled"}
    assert_same_losses(one, mirrored["fine-tuning on 2"])


def assert_same_losses(one: Any, two: Any) -> None:
    assert one.keys() == two.keys()
    for name, steps in one.items():
        assert len(steps) == len(two[name]) == 20
        for number, (expected, parts) in enumerate(zip(steps, two[name], strict=True)):
            # The same sums in another order, by SGD.
            assert parts == pytest.approx(expected, rel=1e-5, abs=1e-6), f"{name}, step {number}"
        assert any("moving_variance" in part for part in steps[-1])
        assert abs(steps[-1]["loss"] / steps[0]["loss"] - 1) > 1e-3, "it has not moved, so nothing was compared"


@pytest.mark.parametrize("users", [False, True])
def test_batch_norm_takes_the_whole_batch_or_each_device_its_part(mirrored: Any, users: bool) -> None:
    whole, own = (mirrored["batch norm"][f"{key} {users}"] for key in (True, False))
    numbers = np.arange(8.0)
    normal = (numbers - numbers.mean()) / np.sqrt(numbers.var() + 1e-5)
    np.testing.assert_allclose(whole[0], normal, rtol=1e-5)
    part = numbers[:4]
    np.testing.assert_allclose(own[0], np.tile((part - part.mean()) / np.sqrt(part.var() + 1e-5), 2), rtol=1e-5)
    # A tenth of the mean: of all numbers, or of the first device's.
    assert whole[1] == pytest.approx([0.35]) and own[1] == pytest.approx([0.15])


def test_all_that_is_drawn_is_the_same_on_two_devices(mirrored: Any) -> None:
    one, two = mirrored["drawn"]
    assert one == two and len({*one[0], *one[1]}) == 16


def test_scaled_losses_move_no_weight_where_a_device_has_a_gradient_that_is_not_finite(mirrored: Any) -> None:
    # sqrt(4 w) and sqrt(16 w) have the gradients 1 and 2 at w = 1; that of sqrt(0 w) is not a number.
    assert mirrored["scaled"] == [[0.25, 8.0], [0.25, 4.0]]


@pytest.mark.slow
def test_a_run_that_goes_on_from_a_checkpoint_ends_bit_for_bit_like_one_that_was_not_cut(tmp_path: Path) -> None:
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    whole.mkdir()
    run("weights", "mirrored", whole)
    shutil.copytree(whole, cut)
    (cut / "final.safetensors").unlink()
    max((cut / "checkpoints").iterdir()).unlink()
    run("weights", "mirrored", cut)
    assert_same(whole, cut)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["mirrored", "multiworker"])
def test_every_method_that_goes_on_ends_bit_for_bit_like_one_that_was_not_cut(kind: str, tmp_path: Path) -> None:
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    for method in registry.names_for("pretrain"):
        (whole / method).mkdir(parents=True)
    run("every", kind, whole)
    shutil.copytree(whole, cut)
    for method in registry.names_for("pretrain"):
        (cut / method / "final.safetensors").unlink()
        *_, last = sorted((cut / method / "checkpoints").iterdir())
        last.unlink()
    run("every", kind, cut)
    for method in registry.names_for("pretrain"):
        assert_same(whole / method, cut / method)


@pytest.mark.slow
def test_a_job_whose_workers_are_killed_at_random_ends_each_time_and_goes_on_to_the_same_weights(
    tmp_path: Path, rng: np.random.Generator
) -> None:
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    for folder in (whole, cut):
        folder.mkdir()
    run("weights", "multiworker", whole)
    # In every epoch but the first, after which there is a checkpoint, and the last.
    for epoch in range(1, 11):
        worker, step, seconds = int(rng.integers(2)), 4 * epoch + int(rng.integers(4)), float(rng.uniform(0, 0.05))
        said = run("weights", "multiworker", cut, worker, step, seconds, status=128 + 9)
        assert time.time() - (cut / "killed").stat().st_mtime < 30
        assert f"error[worker]: worker {worker} was killed by SIGKILL" in said
        assert list((cut / "checkpoints").glob("step-*.safetensors")) and not (cut / "final.safetensors").exists()
    run("weights", "multiworker", cut)
    assert_same(whole, cut)


def assert_same(one: Path, other: Path) -> None:
    (expected, _), (found, _) = (read_tensors(folder / "final.safetensors") for folder in (one, other))
    assert expected.keys() == found.keys()
    for name, tensor in expected.items():
        np.testing.assert_array_equal(found[name], tensor, err_msg=name)


@pytest.mark.parametrize(
    ("value", "what"),
    [
        ("", "JSONDecodeError"),
        ('{"cluster": {}}', "'task'"),
        ('{"cluster": {"worker": ["a:1"]}, "task": {"type": "worker", "index": 1}}', "there is no worker 1"),
        ('{"cluster": {"worker": ["a:1"]}, "task": {"type": "ps", "index": 0}}', "there is no ps 0"),
        ('{"cluster": {"worker": ["a:1"]}, "task": {"type": "worker", "index": 1e999}}', "OverflowError"),
    ],
)
def test_a_wrong_tf_config_is_one_clear_line(value: str, what: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TF_CONFIG", value)
    with pytest.raises(ConfigError, match="TF_CONFIG does not name the workers") as error:
        distribution_of("multiworker", 16)
    assert what in str(error.value) and "bssl-tf launch" in str(error.value)


def test_a_tpu_that_is_not_there_is_one_clear_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TPU_NAME", raising=False)
    with pytest.raises(ConfigError, match=r"there is no TPU \(Please provide a TPU Name.*Set TPU_NAME") as error:
        distribution_of("tpu", 16)
    assert "\n" not in str(error.value)


def test_workers_that_do_not_find_each_other_are_one_clear_line(monkeypatch: pytest.MonkeyPatch) -> None:
    def alone() -> None:
        raise tf.errors.DeadlineExceededError(None, None, "Barrier timed out\nand more")

    monkeypatch.setattr(tf.distribute, "MultiWorkerMirroredStrategy", alone)
    monkeypatch.setenv("TF_CONFIG", '{"cluster": {"worker": ["a:1", "b:2"]}, "task": {"type": "worker", "index": 1}}')
    with pytest.raises(WorkerError, match=r"b:2 cannot be reached .*\(Barrier timed out\)\. Start all workers"):
        distribution_of("multiworker", 16)


@pytest.mark.parametrize(
    ("workers", "message", "who"),
    [
        (("a:1", "b:2"), "Socket closed", r"worker 1 \(b:2\)"),
        (("a:1", "b:2", "c:3"), "[/job:worker/replica:0/task:2]: Connection refused", r"worker 2 \(c:3\)"),
        (("a:1", "b:2", "c:3"), "Socket closed", "another worker"),
    ],
)
def test_a_worker_that_is_lost_is_named(workers: tuple[str, ...], message: str, who: str) -> None:
    names = {f"/job:worker/replica:0/task:{number}": address for number, address in enumerate(workers)}
    devices = Distribution(tf.distribute.get_strategy(), names)
    with pytest.raises(WorkerError, match=who + " has stopped"), devices.losses_named():
        raise tf.errors.UnavailableError(None, None, message)
