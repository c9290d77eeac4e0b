"""Opens images with boxes of any form that is known: Pascal VOC, COCO, YOLO, TFDS."""

from __future__ import annotations

import logging
import math
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from bssl_tf.data.building import Options, Plan, cached_splits, held_out
from bssl_tf.data.cache import cache_key, write_unreadable
from bssl_tf.data.folder import check_folder
from bssl_tf.data.image_set import SkippedFile, spread_indices
from bssl_tf.data.load import TFDS_PREFIX
from bssl_tf.errors import DataError, MissingDataError
from bssl_tf.files import cache_dir as user_cache_dir
from bssl_tf.tasks.detection.annotations import MAX_NAME, Annotated, Annotations, Faults
from bssl_tf.tasks.detection.boxes import BoxSet, BoxSplits, Objects
from bssl_tf.tasks.detection.coco import coco_files, read_coco
from bssl_tf.tasks.detection.voc import is_voc, read_voc
from bssl_tf.tasks.detection.yolo import read_yolo, yolo_file
from bssl_tf_deploy.pictures import stored_side

_SPLITS = ("train", "validation", "test")
# An annotation whose width / height differs by more belongs to another version of the picture.
_MOST_OTHER_RATIO = 0.05
_HINT = (
    "Give a folder of Pascal VOC (Annotations, JPEGImages), of COCO (annotations/*.json) or of YOLO (data.yaml), "
    "or tfds:NAME"
)
_log = logging.getLogger(__name__)


def open_boxes(
    spec: str,
    *,
    image_size: int,
    channels: int = 3,
    data_dir: Path | None = None,
    cache_dir: Path | None = None,
    max_unreadable_share: float = 0.05,
    download: bool = True,
    limit: int | None = None,
) -> BoxSplits:
    """Loads images with boxes; logs what was left out, and lists it in a file.

    Of a data set without a test split its validation split is for testing; without either, one in six of its images.
    Classes are those that it declares, else those of the training images, sorted.

    Args:
        spec: a folder or file of Pascal VOC, COCO or YOLO, or `tfds:NAME[/CONFIG][:VERSION]`.
        image_size: the longest side of the network's input, pixels; decides at which size images are stored.
        channels: 1 (grey) or 3 (RGB).
        data_dir: where TFDS keeps its data sets; None for TFDS's own default.
        cache_dir: where decoded images and lists of faults are kept; None for the user's cache folder.
        max_unreadable_share: a larger share of images that cannot be read, of images whose annotation cannot be used,
            or of boxes that cannot be meant, stops with an error; less is left out.
        download: whether TFDS may download.
        limit: at most this many images of each split, evenly spaced.

    Raises:
        MissingDataError: the folder is not there.
        DataError: it is of no form that is known, or too little of it can be used.
        StorageError: the cache cannot be written.
    """
    cache = user_cache_dir() if cache_dir is None else cache_dir
    faults = Faults()
    annotations = _read(spec, data_dir, download, faults)
    images = _in_splits(annotations.images, faults)
    names = annotations.class_names or tuple(
        sorted({one.name for image in images if image.split == "train" for one in image.objects})
    )
    if not names:
        raise DataError(f"{spec} has no boxes to learn from", "Add annotations, or check the folder")
    if odd := [name for name in names if not name.strip() or len(name) > MAX_NAME]:
        raise DataError(
            f"a class of {spec} is called {odd[0]!r:.60}",
            f"Give names of 1 to {MAX_NAME} characters; a bundle has them",
        )
    images = [_with_known_classes(image, set(names), faults) for image in images]
    if limit is not None:
        parts = [[image for image in images if image.split == split] for split in _SPLITS]
        images = [part[index] for part in parts for index in spread_indices(len(part), limit)]
    options = Options(image_size, channels, cache, max_unreadable_share, None, False, "mapped")
    paths = [image.path for image in images]
    # 2: with the pixels of the originals, which older entries lack.
    key = cache_key("boxes 2", spec, paths, annotations.stamp, image_size, channels)
    total = len(annotations.images) + faults.lost_images
    _refuse_faulty(spec, faults, total, options, key)

    def plan() -> Plan:
        return Plan(annotations.items(paths), len(paths), stored_side(image_size), ())

    stored = cached_splits(spec, key, channels, plan, options)
    skipped = {file.path for file in stored.skipped_files}
    whole = [image for image in images if image.path not in skipped]
    fitting = [
        place for place, image in enumerate(whole) if _fits(image, float(stored.train.aspect_ratios[place]), faults)
    ]
    _report(spec, faults, total, options, key)
    number = {name: place for place, name in enumerate(names)}
    sets = {}
    for split in _SPLITS:
        chosen = [place for place in fitting if whole[place].split == split]
        sets[split] = BoxSet(
            f"{spec} ({split})",
            stored.train,
            np.array(chosen, np.int64),
            tuple(whole[place].path for place in chosen),
            tuple(_objects(whole[place], number) for place in chosen),
            names,
        )
    for split in ("train", "test"):
        if not sets[split].class_counts().any():
            raise DataError(f"{spec} has no boxes in its {split} images", "Add annotations, or check the splits")
    validation = sets["validation"] if len(sets["validation"]) else None
    return BoxSplits(spec, sets["train"], validation, sets["test"], stored.skipped_files, tuple(faults.found))


