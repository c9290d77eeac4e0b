"""A kind of device is added from outside: by registering it, or as an entry point of another package."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

import pytest
from click.testing import CliRunner

from bssl_tf.cli.main import cli
from bssl_tf.devices import Device, Facts, Job, kinds, register, unregister
from bssl_tf.errors import ConfigError, DeviceError
from bssl_tf.workflows.bench_devices import DeviceBenchSettings, bench_devices
from bssl_tf.workflows.devices import check_devices
from bssl_tf_deploy.bench import subject_of
from bssl_tf_deploy.record import BINARY, Golden, Latency, Machine, Network, Record, Run
from tests.devices.test_ssh import fails

# As the file of another package would have it: it knows `bssl_tf.devices` and `bssl_tf_deploy.record`, no more.
TOY = """
import re

from bssl_tf.devices import Device, Facts
from bssl_tf_deploy.bench import subject_of
from bssl_tf_deploy.record import Golden, Latency, Machine, Network, Record, Run


class Toy(Device):
    kind = "toy"
    forms = ("toy[:colour]",)
    offers = ("toy",)
    pattern = re.compile("toy(:(?P<colour>[a-z]+))?")

    def check(self):
        return Facts(Machine(self.name, self.settings.address, "wood", 1, "Toy", "z80"), "toy", free_mib=3)

    def measure(self, job):
        networks = {
            name: Network("beside", "wheels", len(model), latency=Latency(p50_ms=number + 1.0, calls=1))
            for number, (name, model) in enumerate({"binary": job.bundle.model, **job.beside}.items())
        }
        return Record(
            command=None, commit=None, time=None, machine=self.check().machine, versions={"toy": "1"},
            subject=subject_of(job.bundle), golden=Golden(4, (job.threads,)), runs=(Run(job.threads, networks),),
        )

    def clean(self):
        return True
