"""What every kind of device can do: be checked, measured and cleaned. A kind is a subclass of `Device`.

    from bssl_tf.devices import Device, Facts, Job, register

    @register
    class Toy(Device):
        kind = "toy"
        forms = ("toy",)
        pattern = re.compile("toy")

        def check(self) -> Facts: ...
        def measure(self, job: Job) -> Record: ...
        def clean(self) -> bool: ...

A package that brings a kind names the class under the entry point group `bssl_tf.devices`, and registers nothing.
"""

from __future__ import annotations

import abc
import dataclasses
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from bssl_tf.errors import RuntimeUnavailableError
from bssl_tf_deploy.record import Machine, Record, State

if TYPE_CHECKING:
    from bssl_tf_deploy.bundle import Bundle
    from bssl_tf_deploy.library import Library

DEFAULT_BUDGET_S = 30.0


@dataclass(frozen=True)
class DeviceSettings:
    """A device as the devices file, or an address on the command line, names it.

    Attributes:
        name: in the file; the address for one that is not there.
        address: one that a kind knows.
        remote_dir: where to work there; "" for the usual place.
        benchmark_model: TensorFlow Lite's program for that device, a file of this machine.
        tflite_library: TensorFlow Lite's library for a phone, a file of this machine.
    """

    name: str
    address: str
    remote_dir: str = ""
    benchmark_model: Path | None = None
    tflite_library: Path | None = None


@dataclass(frozen=True)
class Job:
    """What is to be measured on a device.

    Attributes:
        bundle: from `read_bundle`.
        threads: for one image.
        all_threads: instead 1, 2, 4 and so on up to all cores.
        budget_s: seconds of timed calls for each number of threads; None for the usual ones.
        sustained_s: seconds of calls without a pause; 0 for none.
        beside: name -> model of builtin operators with the bundle's input shape, float32 in and out, timed interleaved
            with the bundle's.
        stock: those of `beside` that have the bundle's own shape and were made for comparison.
        trust_bundle_library: see `bssl_tf_deploy.load`.
    """

    bundle: Bundle
    threads: int = 1
    all_threads: bool = False
    budget_s: float | None = None
    sustained_s: float = 0.0
    beside: Mapping[str, bytes] = field(default_factory=dict)
    stock: Collection[str] = ()
    trust_bundle_library: bool = False

    @property
    def thread_words(self) -> str:
        """The numbers of threads in the words of `bssl_tf_deploy.measure.thread_counts`."""
        return "all" if self.all_threads else str(self.threads)

    def library(self, target: str) -> Library:
        """Our runtime library for a target, or where none can be made here and it is trusted, the bundle's own.

        Raises:
            RuntimeUnavailableError: there is none.
        """
        from bssl_tf_deploy.bundle import checked_file
        from bssl_tf_deploy.library import Library, bundled_name, library_for

        try:
            return library_for(target)
        except RuntimeUnavailableError:
            name = bundled_name(target)
            if not self.trust_bundle_library or name not in self.bundle.manifest.files:
                raise
            return Library(checked_file(self.bundle, name).read_bytes(), compiler="", glibc="")


@dataclass(frozen=True)
class Facts:
    """What a device is.

    Attributes:
        machine: see there.
        target: what a bundle for it is exported for.
        state: clock, temperature, throttling.
        memory_available_mib: None where it does not report that.
        free_mib: of the disk that is worked on.
        runtimes: versions of our runtime that are there, "" for none yet; None where none stays there.
    """

    machine: Machine
    target: str
    state: State = field(default_factory=State)
    memory_available_mib: int | None = None
    free_mib: int | None = None
    runtimes: str | None = None


class Device(abc.ABC):
    """A device.

    Attributes:
        kind: the kind's name.
        forms: how its addresses are written, for help and messages.
        offers: what is offered when an address is completed on the command line.
        pattern: what an address has to match as a whole.
        uses: which of `benchmark_model` and `tflite_library` it has a use for.
        times: whether times there mean anything; an emulator gives answers alone.
        hosts_services: whether `bssl-tf deploy` can install a service there; such a kind is a `PythonDevice`.
    """

    kind: ClassVar[str]
    forms: ClassVar[tuple[str, ...]]
    offers: ClassVar[tuple[str, ...]] = ()
    pattern: ClassVar[re.Pattern[str]]
    uses: ClassVar[frozenset[str]] = frozenset()
    times: ClassVar[bool] = True
    hosts_services: ClassVar[bool] = False

    def __init__(self, settings: DeviceSettings) -> None:
        self.settings = settings
        self.name = settings.name

    @classmethod
    def matches(cls, address: str) -> bool:
        """Whether `address` is one of this kind."""
        return cls.pattern.fullmatch(address) is not None

    @classmethod
    def overridden(cls, settings: DeviceSettings, given: Mapping[str, Any]) -> DeviceSettings:
        """`settings` with what the user named for this call instead; only what was named is in `given`."""
        return dataclasses.replace(settings, **given)

    def accept(self, job: Job, beside: Collection[str]) -> list[str]:
        """Looks at a job before anything is made for it.

        Args:
            job: without its models beside the bundle's.
            beside: their names.

        Returns:
            What of it this kind omits, and why: a line each, without the device's name.

        Raises:
            ConfigError: it cannot be done on such a device.
        """
        return []

    def reach(self) -> None:
        """Raises `BsslError` where the device, or what it needs of this machine, is not there."""
        self.check()

    @abc.abstractmethod
    def check(self) -> Facts:
        """What the device is; nothing is installed.

        Raises:
            DeviceError: it cannot be reached, or there is no runtime for it.
        """

    @abc.abstractmethod
    def measure(self, job: Job) -> Record:
        """Checks the golden outputs there, then times what the job names.

        Returns:
            A record without `command` and `commit`; its networks beside the bundle's may have any role.

        Raises:
            DeviceError: the device cannot be reached, was lost, or has no room.
            BundleError: a file arrived changed, or the golden outputs differ there.
            RuntimeUnavailableError: it cannot run a model.
        """

    @abc.abstractmethod
    def clean(self) -> bool:
        """Removes what is ours from the device; whether there was anything. Raises `DeviceError`."""
