"""`bssl_tf.bench`: this machine or a device, one record, errors raised."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import bssl_tf as bt
from bssl_tf.bench_records import read_benchmarks
from bssl_tf.errors import ConfigError, UsageError
from tests.deploy.conftest import real_bundle as real_bundle


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"budget": 3.0}, "budget is for devices"),
        ({"sustained": 3.0}, "sustained is for devices"),
        ({"device": "local", "repetitions": 3}, "repetitions does not go with device"),
        ({"device": "local", "runtime": "lce"}, "runtime does not go with device"),
    ],
)
def test_arguments_that_would_do_nothing_are_refused(real_bundle: Path, arguments: dict[str, Any], words: str) -> None:
    with pytest.raises(UsageError, match=words):
        bt.bench(real_bundle, **arguments)


def test_a_file_that_is_not_there_or_of_no_use_is_refused(real_bundle: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="is not a file"):
        bt.bench(real_bundle, device="adb", tflite_library=tmp_path / "none")
    (tmp_path / "library").write_bytes(b"")
    with pytest.raises(UsageError, match="none of the devices can use --tflite-library"):
        bt.bench(real_bundle, device="local", tflite_library=tmp_path / "library")


def test_a_device_gives_the_record_that_is_written(real_bundle: Path, tmp_path: Path) -> None:
    file = tmp_path / "records.jsonl"
    model = real_bundle / "model.tflite"
    record = bt.bench(real_bundle, device="local", budget=0.0, stock=False, record=file)
    assert read_benchmarks(file) == [record]
    assert record.command == f"bssl-tf bench {real_bundle} --device local --threads 1 --budget 0 --no-float"
    assert record.subject and record.subject.bundle == str(real_bundle) and record.commit
    with pytest.raises(ConfigError, match="'a b' cannot name a network"):
        bt.bench(real_bundle, device="local", beside={"a b": model})
