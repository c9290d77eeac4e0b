"""The runs of faults find what they are there to find; `make test-faults` has them in large numbers."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.faults import mutations, originals
from tests.faults.mutations import KINDS, Kind, read_mutants


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("originals")
    originals.make_pictures(folder / "pictures")
    return folder


@pytest.mark.parametrize("name", ["JPEG", "PNG", "WebP", "TIFF"])
def test_mutated_pictures_are_read_or_refused(name: str, pictures: Path) -> None:
    found = read_mutants(name, pictures, 0, 150)
    assert not found["failures"]
    assert found["mutants"] == sum(found["outcomes"].values()) == 150
    assert {"read", "ImageError"} <= found["outcomes"].keys()


def _key_error(path: Path) -> None:
    raise KeyError("width")


def _writes(path: Path) -> None:
    (Path(os.devnull)).write_text("effect")


def _sleeps(path: Path) -> None:
    time.sleep(0.4)


@pytest.mark.parametrize(
    ("reader", "words"),
    [
        (_key_error, "KeyError"),
        (_writes, "side effects"),
        (_sleeps, "no answer within"),
    ],
)
def test_planted_faults_are_found(
    reader: Callable[[Path], None], words: str, pictures: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mutations, "SECONDS", 0.1)
    calls = 0

    def read(path: Path) -> None:
        nonlocal calls
        calls += 1
        # The first call is for the whole file, which has to be read.
        if calls > 1:
            reader(path)

    monkeypatch.setitem(KINDS, "planted", Kind("pictures/photo.jpg", read))
    found = read_mutants("planted", pictures, 0, 2)
    assert any(words in failure for failure in found["failures"])


def test_a_mutant_is_repeated_by_its_number(pictures: Path) -> None:
    def content(seed: int) -> bytes:
        import numpy as np

        whole = (pictures / "pictures" / "photo.jpg").read_bytes()
        return mutations.mutated(whole, np.random.default_rng(seed), text=False)

    assert content(7) == content(7) != content(8)
