from __future__ import annotations

from pathlib import Path

import pytest

from bssl_tf.comparison.grid import read_grid
from bssl_tf.comparison.records import load
from bssl_tf.errors import ConfigError
from bssl_tf.methods.registry import names_for, read_run
from bssl_tf.settings import PretrainConfig, presets, read_preset

PRESET = """
[pretrain]
data = { source = "embedded" }
training = { epochs = 1, learning_rate = 1e-3 }

[compare]
protocols = ["knn-20"]
[[compare.rows]]
method = "s2bnn"
seeds = [0, 1]
headline = true
[[compare.rows]]
method = "moco"
variant = "plain, SGD"
settings = { training = { optimizer = "sgd" } }
"""


def write(path: Path, text: str) -> str:
    path.write_text(text)
    return str(path)


def test_rows_lay_their_settings_over_the_presets(tmp_path: Path) -> None:
    grid = read_grid(write(tmp_path / "mine.toml", PRESET))
    assert grid.preset == "mine"
    first, second = grid.rows
    assert (first.name, first.slug, first.seeds, first.headline) == ("s2bnn", "s2bnn", (0, 1), True)
    assert (second.name, second.slug, second.seeds) == ("moco, plain, SGD", "moco-plain-sgd", (0,))
    config = read_run(PretrainConfig, second.settings).sections
    assert (config.method, config.training.optimizer, config.training.epochs) == ("moco", "sgd", 1)
    assert read_run(PretrainConfig, first.settings).sections.training.optimizer == "adam"


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("seeds = [0, 1]", "seeds = 3", r"rows\[1\]\.seeds is 3"),
        ("seeds = [0, 1]", "seeds = [true]", r"rows\[1\]\.seeds"),
        ("seeds = [0, 1]", "sedes = [0]", r"unknown setting compare\.rows\[1\]\.sedes"),
        ('protocols = ["knn-20"]', "protocols = 1", "compare.protocols is 1"),
        ('protocols = ["knn-20"]', 'protocol = ["knn-20"]', r"unknown setting compare\.protocol"),
        ('method = "moco"', "", r"rows\[2\] names no method"),
        ('method = "moco"\nvariant = "plain, SGD"', 'method = "s2bnn"', "two rows s2bnn"),
        ('optimizer = "sgd"', 'optimiser = "sgd"', "unknown setting training.optimiser.*Did you mean"),
        ("[[compare.rows]]", "[[compare.row]]", "unknown setting compare.row"),
        ('method = "moco"', 'method = "mocco"', "mocco.*Did you mean 'moco'"),
        ('"knn-20"', '"knn-21"', "Did you mean 'knn-20'"),
        ("headline = true", 'headline = "false"', r"rows\[1\]\.headline is 'false'"),
        ("[compare]", "[compare]\ntransfer = [{ limit = 3 }]", r"transfer\[1\] names no source"),
        ("[compare]", '[compare]\ntransfer = [{ sorce = "x" }]', r"unknown setting compare\.transfer\[1\]\.sorce"),
        ("training = { epochs = 1, learning_rate = 1e-3 }", "training = 3", "training is 3, not a table"),
    ],
)
def test_a_wrong_grid_is_one_clear_line(old: str, new: str, message: str, tmp_path: Path) -> None:
    assert old in PRESET
    with pytest.raises(ConfigError, match=message):
        read_grid(write(tmp_path / "mine.toml", PRESET.replace(old, new)))


@pytest.mark.parametrize("name", [name for name in presets() if name.startswith("cifar10")])
def test_presets_compare_methods_fairly(name: str) -> None:
    """Same student, images, epochs and batch for every row, whatever else a row changes."""
    grid = read_grid(name)
    configs = [read_run(PretrainConfig, row.settings).sections for row in grid.rows]
    shared = {
        (c.data, repr(c.backbone), c.training.epochs, c.training.batch_size, c.training.precision) for c in configs
    }
    assert len(shared) == 1
    # The newest method has rows, and records, when the comparison is run again.
    assert {c.method for c in configs} == set(names_for("pretrain")) - {"guided"}
    # MoCo v2's own views are one of the things that S2-BNN's improvements replace; all other rows share theirs.
    others = [
        c for row, c in zip(grid.rows, configs, strict=True) if row.variant.split(",")[0] not in ("plain", "Adam")
    ]
    assert len({c.augmentation for c in others}) == 1


def test_settings_that_change_a_result_change_the_hash(tmp_path: Path) -> None:
    preset = write(tmp_path / "mine.toml", PRESET)
    (row, _), (same, _) = read_grid(preset).rows, read_grid(preset, {"data": {"data_dir": "/elsewhere"}}).rows
    (other, _) = read_grid(preset, {"training": {"epochs": 2}}).rows
    assert row.settings_sha256 == same.settings_sha256 != other.settings_sha256
    assert read_run(PretrainConfig, other.settings).sections.training.epochs == 2


def test_the_recorded_comparison_is_that_of_its_preset() -> None:
    """Where this fails, a change of settings made records worthless that minutes of training went into."""
    records = load(Path(__file__).parents[2] / "results" / "cifar10.jsonl")
    recorded = {(one["method"], one["variant"], one["settings"]) for one in records}
    for row in read_grid("cifar10").rows:
        assert (row.method, row.variant, row.settings_sha256) in recorded, row.name


def test_what_other_methods_are_told_is_no_part_of_a_row(tmp_path: Path) -> None:
    preset = write(tmp_path / "mine.toml", PRESET)
    rows, changed = read_grid(preset).rows, read_grid(preset, {"bssl": {"classifier_rate": 0.5}}).rows
    assert [row.settings_sha256 for row in rows] == [row.settings_sha256 for row in changed]
    (s2bnn, moco), (s2bnn_changed, moco_changed) = rows, read_grid(preset, {"moco": {"temperature": 0.5}}).rows
    assert s2bnn.settings_sha256 == s2bnn_changed.settings_sha256
    assert moco.settings_sha256 != moco_changed.settings_sha256
    wrong = PRESET.replace('optimizer = "sgd" }', 'optimizer = "sgd" }, swav = { prototypes = 9 }')
    with pytest.raises(ConfigError, match=r"rows\[2\].settings.swav is not for moco"):
        read_grid(write(tmp_path / "wrong.toml", wrong))


def test_a_preset_without_a_grid_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"preset demo has no table \[compare\]"):
        read_grid("demo")
    assert "compare" not in read_preset("demo", "pretrain")
