from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bssl_tf import zoo
from bssl_tf.errors import BundleError, NetworkError, RunFolderError
from bssl_tf.models.saved import load_weights, read_network
from bssl_tf.zoo.add import add
from bssl_tf_deploy.bundle import read_bundle

Call = Callable[..., Any]


@pytest.fixture
def own_zoo(tiny_student: Path, tmp_path: Path) -> Path:
    """A zoo with one entry, made of a run."""
    (tmp_path / "zoo").mkdir()
    add(tiny_student, "tiny", "bssl-tf pretrain ...", tmp_path / "zoo")
    return tmp_path / "zoo"


def test_an_entry_says_what_it_is_and_holds_the_same_network(own_zoo: Path, tiny_student: Path) -> None:
    entry = zoo.find("tiny", own_zoo)
    evaluation = json.loads((tiny_student / "evaluation.json").read_text())
    assert entry.top1 == pytest.approx(evaluation["rows"][0]["scores"]["linear-probe"][0], abs=0.01)
    assert (entry.method, entry.data, entry.command) == ("s2bnn", "embedded", "bssl-tf pretrain ...")
    network = read_network(entry.folder)
    ours, theirs = network.build(), network.build()
    load_weights(entry.folder, {"student": ours})
    load_weights(tiny_student / "student", {"student": theirs})
    x = np.random.default_rng(0).standard_normal((4, *ours.input_shape[1:])).astype(np.float32)
    np.testing.assert_allclose(ours(x), theirs(x), rtol=1e-4, atol=1e-4)
    # The teacher's path belongs to the machine that trained.
    assert "teacher" not in [
        line.split(" =")[0] for line in (entry.folder / "config.toml").read_text().splitlines() if '"/' in line
    ]


def test_a_changed_file_and_an_unknown_name_are_refused(own_zoo: Path) -> None:
    with pytest.raises(NetworkError, match=r"the zoo has no 'tinny'\. Did you mean zoo:tiny\?"):
        zoo.find("tinny", own_zoo)
    weights = own_zoo / "tiny" / "weights.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"x")
    with pytest.raises(NetworkError, match="not those of its entry"):
        zoo.find("tiny", own_zoo)
    (own_zoo / "tiny" / "entry.json").write_text('{"surprise": 1}')
    with pytest.raises(NetworkError, match="is damaged"):
        zoo.find("tiny", own_zoo)


def test_a_run_folder_of_an_entry_is_evaluated_like_any_other(own_zoo: Path, tmp_path: Path, bssl_tf: Call) -> None:
    out = tmp_path / "run"
    zoo.make_run(zoo.find("tiny", own_zoo), out)
    with pytest.raises(RunFolderError, match="is not empty"):
        zoo.make_run(zoo.find("tiny", own_zoo), out)
    done = bssl_tf("evaluate", out, "--protocol", "linear-probe")
    assert done.returncode == 0, done.stderr
    assert (out / "probe" / "probe.json").exists()


def test_a_ready_bundle_is_copied_out_and_runs(tiny_student: Path, tmp_path: Path, bssl_tf: Call) -> None:
    exported, out = tmp_path / "exported", tmp_path / "bundle"
    assert bssl_tf("export", tiny_student, "--target", "x86_64", "--out", exported).returncode == 0
    entry = add(tiny_student, "ready", "bssl-tf pretrain ...", tmp_path / "zoo", exported)
    zoo.copy_bundle(entry, out)
    assert not (out / "lib").exists()
    assert (out / "model.tflite").read_bytes() == (exported / "model.tflite").read_bytes()
    assert len(list((out / "examples").iterdir())) == len(list((exported / "examples").iterdir()))
    done = bssl_tf("run", out, *sorted((out / "examples").iterdir()))
    assert done.returncode == 0, done.stderr
    with pytest.raises(BundleError, match="already holds a bundle"):
        zoo.copy_bundle(entry, out)
    add(tiny_student, "bare", "bssl-tf pretrain ...", tmp_path / "zoo")
    with pytest.raises(NetworkError, match=r"zoo:bare has no ready bundle\. Take ready"):
        zoo.copy_bundle(zoo.find("bare", tmp_path / "zoo"), tmp_path / "other")


@pytest.mark.parametrize("name", zoo.names())
def test_every_entry_of_the_package_is_whole_and_small(name: str) -> None:
    entry = zoo.find(name)
    assert entry.weights_bytes == (entry.folder / "weights.safetensors").stat().st_size < 1_000_000
    network = read_network(entry.folder)
    load_weights(entry.folder, {"student": network.build()})
    if bundle := zoo.bundle_of(entry):
        read_bundle(bundle)
    assert entry.command.startswith("bssl-tf ") and 0 < entry.top1 <= 100


@pytest.mark.slow
def test_pretraining_begins_with_the_weights_of_an_entry(own_zoo: Path, tiny_teacher: Path, tmp_path: Path) -> None:
    """With a learning rate of nothing the student ends as it began."""
    # The package's own zoo is read from where the package is; this one needs a process that knows better.
    script = (
        "import sys; from pathlib import Path; from bssl_tf import zoo; from bssl_tf.cli.main import main;"
        "zoo.zoo_folder = lambda: Path(sys.argv.pop(1)); main()"
    )

    def pretrain(*arguments: object) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-c", script.replace("sys.argv.pop(1)", repr(str(own_zoo))), "pretrain"]
        command += [*map(str, arguments), "--student", "zoo:tiny", "--out", str(tmp_path / "run")]
        return subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)

    common = ["--teacher", tiny_teacher, "--data", "embedded", "--limit", 32, "--batch-size", 32, "--epochs", 1]
    common += ["--learning-rate", 1e-12, "--threads", 1]
    done = pretrain(*common, "--width", 64)
    assert (done.returncode, "zoo:tiny has a width of its own" in done.stderr) == (3, True), done.stderr
    done = pretrain(*common, "--image-size", 64)
    assert (done.returncode, "zoo:tiny is for image_size 28, not 64" in done.stderr) == (3, True), done.stderr
    for more in ((), ("--resume",)):
        done = pretrain(*common, *more)
        assert done.returncode == 0, done.stderr
    saved = tmp_path / "run" / "student"
    network = read_network(saved)
    before, after = network.build(), network.build()
    load_weights(own_zoo / "tiny", {"student": before})
    load_weights(saved, {"student": after})
    for a, b in zip(before.trainable_variables, after.trainable_variables, strict=True):
        np.testing.assert_allclose(a, b, atol=1e-6)


def test_an_entry_is_found_by_the_name_that_the_list_shows() -> None:
    assert zoo.find("zoo:fashion-mnist-28") == zoo.find("fashion-mnist-28")


def test_json_is_all_that_is_printed_whatever_is_made(tmp_path: Path, bssl_tf: Call) -> None:
    run, bundle = tmp_path / "run", tmp_path / "bundle"
    done = bssl_tf("zoo", "fashion-mnist-28", "--out", run, "--bundle", bundle, "--json")
    assert done.returncode == 0, done.stderr
    [entry] = json.loads(done.stdout)
    assert (entry["name"], entry["out"], entry["bundle"]) == ("fashion-mnist-28", str(run), str(bundle))
    assert (run / "student").is_dir() and (bundle / "model.tflite").exists()
