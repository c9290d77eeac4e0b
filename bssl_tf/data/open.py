"""A data set as a run's configuration names it."""

from __future__ import annotations

from pathlib import Path

from bssl_tf.data.image_set import DataSplits
from bssl_tf.data.layout import image_count
from bssl_tf.data.load import EMBEDDED, TFDS_PREFIX, check_arguments, load_data
from bssl_tf.data.shards import has_shards
from bssl_tf.errors import ConfigError
from bssl_tf.settings import DataConfig


def data_name(source: str) -> str:
    """What a data set is called elsewhere: of a folder its name, as where it lay means nothing on another machine."""
    return source if source == "embedded" or source.startswith("tfds:") else Path(source).absolute().name


def check_data(config: DataConfig) -> None:
    """What can be found wrong with `config` without a look into the data. Raises what `open_data` raises."""
    if not config.source:
        raise ConfigError("no data set is named", "Pass --data embedded, --data tfds:NAME or --data FOLDER")
    check_arguments(
        config.source, config.image_size, config.channels or None, config.max_unreadable_share, config.limit or None
    )


def count_images(config: DataConfig) -> int | None:
    """At most so many images `config` has to train on; None where only opening it tells. Decodes nothing."""
    folder = Path(config.source).expanduser()
    if config.source == EMBEDDED or config.source.startswith(TFDS_PREFIX) or not folder.is_dir():
        return None
    if config.loading == "streaming" or has_shards(folder):
        return None
    try:
        count = image_count(folder)
    except OSError:  # opening it gives the message
        return None
    return min(count, config.limit) if config.limit else count


def open_data(
    config: DataConfig, *, labels_needed: bool, validation: bool = False, label_sets: bool = False
) -> DataSplits:
    """Loads the data set that `config` names.

    Args:
        config: names it.
        labels_needed: as for `load_data`.
        validation, label_sets: as for `load_data`.

    Raises:
        ConfigError: no data set is named, or a setting is out of range.
        MissingDataError: its folder is not there; who read `config` from a file knows the next step
            (`BsslError.with_next_step`).
        DataError: see `load_data`.
        StorageError: its cache cannot be written.
    """
    check_data(config)
    return load_data(
        config.source,
        image_size=config.image_size,
        channels=config.channels or None,
        data_dir=Path(config.data_dir) if config.data_dir else None,
        max_unreadable_share=config.max_unreadable_share,
        download=config.download,
        limit=config.limit or None,
        labels_needed=labels_needed,
        loading=config.loading,
        validation=validation,
        label_sets=label_sets,
    )
