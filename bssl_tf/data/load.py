"""One function that loads any data set by its spec. No TensorFlow, unless the spec begins with `tfds:`."""

from __future__ import annotations

import difflib
from dataclasses import replace
from pathlib import Path
from typing import Literal

import numpy as np

from bssl_tf.data.building import Options
from bssl_tf.data.decoding import to_channels
from bssl_tf.data.embedded import load_embedded
from bssl_tf.data.folder import check_folder, load_folder
from bssl_tf.data.image_set import DataSplits, ImageSet
from bssl_tf.data.listing import is_listing, load_listing
from bssl_tf.data.shards import has_shards, is_shard, load_shards
from bssl_tf.errors import DataError, MissingDataError
from bssl_tf.files import cache_dir as user_cache_dir
from bssl_tf.preprocessing import MAX_IMAGE_SIZE, MIN_IMAGE_SIZE

EMBEDDED = "embedded"
TFDS_PREFIX = "tfds:"


def load_data(
    spec: str,
    *,
    image_size: int,
    channels: int | None = None,
    data_dir: Path | None = None,
    cache_dir: Path | None = None,
    max_unreadable_share: float = 0.05,
    download: bool = True,
    limit: int | None = None,
    labels_needed: bool = True,
    loading: Literal["auto", "mapped", "streaming"] = "auto",
    validation: bool = False,
    label_sets: bool = False,
) -> DataSplits:
    """Loads training images and, where there are labels, test images; logs what is skipped, left out or held out.

    Args:
        spec: `embedded` (part of Fashion-MNIST, shipped with the package), `tfds:NAME[/CONFIG][:VERSION]`
            (TensorFlow Datasets), the path of a folder of images (layouts: `bssl_tf.data.folder`) or of shards
            (`bssl_tf.data.shards`), or that of a file that lists images with their labels (`bssl_tf.data.listing`).
        image_size: side of the network's input, pixels, 8 to 1024; decides at which size images are stored.
        channels: 1 (grey), 3 (RGB), or None: as the data set has it; 3 for a folder.
        data_dir: where TFDS keeps its data sets; None for TFDS's own default.
        cache_dir: where decoded images are kept; None for $BSSL_TF_CACHE, else the user's cache folder.
        max_unreadable_share: more unreadable images than this share (0 to 1) stop with an error; fewer are skipped.
        download: whether TFDS may download.
        limit: keep at most `limit` training and `limit` test images, evenly spaced; at least 2.
        labels_needed: refuse a labelled set with one class only, or with a class without images. Where labels are
            not needed it is taken as it is. A labelled set's test images are held out either way.
        loading: "mapped" decodes images once, into the cache; "streaming" whenever they are read; "auto" decides by
            size. What is `embedded` is in memory.
        validation: also load a folder of validation images that lies next to those to train and to test on.
        label_sets: of a listing, let each set of labels be a class.

    Raises:
        MissingDataError: the folder is not there.
        DataError: the spec, an argument or the data set is unusable; the message says which and what to do.
        StorageError: the cache cannot be written.
    """
    check_arguments(spec, image_size, channels, max_unreadable_share, limit)
    options = Options(
        image_size=image_size,
        channels=channels,
        cache_dir=user_cache_dir() if cache_dir is None else cache_dir,
        max_unreadable_share=max_unreadable_share,
        limit=limit,
        labels_needed=labels_needed,
        loading=loading,
        validation=validation,
        label_sets=label_sets,
    )
    if spec.strip() == EMBEDDED:
        train, test = load_embedded()
        return DataSplits(EMBEDDED, _adapt(train, channels, limit), _adapt(test, channels, limit))
    if spec.startswith(TFDS_PREFIX):
        # Loads TensorFlow, which takes seconds; no other kind of data needs it.
        from bssl_tf.data.tfds_source import load_tfds

        return replace(load_tfds(spec[len(TFDS_PREFIX) :], data_dir, download, options), name=spec)
    path = Path(spec).expanduser()
    load = load_listing if is_listing(spec) else load_shards if has_shards(path) else load_folder
    return replace(load(path, options), name=spec)


def check_arguments(
    spec: str, image_size: int, channels: int | None, max_unreadable_share: float, limit: int | None
) -> None:
    """What can be found wrong with `load_data`'s arguments without a look into the data; raises what it raises."""
    if not MIN_IMAGE_SIZE <= image_size <= MAX_IMAGE_SIZE:
        raise DataError(
            f"image_size is {image_size}", f"Give a whole number of pixels from {MIN_IMAGE_SIZE} to {MAX_IMAGE_SIZE}"
        )
    if channels not in (None, 1, 3):
        raise DataError(f"channels is {channels}", "Give 1 (grey) or 3 (RGB)")
    if not 0 <= max_unreadable_share <= 1:
        raise DataError(f"max_unreadable_share is {max_unreadable_share}", "Give a number from 0 to 1")
    if limit is not None and limit < 2:
        raise DataError(f"limit is {limit}", "Give at least 2 images")
    if spec.strip() == EMBEDDED or spec.startswith(TFDS_PREFIX):
        return
    if not spec.strip():
        raise DataError("no data set was named", "Give `embedded`, tfds:NAME, or the path of a folder of images")
    if is_listing(spec) and Path(spec).expanduser().is_file():
        return
    path = Path(spec).expanduser()
    if not path.exists() and (known := _meant(spec)):
        raise MissingDataError(f"there is no data set {spec!r}", f"Did you mean `{known}`? Or check the path")
    if not is_shard(path):
        check_folder(path)


def _meant(spec: str) -> str | None:
    """The keyword that a misspelt spec comes close to, or None."""
    word = spec.strip().lower()
    if word.startswith(("tfds/", "tfds ", "tfds=", "tdfs:", "tfsd:", "tensorflow_datasets:")):
        return f"{TFDS_PREFIX}NAME"
    return EMBEDDED if difflib.get_close_matches(word, [EMBEDDED], cutoff=0.7) else None


def _adapt(images: ImageSet, channels: int | None, limit: int | None) -> ImageSet:
    part = images if limit is None else images.spread(limit)
    if channels in (None, part.channels):
        return part
    return replace(part, images=np.ascontiguousarray(to_channels(part.images, channels)))
