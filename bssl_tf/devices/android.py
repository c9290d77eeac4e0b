"""A bundle on an Android phone, through adb; nothing stays there.

A phone has no Python. Models run there in TensorFlow Lite's own `benchmark_model`, or where that is absent in a small
runner of ours with TensorFlow Lite's library: `android_benchmark_model` and `android_runner`.
"""

from __future__ import annotations

import dataclasses
import logging
import re
from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING, Any

from bssl_tf.devices.adb import AdbConnection
from bssl_tf.devices.answers import MOST_CORES, number
from bssl_tf.devices.device import DEFAULT_BUDGET_S, Device, DeviceSettings, Facts, Job
from bssl_tf.errors import ConfigError, DeviceError
from bssl_tf_deploy.record import BINARY, Machine, Record
from bssl_tf_deploy.strict import StrictError

if TYPE_CHECKING:
    from bssl_tf.devices.phone import Way

TARGET = "android-arm64"
FOLDER = "/data/local/tmp/bssl-tf-device"
_SPARE_MIB = 8
# Of a text that a phone tells of itself.
_MOST_TEXT = 4096
# What the runner times at once, the bundle's among them: kMaxNetworks in deploy/native/runner/main.cc.
MOST_NETWORKS = 16
log = logging.getLogger(__name__)


class Phone(Device):
    """A phone; see `Device`."""

    kind = "adb"
    forms = ("adb[:serial]",)
    offers = ("adb",)
    pattern = re.compile(r"adb(?::(?P<serial>[A-Za-z0-9][\w.:-]*))?")
    uses = frozenset({"benchmark_model", "tflite_library"})

    @classmethod
    def overridden(cls, settings: DeviceSettings, given: Mapping[str, Any]) -> DeviceSettings:
        # It takes one of the two: what is named now goes before what the file has.
        if "tflite_library" in given:
            settings = dataclasses.replace(settings, benchmark_model=None)
        return dataclasses.replace(settings, **given)

    def connect(self) -> AdbConnection:
        """The way there; nothing is sent yet."""
        found = self.pattern.fullmatch(self.settings.address)
        assert found is not None  # `matches` has seen to it
        return AdbConnection(self.name, found["serial"])

    def accept(self, job: Job, beside: Collection[str]) -> list[str]:
        has_tool = self.settings.benchmark_model is not None
        if not has_tool and len(beside) >= MOST_NETWORKS:
            raise ConfigError(
                f"{len(beside)} networks are to be timed next to the bundle's ({', '.join(list(beside)[:3])} ...), but "
                f"the runner on {self.name} takes at most {MOST_NETWORKS - 1}",
                "Name fewer with --beside, and the rest in another call",
            )
        omitted = ["--sustained works on boards only, and is ignored"] if job.sustained_s else []
        if has_tool and job.budget_s is not None:
            omitted.append("benchmark_model decides for itself how long to measure; --budget is ignored")
        return omitted

    def reach(self) -> None:
        self._way()
        self.check()

    def check(self) -> Facts:
        connection = self.connect()
        connection.client("get-state")

        def text(*command: str) -> str:
            status, out = connection.shell(*command)
            return out.strip()[:_MOST_TEXT] if status == 0 else ""

        abi = text("getprop", "ro.product.cpu.abi")
        if abi != "arm64-v8a":
            raise DeviceError(
                f"{self.name} runs {abi or 'unknown'} programs, for which there is no runtime",
                "Use a phone with a 64-bit ARM system",
            )
        memory = re.search(r"MemTotal:\s+([0-9]+)", text("cat", "/proc/meminfo"))
        total_kib = number(memory[1]) if memory else None
        free = text("df", "-k", "/data/local/tmp").splitlines()
        columns = free[-1].split() if free else []
        room_kib = number(columns[3]) if len(columns) > 3 else None
        machine = Machine(
            name=self.name,
            address=self.settings.address,
            processor=" ".join(text("getprop", name) for name in ("ro.product.manufacturer", "ro.product.model")),
            cores=number(text("nproc"), MOST_CORES) or None,
            system="Android " + text("getprop", "ro.build.version.release"),
            architecture="aarch64",
            memory_mib=total_kib // 1024 if total_kib is not None else None,
        )
        return Facts(machine, TARGET, free_mib=room_kib // 1024 if room_kib is not None else None)

    def measure(self, job: Job) -> Record:
        from bssl_tf.devices.phone import model_file, phone_folder
        from bssl_tf_deploy.library import LIBRARY
        from bssl_tf_deploy.measure import thread_counts

        way = self._way()
        facts, connection = self.check(), self.connect()
        counts = thread_counts(job.thread_words, facts.machine.cores or 1)
        log.info("%s: %s", self.name, facts.machine)
        models = {BINARY: job.bundle.model, **job.beside}
        contents = {LIBRARY: job.library(TARGET).content}
        contents |= {model_file(name): content for name, content in models.items()} | way.files
        needed = (sum(map(len, contents.values())) >> 20) + _SPARE_MIB
        if facts.free_mib is not None and facts.free_mib < needed:
            raise DeviceError(
                f"the disk of {self.name} has {facts.free_mib} MB free, but {needed} MB are needed",
                "Free space there",
            )
        with phone_folder(connection, self.settings.remote_dir or FOLDER) as phone:
            for name, content in contents.items():
                phone.push(content, name)
            connection.shell("chmod", "700", phone.path(way.program))
            for count in counts:
                way.verify(phone, job.bundle, count)
            log.info("%s: golden outputs as expected", self.name)
            budget_s = DEFAULT_BUDGET_S if job.budget_s is None else job.budget_s
            record = way.measure(phone, job.bundle, models, counts, budget_s, facts.machine)
        try:
            # What a phone says may be anything, and has to be a record that can be read again.
            return Record.from_dict(record.to_dict())
        except StrictError as error:
            raise DeviceError(f"the figures of {self.name} make no record: {error}", "Use another version") from error

    def clean(self) -> bool:
        """Removes folders that were left there by a phone that lost its power."""
        prefix = self.settings.remote_dir or FOLDER
        # As `phone_folder` names them, since the prefix may be that of someone's own folders.
        ours = '"$1"-' + 8 * "[0-9a-f]"
        script = f"ls -d {ours} >/dev/null 2>&1 && rm -rf {ours}"
        status, _ = self.connect().shell("sh", "-c", script, "sh", prefix)
        return status == 0

    def _way(self) -> Way:
        from bssl_tf.devices.android_benchmark_model import BenchmarkModel
        from bssl_tf.devices.android_runner import Runner

        if self.settings.benchmark_model is not None:
            return BenchmarkModel(self.settings.benchmark_model)
        if self.settings.tflite_library is not None:
            return Runner(self.settings.tflite_library)
        raise DeviceError(
            f"{self.name} needs a program or a library of TensorFlow Lite that runs models there, and none was named",
            "Name Google's prebuilt android_aarch64 benchmark_model with --benchmark-model, or the .aar of "
            "org.tensorflow:tensorflow-lite (or its .so) with --tflite-library",
        )
