"""What `bssl-tf pack` does: shards of a folder of images."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from bssl_tf.errors import ConfigError
from bssl_tf.files import storage_errors
from bssl_tf.settings import check_choice
from bssl_tf_deploy.system_errors import system_errors

if TYPE_CHECKING:
    from bssl_tf.data.pack import Packed

FORMATS = ("tar", "tfrecord", "array_record")


@system_errors()
def pack(
    folder: str | Path,
    out: str | Path,
    *,
    shard_format: str = "tar",
    shard_mb: float = 256,
    max_unreadable_share: float = 0.05,
) -> Packed:
    """Packs the images of a folder into shards, which training reads with `--data OUT`.

    The files go in as they are, in the order in which the folder is read; the images that it holds out for testing
    become shards of their own. Packing that was stopped continues when it is called again.

    Args:
        folder: of images, see `bssl_tf.data.layout`.
        out: a folder that is empty or missing, or in which packing was started.
        shard_format: `tar` (WebDataset), `tfrecord` or `array_record`.
        shard_mb: how large a shard becomes, in 10^6 bytes; above 0.
        max_unreadable_share: more files than this share (0 to 1) that cannot be read stop with an error.

    Raises:
        ConfigError: an argument is out of range.
        DataError: the folder has no images, or too many cannot be read.
        RunFolderError: `out` holds something else.
        StorageError: it cannot be written.
    """
    check_choice("the format", shard_format, FORMATS)
    if not shard_mb > 0:
        raise ConfigError(f"shard_mb is {shard_mb}", "Give a number above 0")
    if not 0 <= max_unreadable_share <= 1:
        raise ConfigError(f"max_unreadable_share is {max_unreadable_share}", "Give a number from 0 to 1")
    from bssl_tf.data.pack import pack_folder

    target = Path(out).expanduser()
    with storage_errors(target):
        return pack_folder(Path(folder).expanduser(), target, shard_format, round(shard_mb * 1e6), max_unreadable_share)
