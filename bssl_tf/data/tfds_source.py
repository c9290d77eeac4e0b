"""Data sets of TensorFlow Datasets: prepared ones on disk, with or without the code that made them, or downloads."""

from __future__ import annotations

import contextlib
import difflib
import fnmatch
import logging
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bssl_tf.data.building import Item, Options, Plan, cached_splits, held_out, store_size
from bssl_tf.data.cache import cache_key
from bssl_tf.data.image_set import DataSplits, spread_indices
from bssl_tf.data.prepared import damage, largest_record, open_prepared, tfds
from bssl_tf.data.shards import load_catalogued
from bssl_tf.data.streaming import is_streamed
from bssl_tf.errors import DataError

_SPEC = re.compile(r"(?P<name>\w+)(/(?P<config>[\w.\-]+))?(:(?P<version>\d+\.(\d+|\*)\.(\d+|\*)))?")
_VERSION = re.compile(r"\d+\.\d+\.\d+")
_TEST_SPLITS = ("test", "validation")
_READ_AT_ONCE, _READ_BYTES = 256, 1 << 26
# Part of every cache key: raise it when `_plan` chooses other images, or remarks on others.
_PLAN = 2
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class _Request:
    spec: str
    name: str
    config: str | None
    version: str | None


def load_tfds(spec: str, data_dir: Path | None, download: bool, options: Options) -> DataSplits:
    """Loads NAME[/CONFIG][:VERSION].

    Images are decoded by Pillow, not by TensorFlow, because that is what a device does. Training uses the split
    `train`; testing the first of `test` and `validation` whose labels are known, else one in six of each class of
    `train`.

    Args:
        spec: without `tfds:`.
        data_dir: where the prepared data sets are; None for TFDS's own default.
        download: whether a data set that is not there may be downloaded and prepared.
        options: see there.

    Raises:
        DataError: unknown, not there, not downloadable, damaged, without images, or too small.
        StorageError: the cache cannot be written.
    """
    request = _request(spec)
    folder = _folder_of(request, data_root(data_dir), download)
    builder = open_prepared(folder)
    features = builder.info.features
    sizes = {split: builder.info.splits[split].num_examples for split in builder.info.splits}
    image = _image_feature(request, features)
    if not sizes.get("train"):
        raise DataError(f"tfds:{spec} has no images in a split `train` (splits: {sizes})", "Choose another data set")
    channels = options.channels or (1 if image.shape[2] == 1 else 3)
    if is_streamed(sum(sizes.get(split, 0) for split in ("train", *_TEST_SPLITS)), options, channels):
        label = dict(features.items()).get("label")
        class_names = tuple(label.names) if isinstance(label, tfds.features.ClassLabel) else None
        shards = {split: sorted(builder.info.splits[split].filenames) for split, count in sizes.items() if count}
        return load_catalogued(f"tfds:{spec}", folder, shards, class_names, replace(options, loading="streaming"))
    files = sorted((file.name, file.stat().st_size, file.stat().st_mtime_ns) for file in folder.iterdir())
    key = cache_key("tfds", _PLAN, files, options.image_size, channels, options.limit)

    def plan() -> Plan:
        with damage(folder):
            return _plan(builder, features, image, options)

    return cached_splits(f"tfds:{spec}", key, channels, plan, options)


def data_root(data_dir: Path | None) -> Path:
    """Where the prepared data sets are: `data_dir`, or TFDS's own default."""
    return Path(tfds.core.constants.DATA_DIR if data_dir is None else data_dir).expanduser()


def prepared_folder(spec: str, root: Path, download: bool) -> Path:
    """The folder below `root` of the data set NAME[/CONFIG][:VERSION]; prepared where it is missing.

    Raises:
        DataError: unknown, not there, or not downloadable.
    """
    return _folder_of(_request(spec), root, download)


def _request(spec: str) -> _Request:
    match = _SPEC.fullmatch(spec.strip())
    if match is None:
        raise DataError(
            f"{spec!r} is not the name of a TFDS data set", "Write tfds:NAME, tfds:NAME/CONFIG or tfds:NAME:1.2.3"
        )
    return _Request(spec.strip(), match["name"], match["config"], match["version"])


