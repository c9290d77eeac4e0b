"""How a run is configured, and the warnings before it starts."""

from __future__ import annotations

from typing import Any

import pytest

from bssl_tf.engine.configuration import settled
from bssl_tf.engine.preparation import few_images
from bssl_tf.methods.registry import read_run
from bssl_tf.settings import PretrainConfig, TeacherConfig


@pytest.mark.parametrize(
    ("settings", "schedule", "warmup"),
    [
        ({"method": "bssl"}, "cosine", 10),
        ({"method": "bssl", "training": {"epochs": 20}}, "cosine", 1),
        ({"method": "bssl", "training": {"schedule": "linear"}}, "linear", 0),
        ({"method": "bssl", "training": {"warmup_epochs": 3.0}}, "cosine", 3),
        ({"method": "s2bnn"}, "linear", 0),
        ({}, "linear", 0),
    ],
)
def test_each_method_has_its_papers_schedule(settings: dict[str, Any], schedule: str, warmup: float) -> None:
    config = settled(PretrainConfig, settings).sections
    assert (config.training.schedule, config.training.warmup_epochs) == (schedule, warmup)


@pytest.mark.parametrize(
    ("images", "settings", "told"),
    [
        (302, {}, ["an epoch has 1 step (302 images in batches of 256)", "moco.queue_size=256"]),
        (302, {"training": {"batch_size": 16}, "moco": {"queue_size": 256}}, []),
        (2400, {"training": {"batch_size": 128}, "moco": {"queue_size": 2048}}, []),
        (
            2400,
            {"method": "byol"},
            ["9 steps (2400 images in batches of 256), too few to learn much; pass --batch-size 128"],
        ),
        (10_000, {}, ["queue of 65536 is longer than the 10000 images"]),
        (9, {"training": {"batch_size": 3}, "method": "byol"}, ["3 steps"]),
        (9, {"method": "byol"}, []),  # an error anyway
    ],
)
def test_too_few_images_for_the_settings_are_told(images: int, settings: dict[str, Any], told: list[str]) -> None:
    lines = few_images(read_run(TeacherConfig, settings), images)
    assert len(lines) == len(told)
    for line, part in zip(lines, told, strict=True):
        assert part in line


@pytest.mark.parametrize(
    ("settings", "schedule", "warmup"),
    [
        ({}, "cosine", 1.0),
        ({"training": {"epochs": 3}}, "cosine", 0.3),
        ({"method": "byol", "training": {"epochs": 3}}, "cosine", 0.3),
        ({"training": {"epochs": 3, "warmup_epochs": 2}}, "cosine", 2.0),
        ({"training": {"schedule": "linear"}}, "linear", 0.0),
    ],
)
def test_teachers_are_trained_alike_and_a_short_run_warms_up_for_a_tenth_of_it(
    settings: dict[str, Any], schedule: str, warmup: float
) -> None:
    config = settled(TeacherConfig, settings).sections
    assert (config.training.schedule, config.training.warmup_epochs) == (schedule, warmup)


def test_advice_about_a_queue_names_the_setting_of_the_method() -> None:
    settings = {"s2bnn": {"contrastive": True}, "training": {"batch_size": 16}}
    (line,) = few_images(read_run(PretrainConfig, settings), 302)
    assert "pass --set s2bnn.contrastive_queue_size=144" in line
    assert few_images(read_run(PretrainConfig, {"training": {"batch_size": 16}}), 302) == []
