"""What `bssl-tf data make` does: a data set of this project's figures, made of a public one."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING

from bssl_tf.settings import check_choice
from bssl_tf_deploy.system_errors import system_errors

if TYPE_CHECKING:
    from bssl_tf.data.recipes import MadeData

NAMES = ("cifar10_jpeg75",)
_log = logging.getLogger(__name__)


@system_errors()
def make_data(name: str, *, data_dir: str | Path | None = None, download: bool = True) -> MadeData:
    """Makes a data set that this project's figures were measured on, and compares it with the one that was used.

    A set that is there already is only compared.

    Args:
        name: `cifar10_jpeg75`: CIFAR-10 from TFDS, re-encoded as JPEG at quality 75.
        data_dir: where TFDS keeps its data; None for its default.
        download: allow TFDS to download the public set.

    Raises:
        ConfigError: the name is unknown.
        DataError: the public set is missing or damaged.
        StorageError: the files cannot be written.
    """
    check_choice("the data set", name, NAMES)
    from bssl_tf.data.recipes import make_data as make

    made = make(name, None if data_dir is None else Path(data_dir), download=download)
    if not made.identical:
        _log.warning(
            f"{made.folder} is not bit for bit the data set of this project's figures, so small differences are to be "
            "expected; another version of Pillow's JPEG encoder is the likely cause"
        )
    return made
