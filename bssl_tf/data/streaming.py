"""Whether a data set is decoded before training or during it, and the splits of one that is streamed."""

from __future__ import annotations

import io
import logging
from collections.abc import Iterable
from pathlib import Path
from typing import Literal

import numpy as np

from bssl_tf.data.building import Options, check_counts, store_size
from bssl_tf.data.cache import Split, unreadable_file
from bssl_tf.data.catalogue import Catalogue, Part
from bssl_tf.data.encoded import EncodedImages, encoded_images
from bssl_tf.data.image_set import DataSplits, spread_indices
from bssl_tf.data.streamed import StreamedImages, StreamedSet, Unreadable
from bssl_tf_deploy.image_formats import open_image
from bssl_tf_deploy.pictures import stored_side

Loading = Literal["auto", "mapped", "streaming"]
# Decoded, 100,000 images at 224 px. What is larger takes hours to decode and a disk of its own.
MAPPED_BYTES = 20e9
# Whose headers say whether all images have one size.
_MEASURED_IMAGES = 10_000
_log = logging.getLogger(__name__)


def is_streamed(images: int, options: Options, channels: int) -> bool:
    """Whether so many images are streamed: as `options` say, or because they would take too much when decoded."""
    if options.loading != "auto":
        return options.loading == "streaming"
    counted = images if options.limit is None else min(images, 2 * options.limit)
    return counted * stored_side(options.image_size) ** 2 * channels > MAPPED_BYTES


def streamed_splits(name: str, root: Path, catalogue: Catalogue, options: Options, channels: int) -> DataSplits:
    """The splits of a catalogued data set; nothing is decoded but headers, of up to 10,000 images.

    Args:
        name: of the data set, for messages.
        root: its folder.
        catalogue: where its images lie, kept in the cache.
        options: see there.
        channels: 1 or 3.

    Raises:
        DataError: too few images, or a class has none.
    """
    assert catalogue.folder is not None
    parts = {split: limited(part, options.limit) for split, part in catalogue.parts.items()}
    train = parts["train"]
    # An empty labels column counts as one class.
    labels = np.zeros(len(train), np.int64) if train.labels is None else np.asarray(train.labels)
    counts = np.bincount(labels, minlength=max(len(catalogue.class_names), 1))
    check_counts(name, counts, catalogue.class_names, options)
    total = sum(map(len, parts.values()))
    gigabytes = total * stored_side(options.image_size) ** 2 * channels / 1e9
    _log.info(
        "%s: %d images, %.1f GB when decoded, are streamed: decoded during training, from their files (--loading "
        "mapped decodes them once)",
        *(name, total, gigabytes),
    )
    for remark, count in catalogue.remarks.items():
        _log.warning("%s: %s: %s", name, "1 image" if count == 1 else f"{count} images", remark)

    encoded = {split: encoded_images(root, catalogue, part) for split, part in parts.items()}
    common = common_size(encoded.values())
    size = store_size(common, options.image_size)
    native = common is not None and size == common[0] == common[1]
    listed = unreadable_file(options.cache_dir, catalogue.folder.stem)
    unreadable = Unreadable(name, total, options.max_unreadable_share, listed)

    def made(split: Split) -> StreamedSet:
        part = parts[split]
        images = StreamedImages(
            encoded[split],
            part,
            size,
            channels,
            native=native,
            unreadable=unreadable,
            notes=catalogue.folder or listed.parent,
        )
        labels = None if part.labels is None else np.array(part.labels, np.int64)
        class_names = () if labels is None else catalogue.class_names
        return StreamedSet(f"{name} ({split})", images, np.zeros(0, np.float32), labels, class_names)

    validation = made("validation") if "validation" in parts else None
    return DataSplits(name, made("train"), made("test") if "test" in parts else None, validation=validation)


def limited(part: Part, limit: int | None) -> Part:
    """At most so many images of `part`, evenly spaced."""
    if limit is None or limit >= len(part):
        return part
    chosen = spread_indices(len(part), limit)
    return Part(np.array(part.places[chosen]), None if part.labels is None else np.array(part.labels[chosen]))


def common_size(splits: Iterable[EncodedImages]) -> tuple[int, int] | None:
    """The size of all readable images among up to 10,000 of each split; None where two differ."""
    common: tuple[int, int] | None = None
    for images in splits:
        for index in spread_indices(len(images), _MEASURED_IMAGES).tolist():
            try:
                with open_image(io.BytesIO(images.read(index))) as image:
                    size = image.size
            except Exception:  # As in decoding, which reports the cause.
                continue
            if common is not None and size != common:
                return None
            common = common or size
    return common
