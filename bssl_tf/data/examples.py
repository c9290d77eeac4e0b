"""What an example (`tf.train.Example`) in a TFRecord or ArrayRecord file says: an image and its label."""

from __future__ import annotations

from typing import Any

from bssl_tf.backend import tf

# As TensorFlow Datasets, the scripts of TensorFlow's models for ImageNet, and others name them; the first is ours.
IMAGE_KEYS = ("image", "image/encoded", "image_raw", "jpg", "jpeg", "png")
LABEL_KEYS = ("label", "image/class/label", "class", "cls")


def image_and_label(record: bytes) -> tuple[bytes, int | None]:
    """The content of the image's file, and the label or None.

    Raises:
        ValueError: it is not an example, or there is no image in it.
    """
    try:
        features = tf.train.Example.FromString(record).features.feature
    except Exception as error:  # protobuf's implementations have an error each.
        raise ValueError("a record is not a tf.train.Example") from error
    image = next((values[0] for key in IMAGE_KEYS if (values := _values(features, key, "bytes_list"))), None)
    if image is None:
        found = ", ".join(sorted(features)) or "nothing"
        raise ValueError(f"a record has no image in {' or '.join(IMAGE_KEYS)}, but {found}")
    label = next((int(values[0]) for key in LABEL_KEYS if (values := _values(features, key, "int64_list"))), None)
    return image, label


def image_of(record: bytes) -> bytes:
    """The content of the image's file. Raises `ValueError` as `image_and_label` does."""
    return image_and_label(record)[0]


def example_of(image: bytes, label: int | None) -> bytes:
    """The record of an image, with the keys of TensorFlow Datasets."""
    features = {IMAGE_KEYS[0]: tf.train.Feature(bytes_list=tf.train.BytesList(value=[image]))}
    if label is not None:
        features[LABEL_KEYS[0]] = tf.train.Feature(int64_list=tf.train.Int64List(value=[label]))
    record: bytes = tf.train.Example(features=tf.train.Features(feature=features)).SerializeToString(deterministic=True)
    return record


def _values(features: Any, key: str, kind: str) -> Any:
    # A map of protobuf's makes what it is asked for.
    return getattr(features[key], kind).value if key in features else ()
