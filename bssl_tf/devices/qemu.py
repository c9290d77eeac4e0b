"""An emulated 64-bit ARM machine: shows whether an answer is right, never how long it takes.

It runs Debian's Python and the real aarch64 wheels from the rig that `make arm64-rig` makes, with qemu-user.
"""

from __future__ import annotations

import logging
import re
import subprocess
import tempfile
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from bssl_tf.devices.connection import client, open_pipes
from bssl_tf.devices.device import Job
from bssl_tf.devices.instructions import build_plugin, count_instructions
from bssl_tf.devices.python_device import PythonDevice
from bssl_tf.errors import DeviceError
from bssl_tf.files import cache_dir
from bssl_tf_deploy.record import BINARY, Count

if TYPE_CHECKING:
    from bssl_tf_deploy.bundle import Bundle

# Raspberry Pi 4.
_PROCESSOR = "cortex-a72"
_SITE = "ai-edge-litert-2.3"
log = logging.getLogger(__name__)


class QemuConnection:
    """Programs of the rig under qemu.

    Attributes:
        processor: which one is emulated.

    Raises:
        DeviceError: there is no rig, or no qemu.
    """

    address = "qemu-arm64"
    runtime = True

    def __init__(self) -> None:
        rig = cache_dir() / "arm64-rig"
        pythons = sorted((rig / "root" / "usr" / "bin").glob("python3.[0-9]*[0-9]"))
        if not (rig / "rig.json").is_file() or not pythons:
            raise DeviceError(f"there is no emulated ARM system in {rig}", "Make it with `make arm64-rig`")
        qemu = client("qemu-aarch64", "Debian: qemu-user")
        self.processor = _PROCESSOR
        self.packages: tuple[str, ...] | None = (str(rig / "site" / _SITE),)
        # Also for children: the kernel does not know what to do with a program for ARM.
        self.python: tuple[str, ...] = (qemu, "-cpu", _PROCESSOR, "-L", str(rig / "cpu" / _PROCESSOR), str(pythons[0]))

    def start(self, arguments: Sequence[str]) -> subprocess.Popen[bytes]:
        program, *rest = arguments
        if program != "python3":
            raise DeviceError(f"the emulated system has no {program}", "Use its Python")
        return open_pipes([*self.python, *rest])

    def counting(self, arguments: Sequence[str], plugin: Path) -> list[str]:
        """The command line of Python with the interpreter, watched by a plugin of qemu."""
        qemu, *rest = self.python
        assert self.packages is not None
        # The same hashes each time, so that two runs differ in nothing but the images. What a plugin says is shown
        # only when asked for.
        settings = ["PYTHONHASHSEED=0", f"PYTHONPATH={self.packages[0]}"]
        return ["env", *settings, qemu, "-plugin", str(plugin), "-d", "plugin", *rest, "-B", "-s", *arguments]

    def explain(self, messages: str) -> DeviceError | None:
        return None


class QemuDevice(PythonDevice):
    """An emulated 64-bit ARM machine; see `Device`."""

    kind = "qemu-arm64"
    forms = ("qemu-arm64",)
    offers = ("qemu-arm64",)
    pattern = re.compile("qemu-arm64")
    uses = frozenset[str]()
    times = False

    def connect(self) -> QemuConnection:
        return QemuConnection()

    def accept(self, job: Job, beside: Collection[str]) -> list[str]:
        timed = bool(job.sustained_s) or job.budget_s is not None
        return ["nothing is timed there, so --budget and --sustained are ignored"] if timed else []

    def counts(self, bundle: Bundle, library: Path) -> tuple[Count, ...]:
        """Instructions of one image; empty where nothing here can count them."""
        log.info("counting instructions")
        connection = self.connect()
        try:
            with tempfile.TemporaryDirectory() as folder:
                plugin = build_plugin(Path(folder))
                counted = count_instructions(
                    lambda arguments: connection.counting(arguments, plugin),
                    bundle.path / "model.tflite",
                    library,
                    network=BINARY,
                    processor=connection.processor,
                )
        except DeviceError as error:
            log.warning("no instruction counts: %s", error)
            return ()
        return (counted,)
