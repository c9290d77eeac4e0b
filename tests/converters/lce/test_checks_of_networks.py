"""Every network of larq-zoo and every one of ours: it converts with no finding, or with exactly the codes here."""

from __future__ import annotations

import pytest

from bssl_tf.backend import keras
from bssl_tf.keras_files.models import open_model, zoo_networks
from bssl_tf.models.registry import BACKBONES, build_backbone
from bssl_tf_converters.lce import converter as lce
from bssl_tf_converters.lce.checks import allow, find_after, find_before
from tests.conftest import require_or_skip

# Those that are not here convert without any finding.
CODES_OF_ZOO = {
    # Its first layer reads the picture with a binary kernel; its padding is with zeros.
    "BinaryAlexNet": {"half-quantized", "separate-quantize"},
    # Activations of 2 bits, and dense layers.
    "DoReFaNet": {"input-quantizer", "layer-kind"},
    "XNORNet": {"separate-quantize"},
}
FLOAT = ("efficientnet_lite0", "float_resnet", "resnet18", "resnet34", "resnet50")
CODES_OF_OURS: dict[str, set[str]] = {name: {"nothing-binary"} for name in FLOAT}
ZOO = sorted(zoo_networks())


def codes_of(model: keras.Model, allowed: set[str]) -> set[str]:
    """The codes of all that is found, with the errors of `allowed` let through; without converting where one stays."""
    findings = find_before(model)
    known = {finding.code for finding in findings}
    if any(finding.severity == "error" for finding in allow(findings, known & allowed)):
        return known
    _, after = find_after(model, lce.convert(model, "arm64"), findings)
    return known | {finding.code for finding in after}


def test_larq_zoo_is_here() -> None:
    require_or_skip(bool(ZOO), "the extra `zoo` is not installed")
    assert set(CODES_OF_ZOO) <= set(ZOO) and len(ZOO) >= 14


@pytest.mark.slow
@pytest.mark.parametrize("name", ZOO)
def test_a_network_of_larq_zoo_has_exactly_its_codes(name: str) -> None:
    assert codes_of(open_model(f"larq_zoo:{name}"), {"half-quantized"}) == CODES_OF_ZOO.get(name, set())


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(BACKBONES))
def test_a_network_of_ours_has_exactly_its_codes(name: str) -> None:
    assert codes_of(build_backbone(name, 32, 3, {}), set()) == CODES_OF_OURS.get(name, set())
