"""A data set that is shipped with the package: 10,000 training and 2,000 test images of Fashion-MNIST.

H. Xiao, K. Rasul, R. Vollgraf, "Fashion-MNIST: a Novel Image Dataset for Benchmarking Machine Learning Algorithms",
arXiv 1708.07747. Licence: `LICENSE.fashion-mnist`. `make.py` says which images were chosen and makes the file again.
"""

from __future__ import annotations

import zipfile
from pathlib import Path

import numpy as np

from bssl_tf.data.image_set import ImageSet
from bssl_tf.errors import DataError

FILE = Path(__file__).with_name("fashion_mnist.npz")
CLASS_NAMES = (
    "t-shirt/top",
    "trouser",
    "pullover",
    "dress",
    "coat",
    "sandal",
    "shirt",
    "sneaker",
    "bag",
    "ankle boot",
)


def load_embedded(file: Path = FILE) -> tuple[ImageSet, ImageSet]:
    """The training and the test images: uint8 [10000, 28, 28, 1] and [2000, 28, 28, 1], labels 0 to 9.

    Raises:
        DataError: the file is missing or damaged.
    """
    try:
        with np.load(file, allow_pickle=False) as arrays:
            train, test = (
                ImageSet(
                    f"embedded ({split})",
                    arrays[f"{split}_images"][..., np.newaxis],
                    np.ones(len(arrays[f"{split}_labels"]), np.float32),
                    arrays[f"{split}_labels"].astype(np.int64),
                    CLASS_NAMES,
                )
                for split in ("train", "test")
            )
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        raise DataError(
            f"the embedded data set {file} is missing or damaged ({error})", "Install bssl-tf again"
        ) from error
    return train, test
