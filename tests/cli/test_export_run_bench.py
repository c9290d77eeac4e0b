"""export, run and bench as a user meets them, with real LCE and real interpreters."""

from __future__ import annotations

import dataclasses
import json
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from bssl_tf.bench_records import read_benchmarks
from bssl_tf.errors import ConfigError, UsageError
from bssl_tf_deploy import load
from bssl_tf_deploy.bundle import read_bundle
from bssl_tf_deploy.embedding import bundle_features
from bssl_tf_deploy.errors import BundleError
from bssl_tf_deploy.files import without_checksum
from bssl_tf_deploy.head_commands import learned
from bssl_tf_deploy.heads import read_head
from bssl_tf_deploy.library import bundled_name, describe, host_target, own_library
from bssl_tf_deploy.quiet import captured_output
from bssl_tf_deploy.record import Record, RuntimeLibrary
from bssl_tf_deploy.tasks.classification import Probe
from tests.converters.networks import image_set, write_run_folder
from tests.edited import edited

Command = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture(scope="module")
def run_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that was evaluated."""
    return write_run_folder(tmp_path_factory.mktemp("run") / "run")


@pytest.fixture(scope="module")
def exported(run_folder: Path, bssl_tf: Command) -> subprocess.CompletedProcess[str]:
    return bssl_tf("export", run_folder, "--target", "arm64", "--images", "40")


@pytest.fixture(scope="module")
def bundle(run_folder: Path, exported: subprocess.CompletedProcess[str]) -> Path:
    """RUN/bundle-arm64. Not to be changed; see `copy`."""
    assert exported.returncode == 0, exported.stderr
    return run_folder / "bundle-arm64"


@pytest.fixture
def copy(bundle: Path, tmp_path: Path) -> Path:
    return shutil.copytree(bundle, tmp_path / "copy")


def own() -> Path:
    """The library of this checkout."""
    library = own_library()
    assert library is not None, "`make setup` builds it"
    return library


def edit_golden(bundle: Path, change: Callable[[np.ndarray], np.ndarray]) -> None:
    """Other golden outputs, with the right hash: what another kernel would look like."""
    import hashlib

    [inputs], [outputs] = read_bundle(bundle).golden_inputs, read_bundle(bundle).golden_outputs
    np.savez(bundle / "golden.npz", **{"input/image": inputs, "output/logits": change(outputs)})
    content = (bundle / "golden.npz").read_bytes()
    manifest = without_checksum(json.loads((bundle / "manifest.json").read_text()))
    manifest["files"]["golden.npz"] = {"sha256": hashlib.sha256(content).hexdigest(), "bytes": len(content)}
    (bundle / "manifest.json").write_text(edited(manifest))


def fails(done: subprocess.CompletedProcess[str], status: int, *words: str) -> None:
    """One line on stderr that says all `words`, nothing on stdout, and the status."""
    assert done.returncode == status, done.stderr
    assert done.stdout == ""
    line = done.stderr.strip().splitlines()[-1]
    assert line.startswith("error[")
    assert "Traceback" not in done.stderr
    for word in words:
        assert word in line


def test_export_says_what_it_made(exported: subprocess.CompletedProcess[str], bundle: Path) -> None:
    lines = exported.stdout.splitlines()
    size = len(read_bundle(bundle).model) / 1024
    assert lines[0] == f"{bundle}: model.tflite has {size:.1f} KiB"
    assert lines[1] == "3 binary convolutions (LceBconv2d), 1 float, 1 float dense"
    assert lines[2].startswith("parity with Keras on 40 images: 100.00 % top-1 agreement")
    assert re.fullmatch(r"top-1 on 40 test images: ([0-9.]+) %, \1 % in Keras", lines[3])
    assert re.fullmatch(
        r"lib/arm64/libbssl_tf_runtime\.so: [0-9.]+ KiB, by zig .*, needs glibc 2\.[0-9]+ or newer", lines[4]
    )
    assert len(lines) == 5
    assert f"next: bssl-tf run {bundle} IMAGE" in exported.stderr


def test_the_manifest_says_all_that_a_device_needs(bundle: Path) -> None:
    content = read_bundle(bundle)
    manifest = content.manifest
    assert manifest.target == "arm64"
    assert manifest.table.labels == image_set().class_names
    assert manifest.operators["LceBconv2d"] == 3
    assert manifest.network.arguments == {"depth": 1}
    assert manifest.training is not None
    assert manifest.table.probe == Probe("embedded", 12.5)
    assert (manifest.training.method, manifest.training.data) == ("s2bnn", "embedded")
    assert {"bssl-tf", "larq-compute-engine", "tensorflow"} <= set(manifest.created_by)
    assert len(list((bundle / "examples").glob("*.png"))) == 4


def test_exporting_again_gives_the_same_bytes_and_no_path_of_this_machine(
    run_folder: Path, bundle: Path, bssl_tf: Command, tmp_path: Path
) -> None:
    again = tmp_path / "elsewhere" / "bundle"
    done = bssl_tf("export", run_folder, "--target", "arm64", "--images", "40", "--out", again, "--json")
    assert done.returncode == 0, done.stderr
    record = json.loads(done.stdout)
    assert record["bundle"] == str(again)
    assert record["manifest"] == without_checksum(json.loads((bundle / "manifest.json").read_text()))
    files = [file.relative_to(bundle) for file in bundle.rglob("*") if file.is_file()]
    assert len(files) == 4 + 4 + 1
    for file in files:
        content = (bundle / file).read_bytes()
        assert (again / file).read_bytes() == content, file
        assert str(run_folder.parent).encode() not in content


def test_the_library_is_for_the_bundles_target(bundle: Path) -> None:
    content = (bundle / bundled_name("arm64")).read_bytes()
    # ELF, 64 bits, AArch64.
    assert content[:5] == b"\x7fELF\x02" and content[18:20] == (183).to_bytes(2, "little")
    readme = (bundle / "README.md").read_text()
    assert "bssl-tf-deploy run . examples/*.png" in readme
    assert f'load_delegate("{bundled_name("arm64")}"' in readme
    assert "(glibc 2.17 or newer)" in readme


@pytest.mark.parametrize("target", ["arm32", "armv7l"])
def test_export_refuses_32_bit_arm_with_the_reason(run_folder: Path, bssl_tf: Command, target: str) -> None:
    fails(bssl_tf("export", run_folder, "--target", target), 10, f"no runtime for {target}", "by value", "for arm64")


def test_export_for_android_says_how_to_run_it_there(run_folder: Path, bssl_tf: Command, tmp_path: Path) -> None:
    done = bssl_tf("export", run_folder, "--target", "android-arm64", "--images", "8", "--out", tmp_path / "bundle")
    assert done.returncode == 0, done.stderr
    readme = (tmp_path / "bundle" / "README.md").read_text()
    assert "benchmark_model" in readme
    assert "--external_delegate_path=/data/local/tmp/libbssl_tf_runtime.so" in readme
    manifest = read_bundle(tmp_path / "bundle").manifest
    assert manifest.files[bundled_name("android-arm64")].bytes > 10_000
    # No glibc there.
    assert all(manifest.created_by.values()) and "runtime-compiler" in manifest.created_by
    assert "runtime-glibc" not in readme


def test_export_without_a_compiler_says_how_to_get_one(run_folder: Path, tmp_path: Path) -> None:
    """Before the work, not after."""
    arguments = ["bssl-tf", "export", str(run_folder), "--target", "arm64", "--out", str(tmp_path / "b")]
    program = (
        "import subprocess, sys\nfrom bssl_tf.cli.main import main\n"
        # What builds is another process; with -S it finds no installed package, and so no ziglang.
        "run = subprocess.run\n"
        "subprocess.run = lambda command, **options: run([command[0], '-S', *command[1:]], **options)\n"
        f"sys.argv = {arguments}\nmain()\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=300, check=False)
    fails(done, 10, "no compiler for arm64", "pip install ziglang")
    assert "converting" not in done.stderr
    assert not (tmp_path / "b").exists()


def test_export_refuses_a_place_that_is_taken_before_it_works(run_folder: Path, bundle: Path, bssl_tf: Command) -> None:
    done = bssl_tf("export", run_folder, "--target", "arm64")
    fails(done, 7, "already holds a bundle", "--overwrite")
    assert "converting" not in done.stderr
    fails(
        bssl_tf("export", run_folder, "--target", "arm64", "--out", run_folder, "--overwrite"), 7, "was left unchanged"
    )


def test_export_tells_what_is_missing(run_folder: Path, bssl_tf: Command, tmp_path: Path) -> None:
    fails(bssl_tf("export", tmp_path / "none", "--target", "arm64"), 5, "config.toml")
    unevaluated = shutil.copytree(run_folder, tmp_path / "run", ignore=shutil.ignore_patterns("probe", "bundle*"))
    fails(bssl_tf("export", unevaluated, "--target", "arm64"), 5, "bssl-tf evaluate")
    assert bssl_tf("export", run_folder, "--target", "riscv").returncode == 2
    assert bssl_tf("export", run_folder).returncode == 2


def test_run_classifies_the_examples_like_the_golden_outputs(bundle: Path, bssl_tf: Command) -> None:
    content = read_bundle(bundle)
    examples = sorted((bundle / "examples").iterdir())
    done = bssl_tf("run", bundle, *examples, "--top", "1")
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    best = [content.manifest.table.labels[index] for index in np.argmax(content.golden_outputs[0], axis=1)]
    lines = [line.split("  ") for line in done.stdout.splitlines()]
    assert [line[:2] for line in lines] == [[str(file), label] for file, label in zip(examples, best, strict=True)]
    lce = bssl_tf("run", bundle, *examples, "--top", "1", "--runtime", "lce")
    assert lce.stdout == done.stdout


def test_run_prints_what_the_network_says(bundle: Path, bssl_tf: Command) -> None:
    examples = sorted((bundle / "examples").iterdir())
    done = bssl_tf("run", bundle, *examples, "--outputs", "--json", "--threads", "2")
    assert done.returncode == 0, done.stderr
    outputs = np.array([record["outputs"]["logits"] for record in json.loads(done.stdout)])
    np.testing.assert_allclose(outputs, read_bundle(bundle).golden_outputs[0], rtol=1e-3, atol=1e-3)
    done = bssl_tf("run", bundle, examples[0], "--outputs")
    np.testing.assert_allclose([float(word) for word in done.stdout.split()[1:]], outputs[0], rtol=1e-5)


def test_heads_are_learned_at_export_and_answer_in_run(run_folder: Path, bssl_tf: Command, tmp_path: Path) -> None:
    photos, bundle = tmp_path / "photos", tmp_path / "bundle"
    images = np.random.default_rng(0).integers(0, 60, (12, 28, 28), dtype=np.uint8)
    for number, image in enumerate(images):
        file = photos / ("dark", "light")[number % 2] / f"{number}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image + 190 * (number % 2)).save(file)
    options = ("--target", host_target(), "--images", 40, "--out", bundle)
    for head, status, words in (
        ("x", ConfigError.exit_status, "is not NAME=FOLDER"),
        (f"x={tmp_path / 'none'}", UsageError.exit_status, "is not a folder"),
        (f"a b={photos}", UsageError.exit_status, "a b"),
    ):
        fails(bssl_tf("export", run_folder, *options, "--head", head), status, words)
    assert not bundle.exists()
    done = bssl_tf("export", run_folder, *options, "--head", f"first={photos}", "--head", f"second={photos}")
    assert done.returncode == 0, done.stderr
    assert "head second:\na linear head" in done.stdout and done.stdout.count("2 classes, 12 photos") == 2
    # What `bssl-tf-deploy learn` makes of the same photos.
    with captured_output():
        network = bundle_features(load(bundle))
    expected, _ = learned(network, photos)
    found = read_head(read_bundle(bundle), "second")
    assert dataclasses.replace(found.about, arrays={}) == expected.about
    np.testing.assert_array_equal(found.weights, expected.weights)

    photo = photos / "light" / "11.png"
    [alone] = json.loads(bssl_tf("run", bundle, photo, "--head", "first", "--json").stdout)
    assert {one["label"] for one in alone["classes"]} >= {"dark", "light"}
    done = bssl_tf("run", bundle, photo, "--head", "first", "--head", "second", "--json")
    assert done.returncode == 0 and "first" in done.stdout and "second" in done.stdout, done.stderr
    fails(bssl_tf("run", bundle, photo, "--head", "other"), BundleError.exit_status, "other")
    fails(
        bssl_tf("run", bundle, photo, "--head", "first", "--check"), UsageError.exit_status, "compares whole networks"
    )


def test_run_check_compares_both_runtimes(bundle: Path, bssl_tf: Command, tmp_path: Path) -> None:
    examples = sorted((bundle / "examples").iterdir())
    for runtime, second in (("auto", "LCE indirect_bgemm"), ("lce", "bssl-tf runtime")):
        done = bssl_tf("run", bundle, *examples, "--top", "1", "--check", "--runtime", runtime)
        assert done.returncode == 0, done.stderr
        assert len(done.stdout.splitlines()) == 4
        assert done.stderr.startswith(second)
        assert "agrees on 4 images: differences up to" in done.stderr


def test_run_goes_on_after_a_bad_image_and_says_so_at_the_end(bundle: Path, bssl_tf: Command, tmp_path: Path) -> None:
    Image.new("RGB", (300, 200), "red").save(tmp_path / "good.png")
    (tmp_path / "bad.png").write_bytes(b"no image")
    done = bssl_tf("run", bundle, tmp_path / "bad.png", tmp_path / "good.png")
    assert done.returncode == 9
    assert done.stderr.startswith(f"error[image]: {tmp_path / 'bad.png'} cannot be read: not an image")
    assert len(done.stderr.splitlines()) == 1
    lines = [line.split("  ") for line in done.stdout.splitlines()]
    assert [line[0] for line in lines] == [str(tmp_path / "good.png")] * 3
    scores = [float(line[2]) for line in lines]
    assert scores == sorted(scores, reverse=True)

    done = bssl_tf("run", bundle, tmp_path / "bad.png", tmp_path / "good.png", "--json", "--top", "100")
    assert done.returncode == 9
    bad, good = json.loads(done.stdout)
    assert "not an image" in bad["error"]
    assert sum(entry["score"] for entry in good["classes"]) == pytest.approx(1)
    assert len(good["classes"]) == 10


def test_run_needs_a_sound_bundle(copy: Path, bssl_tf: Command, tmp_path: Path) -> None:
    image = next((copy / "examples").iterdir())
    fails(bssl_tf("run", tmp_path / "none", image), 7, "does not exist")
    edit_golden(copy, lambda outputs: outputs + np.float32(0.5))
    fails(bssl_tf("run", copy, image), 7, "does not reproduce the golden outputs", "4 of 4")
    with (copy / "model.tflite").open("r+b") as file:
        file.write(b"xxxx")
    fails(bssl_tf("run", copy, image), 7, "model.tflite was changed")


def test_bench_prints_the_figures_with_their_conditions(bundle: Path, bssl_tf: Command, tmp_path: Path) -> None:
    record_file = tmp_path / "bench.jsonl"
    arguments = ("bench", bundle, "--repetitions", "20", "--warmup", "3", "--record", record_file)
    done = bssl_tf(*arguments, "--runtime", "lce")
    assert done.returncode == 0, done.stderr
    assert "INFO" not in done.stderr
    for word in ("LCE indirect_bgemm", "XNNPACK", "cores", "larq-compute-engine 0.", "threads", "calls", "p50_ms"):
        assert word in done.stdout
    done = bssl_tf(*arguments, "--json", "--operators")
    record = json.loads(done.stdout)
    found = Record.from_dict(record)
    [run] = found.runs
    [profile] = run.profiles
    assert run.threads == 1 and "LceBconv2d" in "".join(row.operator for row in profile.rows)
    version, kernels = describe(own())
    assert found.library == RuntimeLibrary(version, tuple(kernels.split(",")))
    assert run.networks["binary"].kernel.startswith(f"bssl-tf runtime {kernels.partition(',')[0]},")
    assert found.versions["bssl-tf runtime"] == version
    assert {"ai-edge-litert", "numpy"} <= set(found.versions)
    assert found.command and "--operators" in found.command and found.commit and found.time
    assert found.conditions.warmup_calls == 3
    with_lce, written = read_benchmarks(record_file)
    assert written == found and with_lce.library is None
    assert with_lce.runs[0].networks["binary"].kernel.startswith("LCE indirect_bgemm")
    fails(
        bssl_tf(*arguments, "--runtime", "lce", "--operators"), 10, "times of operators are recorded by our own runtime"
    )
    binary, reference = run.networks["binary"], run.networks["float32"]
    for network in (binary, reference):
        row = network.latency
        assert row and row.min_ms and row.p50_ms and row.p90_ms and row.p99_ms
        assert 0 < row.min_ms <= row.p50_ms <= row.p90_ms <= row.p99_ms
        assert row.calls == len(row.durations_ns) == 20
    assert binary.model_size_bytes == len(read_bundle(bundle).model)
    # 32 bits to 1 for most weights; the float network keeps all of them.
    assert reference.model_size_bytes > 10 * binary.model_size_bytes


def test_bench_prints_no_time_when_the_golden_outputs_differ(copy: Path, bssl_tf: Command) -> None:
    edit_golden(copy, lambda outputs: -outputs)
    fails(bssl_tf("bench", copy), 7, "does not reproduce the golden outputs")


@pytest.mark.parametrize("name", ["export", "run", "bench"])
def test_help_loads_nothing_heavy(name: str, bssl_tf: Command) -> None:
    done: Any = bssl_tf(name, "--help")
    assert done.returncode == 0
    assert "BUNDLE" in done.stdout or "RUN" in done.stdout