"""


class Robot(Device):
    """A kind that tells what it was asked."""

    kind = "robot"
    forms = ("robot:NUMBER",)
    pattern = re.compile(r"robot:(?P<number>\d)")
    asked: ClassVar[list[Any]] = []

    def accept(self, job: Job, beside: Any) -> list[str]:
        if job.all_threads:
            raise ConfigError(f"{self.name} has one core", "Omit --all-threads")
        return ["robots do not get tired, so --sustained is omitted"] if job.sustained_s else []

    def reach(self) -> None:
        if self.settings.address.endswith("0"):
            raise DeviceError(f"{self.name} is asleep", "Wake it")

    def check(self) -> Facts:
        return Facts(Machine(self.name, self.settings.address, "tin", 1, "Robot", "robot"), "robot")

    def measure(self, job: Job) -> Record:
        self.asked.append(job)
        networks = {BINARY: Network("subject", "tin", 1, latency=Latency(p50_ms=1.0, calls=1))}
        networks |= {name: Network("beside", "tin", 1, latency=Latency(p50_ms=2.0, calls=1)) for name in job.beside}
        return Record(
            command=None,
            commit=None,
            time="2026-01-02T03:04:05Z",
            machine=self.check().machine,
            versions={},
            subject=subject_of(job.bundle),
            golden=Golden(4, (1,)),
            runs=(Run(1, networks),),
        )

    def clean(self) -> bool:
        self.asked.append("clean")
        return False


@pytest.fixture
def robot() -> Iterator[type[Robot]]:
    register(Robot)
    Robot.asked.clear()
    yield Robot
    unregister(Robot)


@pytest.fixture
def toy(tmp_path: Path) -> dict[str, str]:
    """An environment where another package with a kind of device is installed."""
    (tmp_path / "toy_kind.py").write_text(TOY)
    about = tmp_path / "toy_kind-1.0.dist-info"
    about.mkdir()
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: toy-kind\nVersion: 1.0\n")
    (about / "entry_points.txt").write_text("[bssl_tf.devices]\ntoy = toy_kind:Toy\n")
    return os.environ | {"PYTHONPATH": str(tmp_path), "XDG_CONFIG_HOME": str(tmp_path / "config")}


def command(environment: dict[str, str], *arguments: Any) -> subprocess.CompletedProcess[str]:
    words = [sys.executable, "-m", "bssl_tf", *map(str, arguments)]
    return subprocess.run(words, capture_output=True, text=True, timeout=300, check=False, env=environment)


def test_a_kind_of_another_package_is_checked_measured_and_cleaned(toy: dict[str, str], real_bundle: Path) -> None:
    done = command(toy, "devices", "toy", "toy:red")
    assert done.returncode == 0, done.stderr
    assert done.stdout == "toy: wood, 1 cores, Toy z80, 3 MiB disk free\n" + done.stdout.splitlines()[1] + "\n"
    assert done.stdout.splitlines()[1].startswith("toy:red: wood")
    beside = ("--beside", f"copy={real_bundle / 'model.tflite'}")
    done = command(toy, "bench", real_bundle, "--device", "toy", "--no-float", "--threads", "3", *beside, "--json")
    assert done.returncode == 0, done.stderr
    [record] = map(Record.from_dict, json.loads(done.stdout))
    [run] = record.runs
    assert (record.machine.processor, run.threads, list(run.networks)) == ("wood", 3, ["binary", "copy"])
    assert record.command == f"bssl-tf bench {real_bundle} --device toy --threads 3 {' '.join(beside)} --no-float"
    assert record.commit and record.subject and record.subject.bundle_sha256
    shown = command(toy, "bench", real_bundle, "--device", "toy", "--no-float").stdout
    assert "toy: binary_resnet" in shown and "wheels" in shown and "1.000" in shown
    assert command(toy, "devices", "toy", "--clean").stdout == "toy: removed\n"
    fails(command(toy, "devices", "toi"), 3, "'toi' is not a device", "Give local, ", "toy[:colour]")


def test_a_kind_that_does_not_load_leaves_the_others_as_they_are(toy: dict[str, str], tmp_path: Path) -> None:
    (tmp_path / "toy_kind.py").write_text("raise RuntimeError('broken')")
    done = command(toy, "devices", "local")
    assert done.returncode == 0, done.stderr
    assert "the kind of device toy_kind:Toy cannot be loaded (broken)" in done.stderr


def test_a_registered_kind_takes_part_in_everything(robot: type[Robot], real_bundle: Path, tmp_path: Path) -> None:
    assert robot in kinds()
    [one] = check_devices(["robot:1"])
    assert one.facts is not None and one.facts.machine.processor == "tin"
    file = tmp_path / "records.jsonl"
    settings = DeviceBenchSettings(stock=False, beside={"mine": real_bundle / "model.tflite"}, clean=True)
    good, lost = sorted(
        bench_devices(real_bundle, ["robot:0", "robot:1"], settings, record_file=file),
        key=lambda one: one.error is not None,
    )
    assert isinstance(lost.error, DeviceError) and (lost.device, lost.record) == ("robot:0", None)
    assert good.record is not None and good.record.runs[0].networks["mine"].role == "beside"
    assert [Record.from_dict(json.loads(line)) for line in file.read_text().splitlines()] == [good.record]
    [job, cleaned] = robot.asked
    assert cleaned == "clean" and (job.threads, job.budget_s, list(job.beside)) == (1, None, ["mine"])
    shown = CliRunner().invoke(cli, ["bench", str(real_bundle), "--device", "robot:1", "--no-float"])
    assert shown.exit_code == 0 and "robot:1: " in shown.output and "tin" in shown.output


def test_what_a_kind_cannot_do_is_told_before_anything_is_made(
    robot: type[Robot], real_bundle: Path, caplog: pytest.LogCaptureFixture
) -> None:
    list(bench_devices(real_bundle, ["robot:1"], DeviceBenchSettings(stock=False, sustained_s=5)))
    assert "robot:1: robots do not get tired, so --sustained is omitted" in caplog.text
    robot.asked.clear()
    with pytest.raises(ConfigError, match="robot:1 has one core"):
        list(bench_devices(real_bundle, ["robot:1"], DeviceBenchSettings(all_threads=True)))
    assert not robot.asked


def test_two_kinds_of_one_name_are_refused(robot: type[Robot]) -> None:
    class Other(Robot):
        pass

    with pytest.raises(ValueError, match="another kind of device called 'robot'"):
        register(Other)
    assert register(robot) is robot


def test_no_kind_is_named_outside_the_kinds() -> None:
    """Nobody asks which kind a device is: what differs between kinds is in their classes."""
    package = Path(__file__).parents[2] / "bssl_tf"
    for folder in ("cli", "workflows"):
        for file in (package / folder).glob("*.py"):
            code = file.read_text(encoding="utf-8")
            assert not re.search(
                r"isinstance\([^)]*(Device|Connection|Phone)\)|[!=]= \"(qemu-arm64|local|adb)", code
            ), file
