"""The example in C, built with CMake as its reader would, answers as Python does."""

from __future__ import annotations

import platform
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from bssl_tf_deploy import load
from bssl_tf_deploy.library import own_library
from tests.conftest import require_or_skip
from tests.tflite_c import tflite_c_library

ROOT = Path(__file__).parents[3]
NATIVE = ROOT / "deploy" / "native"
HEADER = NATIVE / "include" / "bssl_tf_runtime.h"
BUNDLE = ROOT / "bssl_tf" / "zoo" / "fashion-mnist-28" / "bundle"


def called(*words: Any) -> subprocess.CompletedProcess[str]:
    return subprocess.run([str(word) for word in words], capture_output=True, text=True, timeout=300, check=False)


@pytest.fixture(scope="module")
def classify(tmp_path_factory: pytest.TempPathFactory) -> Path:
    require_or_skip(platform.machine() == "x86_64", "TensorFlow Lite's library at hand is for x86-64")
    require_or_skip(shutil.which("cmake") is not None, "cmake is not installed")
    build = tmp_path_factory.mktemp("build")
    options = [f"-DTFLITE={tflite_c_library('amd64')}", f"-DRUNTIME={own_library()}"]
    for words in (["-S", NATIVE / "example", "-B", build, *options], ["--build", build]):
        done = called("cmake", *words)
        assert done.returncode == 0, done.stdout + done.stderr
    return build / "classify"


def test_it_answers_as_python_does(classify: Path, tmp_path: Path) -> None:
    predictor = load(BUNDLE)
    constants = predictor.bundle.manifest.preprocessing
    mean, std = (",".join(map(repr, values)) for values in (constants.mean, constants.std))
    pictures = sorted((BUNDLE / "examples").glob("*.png"))
    assert pictures
    for picture in pictures:
        image = Image.open(picture).convert("L").resize((28, 28))
        image.save(tmp_path / "image.pgm")
        pixels = np.asarray(image, np.float32)[np.newaxis, :, :, np.newaxis]
        [[logits]] = predictor.run_tensor(
            (pixels / 255 - np.array(constants.mean, np.float32)) / np.array(constants.std, np.float32)
        ).values()
        shares = np.exp(logits - logits.max()) / np.exp(logits - logits.max()).sum()
        done = called(classify, BUNDLE / "model.tflite", tmp_path / "image.pgm", mean, std)
        assert done.returncode == 0, done.stderr
        said = [line.split() for line in done.stdout.splitlines()]
        best = np.argsort(-shares)[:5]
        assert [int(index) for index, _ in said] == best.tolist()
        np.testing.assert_allclose([float(share) for _, share in said], shares[best], atol=2e-4)


def test_what_it_cannot_do_is_one_line(classify: Path, tmp_path: Path) -> None:
    model, image, small = BUNDLE / "model.tflite", tmp_path / "image.pgm", tmp_path / "small.pgm"
    image.write_bytes(b"P5\n# a comment\n28 28\n255\n" + bytes(28 * 28))
    small.write_bytes(b"P5 4 4 255\n" + bytes(16))
    (tmp_path / "cut.pgm").write_bytes(b"P5 28 28 255\n" + bytes(9))
    (tmp_path / "text.pgm").write_text("no image")
    assert called(classify, model, image, "0.3", "0.4").returncode == 0
    for words, what in (
        ((), "call it as: classify MODEL IMAGE"),
        ((model, tmp_path / "none.pgm"), "none.pgm cannot be opened"),
        ((model, tmp_path / "cut.pgm"), "cut.pgm is truncated"),
        ((model, tmp_path / "text.pgm"), "is no binary PGM or PPM"),
        ((tmp_path / "text.pgm", image), "is no TensorFlow Lite model"),
        ((model, small, "0.3", "0.4"), "the image is 4x4 with 1 channels, the network takes 28x28 with 1"),
        ((model, image), "give mean and standard deviation"),
        ((model, image, "0.3,0.4", "0.4"), "0.3,0.4 is neither one number nor 1 with commas"),
        ((model, image, "x", "0.4"), "x is neither one number"),
    ):
        done = called(classify, *words)
        line = done.stderr.splitlines()[-1]
        assert done.returncode == 1 and not done.stdout and line.startswith("classify: ") and what in line, done.stderr


def test_the_header_documents_what_the_library_exports() -> None:
    text = HEADER.read_text(encoding="utf-8")
    declared = re.findall(r"\*/\nBSSL_TF_API [^;]*?(\w+)\([^;]*;", text)
    source = (NATIVE / "building" / "targets.py").read_text(encoding="utf-8")
    exported = re.findall(r'"(\w+)"', source.partition("EXPORTS = {")[2].partition("}")[0])
    assert sorted(declared) == sorted(exported) and len(declared) == text.count("BSSL_TF_API ") - 1


@pytest.mark.parametrize("language", ["c99", "c++17"])
def test_the_header_stands_alone(language: str, tmp_path: Path) -> None:
    compiler = {"c99": "gcc", "c++17": "g++"}[language]
    require_or_skip(shutil.which(compiler) is not None, f"{compiler} is not installed")
    file = tmp_path / ("one.c" if language == "c99" else "one.cc")
    file.write_text('#include "bssl_tf_runtime.h"\n#include "bssl_tf_runtime.h"\n')
    flags = [f"-std={language}", "-Wall", "-Wextra", "-Wpedantic", "-Werror", "-fsyntax-only"]
    done = called(compiler, *flags, "-I", HEADER.parent, file)
    assert done.returncode == 0, done.stderr
