"""`--budget`: what is chosen for so many images and so much time."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from bssl_tf.engine.budget import within_budget
from bssl_tf.engine.forecast import Forecast
from bssl_tf.errors import ConfigError
from bssl_tf.methods.registry import read_run
from bssl_tf.settings import FinetuneConfig, PretrainConfig, TeacherConfig, read_toml
from bssl_tf.settings.durations import seconds_of
from tests.conftest import TINY_TEACHER

KINDS = {"teacher": TeacherConfig, "pretrain": PretrainConfig}


def speed(images: int, image_s: float, kind: type[Any]) -> Callable[[dict[str, Any]], Forecast]:
    """A machine that takes so long for an image, and nothing for all else."""

    def forecast(settings: dict[str, Any]) -> Forecast:
        training = read_run(kind, settings).sections.training
        per_epoch, stages = images // training.batch_size, 1 if kind is TeacherConfig else 2
        if not per_epoch:
            raise ConfigError("fewer images than a batch", "")
        steps, step_s = stages * training.epochs * per_epoch, training.batch_size * image_s
        return Forecast(images, steps, per_epoch, 20, step_s, per_epoch * step_s, 0.0, steps * step_s, 0, 0, 0)

    return forecast


@pytest.mark.parametrize(("text", "seconds"), [("90s", 90), ("30m", 1800), ("1h30m", 5400), ("2h", 7200)])
def test_durations(text: str, seconds: float) -> None:
    assert seconds_of(text) == seconds


@pytest.mark.parametrize("text", ["", "30", "m", "0m", "-5m", "1.5h", "30m1h", "half an hour"])
def test_what_is_no_duration_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="is not a duration"):
        seconds_of(text)


@example(command="pretrain", method="swav", images=10_000, microseconds=1000, minutes=1)
@given(
    command=st.sampled_from(sorted(KINDS)),
    method=st.sampled_from(["moco", "byol", "s2bnn", "guided", "swav"]),
    images=st.integers(128, 2_000_000),
    microseconds=st.integers(100, 50_000),
    minutes=st.integers(1, 6000),
)
def test_the_run_fits_and_its_settings_go_together(
    command: str, method: str, images: int, microseconds: int, minutes: int
) -> None:
    kind = KINDS[command]
    if command == "teacher" and method not in ("moco", "byol"):
        return
    measure = speed(images, microseconds * 1e-6, kind)
    try:
        chosen, line = within_budget(kind, {"method": method}, f"{minutes}m", lambda _: images, measure)
    except ConfigError as error:
        # The two stages of an epoch each, of which swav's prototypes stand still in one.
        least = 20 if "is not enough for an epoch" in str(error) else 12
        assert least == 20 or (
            method == "swav" and "enough for training.epochs=1, but swav.frozen_epochs" in str(error)
        )
        assert images * microseconds * 1e-6 > least * minutes
        return
    run, taken = read_run(kind, chosen), measure(chosen)
    training = run.sections.training
    assert taken.total_s <= 60 * minutes
    once_more = measure(chosen | {"training": chosen["training"] | {"epochs": training.epochs + 1}})
    assert training.epochs == 200 or once_more.total_s > 0.9 * 60 * minutes
    assert taken.steps_per_epoch >= 20 or training.batch_size == 16
    if run.method.queue:
        queue = getattr(run.own, run.method.queue)
        assert queue % training.batch_size == 0 and training.batch_size <= queue <= max(
            images // 2, training.batch_size
        )
    run.method.check(run.own, training)
    assert f"{training.epochs} epochs" in line and f"batch size {training.batch_size}" in line


def test_what_is_given_stays() -> None:
    given = {"method": "moco", "training": {"batch_size": 96, "learning_rate": 0.5}, "moco": {"queue_size": 960}}
    chosen, _ = within_budget(TeacherConfig, given, "10m", lambda _: 10_000, speed(10_000, 1e-3, TeacherConfig))
    assert chosen["training"]["batch_size"] == 96 and chosen["training"]["learning_rate"] == 0.5
    assert chosen["moco"]["queue_size"] == 960
    with pytest.raises(ConfigError, match="epochs is set"):
        within_budget(
            TeacherConfig, {"training": {"epochs": 3}}, "10m", lambda _: 10_000, speed(10_000, 1e-3, TeacherConfig)
        )


def test_fine_tuning_has_as_many_epochs_as_fit_and_no_more_than_by_default() -> None:
    def unasked(_: object) -> int:
        raise AssertionError("nothing depends on the number of images")

    measure = speed(10_000, 1e-3, FinetuneConfig)
    for budget, epochs in (("1m", 2), ("10m", 27), ("1h", 60)):
        chosen, line = within_budget(FinetuneConfig, {"student": "runs/a"}, budget, unasked, measure)
        assert chosen == {"student": "runs/a", "training": {"epochs": epochs}}
        assert f"{budget} for 10000 images" in line and f"{epochs} epochs per stage of 312 steps" in line
    with pytest.raises(ConfigError, match="20s is not enough for an epoch"):
        within_budget(FinetuneConfig, {}, "20s", unasked, measure)


@pytest.mark.parametrize("command", sorted(KINDS))
def test_on_the_embedded_images_it_is_the_demo(command: str) -> None:
    """What was tuned on them is what is chosen for them, but for how long to train."""
    demo = read_toml(Path("bssl_tf/settings/presets/demo.toml"))[command]
    chosen, _ = within_budget(KINDS[command], {}, "4m", lambda _: 10_000, speed(10_000, 1e-4, KINDS[command]))
    for key in ("batch_size", "learning_rate"):
        assert chosen["training"][key] == demo["training"][key]
    wanted, known = read_run(KINDS[command], chosen), read_run(KINDS[command], demo)
    ours, theirs = dataclasses.asdict(wanted.own), dataclasses.asdict(known.own)  # type: ignore[call-overload]
    assert {key: (ours[key], theirs[key]) for key in ours if ours[key] != theirs[key]} == (
        {} if command == "pretrain" else {"queue_size": (2432, 2048)}
    )


def test_a_run_takes_about_as_long_as_it_may(tmp_path: Path, bssl_tf: Callable[..., Any]) -> None:
    options = list(TINY_TEACHER)
    place = options.index("--epochs")
    del options[place : place + 2]
    budget = "20s"
    done = bssl_tf("teacher", "--out", tmp_path / "run", *options, "--budget", budget)
    # On a busy machine TensorFlow takes that long to start.
    advice = re.search(r"20s is not enough .* Give (\S+) or more", done.stderr)
    if advice:
        budget = advice[1]
        done = bssl_tf("teacher", "--out", tmp_path / "run", *options, "--budget", budget)
    assert done.returncode == 0, done.stderr
    planned = rf"^{budget} for 128 images at \S+ s per step: (\d+) epochs of 4 steps"
    [chosen] = re.findall(planned, done.stderr, re.MULTILINE)
    assert read_toml(tmp_path / "run" / "config.toml")["training"]["epochs"] == int(chosen) > 1
