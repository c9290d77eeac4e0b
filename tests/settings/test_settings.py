from __future__ import annotations

import datetime
from dataclasses import fields
from pathlib import Path

import pytest

from bssl_tf.errors import ConfigError
from bssl_tf.methods.registry import names, names_for, over_preset, read_run
from bssl_tf.settings import (
    FinetuneConfig,
    PretrainConfig,
    TeacherConfig,
    differences,
    first_difference,
    merge,
    presets,
    read_preset,
    read_run_config,
    read_settings,
    read_toml,
    write_config,
)


@pytest.mark.parametrize("kind", [TeacherConfig, PretrainConfig])
def test_writing_and_reading_gives_the_same_configuration(kind: type[TeacherConfig], tmp_path: Path) -> None:
    tables = {"training": {"epochs": 3, "learning_rate": 1}, "data": {"source": 'a"b\\c\nd é'}}
    run = read_run(kind, tables)
    assert run.sections.training.learning_rate == 1.0 and isinstance(run.sections.training.learning_rate, float)
    write_config(tmp_path / "config.toml", run.tables())
    assert read_run_config(tmp_path)["command"] == run.sections.command
    assert read_run(kind, read_toml(tmp_path / "config.toml")) == run


def test_a_section_keeps_the_defaults_of_its_command() -> None:
    config = read_settings(TeacherConfig, {"training": {"epochs": 3}})
    assert config.training.schedule == "cosine"
    assert config.training.epochs == 3


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"trainin": {}}, "unknown setting trainin. Did you mean training?"),
        ({"training": {"epoch": 3}}, "unknown setting training.epoch. Did you mean training.epochs?"),
        ({"training": {"epochs": "3"}}, "training.epochs is '3', which is not an int"),
        ({"training": {"epochs": True}}, "training.epochs is True, which is not an int"),
        ({"training": {"learning_rate": float("nan")}}, "training.learning_rate is nan. Give a finite value"),
        ({"training": {"seed": False}}, "training.seed is False, which is not an int"),
        ({"data": {"download": 1}}, "data.download is 1, which is not a bool"),
        ({"training": 3}, "training is 3, not a table. Write [training]"),
        ({"training": {"epochs": 3.0}}, "training.epochs is 3.0, which is not an int"),
        ({"training": {"learning_rate": "fast"}}, "training.learning_rate is 'fast', which is not a float"),
        ({"training": {"learning_rate": True}}, "training.learning_rate is True, which is not a float"),
        ({"training": {"learning_rate": 10**400}}, "which is not a float"),
        ({"training": {"epochs": 0}}, "training.epochs is 0. Give a value above zero"),
        ({"training": {"seed": -1}}, "training.seed is -1. Give zero or more"),
        ({"training": {"schedule": "cosin"}}, "training.schedule is 'cosin'. Did you mean 'cosine'?"),
        ({"training": {"schedule": 1}}, "training.schedule is 1"),
        ({"data": {"source": datetime.date(2026, 1, 1)}}, "which is not a str. Give a value of type str"),
        ({"backbone": {"widht": 3}}, "unknown setting backbone.widht. Did you mean backbone.width?"),
    ],
)
def test_a_wrong_setting_is_named(settings: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError) as error:
        read_settings(TeacherConfig, settings)
    assert message in str(error.value)
    assert error.value.exit_status == 3


def test_every_preset_is_valid_for_its_commands() -> None:
    assert "demo" in presets()
    for name in presets():
        if name not in ("cifar10-tuning", "photos"):  # they take the teacher of another, or a pretrained one
            read_run(TeacherConfig, over_preset("teacher", name, {}))
        tables = read_preset(name, "pretrain")
        for method in names_for("pretrain"):
            read_run(PretrainConfig, over_preset("pretrain", name, {"method": method}))
        assert tables.keys() <= {*(field.name for field in fields(PretrainConfig)), *names()}
    read_run(FinetuneConfig, over_preset("finetune", "photos", {}))


def test_an_unknown_preset_names_the_nearest() -> None:
    with pytest.raises(ConfigError, match="Did you mean 'demo'"):
        read_preset("demmo", "teacher")


def test_a_preset_file_of_the_user(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text('[pretrain]\nmethod = "bssl"\n')
    assert read_preset(str(path), "pretrain") == {"method": "bssl"}
    with pytest.raises(ConfigError, match=r"no table \[teacher\]"):
        read_preset(str(path), "teacher")
    path.write_text("[pretrain\n")
    with pytest.raises(ConfigError, match="not valid TOML"):
        read_preset(str(path), "pretrain")
    with pytest.raises(ConfigError, match="is missing"):
        read_preset(str(tmp_path / "none.toml"), "pretrain")
    path.write_text("[student]\n")
    with pytest.raises(ConfigError, match="unknown table student"):
        read_preset(str(path), "pretrain")


def test_merge_lays_tables_on_top_and_changes_neither() -> None:
    base, over = {"a": {"b": 1, "c": 2}, "d": 3}, {"a": {"c": 4}, "e": 5}
    assert merge(base, over) == {"a": {"b": 1, "c": 4}, "d": 3, "e": 5}
    assert base == {"a": {"b": 1, "c": 2}, "d": 3}


def test_differences_names_each_changed_setting() -> None:
    tables = read_run(TeacherConfig, {"training": {"epochs": 3}}).tables()
    assert differences(tables, {"training": {"epochs": 3}}) == {}
    found = differences(tables, {"training": {"epochs": 4}})
    assert found == {"training.epochs": (3, 4)}
    assert first_difference(found) == "training.epochs is 3 there and 4 here"
    found = differences(tables, {"bssl": {"hidden_width": 4}})
    assert found == {"bssl": (None, {"hidden_width": 4})}
    assert first_difference(found) == "bssl is not there and {'hidden_width': 4} here"
