"""The data set of a run."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from bssl_tf.settings.reading import Table


@dataclass(frozen=True)
class DataConfig(Table):
    """The data set and how its images are read.

    Attributes:
        source: `embedded`, `tfds:NAME`, a folder of images, a folder of shards (.tar, .tfrecord, .array_record), or a
            .csv or .jsonl file that lists images with labels.
        data_dir: where TFDS keeps its data; empty for its default.
        image_size: pixels per side of the network's input; 0 for 28 with `embedded` and 224 otherwise.
        image_width: width of a detector's input that is not a square (`image_size` is its height); 0 for a square.
        channels: 1 (grey) or 3 (RGB); 0 for those of the data set.
        max_unreadable_share: a larger share of unreadable files stops the run.
        download: allow TFDS to download.
        limit: use at most N images of each split, evenly spaced; 0 for all.
        loading: `mapped` decodes all images once, to disk; `streaming` decodes them during training, from their files;
            `auto` streams sets of more than 20 GB when decoded.
    """

    source: str = ""
    data_dir: str = ""
    image_size: int = 0
    image_width: int = 0
    channels: int = 0
    max_unreadable_share: float = 0.05
    download: bool = True
    limit: int = 0
    loading: Literal["auto", "mapped", "streaming"] = "auto"
