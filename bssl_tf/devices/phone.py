"""A folder on a phone for one measurement: what is put there arrives whole, and goes with the measurement."""

from __future__ import annotations

import contextlib
import hashlib
import secrets
import subprocess
import tempfile
import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from bssl_tf.devices.adb import AdbConnection
from bssl_tf.errors import BundleError, RuntimeUnavailableError
from bssl_tf_deploy.bundle import Bundle
from bssl_tf_deploy.predictor import Predictor
from bssl_tf_deploy.record import Machine, Record

# Makes the folder, and removes it when its input ends: at our end, or when the cable is pulled.
READY_TIMEOUT_S = 60
_MESSAGE_BYTES = 1 << 14
_LEASE = 'trap \'\' HUP PIPE; mkdir -p "$1" && echo ready && cat >/dev/null; rm -rf "$1"'


@dataclass(frozen=True)
class PhoneFolder:
    """A folder on a phone.

    Attributes:
        connection: the way there.
        folder: its path.
    """

    connection: AdbConnection
    folder: str

    def path(self, name: str) -> str:
        """Where a file of the folder lies."""
        return f"{self.folder}/{name}"

    def push(self, content: bytes, name: str) -> None:
        """Writes a file there.

        Raises:
            BundleError: it arrived changed.
            DeviceError: the phone was lost, or has no room.
        """
        with tempfile.NamedTemporaryFile() as file:
            file.write(content)
            file.flush()
            self.connection.client("push", file.name, self.path(name))
        status, out = self.connection.shell("sha256sum", self.path(name))
        if status != 0 or out.split()[:1] != [hashlib.sha256(content).hexdigest()]:
            raise BundleError(
                f"{name} was corrupted on the way to {self.connection.address} (its SHA-256 differs)",
                "Run the same command again",
            )

    def pull(self, name: str) -> bytes:
        """Reads a file there. Raises `DeviceError` where it is not there, or the phone was lost."""
        # Not `adb pull`, which would write here whatever comes.
        status, content, said = self.connection.output("cat", self.path(name))
        if status != 0:
            raise self.connection.failed(said)
        return content


class Way(Protocol):
    """What runs and times models on a phone.

    Attributes:
        files: what it needs there beside the models and our library, by name.
        program: which of them is executed.
    """

    files: dict[str, bytes]
    program: str

    def verify(self, phone: PhoneFolder, bundle: Bundle, threads: int) -> None:
        """Runs the golden inputs there.

        Raises:
            BundleError: the golden outputs differ.
            RuntimeUnavailableError: the phone cannot run the model.
        """

    def measure(
        self,
        phone: PhoneFolder,
        bundle: Bundle,
        models: Mapping[str, bytes],
        threads: Sequence[int],
        budget_s: float,
        machine: Machine,
    ) -> Record:
        """Times models, interleaved.

        Args:
            phone: where the models lie under `model_file(name)`.
            bundle: whose network is `BINARY`.
            models: by name.
            threads: numbers of threads, with which `verify` succeeded.
            budget_s: seconds of timed calls for each of them, where it has a say in that.
            machine: for the record.
        """


def model_file(name: str) -> str:
    """The file of a model on the phone, by the name that records have for it."""
    return f"{name}.tflite"


@contextlib.contextmanager
def phone_folder(connection: AdbConnection, prefix: str) -> Iterator[PhoneFolder]:
    """A fresh folder on the phone that goes with this block, or with the cable. Raises `DeviceError`."""
    folder = f"{prefix}-{secrets.token_hex(4)}"
    lease = connection.start(["sh", "-c", _LEASE, "sh", folder])
    assert lease.stdin is not None and lease.stdout is not None and lease.stderr is not None
    try:
        timer = threading.Timer(READY_TIMEOUT_S, lease.kill)
        timer.start()
        ready = lease.stdout.readline(_MESSAGE_BYTES)
        timer.cancel()
        if ready.strip() != b"ready":
            lease.kill()
            raise connection.failed(lease.stderr.read(_MESSAGE_BYTES))
        yield PhoneFolder(connection, folder)
    finally:
        with contextlib.suppress(OSError):
            lease.stdin.close()
        try:
            lease.wait(timeout=20)
        except subprocess.TimeoutExpired:
            lease.kill()
            lease.wait()
        lease.stdout.close()
        lease.stderr.close()


def verify_outputs(bundle: Bundle, outputs: bytes) -> None:
    """Compares what a phone wrote for the golden inputs, one after another, with the golden outputs.

    Raises:
        BundleError: they differ.
        RuntimeUnavailableError: it is not one output for each image, or the network has several inputs or outputs.
    """
    ends, count = (bundle.manifest.inputs, bundle.manifest.outputs), bundle.golden_images
    if any(len(tensors) > 1 for tensors in ends):
        raise RuntimeUnavailableError(
            f"{bundle.path} has {len(ends[0])} inputs and {len(ends[1])} outputs, but the programs that run models on "
            "phones support only one of each",
            "Measure it on a board, or export it with one output",
        )
    [signature] = ends[1]
    shape = (count, *signature.shape[1:])
    try:
        numbers = np.frombuffer(outputs, signature.dtype).reshape(shape)
    except ValueError as error:
        raise RuntimeUnavailableError(
            f"{len(outputs)} bytes came back, which are not the outputs of {count} images",
            "Use another version of TensorFlow Lite",
        ) from error
    logits = numbers if signature.quantization is None else signature.quantization.floats(numbers)

    class Given:
        def run(self, inputs: Sequence[np.ndarray]) -> list[np.ndarray]:
            return [logits]

    Predictor(bundle, Given()).verify_golden()
