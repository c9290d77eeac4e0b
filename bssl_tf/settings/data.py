"""Where a run's images come from."""

from __future__ import annotations

from dataclasses import dataclass

from bssl_tf.settings.reading import Table


@dataclass(frozen=True)
class DataConfig(Table):
    """Where images come from.

    Attributes:
        source: `embedded`, `tfds:NAME`, or a folder of images.
        data_dir: where TFDS keeps its data; empty for its own default.
        image_size: pixels per side that the network sees; 0 takes the embedded set's 28, otherwise 224.
        channels: 1 or 3; 0 takes what the data set has.
        max_unreadable_share: a larger share of unreadable files stops the run.
        download: whether TFDS may download.
        limit: use at most N images of each split, evenly spaced; 0 for all.
    """

    source: str = ""
    data_dir: str = ""
    image_size: int = 0
    channels: int = 0
    max_unreadable_share: float = 0.05
    download: bool = True
    limit: int = 0
