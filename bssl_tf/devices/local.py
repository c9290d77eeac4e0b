"""This machine as a device, through the same steps as any other."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Sequence

from bssl_tf.devices.connection import open_pipes
from bssl_tf.devices.python_device import PythonDevice
from bssl_tf.errors import DeviceError


class LocalConnection:
    """The Python that runs this, with the packages that it has."""

    address = "local"
    packages: tuple[str, ...] | None = ()
    runtime = False
    python: tuple[str, ...] = ()

    def start(self, arguments: Sequence[str]) -> subprocess.Popen[bytes]:
        program, *rest = arguments
        return open_pipes([sys.executable if program == "python3" else program, *rest])

    def explain(self, messages: str) -> DeviceError | None:
        return None


class LocalDevice(PythonDevice):
    """This machine; see `Device`."""

    kind = "local"
    forms = ("local",)
    offers = ("local",)
    pattern = re.compile("local")

    def connect(self) -> LocalConnection:
        return LocalConnection()
