"""A device that has Python: this machine, one behind ssh, an emulated one. They differ in the way there."""

from __future__ import annotations

import abc
from pathlib import Path
from typing import TYPE_CHECKING

from bssl_tf.devices.connection import Connection
from bssl_tf.devices.device import Device, Facts, Job
from bssl_tf_deploy.record import Count, Record

if TYPE_CHECKING:
    from bssl_tf_deploy.bundle import Bundle


class PythonDevice(Device):
    """See `Device`. What is done there needs a session with `bssl_tf_deploy.agent`, which is sent there."""

    uses = frozenset({"benchmark_model"})

    @abc.abstractmethod
    def connect(self) -> Connection:
        """The way there; nothing is sent yet.

        Raises:
            DeviceError: what connects is not installed here.
        """

    def counts(self, bundle: Bundle, library: Path) -> tuple[Count, ...]:
        """What can be counted of one image instead of timed, with the library at a path of this machine."""
        return ()

    # Loaded when they are called: completing an address needs none of it.

    def reach(self) -> None:
        from bssl_tf.devices.measuring import reach_device

        reach_device(self)

    def check(self) -> Facts:
        from bssl_tf.devices.measuring import check_device

        return check_device(self)

    def measure(self, job: Job) -> Record:
        from bssl_tf.devices.measuring import measure_on_device

        return measure_on_device(self, job)

    def clean(self) -> bool:
        from bssl_tf.devices.measuring import clean_device

        return clean_device(self)
