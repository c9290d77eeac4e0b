"""The networks that are timed beside the binary one: made once, kept, made again when the file is damaged."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from bssl_tf.errors import ConfigError
from bssl_tf.models import opponents, registry
from bssl_tf.workflows.networks_beside import OPPONENTS, opponent_names, opponents_of, stock_networks
from bssl_tf_converters.lce import float_reference
from bssl_tf_deploy.litert import LiteRtInterpreter
from bssl_tf_deploy.manifest import Manifest
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
    monkeypatch.setattr(opponents, "build_opponent", lambda *arguments: arguments)
    monkeypatch.setattr(float_reference, "stock_networks", make)
    monkeypatch.setenv("BSSL_TF_CACHE", str(tmp_path / "cache"))
    yield calls


def test_networks_are_made_once_for_each_shape(
    made: list[tuple[object, ...]], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    first = stock_networks(manifest())
    assert "kept for next time" in caplog.text
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


def images_of(size: int) -> Manifest:
    made_for = manifest()
    return dataclasses.replace(
        made_for, preprocessing=dataclasses.replace(made_for.preprocessing, height=size, width=size)
    )


def test_opponents_are_made_once_for_each_size_of_images(made: list[tuple[object, ...]]) -> None:
    first = opponents_of(images_of(32), ["mobilenet_v2", "efficientnet_lite0", "mobilenet_v2"])
    assert list(first) == opponent_names(["mobilenet_v2", "efficientnet_lite0"])
    assert list(first) == [
        *("mobilenet_v2_float32", "mobilenet_v2_int8", "efficientnet_lite0_float32", "efficientnet_lite0_int8")
    ]
    assert made == [("mobilenet_v2", 32, 3, 3), ("efficientnet_lite0", 32, 3, 3)]
    assert opponents_of(images_of(32), ["mobilenet_v2"]).items() <= first.items() and len(made) == 2
    opponents_of(images_of(64), ["mobilenet_v2"])
    assert made[2:] == [("mobilenet_v2", 64, 3, 3)]


def test_an_opponent_that_cannot_do_the_same_is_refused(made: list[tuple[object, ...]]) -> None:
    for about, name, words in (
        (images_of(32), "resnet50", "'resnet50' is neither NAME=FILE nor one of mobilenet_v2, "),
        (images_of(28), "mobilenet_v2", "takes images of 32 px or more, and those of the bundle have 28"),
        (dataclasses.replace(images_of(32), task="detection"), "mobilenet_v2", "classifies, and the bundle's network"),
    ):
        with pytest.raises(ConfigError, match=words):
            opponents_of(about, [name])
    assert not made


@pytest.mark.parametrize("name", OPPONENTS)
def test_an_opponents_activations_are_as_large_as_a_trained_networks(name: str) -> None:
    """Numbers too small for a normal float, which layers of drawn weights end in, cost time."""
    network = opponents.build_opponent(name, 32, 1)
    images = np.random.default_rng(1).normal(0, 1, (4, 32, 32, 1)).astype(np.float32)
    features = network(images, training=False).numpy()
    assert features.ndim == 2 and 0.01 < np.abs(features).max() < 1000
    assert features.std(axis=0).max() > 0.01


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[] if name == "mobilenet_v3_small" else pytest.mark.slow) for name in OPPONENTS]
)
def test_an_opponent_runs_on_the_stock_interpreter(name: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("BSSL_TF_CACHE", str(tmp_path / "cache"))
    networks = opponents_of(images_of(32), [name])
    float32, int8 = (networks[one] for one in opponent_names([name]))
    assert len(float32) > 3 * len(int8)
    image = np.random.default_rng(1).normal(0, 1, (1, 32, 32, 3)).astype(np.float32)
    for model in (float32, int8):
        [scores] = LiteRtInterpreter(model).run([image])
        assert scores.shape == (1, 3) and scores.dtype == np.float32 and np.isfinite(scores).all()
