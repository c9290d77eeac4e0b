"""deploy/native/runner for real: with TensorFlow Lite's C library on this machine, sanitized, and emulated on ARM."""

from __future__ import annotations

import json
import platform
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ai_edge_litert import schema_py_generated as schema

from bssl_tf_deploy.bundle import Bundle, read_bundle
from bssl_tf_deploy.golden import GOLDEN_TOLERANCE
from bssl_tf_deploy.litert import LiteRtInterpreter
from bssl_tf_deploy.predictor import Predictor
from tests.arm64.make_rig import Rig
from tests.conftest import require_or_skip
from tests.converters.tflite.tflite_files import Op, T, model_file
from tests.deploy.native.test_build import readelf
from tests.deploy.native.test_checks import compiles
from tests.native import NATIVE, ROOT, built_library, require_rig
from tests.tflite_c import tflite_c_library

BUNDLE = ROOT / "bssl_tf" / "zoo" / "fashion-mnist-28" / "bundle"
SHAPE = (1, 28, 28, 1)
Run = Callable[..., "subprocess.CompletedProcess[str]"]

# What the program needs of Android's libc.so, with the C library of the rig behind it; libdl.so is but a name.
BIONIC = """
#include <errno.h>
#include <stdlib.h>
int* __errno(void) { return &errno; }
void __libc_init(void* stack, void (*at_exit)(void), int (*main)(int, char**, char**), const void* const* structors) {
  const long count = *(const long*)stack;
  char** words = (char**)stack + 1;
  if (at_exit != NULL || structors[0] != NULL || structors[2] != NULL) abort();
  exit(main((int)count, words, words + count + 1));
}
"""


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory, bundle: Bundle) -> Path:
    """Models and inputs: `in` is the golden one; `relu` a model of builtin operators."""
    made = tmp_path_factory.mktemp("runner")
    (made / "in").write_bytes(bundle.golden_inputs[0].tobytes())
    (made / "short").write_bytes(bundle.golden_inputs[0].tobytes()[:-1])
    (made / "long").write_bytes(bundle.golden_inputs[0].tobytes() + b"!")
    (made / "one").write_bytes(bundle.golden_inputs[0][2:3].tobytes())
    image, relu = T(SHAPE), schema.BuiltinOperator.RELU
    (made / "relu").write_bytes(model_file([image, image], [Op(relu, [0], [1])], [0], [1]))
    add = Op(schema.BuiltinOperator.MAXIMUM, [0, 1], [2])
    (made / "two-inputs").write_bytes(model_file([image] * 3, [add], [0, 1], [2]))
    (made / "two-outputs").write_bytes(model_file([image] * 3, [Op(relu, [0], [1]), Op(relu, [0], [2])], [0], [1, 2]))
    (made / "empty").write_bytes(b"")
    (made / "text").write_bytes(b"no library\n")
    for share in (20, 50, 99):
        (made / f"cut-{share}").write_bytes(bundle.model[: len(bundle.model) * share // 100])
    return made


@pytest.fixture(scope="session")
def bundle() -> Bundle:
    return read_bundle(BUNDLE)


@pytest.fixture(scope="session")
def tflite() -> Path:
    require_or_skip(platform.machine() == "x86_64", "the library at hand is for x86-64")
    return tflite_c_library("amd64")


def built_runner(target: str, out: Path, *options: str) -> Path:
    command = [sys.executable, str(NATIVE / "build.py"), "--runner", "--strict", "--target", target, "--out", str(out)]
    done = subprocess.run([*command, *options], capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, done.stderr
    return out


@pytest.fixture(scope="session", params=["plain", "sanitized"])
def runner(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The program for this machine, as it is sent and under AddressSanitizer and UndefinedBehaviorSanitizer."""
    made = tmp_path_factory.mktemp(request.param)
    if request.param == "plain":
        return built_runner("x86_64", made / "runner")
    sanitizers = "address,undefined"
    require_or_skip(compiles("g++", sanitizers, made), f"g++ with -fsanitize={sanitizers} is not installed")
    flags = ["-std=c++17", "-O1", "-g", "-Wall", "-Wextra", "-Werror", "-fno-exceptions", "-fno-rtti"]
    flags += [f"-fsanitize={sanitizers}", "-fno-sanitize-recover=all"]
    sources = sorted(map(str, (NATIVE / "runner").glob("*.cc")))
    subprocess.run(["g++", *flags, *sources, "-ldl", "-o", str(made / "runner")], check=True, timeout=300)
    return made / "runner"


@pytest.fixture
def run(runner: Path, folder: Path, tmp_path: Path) -> Run:
    """Runs the program in `folder`; its words are split, $ stands for a folder of the test's own."""

    def call(*words: Any, stdout: Any = subprocess.PIPE) -> subprocess.CompletedProcess[str]:
        command = [str(runner), *(str(word).replace("$", str(tmp_path)) for word in words)]
        return subprocess.run(
            command, cwd=folder, stdout=stdout, stderr=subprocess.PIPE, text=True, timeout=120, check=False
        )

    return call


def said(done: subprocess.CompletedProcess[str]) -> dict[str, Any]:
    assert done.returncode == 0, done.stderr
    [line] = done.stdout.splitlines()
    assert line.startswith('{"bssl_tf_runner":1,')
    return dict(json.loads(line))


def same_as_golden(bundle: Bundle, file: Path) -> np.ndarray:
    logits = np.fromfile(file, np.float32).reshape(bundle.golden_outputs[0].shape)

    class Given:
        def run(self, inputs: Sequence[np.ndarray]) -> list[np.ndarray]:
            return [logits]

    Predictor(bundle, Given()).verify_golden()
    return logits


@pytest.mark.parametrize("threads", [1, 3])
def test_the_golden_outputs_come_out(run: Run, tflite: Path, bundle: Bundle, tmp_path: Path, threads: int) -> None:
    library = built_library("x86_64")
    record = said(run("run", tflite, threads, BUNDLE / "model.tflite", library, "in", 4, "$/out"))
    assert record["input"] == {"type": 1, "shape": [1, 28, 28, 1]}
    assert record["output"] == {"type": 1, "shape": [1, 10]}
    assert record["tflite"] == "2.9.0" and record["runtime"] == "0.1.0" and record["kernels"].count(",")
    logits = same_as_golden(bundle, tmp_path / "out")
    # The same library in another interpreter, whose float operators round in another way.
    other = LiteRtInterpreter(bundle.model, 1, library).run(bundle.golden_inputs)[0]
    assert np.abs(logits - other).max() <= GOLDEN_TOLERANCE * np.abs(other).max()
    # Each output is its own image's.
    said(run("run", tflite, 1, BUNDLE / "model.tflite", library, "one", 1, "$/one"))
    assert np.array_equal(np.fromfile(tmp_path / "one", np.float32), logits[2])


def test_a_network_of_builtin_operators_needs_no_library(
    run: Run, tflite: Path, bundle: Bundle, tmp_path: Path
) -> None:
    record = said(run("run", tflite, 1, "relu", "-", "in", 4, "$/out"))
    assert "runtime" not in record and record["output"]["shape"] == list(SHAPE)
    made = np.fromfile(tmp_path / "out", np.float32).reshape(bundle.golden_inputs[0].shape)
    assert np.array_equal(made, np.maximum(bundle.golden_inputs[0], 0)) and (bundle.golden_inputs[0] < 0).any()


def test_a_start_says_how_long_and_how_much(run: Run, tflite: Path) -> None:
    record = said(run("start", tflite, 1, BUNDLE / "model.tflite", built_library("x86_64"), "in", 4))
    assert record["load_ns"] > 10_000 and record["first_ns"] > 1000
    assert 1000 < record["memory_before_kib"] < record["peak_memory_kib"] < 1_000_000


def test_networks_are_timed_in_turns_within_the_budget(run: Run, tflite: Path) -> None:
    networks = [BUNDLE / "model.tflite", built_library("x86_64"), "in", 4, "relu", "-", "one", 1]
    record = said(run("time", tflite, 1, 10, 60_000, 57, *networks))
    binary, relu = record["networks"]
    assert len(binary["durations_ns"]) == len(relu["durations_ns"]) == 57
    assert binary["first_ns"] > 0 and all(value > 0 for value in binary["durations_ns"] + relu["durations_ns"])
    # One operator takes less than forty; the order is that of the arguments.
    assert np.median(relu["durations_ns"]) < np.median(binary["durations_ns"])
    assert set(record["before"]) == {"governors", "clock_khz", "clock_max_khz", "sensors"} == set(record["after"])
    # The budget ends it, but not before 20 of each.
    assert len(said(run("time", tflite, 1, 0, 0, 5000, *networks))["networks"][0]["durations_ns"]) == 20
    # Before the timed calls are others.
    began = time.monotonic()
    run("time", tflite, 1, 400, 0, 20, *networks)
    assert time.monotonic() - began > 0.4
    record = said(run("time", tflite, 1, 0, 100, 1_000_000, *networks))
    spent = sum(sum(row["durations_ns"]) for row in record["networks"])
    assert 20e6 < spent < 5e9


# Words, exit status, what the one line says. LIB is our library, TF TensorFlow Lite's, ARM that of another processor.
REFUSED = {
    "no-words": ("", 2, "see --help"),
    "another-command": ("walk TF 1 relu - in 4", 2, "see --help"),
    "too-few": ("run TF 1 relu - in 4", 2, "see --help"),
    "no-network": ("time TF 1 0 0 20", 2, "see --help"),
    "half-a-network": ("time TF 1 0 0 20 relu - in 4 relu -", 2, "see --help"),
    "17-networks": ("time TF 1 0 0 20 " + "relu - in 4 " * 17, 2, "see --help"),
    "no-threads": ("start TF 0 relu - in 4", 2, "THREADS must be 1 to 64, not 0"),
    "too-many-threads": ("start TF 65 relu - in 4", 2, "THREADS must be"),
    "threads-in-words": ("start TF one relu - in 4", 2, "not one"),
    "a-number-with-a-tail": ("start TF 1x relu - in 4", 2, "not 1x"),
    "an-overflow": ("start TF 99999999999999999999 relu - in 4", 2, "THREADS must be"),
    "no-images": ("start TF 1 relu - in 0", 2, "IMAGES must be"),
    "few-rounds": ("time TF 1 0 0 19 relu - in 4", 2, "ROUNDS must be 20 to 1000000, not 19"),
    "a-negative-budget": ("time TF 1 0 -1 20 relu - in 4", 2, "BUDGET_MS must be"),
    "no-input": ("start TF 1 relu - nothing 4", 3, "nothing cannot be read (No such file"),
    "input-too-short": ("start TF 1 relu - short 4", 3, "short does not have the 12544 bytes"),
    "input-too-long": ("start TF 1 relu - long 4", 3, "long does not have the 12544 bytes"),
    "fewer-images-than-said": ("start TF 1 relu - in 5", 3, "does not have the 15680 bytes"),
    "more-images-than-fit": ("start TF 1 relu - in 1000000", 3, "too many images"),
    "an-input-that-is-a-folder": ("start TF 1 relu - . 4", 3, ". "),
    "output-not-writable": ("run TF 1 relu - in 4 $/no/out", 3, "out cannot be written (No such file"),
    "output-full": ("run TF 1 relu - in 4 /dev/full", 3, "cannot be written (No space left on device)"),
    "no-tflite": ("start ./nothing.so 1 relu - in 4", 4, "nothing.so cannot be loaded"),
    "tflite-is-text": ("start ./text 1 relu - in 4", 4, "text cannot be loaded"),
    "tflite-is-empty": ("start ./empty 1 relu - in 4", 4, "empty cannot be loaded"),
    "tflite-for-arm": ("start ARM 1 relu - in 4", 4, "cannot be loaded"),
    "tflite-is-ours": ("start LIB 1 relu - in 4", 4, "has no function TfLiteVersion"),
    "ours-is-tflite": ("start TF 1 relu TF in 4", 4, "has no function tflite_plugin_create_delegate"),
    "ours-for-arm": ("start TF 1 MODEL ARM in 4", 4, "cannot be loaded"),
    "no-library": ("start TF 1 MODEL ./nothing.so in 4", 4, "nothing.so cannot be loaded"),
    "no-model": ("start TF 1 nothing - in 4", 5, "nothing is no TensorFlow Lite model"),
    "model-is-empty": ("start TF 1 empty - in 4", 5, "empty is no TensorFlow Lite model"),
    "model-is-text": ("start TF 1 text - in 4", 5, "text is no TensorFlow Lite model"),
    "model-cut-20": ("start TF 1 cut-20 LIB in 4", 5, "is no TensorFlow Lite model"),
    "model-cut-50": ("start TF 1 cut-50 LIB in 4", 5, "is no TensorFlow Lite model"),
    "model-cut-99": ("start TF 1 cut-99 LIB in 4", 5, "is no TensorFlow Lite model"),
    "two-inputs": ("start TF 1 two-inputs - in 4", 5, "does not have one input and one output"),
    "two-outputs": ("start TF 1 two-outputs - in 4", 5, "does not have one input and one output"),
    "without-our-library": ("start TF 1 MODEL - in 4", 5, "custom op: LceQuantize"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_wrong_is_one_line_and_a_status(run: Run, tflite: Path, tmp_path: Path, name: str) -> None:
    text, status, message = REFUSED[name]
    files = {"TF": tflite, "LIB": built_library("x86_64"), "MODEL": BUNDLE / "model.tflite"}
    if "ARM" in text:
        files["ARM"] = tflite_c_library("arm64")
    done = run(*(files.get(word, word) for word in text.split()))
    assert done.returncode == status, done.stderr
    # Libraries may say something before; what a sanitizer would say is neither one line nor this status.
    lines = [line for line in done.stderr.splitlines() if line.startswith("bssl_tf_runner: ")]
    assert len(lines) == 1 and message in lines[0] and done.stdout == "", done.stderr
    assert "Sanitizer" not in done.stderr and not list(tmp_path.iterdir())


def test_a_result_that_nobody_gets_is_an_error(run: Run, tflite: Path) -> None:
    with Path("/dev/full").open("w") as full:
        done = run("time", tflite, 1, 0, 0, 20, "relu", "-", "in", 4, stdout=full)
    assert done.returncode == 3 and "the result cannot be written (No space left on device)" in done.stderr


def test_help_names_every_command(run: Run) -> None:
    done = run("--help")
    assert done.returncode == 0 and all(f" {command} TFLITE" in done.stdout for command in ("run", "start", "time"))


@pytest.mark.parametrize("target", ["x86_64", "arm64", "android-arm64"])
def test_it_is_built_for_every_target(target: str, tmp_path: Path) -> None:
    out = built_runner(target, tmp_path / "runner", "--compiler", "zig")
    assert out.stat().st_size < 100_000 and out.stat().st_mode & 0o111
    assert str(ROOT).encode() not in out.read_bytes()
    assert "Position-Independent Executable" in readelf("-h", out)
    dynamic = readelf("-d", out)
    assert "libstdc++" not in dynamic and "libc++" not in dynamic
    if target == "android-arm64":
        assert dynamic.count("(NEEDED)") == 2 and "[libc.so]" in dynamic and "[libdl.so]" in dynamic
        segments = readelf("-l", out)
        assert "interpreter: /system/bin/linker64]" in segments
        assert all(int(line.split()[-1], 16) >= 16384 for line in segments.splitlines() if line.startswith("  LOAD"))


@pytest.fixture(scope="session")
def rig() -> Rig:
    return require_rig()


@pytest.fixture(scope="session")
def bionic(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Stands in for Android's libc.so and libdl.so."""
    made = tmp_path_factory.mktemp("bionic")
    compiler = [sys.executable, "-m", "ziglang", "cc", "-target", "aarch64-linux-gnu.2.17", "-shared", "-O1"]
    for name, code, options in (("libc.so", BIONIC, []), ("libdl.so", "", ["-Wl,--no-as-needed", "-ldl"])):
        (made / f"{name}.c").write_text(code)
        command = [*compiler, str(made / f"{name}.c"), f"-Wl,-soname,{name}", *options, "-o", str(made / name)]
        subprocess.run(command, check=True, capture_output=True, timeout=300)
    return made


@pytest.mark.parametrize("target", ["arm64", "android-arm64"])
def test_the_golden_outputs_come_out_on_arm(
    rig: Rig, bionic: Path, bundle: Bundle, folder: Path, tmp_path: Path, target: str
) -> None:
    """Emulated; for Android with Debian's linker and C library, so that all of Android in it is this program."""
    program = [str(built_runner(target, tmp_path / "runner", "--compiler", "zig"))]
    if target == "android-arm64":
        linker = rig.folder / "root" / "lib" / "aarch64-linux-gnu" / "ld-linux-aarch64.so.1"
        program = [str(linker), "--library-path", str(bionic), *program]
    network = [str(BUNDLE / "model.tflite"), str(built_library("arm64")), "in", "4"]

    def call(*words: str) -> subprocess.CompletedProcess[str]:
        command = rig.program("cortex-a72", [*program, *words])
        return subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=300, check=False)

    tflite = str(tflite_c_library("arm64"))
    record = said(call("run", tflite, "2", *network, str(tmp_path / "out")))
    assert record["kernels"].startswith("neon_")
    same_as_golden(bundle, tmp_path / "out")
    record = said(call("time", tflite, "1", "0", "0", "20", *network, "relu", "-", "in", "4"))
    assert [len(row["durations_ns"]) for row in record["networks"]] == [20, 20]
    assert said(call("start", tflite, "1", *network))["load_ns"] > 0
    done = call("run", tflite, "1", "relu", "-", "nothing", "4", str(tmp_path / "none"))
    assert (done.returncode, done.stdout) == (3, "")
    assert done.stderr.endswith("bssl_tf_runner: nothing cannot be read (No such file or directory)\n")
