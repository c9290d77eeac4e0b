"""What a folder of `bssl-tf import-teacher` is made of: import.json, beside its `teacher/`."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path

from bssl_tf.errors import ConfigError, RunFolderError
from bssl_tf.files import read_json, write_json
from bssl_tf.settings.reading import Table, read_settings

_FILE = "import.json"


@dataclass(frozen=True)
class Import(Table):
    """Where an imported teacher comes from.

    Attributes:
        format: a key of `bssl_tf_converters.checkpoints.teacher_formats.FORMATS`.
        source: the checkpoint's file name.
        sha256: of the checkpoint, in hex.
        labels_used: whether it was trained with labels.
        bssl_tf: the version that imported it.
    """

    format: str
    source: str
    sha256: str
    labels_used: bool
    bssl_tf: str

    @property
    def method(self) -> str:
        """In the place of a run's method."""
        return f"imported ({self.format})"


def read_import(folder: Path) -> Import | None:
    """What import.json of `folder` holds, or None where `folder` is not one of an imported teacher.

    Raises:
        RunFolderError: import.json is damaged.
    """
    path = folder / _FILE
    if (folder / "config.toml").exists() or not path.exists():
        return None
    try:
        return read_settings(Import, read_json(path))
    except ConfigError as error:
        raise RunFolderError(
            f"{path} does not describe an imported teacher ({error.what})", "Import it again"
        ) from error


def write_import(folder: Path, about: Import) -> None:
    """Writes import.json. Raises `StorageError`."""
    write_json(folder / _FILE, dataclasses.asdict(about))
