"""The arithmetic of the page on training at scale, from the networks' own counts."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from bssl_tf.settings import PretrainConfig

ROOT = Path(__file__).parents[2]
_UNITS = {"k": 1e3, "M": 1e6, "G": 1e9}


def macs(network: str) -> float:
    """Of one image of 224 px, as `bssl_tf/models/README.md` lists them (`tests/models` compares them)."""
    table = (ROOT / "bssl_tf/models/README.md").read_text()
    [row] = re.findall(rf"^\| `{network}` \|.*\| ([^|]+) / ([^|]+) \|$", table, re.MULTILINE)
    return sum(float(one.split()[0]) * _UNITS.get(one.split()[-1], 1) for one in row)


def test_the_cost_of_a_run_is_that_of_its_networks() -> None:
    page = (ROOT / "docs/pages/scale.md").read_text()
    student, teacher = macs("reactnet_a"), macs("resnet50")
    rows = [
        re.findall(r"([\d.]+) G", row) for row in page.splitlines() if row.startswith(("| ReAct", "| ResNet", "| tog"))
    ]
    assert rows == [
        [f"{student / 1e9:.2f}", f"{3 * student / 1e9:.1f}"],
        [f"{teacher / 1e9:.2f}", f"{teacher / 1e9:.1f}"],
        [f"{(3 * student + teacher) / 1e9:.1f}"],
    ]
    operations = 2 * 2 * PretrainConfig().training.epochs * 1.281e6 * (3 * student + teacher)
    found = re.search(r"([\d.e]+) MACs, ([\d.e]+) floating-point", page)
    assert found is not None
    assert [float(one) for one in found.groups()] == pytest.approx([operations / 2, operations], rel=0.02)
    hours = operations / 60e12 / 3600
    stated = re.search(r"that is (\d+) hours, and (\d+) hours\s+of one GPU", page)
    assert stated is not None
    assert [int(one) for one in stated.groups()] == pytest.approx([hours / 8, hours], abs=0.6)


def test_the_size_of_imagenet_when_decoded() -> None:
    page = (ROOT / "docs/pages/scale.md").read_text()
    found = re.search(r"(\d+) GB when decoded", page)
    assert found is not None
    from bssl_tf_deploy.pictures import stored_side

    assert int(found[1]) == pytest.approx(1.281e6 * stored_side(224) ** 2 * 3 / 1e9, abs=1)
