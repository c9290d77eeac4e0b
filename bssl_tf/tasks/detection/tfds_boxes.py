"""Annotations of TensorFlow Datasets: a feature `objects` with `bbox` and `label`, as in `voc/2007` and `coco/2017`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from bssl_tf.data.building import Item
from bssl_tf.data.prepared import damage, largest_record, open_prepared, tfds
from bssl_tf.data.tfds_source import data_root, prepared_folder
from bssl_tf.errors import DataError
from bssl_tf.tasks.detection.annotations import MAX_OBJECTS, Annotated, Annotations, Faults, Split

_SPLITS: dict[str, Split] = {"train": "train", "validation": "validation", "test": "test"}
# Which objects count for nothing: of Pascal VOC, of COCO.
_IGNORED = ("is_difficult", "is_crowd")


def read_tfds_boxes(spec: str, data_dir: Path | None, download: bool, faults: Faults) -> Annotations:
    """Reads the boxes of NAME[/CONFIG][:VERSION]; splits without any box, such as COCO's test split, are not used.

    Raises:
        DataError: unknown, not there, not downloadable, damaged, or without boxes.
    """
    folder = prepared_folder(spec, data_root(data_dir), download)
    builder = open_prepared(folder)
    objects, names = _features(spec, builder)
    parts: dict[str, Any] = dict.fromkeys(("bbox", "label", *(part for part in _IGNORED if part in objects)), True)
    images: list[Annotated] = []
    for name, split in _SPLITS.items():
        if name not in builder.info.splits:
            continue
        found = [
            _image(f"{name}/{position}", split, example["objects"], names, faults)
            for position, example in enumerate(_read(builder, name, {"objects": parts}))
        ]
        if any(image.objects for image in found) or split == "train":
            images.extend(found)
        else:
            faults.note(name, "split without boxes (not used)", f"{len(found):,} images")

    def items(paths: Sequence[str]) -> Iterator[Item]:
        wanted = set(paths)
        for name in _SPLITS:
            if not any(path.startswith(f"{name}/") for path in wanted):
                continue
            for position, example in enumerate(_read(builder, name, {"image": True})):
                if (path := f"{name}/{position}") in wanted:
                    yield Item("train", path, bytes(example["image"]), None)

    stamp = sorted((file.name, file.stat().st_size, file.stat().st_mtime_ns) for file in folder.iterdir())
    return Annotations(tuple(images), names, items, stamp)


def _features(spec: str, builder: Any) -> tuple[dict[str, Any], tuple[str, ...]]:
    """The features of an object, and the names of classes."""
    features = builder.info.features
    known = dict(features.items()) if isinstance(features, tfds.features.FeaturesDict) else {}
    inner = getattr(known.get("objects"), "feature", None)
    objects = dict(inner.items()) if isinstance(inner, tfds.features.FeaturesDict) else {}
    if (
        not isinstance(known.get("image"), tfds.features.Image)
        or not isinstance(objects.get("bbox"), tfds.features.BBoxFeature)
        or not isinstance(objects.get("label"), tfds.features.ClassLabel)
    ):
        raise DataError(
            f"tfds:{spec} has no images with boxes (its features: {', '.join(sorted(known)) or 'none'})",
            "Choose a data set for detection, such as tfds:voc/2007 or tfds:coco/2017",
        )
    return objects, tuple(objects["label"].names)


def _read(builder: Any, split: str, parts: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Examples with the features `parts`; images as the bytes of their files."""
    skip = {"image": tfds.decode.SkipDecoding()} if "image" in parts else None
    with damage(Path(builder.data_dir)):
        largest_record(builder, split)
        decoders = tfds.decode.PartialDecoding(parts, decoders=skip)
        yield from builder.as_dataset(split=split, shuffle_files=False, decoders=decoders).as_numpy_iterator()


def _image(path: str, split: Split, objects: Any, names: tuple[str, ...], faults: Faults) -> Annotated:
    boxes, labels = objects["bbox"][:MAX_OBJECTS], objects["label"][:MAX_OBJECTS]
    ignored = next((objects[part] for part in _IGNORED if part in objects), [False] * len(labels))
    found = []
    # TFDS has top, left, bottom, right.
    for (top, left, bottom, right), label, skip in zip(boxes.tolist(), labels.tolist(), ignored, strict=False):
        if not 0 <= label < len(names):
            faults.boxes += 1
            faults.lose_box(path, "unknown class", str(label))
        elif one := faults.object(path, names[label], (left, top, right, bottom), bool(skip)):
            found.append(one)
    return Annotated(path, split, None, tuple(found))
