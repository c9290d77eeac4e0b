"""Photos in one folder for each class, as features."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from bssl_tf_deploy.embedding import FeatureNetwork, embed
from bssl_tf_deploy.errors import ImageError, UsageError
from bssl_tf_deploy.folders import SYSTEM_NAMES, images_below, is_folder
from bssl_tf_deploy.learning import spread


@dataclass(frozen=True, eq=False)
class Labelled:
    """Photos that could be read.

    Attributes:
        labels: C names.
        features: float32 [N, D].
        classes: int64 [N], 0 to C - 1.
        scores: of the bundle's own classes, float64 [N, K], where they were wanted.
        found: of each class, how many photos there were.
        unreadable: what to say of each other photo.
    """

    labels: tuple[str, ...]
    features: np.ndarray
    classes: np.ndarray
    scores: np.ndarray | None
    found: tuple[int, ...]
    unreadable: tuple[str, ...]


def class_folders(folder: Path) -> dict[str, Path]:
    """The folders in `folder`, one for each class, by name in order.

    Raises:
        UsageError: there are none.
    """
    if not is_folder(str(folder)):
        raise UsageError(f"{folder} is not a folder", "Give a folder with one folder of photos for each class")
    with os.scandir(folder) as entries:
        names = sorted(one.name for one in entries if one.is_dir() and not one.name.startswith("."))
    folders = {name: folder / name for name in names if name.casefold() not in SYSTEM_NAMES}
    if not folders:
        raise UsageError(
            f"{folder} holds no folders of photos",
            f"Make one for each class, named after it: {folder}/cat/, {folder}/dog/",
        )
    return folders


def labelled(
    network: FeatureNetwork, folders: Mapping[str, Path], most: int | None = None, *, scores: bool = False
) -> Labelled:
    """The features of the photos in folders and below.

    Args:
        network: of the bundle.
        folders: of each class.
        most: photos of each class; of more, as many evenly spread ones. None for all.
        scores: those of the bundle's own classes too.

    Raises:
        ImageError: there are no photos, or none can be read.
    """
    class_of, found, unreadable = dict[str, int](), list[int](), list[str]()
    for number, folder in enumerate(folders.values()):
        paths = list[str]()
        for one in images_below(folder):
            if isinstance(one, OSError):
                unreadable.append(f"{one.filename} cannot be listed ({one.strerror})")
            else:
                paths.append(str(one))
        found.append(len(paths))
        class_of |= {paths[place]: number for place in spread(len(paths), len(paths) if most is None else most)}
    if not class_of:
        raise ImageError(f"there are no photos in {', '.join(map(str, folders.values()))}", "Put some there")
    embedded = embed(network, list(class_of), detailed=scores)
    classes = np.array([class_of[name] for name in embedded.vectors.images], np.int64)
    return Labelled(
        tuple(folders),
        embedded.vectors.values,
        classes,
        embedded.scores,
        tuple(found),
        (*unreadable, *embedded.unreadable),
    )
