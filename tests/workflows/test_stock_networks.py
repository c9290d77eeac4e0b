"""The networks that are timed beside the binary one: made once, kept, made again when the file is damaged."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Iterator
from pathlib import Path

import pytest

from bssl_tf.models import registry
from bssl_tf.workflows.stock_networks import stock_networks
from bssl_tf_converters.lce import float_reference
from bssl_tf_deploy.tasks.classification import Table
from tests.deploy.bundles import manifest


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[list[tuple[object, ...]]]:
    """What was asked of the converter, which gives other networks each time."""
    calls: list[tuple[object, ...]] = []

    def make(backbone: tuple[object, ...], classes: int) -> dict[str, bytes]:
        calls.append((*backbone, classes))
        return {"float32": b"float" * 1000 + b"%d" % len(calls), "int8": b"int8" * 1000}

    monkeypatch.setattr(registry, "build_backbone", lambda *arguments: arguments)
    monkeypatch.setattr(float_reference, "stock_networks", make)
    monkeypatch.setenv("BSSL_TF_CACHE", str(tmp_path / "cache"))
    yield calls


def test_networks_are_made_once_for_each_shape(
    made: list[tuple[object, ...]], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    first = stock_networks(manifest())
    assert "about half a minute, kept for next time" in caplog.text
    caplog.clear()
    assert stock_networks(manifest()) == first and not caplog.records
    assert made == [("binary_resnet", 8, 3, {"depth": 1}, 3)]
    other = manifest()
    others = [
        dataclasses.replace(other, table=Table(("a", "b"), None, None)),
        dataclasses.replace(other, network=dataclasses.replace(other.network, arguments={"depth": 2})),
        dataclasses.replace(other, network=dataclasses.replace(other.network, backbone="quicknet")),
        dataclasses.replace(other, preprocessing=dataclasses.replace(other.preprocessing, height=16, width=16)),
    ]
    for number, changed in enumerate(others, start=2):
        stock_networks(changed)
        assert len(made) == number
    # Nor do names of classes, the target or the accuracy matter.
    stock_networks(dataclasses.replace(other, table=Table(("x", "y", "z"), None, None), target="x86_64"))
    assert len(made) == 5


@pytest.mark.parametrize("damage", ["cut", "empty", "changed", "other"])
def test_a_damaged_file_is_made_again(made: list[tuple[object, ...]], tmp_path: Path, damage: str) -> None:
    first = stock_networks(manifest())
    [file] = (tmp_path / "cache" / "networks").iterdir()
    content = file.read_bytes()
    changed = content.replace(b"floatfloat", b"floatFloat", 1)
    file.write_bytes({"cut": content[:-30], "empty": b"", "changed": changed, "other": b"no archive"}[damage])
    again = stock_networks(manifest())
    assert len(made) == 2 and again != first
    assert stock_networks(manifest()) == again and len(made) == 2
    assert [path.name for path in file.parent.iterdir()] == [file.name]


def test_a_cache_that_cannot_be_written_only_costs_time(
    made: list[tuple[object, ...]], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "cache").write_text("a file")
    for number in (1, 2):
        assert stock_networks(manifest())["int8"] == b"int8" * 1000
        assert "they are not kept: cannot write" in caplog.text and len(made) == number