def _read(spec: str, data_dir: Path | None, download: bool, faults: Faults) -> Annotations:
    if spec.startswith(TFDS_PREFIX):
        # Loads TFDS, which takes seconds.
        from bssl_tf.tasks.detection.tfds_boxes import read_tfds_boxes

        return read_tfds_boxes(spec[len(TFDS_PREFIX) :], data_dir, download, faults)
    root = Path(spec).expanduser()
    if not root.exists():
        raise MissingDataError(f"{root} does not exist", f"Check the path. {_HINT}")
    try:
        if (file := yolo_file(root)) is not None:
            return read_yolo(file, faults)
        if is_voc(root):
            return read_voc(root, faults)
        if coco_files(root):
            return read_coco(root, faults)
    except OSError as error:
        raise DataError(f"{root} cannot be read ({error.strerror})", "Check its permissions") from error
    check_folder(root)
    raise DataError(f"{root} holds no annotations of a form that is known", _HINT)


def _in_splits(images: Sequence[Annotated], faults: Faults) -> list[Annotated]:
    """All in a split: as they are, or one in six held out; validation images test where there are no others."""
    there = {image.split for image in images}
    if "test" not in there and "validation" in there:
        return [_moved(image, "test") if image.split == "validation" else image for image in images]
    if "test" in there:
        return list(images)
    kept = held_out([image.path for image in images], _rarest([[one.name for one in i.objects] for i in images]))
    _log.info("%d of %d images are held out for testing", kept.sum(), len(images))
    return [_moved(image, "test" if test else "train") for image, test in zip(images, kept, strict=True)]


def rarest_classes(labelled: BoxSet) -> list[int]:
    """For each image a number that images with the same rarest class share: strata for `held_out`."""
    return _rarest([[labelled.class_names[kind] for kind in one.classes] for one in labelled.objects])


def _rarest(names: Sequence[Sequence[str]]) -> list[int]:
    """Of the classes of the objects of each image; images without objects share one too."""
    counts = Counter(name for of_image in names for name in of_image)
    rarest = [min((counts[name], name) for name in of_image)[1] if of_image else "" for of_image in names]
    classes = sorted(set(rarest))
    return [classes.index(name) for name in rarest]


def _moved(image: Annotated, split: str) -> Annotated:
    return Annotated(image.path, "test" if split == "test" else "train", image.ratio, image.objects)


def _with_known_classes(image: Annotated, names: set[str], faults: Faults) -> Annotated:
    if not image.objects:
        faults.note(image.path, "image without boxes (kept)")
    known = tuple(one for one in image.objects if one.name in names)
    for one in image.objects:
        if one.name not in names:
            faults.lose_box(image.path, "unknown class", one.name)
    return image if len(known) == len(image.objects) else Annotated(image.path, image.split, image.ratio, known)


def _fits(image: Annotated, ratio: float, faults: Faults) -> bool:
    if image.ratio is None or abs(math.log(image.ratio / ratio)) <= _MOST_OTHER_RATIO:
        return True
    faults.lose_image(
        image.path, "annotation of a picture of another shape", f"width / height {image.ratio:.3f}, and not {ratio:.3f}"
    )
    return False


def _objects(image: Annotated, number: dict[str, int]) -> Objects:
    return Objects(
        np.array([one.box for one in image.objects], np.float32).reshape(-1, 4),
        np.array([number[one.name] for one in image.objects], np.int64),
        np.array([one.ignored for one in image.objects], bool),
    )


def _refuse_faulty(spec: str, faults: Faults, images: int, options: Options, key: str) -> None:
    share = options.max_unreadable_share
    for lost, total, what in (
        (faults.lost_images, images, "annotations of images"),
        (faults.lost_boxes, faults.boxes, "boxes"),
    ):
        if lost > share * total:
            first = next(iter(faults.found))
            raise DataError(
                f"{lost} of {total} {what} of {spec} cannot be used (first fault: {first.path}: {first.kind} "
                f"{first.detail}), more than the {share:.1%} that are tolerated; all are listed in "
                f"{_listed(faults, options, key)}",
                "Correct or remove those annotations, or raise --max-unreadable-share",
            )


def _report(spec: str, faults: Faults, images: int, options: Options, key: str) -> None:
    if not faults.found:
        return
    _refuse_faulty(spec, faults, images, options, key)
    counts = ", ".join(f"{count} x {kind}" for kind, count in faults.counts().items())
    _log.warning("%s: %s: see %s", spec, counts, _listed(faults, options, key))


def _listed(faults: Faults, options: Options, key: str) -> Path:
    rows = tuple(SkippedFile(one.path, f"{one.kind}: {one.detail}" if one.detail else one.kind) for one in faults.found)
    return write_unreadable(options.cache_dir, f"{key}.annotations", rows)
