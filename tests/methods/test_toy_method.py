"""A method of another package, added by its entry point alone: nothing of bssl_tf knows it."""

from __future__ import annotations

import importlib
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from bssl_tf.cli.pretrain import command
from bssl_tf.comparison.grid import read_grid
from bssl_tf.engine.configuration import settled
from bssl_tf.errors import ConfigError
from bssl_tf.files import read_records
from bssl_tf.methods import registry
from bssl_tf.methods.method import Method, NoSettings
from bssl_tf.settings import PretrainConfig, read_run_config

TINY = [
    *("--data", "embedded", "--limit", "64", "--batch-size", "32", "--epochs", "2", "--depth", "1", "--threads", "1"),
    *("--method", "toy"),
]


def install(folder: Path, entry: str = "toy = toy.method:METHOD") -> None:
    """Lays the package into `folder` as pip does."""
    shutil.copytree(Path(__file__).parent / "package" / "toy", folder / "toy")
    info = folder / "toy-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: toy\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(f"[{registry.GROUP}]\n{entry}\n")


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with the package, which this process and those that it starts can import from."""
    install(tmp_path)
    use(tmp_path, monkeypatch)
    return tmp_path


def use(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(folder))
    monkeypatch.setenv("PYTHONPATH", str(folder))
    importlib.invalidate_caches()


def test_it_trains_and_leaves_its_own_table_and_its_numbers(
    installed: Path, tmp_path: Path, bssl_tf: Callable[..., Any]
) -> None:
    out = tmp_path / "run"
    done = bssl_tf("pretrain", "--out", out, *TINY, "--set", "toy.spread=0.5")
    assert done.returncode == 0, done.stderr
    assert "warning: 64 images are plenty for a toy" in done.stderr
    tables = read_run_config(out)
    assert (tables["command"], tables["method"], tables["toy"]) == ("pretrain", "toy", {"width": 16, "spread": 0.5})
    assert not set(registry.BUILT_IN) & tables.keys()
    assert (tables["training"]["schedule"], tables["training"]["warmup_epochs"]) == ("cosine", 0.5)
    records = [record for record in read_records(out / "metrics.jsonl") if "probe" not in record]
    assert len(records) == 4
    for record in records:
        parts = record["invariance"] + record["lack_of_spread"]
        assert record["loss"] == pytest.approx(parts) and record["lack_of_spread"] > 0
    done = bssl_tf("evaluate", out, "--protocol", "knn-20", "--no-controls")
    assert done.returncode == 0, done.stderr

    # Without its package the run is not lost, and the message names what is missing.
    (installed / "toy-1.0.dist-info").rename(installed / "elsewhere")
    done = bssl_tf("evaluate", out)
    assert done.returncode == 3 and "method is 'toy'" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--set", "toy.spred=1"], "unknown setting toy.spred. Did you mean toy.spread?"),
        (["--set", "toy.width=2.5"], "toy.width is 2.5, which is not an int"),
        (["--set", "toy.width=0"], "toy.width is 0. Give a value above zero"),
        (["--set", "moco.momentum=0.9"], "[moco] is not for method toy"),
        (["--batch-size", "1"], "a batch of 1 has no spread. Pass --batch-size 2"),
        (["--teacher", "runs/teacher"], "teacher is set, but toy has no teacher"),
    ],
)
def test_its_settings_are_read_strictly_and_its_check_runs(
    arguments: list[str], message: str, installed: Path, tmp_path: Path, bssl_tf: Callable[..., Any]
) -> None:
    done = bssl_tf("pretrain", "--out", tmp_path / "run", *TINY, *arguments)
    assert done.returncode == 3 and message in done.stderr, done.stderr
    assert not (tmp_path / "run").exists()


def test_it_does_not_train_teachers(installed: Path, tmp_path: Path, bssl_tf: Callable[..., Any]) -> None:
    done = bssl_tf("teacher", "--out", tmp_path / "run", "--data", "embedded", "--method", "toy")
    assert done.returncode == 3 and "method is 'toy'. Choose one of byol, moco" in done.stderr
    assert registry.names_for("teacher") == ["moco", "byol"]


def test_it_is_offered_and_compared(installed: Path, tmp_path: Path) -> None:
    assert registry.names() == [*registry.BUILT_IN, "toy"]
    [parameter] = [one for one in command.params if one.name == "method"]
    assert [item.value for item in parameter.shell_complete(command.make_context("pretrain", ["--out", "x"]), "t")] == [
        "toy"
    ]
    preset = tmp_path / "mine.toml"
    preset.write_text(
        "[pretrain]\ntoy = { spread = 0.5 }\nmoco = { momentum = 0.9 }\n"
        '[compare]\n[[compare.rows]]\nmethod = "toy"\nsettings = { toy = { width = 4 } }\n'
    )
    (row,) = read_grid(str(preset)).rows
    assert row.settings == {"method": "toy", "toy": {"spread": 0.5, "width": 4}}
    run = settled(PretrainConfig, registry.over_preset("pretrain", str(preset), {"method": "toy"}))
    assert run.tables()["toy"] == {"width": 16, "spread": 0.5}


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ("toy = toy.nothing:METHOD", "method toy cannot be loaded from toy.nothing:METHOD"),
        ("toy = toy.method:Toy", "toy.method:Toy is not a declaration of a method called toy"),
        ("doll = toy.method:METHOD", "toy.method:METHOD is not a declaration of a method called doll"),
    ],
)
def test_a_broken_package_is_named(entry: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install(tmp_path, entry)
    use(tmp_path, monkeypatch)
    with pytest.raises(ConfigError, match=message):
        registry.find(entry.partition(" ")[0])
    assert registry.names_for("teacher") == ["moco", "byol"]


def test_a_program_can_register_one_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "_registered", {})
    mine = Method("mine", "mine", NoSettings, lambda settings, given: pytest.fail("not built"), {}, needs_labels=True)
    registry.register(mine)
    assert registry.find("mine") is mine and "mine" in registry.names()
    assert registry.read_run(PretrainConfig, {"method": "mine"}).tables().keys() == {
        *("command", "method", "stages", "initial"),
        *(
            "teacher",
            "teacher_pixels",
            "teacher_image_size",
            "teacher_layout",
            "teacher_output",
            "teacher_cache_epochs",
        ),
        *("data", "backbone", "augmentation", "training"),
    }
    for taken in (mine, registry.find("moco")):
        with pytest.raises(ValueError, match="there is a method"):
            registry.register(taken)
