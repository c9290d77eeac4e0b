"""The host's errors. Each has a stable code, its own exit status, and ends with a next step.

| class | code | exit status |
|---|---|---|
| (click's usage errors) | | 2 |
| `UsageError` | usage | 2 |
| `ConfigError` | config | 3 |
| `DataError` | data | 4 |
| `RunFolderError` | run-folder | 5 |
| `ConversionError` | conversion | 6 |
| `BundleError`, `StorageError`, `ImageError`, `RuntimeUnavailableError` | see `bssl_tf_deploy.errors` | 7 to 10 |
| `BackendError` | backend | 11 |
| `NetworkError` | network | 12 |
| `TrainingError` | training | 13 |
| `DeviceError` | device | 14 |
| `MemoryShortageError`, `UnexpectedError` | see `bssl_tf_deploy.errors` | 15, 16 |
| `CameraError` | see `bssl_tf_deploy.errors` | 17 |
| `WorkerError` | worker | 18 |
| `ServerError` | see `bssl_tf_deploy.errors` | 19 |
| `DeploymentError` | deployment | 20 |
| `Interrupted` | interrupted | 130 |
"""

from __future__ import annotations

from collections.abc import Sequence

from bssl_tf_deploy.errors import (
    BsslError,
    BundleError,
    CameraError,
    ImageError,
    MemoryShortageError,
    RuntimeUnavailableError,
    ServerError,
    StorageError,
    UnexpectedError,
    UsageError,
)

__all__ = [
    "BackendError",
    "BsslError",
    "BundleError",
    "CameraError",
    "ConfigError",
    "ConversionError",
    "DataError",
    "DeploymentError",
    "DeviceError",
    "ImageError",
    "Interrupted",
    "MemoryShortageError",
    "MissingDataError",
    "NetworkError",
    "RunFolderError",
    "RuntimeUnavailableError",
    "ServerError",
    "StorageError",
    "TrainingError",
    "UnexpectedError",
    "UnknownPartError",
    "UsageError",
    "WorkerError",
]


def first_line(error: BaseException) -> str:
    """What an error of someone else's code says, for a message of ours: its first line that is not empty, or its class.

    300 characters at most.
    """
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)[:300]


class ConfigError(BsslError):
    """A setting is unknown, of the wrong type, or out of range."""

    code = "config"
    exit_status = 3


class DataError(BsslError):
    """A data set is missing, too small, unlabelled where labels are needed, or too much of it is unreadable."""

    code = "data"
    exit_status = 4


class MissingDataError(DataError):
    """A folder of images is not there. Whoever remembers its name may know a better next step than this error."""


class RunFolderError(BsslError):
    """A run folder is missing, taken, incomplete, or does not belong to this command."""

    code = "run-folder"
    exit_status = 5


class ConversionError(BsslError):
    """A network cannot be converted, or what came out is not what went in."""

    code = "conversion"
    exit_status = 6


class UnknownPartError(ConversionError):
    """A model has a class or function that is not known here. Whoever opened it for something else knows what to do."""


class BackendError(BsslError):
    """TensorFlow is missing, of the wrong version, or Keras 3 was loaded first."""

    code = "backend"
    exit_status = 11


class NetworkError(BsslError):
    """A network's name is unknown, or its saved weights are corrupt or do not fit."""

    code = "network"
    exit_status = 12


class TrainingError(BsslError):
    """Training cannot continue: the loss is not finite."""

    code = "training"
    exit_status = 13


class DeviceError(BsslError):
    """A device cannot be reached, is not a device that we can use, or was lost on the way."""

    code = "device"
    exit_status = 14


class WorkerError(BsslError):
    """One of several processes that train together has stopped, or cannot be reached."""

    code = "worker"
    exit_status = 18


class DeploymentError(BsslError):
    """A device did not take a release: it fails its check there, or does not run. What ran before still runs.

    Attributes:
        log: the last lines that the service wrote.
    """

    code = "deployment"
    exit_status = 20

    def __init__(self, what: str, next_step: str, log: Sequence[str] = ()) -> None:
        super().__init__(what, next_step)
        self.log = tuple(log)


class Interrupted(BsslError):
    """The user pressed Ctrl-C or sent SIGTERM; what was done is saved."""

    code = "interrupted"
    exit_status = 130
