from __future__ import annotations

from pathlib import Path

import pytest

from bssl_tf.errors import ConfigError
from bssl_tf.settings import (
    PretrainConfig,
    TeacherConfig,
    differences,
    from_dict,
    merge,
    presets,
    read_preset,
    read_toml,
    write_config,
)


@pytest.mark.parametrize("kind", [TeacherConfig, PretrainConfig])
def test_writing_and_reading_gives_the_same_configuration(kind: type[TeacherConfig], tmp_path: Path) -> None:
    config = from_dict(kind, {"training": {"epochs": 3, "learning_rate": 1}, "data": {"source": 'a"b\\c\nd é'}})
    write_config(tmp_path / "config.toml", config)
    assert from_dict(kind, read_toml(tmp_path / "config.toml")) == config


def test_a_section_keeps_the_defaults_of_its_command() -> None:
    config = from_dict(TeacherConfig, {"training": {"epochs": 3}})
    assert config.training.schedule == "cosine"
    assert config.training.epochs == 3


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"trainin": {}}, "unknown setting trainin. Did you mean training?"),
        ({"training": {"epoch": 3}}, "unknown setting training.epoch. Did you mean training.epochs?"),
        ({"training": {"epochs": "3"}}, "training.epochs is '3', which is no int"),
        ({"training": {"epochs": True}}, "training.epochs is True, which is no int"),
        ({"training": {"learning_rate": float("nan")}}, "training.learning_rate is nan. Give a finite value"),
        ({"training": {"seed": False}}, "training.seed is False, which is no int"),
        ({"data": {"download": 1}}, "data.download is 1, which is no bool"),
        ({"training": 3}, "training is 3, not a table"),
    ],
)
def test_a_wrong_setting_is_named(settings: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError) as error:
        from_dict(TeacherConfig, settings)
    assert message in str(error.value)
    assert error.value.exit_status == 3


def test_every_preset_is_valid_for_its_commands() -> None:
    assert "demo" in presets()
    for name in presets():
        if name != "cifar10-tuning":  # it takes the teacher of another
            from_dict(TeacherConfig, read_preset(name, "teacher"))
        from_dict(PretrainConfig, read_preset(name, "pretrain"))


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
    config = from_dict(TeacherConfig, {"training": {"epochs": 3}})
    assert differences(config, {"training": {"epochs": 3}}) == []
    assert differences(config, {"training": {"epochs": 4}}) == ["training.epochs is 3 there and 4 here"]
