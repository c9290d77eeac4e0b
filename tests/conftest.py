"""Fixtures that several rooms share. Everything trained here is tiny: what is tested is the machinery."""

from __future__ import annotations

import gc
import logging
import os
import resource
import subprocess
import sys
from collections.abc import Callable, Generator, Iterable, Iterator
from pathlib import Path
from typing import Any

import hypothesis
import numpy as np
import pytest

from bssl_tf.cli._logging import PACKAGES
from tests.command_server import CommandServer

# On a machine that does other work an example may take any time.
hypothesis.settings.register_profile("unhurried", deadline=None)
hypothesis.settings.load_profile("unhurried")

# Small enough that a stage takes seconds, large enough that every kind of variable is there.
TINY_TEACHER = [
    *("--data", "embedded", "--limit", "128", "--batch-size", "32", "--epochs", "2", "--width", "8", "--threads", "1"),
    *("--set", "moco.queue_size=64", "--set", "moco.embedding_width=16"),
]
TINY_STUDENT = [
    *("--data", "embedded", "--limit", "128", "--batch-size", "32", "--epochs", "2", "--depth", "1", "--threads", "1"),
    *("--set", "training.checkpoint_every_s=0.2"),
]


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Escapes odd names in what a test logged and printed: processes of pytest send each other UTF-8 only."""
    report = yield
    escaped = [(name, text.encode("utf-8", "backslashreplace").decode()) for name, text in report.sections]
    report.sections[:] = escaped
    return report


@pytest.fixture(autouse=True, scope="module")
def few_objects_to_look_through() -> Iterator[None]:
    """What a file of tests leaves behind for good, such as TensorFlow's graphs, no collection goes through again.

    There are millions of such objects after some files, and each collection of all would take seconds.
    """
    yield
    gc.collect()
    gc.freeze()


@pytest.fixture(autouse=True)
def _logging_as_before() -> Iterator[None]:
    """Takes away what a command run in this process installed, so that no later test sees its lines or its level."""
    loggers = [logging.getLogger(package) for package in PACKAGES]
    before = [(logger, logger.level, list(logger.handlers)) for logger in loggers]
    yield
    for logger, level, handlers in before:
        logger.setLevel(level)
        logger.handlers[:] = handlers


@pytest.fixture(autouse=True, scope="session")
def _only_finite_numbers_are_close() -> Iterator[None]:
    """NumPy takes NaN for close to NaN, and infinity to itself: two broken networks would agree."""
    compare = np.testing.assert_allclose

    def assert_allclose(actual: Any, desired: Any, *rest: Any, **options: Any) -> None:
        assert np.all(np.isfinite(np.asarray(desired, float)))
        compare(actual, desired, *rest, **options)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(np.testing, "assert_allclose", assert_allclose)
        yield


def require_or_skip(present: bool, reason: str) -> None:
    """Skips with `reason` unless `present`; in CI, where everything is installed, a missing thing is a failure."""
    if not present:
        if os.environ.get("CI"):
            pytest.fail(f"not allowed to skip in CI: {reason}")
        pytest.skip(reason)


def processor_seconds() -> float:
    """Of all processes that this one has waited for."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def light_start(heavy: Iterable[str], *arguments: str, runs: int = 5, check: bool = True) -> tuple[str, float]:
    """Runs `bssl-tf ARGUMENTS` in fresh processes and asserts that no package of `heavy` was loaded.

    Returns what the last one printed, and the processor's seconds of the fastest: a busy machine proves nothing.
    """
    program = (
        f"import sys\nfrom bssl_tf.cli.main import main\nsys.argv = {['bssl-tf', *arguments]!r}\n"
        f"try:\n    main()\nfinally:\n    print([m for m in sys.modules if m.split('.')[0] in {tuple(heavy)!r}])"
    )
    times = []
    for _ in range(runs):
        start = processor_seconds()
        done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=check)
        times.append(processor_seconds() - start)
        assert done.stdout.splitlines()[-1] == "[]"
    return done.stdout, min(times)


@pytest.fixture(scope="session")
def bssl_tf() -> Iterator[Callable[..., subprocess.CompletedProcess[str]]]:
    """Runs the real command line in a process of its own."""
    server = CommandServer()

    def call(*arguments: Any, timeout: float = 300) -> subprocess.CompletedProcess[str]:
        return server.run([str(argument) for argument in arguments], timeout)

    yield call
    server.close()


@pytest.fixture(scope="session")
def tiny_teacher(tmp_path_factory: pytest.TempPathFactory, bssl_tf: Callable[..., Any]) -> Path:
    """A run folder of `bssl-tf teacher`."""
    out = tmp_path_factory.mktemp("teacher") / "run"
    done = bssl_tf("teacher", "--out", out, *TINY_TEACHER, "--json")
    assert done.returncode == 0, done.stderr
    (out.parent / "stdout.json").write_text(done.stdout)
    return out


@pytest.fixture(scope="session")
def tiny_student(tmp_path_factory: pytest.TempPathFactory, bssl_tf: Callable[..., Any], tiny_teacher: Path) -> Path:
    """A run folder of `bssl-tf pretrain` that was evaluated."""
    out = tmp_path_factory.mktemp("student") / "run"
    done = bssl_tf("pretrain", "--out", out, "--teacher", tiny_teacher, *TINY_STUDENT)
    assert done.returncode == 0, done.stderr
    done = bssl_tf("evaluate", out)
    assert done.returncode == 0, done.stderr
    return out


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(20211015)
