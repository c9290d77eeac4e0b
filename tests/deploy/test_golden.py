"""What the golden outputs would let through: no network of zeros, no infinity, no constant."""

from __future__ import annotations

import hashlib
import io
import json
from pathlib import Path

import numpy as np
import pytest
import tflite

from bssl_tf import zoo
from bssl_tf_deploy.bundle import read_bundle, write_bundle
from bssl_tf_deploy.cli import prepare
from bssl_tf_deploy.errors import BundleError
from bssl_tf_deploy.files import without_checksum
from bssl_tf_deploy.golden import GOLDEN_TOLERANCE, typical_magnitude
from bssl_tf_deploy.predictor import Predictor
from tests.deploy.bundles import golden, manifest, write
from tests.deploy.test_predictor import Fixed
from tests.edited import edited


@pytest.fixture
def real(tmp_path: Path) -> Path:
    zoo.copy_bundle(zoo.find("fashion-mnist-28"), tmp_path / "bundle")
    return tmp_path / "bundle"


def replace(bundle: Path, name: str, content: bytes) -> None:
    """A file and its hash in the manifest, as its author could."""
    (bundle / name).write_bytes(content)
    about = without_checksum(json.loads((bundle / "manifest.json").read_text()))
    about["files"][name] = {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
    (bundle / "manifest.json").write_text(edited(about))


def with_zeroed_kernels(bundle: Path) -> bytes:
    content = bytearray((bundle / "model.tflite").read_bytes())
    model = tflite.Model.GetRootAs(content, 0)
    graph, zeroed = model.Subgraphs(0), 0
    for place in range(graph.OperatorsLength()):
        operator = graph.Operators(place)
        if operator.InputsLength() > 1 and b"Bconv" in (
            model.OperatorCodes(operator.OpcodeIndex()).CustomCode() or b""
        ):
            kernel = model.Buffers(graph.Tensors(operator.Inputs(1)).Buffer()).DataAsNumpy()
            kernel[:] = 0
            zeroed += 1
    assert zeroed
    return bytes(content)


def with_outputs(bundle: Path, change: float) -> bytes:
    with np.load(bundle / "golden.npz") as arrays:
        changed = {
            name: np.full_like(array, change) if name.startswith("output/") else array for name, array in arrays.items()
        }
    file = io.BytesIO()
    np.savez(file, **changed)
    return file.getvalue()


def test_a_network_of_zeros_does_not_pass(real: Path) -> None:
    prepare(str(real), 1, "auto", False)
    replace(real, "model.tflite", with_zeroed_kernels(real))
    with pytest.raises(BundleError, match="does not reproduce the golden outputs"):
        prepare(str(real), 1, "auto", False)


@pytest.mark.parametrize("value", [np.inf, -np.inf, np.nan, 0.0, 1.0, 1e-40])
def test_golden_outputs_that_a_network_of_zeros_would_pass_are_refused(real: Path, value: float) -> None:
    replace(real, "golden.npz", with_outputs(real, value))
    replace(real, "model.tflite", with_zeroed_kernels(real))
    with pytest.raises(BundleError, match=r"golden\.npz: .*(not finite|equal)"):
        prepare(str(real), 1, "auto", False)


@pytest.mark.parametrize("value", [np.inf, -np.inf, np.nan])
def test_what_is_not_finite_makes_no_tolerance(value: float) -> None:
    outputs = np.array([[1, value, -2], [value, value, value]], np.float32)
    assert typical_magnitude(outputs) == 1.5
    assert typical_magnitude(outputs[1:]) == 0


def test_outputs_that_differ_by_rounding_alone_or_vanish_are_not_golden(tmp_path: Path) -> None:
    inputs, [outputs] = golden()
    alike = np.repeat(outputs[:1], 4, axis=0) * (1 + np.arange(4)[:, None] * 1e-5)
    one_apart = np.repeat(outputs[:1], 4, axis=0)
    one_apart[2] += 1
    for wrong, said in (
        (alike, "equal but for rounding"),
        (one_apart, "equal but for rounding"),
        (outputs * 1e-37, "too small"),
    ):
        with pytest.raises(BundleError, match=said):
            write_bundle(tmp_path / "b", manifest(), b"model", inputs, [wrong.astype(np.float32)], ["a"] * 4)
    apart = np.repeat(outputs[:1], 4, axis=0)
    apart[1:3] += 3 * GOLDEN_TOLERANCE * typical_magnitude(outputs)
    write_bundle(tmp_path / "b", manifest(), b"model", inputs, [apart.astype(np.float32)], ["a"] * 4)


@pytest.mark.parametrize("value", [np.inf, -np.inf, np.nan])
def test_not_even_one_image_may_be_infinite(tmp_path: Path, value: float) -> None:
    """One in four may differ, by a flipped sign."""
    bundle = read_bundle(write(tmp_path / "bundle"))
    [outputs] = (array.copy() for array in bundle.golden_outputs)
    outputs[2, 1] = value
    with pytest.raises(BundleError, match="not finite"):
        Predictor(bundle, Fixed(outputs)).verify_golden()
