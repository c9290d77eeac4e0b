"""The library's native half under a JVM of this machine, with TensorFlow Lite's own C library, as a phone has both."""

from __future__ import annotations

import hashlib
import io
import platform
import shutil
import struct
import subprocess
import sys
from pathlib import Path
from typing import Any

import ai_edge_litert.schema_py_generated as schema
import numpy as np
import pytest
from PIL import Image

from bssl_tf_deploy import load
from bssl_tf_deploy.bundle import MODEL, write_bundle
from bssl_tf_deploy.files import CHECKSUM, EDITED
from bssl_tf_deploy.manifest import OutputParity, ParityFigures, Preprocessing, TensorSignature
from bssl_tf_deploy.tasks.detection import Table
from tests.conftest import require_or_skip
from tests.converters.tflite.tflite_files import Op, T, model_file
from tests.deploy import bundles
from tests.java import block, edited, jni_headers, require_jdk, run_cases, take_text, text
from tests.native import NATIVE, ROOT
from tests.tflite_c import tflite_c_library

BUNDLE = ROOT / "bssl_tf" / "zoo" / "fashion-mnist-28" / "bundle"
HERE = Path(__file__).parent


@pytest.fixture(scope="module")
def libraries(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the library for Java and with what makes TensorFlow Lite's C library the tests' interpreter."""
    require_jdk()
    require_or_skip(platform.machine() == "x86_64", "TensorFlow Lite's library at hand is for x86-64")
    require_or_skip(shutil.which("gcc") is not None, "gcc is not installed")
    folder = tmp_path_factory.mktemp("libraries")
    build = [sys.executable, str(NATIVE / "build.py"), "--jni", "--out", str(folder / "libbssl_tf_jni.so")]
    tflite = tflite_c_library("amd64")
    includes = [f"-I{path}" for path in (NATIVE / "jni", jni_headers(), NATIVE / "example")]
    options = ["-shared", "-fPIC", "-Wall", "-Wextra", "-Werror", *includes, f"-Wl,-rpath,{tflite.parent}"]
    made = ["-o", str(folder / "libtest_interpreter.so")]
    for command in (build, ["gcc", *options, str(HERE / "interpreter.c"), str(tflite), *made]):
        done = subprocess.run(command, capture_output=True, text=True, timeout=600, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
    return folder


def network_case(kind: str, bundle: Path, image: np.ndarray, threads: int = 2) -> tuple[str, bytes]:
    """For pixels uint8 [H, W, 3]."""
    height, width = image.shape[:2]
    argb = np.concatenate([np.full((height, width, 1), 255, np.uint8), image], axis=-1)
    picture = struct.pack(">4i", width, height, 0, 0) + block(argb.tobytes())
    return kind, text(str(bundle)) + struct.pack(">i", threads) + picture


def test_an_app_classifies_as_python_does(libraries: Path, tmp_path: Path, rng: np.random.Generator) -> None:
    predictor = load(BUNDLE)
    images = [np.asarray(Image.open(path).convert("RGB")) for path in sorted((BUNDLE / "examples").glob("*.png"))]
    images += [rng.integers(0, 256, (90, 60, 3), dtype=np.uint8)]
    for image, result in zip(
        images, run_cases([network_case("classify", BUNDLE, image) for image in images], libraries), strict=True
    ):
        assert not result.startswith(b"!"), result
        file = io.BytesIO(result)
        found = {}
        while label := take_text(file):
            [found[label]] = struct.unpack(">f", file.read(4))
        [wanted] = predictor.classify([image], top=1000)
        # Two versions of the interpreter round the float part of the network differently.
        assert next(iter(found)) == wanted[0][0]
        assert set(found) == {label for label, _ in wanted}
        np.testing.assert_allclose([found[label] for label, _ in wanted], [score for _, score in wanted], atol=2e-4)


def test_an_app_detects_as_python_does_to_the_last_bit(
    libraries: Path, tmp_path: Path, rng: np.random.Generator
) -> None:
    """A network of two operators that round nothing: the picture itself is three scores a pixel, and its sides."""
    side = 16
    values, paddings = T((1, side, side, 3)), np.array([[0, 0]] * 3 + [[0, 1]], np.int32)
    tensors = [values, T((4, 2), schema.TensorType.INT32, data=paddings.tobytes()), T((1, side, side, 4)), values]
    operators = [
        Op(schema.BuiltinOperator.PAD, [0, 1], [2]),
        Op(schema.BuiltinOperator.RELU, [0], [3]),
    ]
    shapes = {"boxes_1": (side, side, 4), "scores_1": (side, side, 3)}
    made = bundles.manifest(
        task="detection",
        inputs=(TensorSignature("image", (1, side, side, 3), "float32"),),
        outputs=tuple(TensorSignature(name, (1, *shape), "float32") for name, shape in shapes.items()),
        preprocessing=Preprocessing(side, side, 3, (0.5, 0.4, 0.3), (0.2, 0.3, 0.25)),
        parity=ParityFigures(1, 1.0, 1.0, {name: OutputParity(0.0, 0.0, 0.0) for name in shapes}),
        table=Table(("a", "b", "c"), (1,), "letterbox", 0.7, 0.4, 80, None),
    )
    golden = rng.normal(size=(2, side, side, 3)).astype(np.float32)
    outputs = [np.pad(golden, [(0, 0)] * 3 + [(0, 1)]), np.maximum(golden, 0)]
    folder = tmp_path / "bundle"
    write_bundle(folder, made, model_file(tensors, operators, [0], [2, 3]), [golden], outputs, ["a", "b"])
    predictor = load(folder)
    images = [rng.integers(0, 256, size, dtype=np.uint8) for size in ((16, 16, 3), (30, 7, 3), (9, 200, 3))]
    results = run_cases([network_case("detect", folder, image) for image in images], libraries)
    for pixels, result in zip(images, results, strict=True):
        assert not result.startswith(b"!"), result
        [wanted] = predictor.detect([pixels])
        file, found = io.BytesIO(result), []
        while label := take_text(file):
            found.append((label, *struct.unpack(">5f", file.read(20))))
        assert len(found) >= 3
        assert found == [(one.label, *map(float, np.array(one[1:], np.float32))) for one in wanted]


def test_what_cannot_run_is_one_line_and_leaves_nothing_open(libraries: Path, tmp_path: Path) -> None:
    """That an interpreter is closed before its delegate, and once, the tests' interpreter looks after."""
    image = np.zeros((28, 28, 3), np.uint8)

    def changed(name: str, model: bytes) -> Path:
        folder = tmp_path / name
        shutil.copytree(BUNDLE, folder)
        (folder / MODEL).write_bytes(model)

        def change(content: dict[str, Any]) -> None:
            content[CHECKSUM] = EDITED
            content["files"][MODEL] = {"sha256": hashlib.sha256(model).hexdigest(), "bytes": len(model)}

        edited(folder, change)
        return folder

    results = run_cases(
        [
            network_case("detect", BUNDLE, image),
            network_case("classify", BUNDLE, image, threads=0),
            network_case("classify", changed("text", b"no model at all"), image),
            network_case("classify", changed("cut", (BUNDLE / MODEL).read_bytes()[:-5000]), image),
        ],
        libraries,
    )
    words = [
        "error[bundle]: the bundle is for classification, not for detection",
        "error[runtime]: there is no delegate (bssl-tf runtime: num_threads must be a number from 1 to 64.)",
        "error[runtime]: TensorFlow Lite does not run this model",
        "error[runtime]: TensorFlow Lite does not run this model",
    ]
    for result, what in zip(results, words, strict=True):
        assert result.decode().startswith(f"!{what}"), result
        assert result.decode().isprintable()


def test_a_delegate_takes_the_runtimes_options_and_is_closed_once(libraries: Path) -> None:
    def case(key: str, value: str) -> tuple[str, bytes]:
        return "delegate", text(key) + text(value)

    sound = [case("num_threads", "3"), case("isa", "portable")]
    odd = [case("num_threads", "65"), case("isa", "mmx"), case("Ä" * 200, "1"), case("isa", "")]
    results = run_cases([*sound, *odd, *sound], libraries)
    for result in (*results[:2], *results[-2:]):
        assert not result.startswith(b"!"), result
        file = io.BytesIO(result)
        there, version, kernels = take_text(file).split()
        assert there == "true" and version.count(".") == 2 and "portable_2x16" in kernels.split(",")
        assert take_text(file) == "the delegate is closed"
    reasons = ("a number from 1 to 64", "isa must be auto", "the options are", "no name or no value")
    for result, reason in zip(results[2:-2], reasons, strict=True):
        assert result.startswith(b"!error[runtime]: there is no delegate (") and reason in result.decode()


def test_an_app_for_another_processor_is_told_so(libraries: Path, tmp_path: Path) -> None:
    """As on a phone of 32 bits, each time and not only the first."""
    case = ("delegate", text("num_threads") + text("1"))
    for result in run_cases([case, case], tmp_path):
        assert result.startswith(b"!error[runtime]: the native library cannot be loaded (") and b"64-bit" in result