def _folder_of(request: _Request, root: Path, download: bool) -> Path:
    folder = _prepared(root, request)
    if folder is None:
        _prepare(root, request, download)
        folder = _prepared(root, request)
    if folder is None:
        raise DataError(
            f"TFDS prepared {request.spec}, but not under {root / request.name}", "Name its version: tfds:NAME:1.2.3"
        )
    return folder


def _plan(builder: Any, features: Any, image: Any, options: Options) -> Plan:
    class_names: tuple[str, ...] = ()
    label_feature = dict(features.items()).get("label")
    chosen = {("train", "train"): np.arange(builder.info.splits["train"].num_examples)}
    labels: dict[str, NDArray[np.int64]] = {}
    if isinstance(label_feature, tfds.features.ClassLabel):
        labels["train"] = _labels(builder, "train")
        if labels["train"].min() >= 0:
            class_names = tuple(label_feature.names)
    if class_names:
        for split in _TEST_SPLITS:
            if split in builder.info.splits:
                labels[split] = _labels(builder, split)
                if len(labels[split]) and labels[split].min() >= 0:
                    chosen["test", split] = np.arange(len(labels[split]))
                    break
        else:
            kept = held_out([str(position) for position in chosen["train", "train"]], labels["train"].tolist())
            chosen = {("train", "train"): np.flatnonzero(~kept), ("test", "train"): np.flatnonzero(kept)}
            _log.info("%s: %d of %d images are held out for testing", builder.name, kept.sum(), len(kept))
    used = {split for _, split in chosen}
    unused = {
        f"not used: split {split}": about.num_examples
        for split, about in builder.info.splits.items()
        if split not in used and about.num_examples
    }
    if options.limit is not None:
        chosen = {way: positions[spread_indices(len(positions), options.limit)] for way, positions in chosen.items()}
    height, width = image.shape[:2]
    return Plan(
        _items(builder, {way: positions for way, positions in chosen.items() if len(positions)}, class_names),
        sum(map(len, chosen.values())),
        store_size((width, height) if height and width else None, options.image_size),
        class_names,
        unused,
    )


