"""`bssl-tf bench --share`: a record that can be given away."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from bssl_tf.bench_records import read_benchmarks
from bssl_tf.workflows.share import share, shareable
from bssl_tf_deploy.record import Latency, Machine, Network, Profile, Record, Subject
from docs import tables
from tests.reports.run_folders import device_benchmark, emulated_benchmark

SECRET = "kitchen"


def personal(network: str) -> Record:
    """With a user's word wherever one may stand."""
    record = device_benchmark()
    subject = Subject(network, f"/home/{SECRET}/bundle", 64 * "a", "arm64", (1, 224, 224, 3))
    machine = Machine(SECRET, f"ssh://{SECRET}@host", "Cortex-A72", 4, "Linux", "aarch64", f"6.6.31-{SECRET}+")
    run = record.runs[0]
    binary = run.networks["binary"]
    own = Network("beside", "LiteRT XNNPACK", 5, latency=Latency(1.0, 3))
    refused = Network("stock", "LiteRT XNNPACK", 5, refused=f"/home/{SECRET} is missing")
    networks = {
        "binary": dataclasses.replace(binary, printed=(f"loaded /home/{SECRET}/model.tflite",)),
        **{"mobilenet_v2_int8": own, f"{SECRET}_model": own, "float32": refused, "int8": own},
    }
    profile = dataclasses.replace(
        run.profiles[0],
        rows=tuple(dataclasses.replace(row, layer=f"{SECRET}_conv", output=SECRET) for row in run.profiles[0].rows),
    )
    return dataclasses.replace(
        record,
        command=f"bssl-tf bench /home/{SECRET}/bundle",
        note=SECRET,
        time="2026-11-29T07:15:44Z",
        machine=machine,
        subject=subject,
        runs=(dataclasses.replace(run, networks=networks, profiles=(profile,)),),
    )


def test_nothing_personal_is_left_and_what_others_compare_is() -> None:
    record = personal(f"{SECRET}_net")
    found = shareable(record)
    text = found.to_json()
    assert SECRET in record.to_json() and SECRET not in text and "07:15" not in text and 64 * "a" not in text
    assert found.subject == Subject("a user's own network", None, None, "arm64", (1, 224, 224, 3))
    assert (found.machine.processor, found.machine.cores, found.machine.kernel) == ("Cortex-A72", 4, "6.6.31")
    assert found.commit == record.commit and found.time == "2026-11-29T00:00:00Z"
    [run] = found.runs
    assert list(run.networks) == ["binary", "mobilenet_v2_int8"]
    assert run.networks["binary"].latency == record.runs[0].networks["binary"].latency
    assert found.sustained == record.sustained and found.conditions == record.conditions
    assert shareable(found) == found and Record.from_dict(found.to_dict()) == found


def test_layers_of_our_own_networks_keep_their_names() -> None:
    record = device_benchmark()
    known = dataclasses.replace(record, subject=Subject("quicknet", "a/bundle"))
    assert shareable(known).runs[0].profiles == record.runs[0].profiles
    rows = [row for one in shareable(record).runs for profile in one.profiles for row in profile.rows]
    assert record.subject and record.subject.network == "binary_resnet"  # also ours
    assert any(row.layer for row in rows)
    unknown = dataclasses.replace(record, subject=None)
    assert not any(row.layer or row.output for one in shareable(unknown).runs for p in one.profiles for row in p.rows)


def test_records_are_appended_and_those_of_an_emulator_are_not(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    file = tmp_path / "board.jsonl"
    share(emulated_benchmark(), file)
    assert not file.exists() and "there are no times to share" in caplog.text
    for _ in range(2):
        share(personal("quicknet"), file)
    assert read_benchmarks(file) == [shareable(personal("quicknet"))] * 2
    assert isinstance(personal("quicknet").runs[0].profiles[0], Profile)


def test_the_table_of_boards_has_a_row_for_each_number_of_threads() -> None:
    record = shareable(personal("quicknet"))
    head, _, row = tables.times_on_boards([record]).splitlines()
    assert head.startswith("| board | network | pixels | threads | ms, our runtime |")
    median = record.runs[0].networks["binary"].latency
    assert median is not None and median.p50_ms is not None
    assert row == f"| Cortex-A72, 4 cores, Linux aarch64 | quicknet | 224x224 | 1 | {median.p50_ms:.2f} |  |  | 1.00 |"
    assert tables.times_on_boards([]) == "No board has been measured yet.\n"


def test_records_of_boards_have_nothing_personal() -> None:
    files = sorted(path for path in tables.BOARDS.iterdir() if path.name != "README.md")
    assert all(path.suffix == ".jsonl" for path in files)
    for file in files:
        for record in read_benchmarks(file):
            assert shareable(record) == record, file.name
