"""A data set as a run's configuration names it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from bssl_tf.data.image_set import DataSplits
from bssl_tf.data.load import is_folder, load_data
from bssl_tf.errors import ConfigError, DataError
from bssl_tf.settings import DataConfig


def open_data(config: DataConfig, report: Callable[[str], None], *, labels_needed: bool, lost: str = "") -> DataSplits:
    """Loads the data set that `config` names.

    Args:
        config: names it.
        report: takes lines for the user.
        labels_needed: as for `load_data`.
        lost: the next step if its folder is not there, where the user did not name it just now: which file does.

    Raises:
        ConfigError: no data set is named, or a setting is out of range.
        DataError: see `load_data`.
        StorageError: its cache cannot be written.
    """
    if not config.source:
        raise ConfigError("no data set is named", "Pass --data embedded, --data tfds:NAME or --data FOLDER")
    if lost and is_folder(config.source) and not Path(config.source).expanduser().exists():
        raise DataError(f"{config.source} does not exist", lost)
    return load_data(
        config.source,
        image_size=config.image_size,
        channels=config.channels or None,
        data_dir=Path(config.data_dir) if config.data_dir else None,
        max_unreadable_share=config.max_unreadable_share,
        download=config.download,
        limit=config.limit or None,
        labels_needed=labels_needed,
        report=report,
    )