def _read(builder: Any, split: str, parts: tuple[str, ...]) -> Iterator[tuple[NDArray[Any], ...]]:
    """Batches of the features `parts`; images as the bytes of their files."""
    decoders = tfds.decode.PartialDecoding(
        dict.fromkeys(parts, True), decoders={"image": tfds.decode.SkipDecoding()} if "image" in parts else None
    )
    with damage(Path(builder.data_dir)):
        at_once = max(1, min(_READ_AT_ONCE, _READ_BYTES // largest_record(builder, split)))
        examples = builder.as_dataset(split=split, shuffle_files=False, decoders=decoders)
        tuples = examples.map(lambda example: tuple(example[part] for part in parts))
        yield from tuples.batch(at_once).prefetch(2).as_numpy_iterator()


def _labels(builder: Any, split: str) -> NDArray[np.int64]:
    batches = [labels for (labels,) in _read(builder, split, ("label",))]
    labels = np.concatenate([np.zeros(0, np.int64), *batches])
    known = len(builder.info.features["label"].names)
    if labels.max(initial=-1) >= known:
        raise ValueError(f"a label of {split} is {labels.max()}, and there are {known} classes")
    return labels


def _items(
    builder: Any, chosen: dict[tuple[str, str], NDArray[np.int64]], class_names: tuple[str, ...]
) -> Iterator[Item]:
    """The images of `chosen`: {(our split, TFDS's split): positions}."""
    for source in dict.fromkeys(split for _, split in chosen):
        target_of = {
            int(position): target
            for (target, split), positions in chosen.items()
            if split == source
            for position in positions
        }
        position = 0
        for images, *labels in _read(builder, source, ("image", "label") if class_names else ("image",)):
            for offset, content in enumerate(images):
                if target := target_of.get(position):
                    label = int(labels[0][offset]) if class_names else None
                    yield Item(target, f"{source}/{position}", content, label)
                position += 1


def _image_feature(request: _Request, features: Any) -> Any:
    names = sorted(features) if isinstance(features, tfds.features.FeaturesDict) else []
    image = features["image"] if "image" in names else None
    if not isinstance(image, tfds.features.Image):
        raise DataError(
            f"tfds:{request.spec} has no feature `image` that is an image (its features: {', '.join(names) or 'none'})",
            "Choose a data set for image classification",
        )
    if image.np_dtype not in (np.uint8, np.uint16):
        raise DataError(f"the images of tfds:{request.spec} are {image.np_dtype}", "Choose a data set of 8-bit images")
    return image


def _prepared(root: Path, request: _Request) -> Path | None:
    """The folder of the newest prepared version that was asked for.

    Searched here rather than by tfds.builder, which asks a server first and prefers code over files.

    Raises:
        DataError: there are several configurations, and none was asked for.
    """
    place = root / request.name
    if request.config is not None:
        return _newest(place / request.config, request.version)
    if found := _newest(place, request.version):
        return found
    configs = [folder for folder in _folders(place) if _newest(folder, request.version)]
    if len(configs) > 1:
        names = ", ".join(folder.name for folder in configs)
        raise DataError(
            f"tfds:{request.spec} has several configurations in {root}: {names}", "Choose one: tfds:NAME/CONFIG"
        )
    return _newest(configs[0], request.version) if configs else None


def _newest(place: Path, version: str | None) -> Path | None:
    versions = [
        folder
        for folder in _folders(place)
        if _VERSION.fullmatch(folder.name)
        and fnmatch.fnmatchcase(folder.name, version or "*")
        and (folder / "features.json").exists()
    ]
    return max(versions, key=lambda folder: tuple(map(int, folder.name.split("."))), default=None)


def _folders(place: Path) -> list[Path]:
    return sorted(path for path in place.iterdir() if path.is_dir()) if place.is_dir() else []


def _prepare(root: Path, request: _Request, download: bool) -> None:
    """Downloads and prepares with TFDS's own code. Raises `DataError`."""
    public = tfds.list_builders(with_community_datasets=False)
    if request.name not in public:
        local = [folder.name for folder in _folders(root)]
        if request.name in local:
            versions = sorted(
                str(file.parent.relative_to(root)) for file in (root / request.name).rglob("features.json")
            )
            there = ", ".join(versions) or "none"
            raise DataError(
                f"{root / request.name} holds no prepared tfds:{request.spec} (prepared: {there})",
                "Choose a configuration and version that is there, or prepare it again",
            )
        close = difflib.get_close_matches(request.name, [*local, *public], n=1)
        hint = f"Did you mean tfds:{close[0]}?" if close else "See https://www.tensorflow.org/datasets/catalog"
        raise DataError(f"TFDS has no data set {request.name}, and none is in {root}", f"{hint} Or set the data folder")
    if not download:
        raise DataError(
            f"tfds:{request.spec} is not in {root}, and downloads are not allowed",
            "Omit --no-download, or name the folder that holds it with --data-dir",
        )
    _log.info("downloading tfds:%s into %s", request.spec, root)
    try:
        # TFDS prints what it does; stdout is for results.
        with contextlib.redirect_stdout(sys.stderr):
            builder = tfds.builder(request.spec, data_dir=str(root))
            _image_feature(request, builder.info.features)
            # The bucket of ready-made data sets is tried for minutes where there is no network.
            settings = tfds.download.DownloadConfig(try_download_gcs=False)
            builder.download_and_prepare(download_config=settings)
    except DataError:
        raise
    except Exception as error:  # Each data set has its own code, and the network its own troubles.
        raise DataError(
            f"tfds:{request.spec} could not be downloaded and prepared in {root} ({type(error).__name__}: {error})",
            "Check the network and the free space, or prepare it elsewhere and name its folder",
        ) from error
