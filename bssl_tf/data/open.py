"""A data set as a run's configuration names it."""

from __future__ import annotations

from pathlib import Path

from bssl_tf.data.image_set import DataSplits
from bssl_tf.data.load import load_data
from bssl_tf.errors import ConfigError
from bssl_tf.settings import DataConfig


def data_name(source: str) -> str:
    """What a data set is called elsewhere: of a folder its name, as where it lay means nothing on another machine."""
    return source if source == "embedded" or source.startswith("tfds:") else Path(source).absolute().name


def open_data(config: DataConfig, *, labels_needed: bool) -> DataSplits:
    """Loads the data set that `config` names.

    Args:
        config: names it.
        labels_needed: as for `load_data`.

    Raises:
        ConfigError: no data set is named, or a setting is out of range.
        MissingDataError: its folder is not there; who read `config` from a file knows the next step
            (`BsslError.with_next_step`).
        DataError: see `load_data`.
        StorageError: its cache cannot be written.
    """
    if not config.source:
        raise ConfigError("no data set is named", "Pass --data embedded, --data tfds:NAME or --data FOLDER")
    return load_data(
        config.source,
        image_size=config.image_size,
        channels=config.channels or None,
        data_dir=Path(config.data_dir) if config.data_dir else None,
        max_unreadable_share=config.max_unreadable_share,
        download=config.download,
        limit=config.limit or None,
        labels_needed=labels_needed,
    )
