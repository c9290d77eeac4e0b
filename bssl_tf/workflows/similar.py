"""What `bssl-tf similar` does: the images of a folder that a network finds most similar to one image."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from bssl_tf.errors import UsageError
from bssl_tf.files import write_text
from bssl_tf.reports.contact_sheet import Images, contact_sheet
from bssl_tf.workflows.feature_networks import Stated, feature_network
from bssl_tf.workflows.vector_files import SUFFIXES, read_vector_file
from bssl_tf_deploy.embedding import FeatureNetwork, embed
from bssl_tf_deploy.system_errors import system_errors
from bssl_tf_deploy.vectors import Vectors


@dataclass(frozen=True)
class Match:
    """An image that was found.

    Attributes:
        image: its path.
        similarity: cosine of its features and those of the image that was looked for, -1 to 1.
    """

    image: str
    similarity: float


@dataclass(frozen=True)
class Similar:
    """What was found.

    Attributes:
        matches: the most similar first.
        searched: how many images were compared.
        page: the contact sheet; None where none was wanted.
        unopened: how many matches are on it by their names alone, because they come from a file of vectors and are not
            below a folder that was named: a stranger's file may name any file of the user's.
        unreadable: a line about each image that could not be read.
    """

    matches: tuple[Match, ...]
    searched: int
    page: Path | None
    unopened: int
    unreadable: tuple[str, ...] = field(repr=False)


@system_errors()
def similar(
    model: str | os.PathLike[str],
    image: str | os.PathLike[str],
    *,
    images: str | os.PathLike[str],
    count: int = 12,
    out: str | Path | None = "similar.html",
    folder: str | Path | None = None,
    image_size: int | None = None,
    teacher_pixels: str | None = None,
    teacher_layout: str | None = None,
    teacher_output: str | None = None,
    threads: int = 1,
    runtime: str = "auto",
    trust_bundle_library: bool = False,
) -> Similar:
    """Finds the images of a folder that a network finds most similar to one image.

    Args:
        model: a network, see `embed`.
        image: what to look for; left out of the result, if it is in the folder.
        images: the folder, or a file of `embed` with the same network, which saves the time of computing its features.
        count: how many to find, 1 or more.
        out: the contact sheet to write, a page that works offline; None for none.
        folder: where the images of a file of `embed` are. Only images below it are opened for the contact sheet; with
            None, it has their names alone.
        image_size: see `embed`, as the others.
        teacher_pixels: see there.
        teacher_layout: see there.
        teacher_output: see there.
        threads: see there.
        runtime: see there.
        trust_bundle_library: see there.

    Raises:
        UsageError: `images` is a file of another network, or `folder` is given without such a file.
        ImageError: `image`, or every image of the folder, cannot be read.
        StorageError: a file cannot be read or written.
        BsslError: see `embed`.
    """
    stated = Stated(image_size, teacher_pixels, teacher_layout, teacher_output)
    network = feature_network(
        model, stated, threads=threads, runtime=runtime, trust_bundle_library=trust_bundle_library
    )
    wanted = network.features(network.prepare(Path(image)).tensor)
    vectors, unreadable = _searched(network, Path(images), None if folder is None else Path(folder))
    place_of = _place_of(vectors, Path(images), None if folder is None else Path(folder))
    cosines = (vectors.directions() @ vectors.direction_of(wanted)[0]).clip(-1, 1)
    found = list[tuple[Match, Path | None]]()
    for place in np.argsort(-cosines, kind="stable"):
        if len(found) == count:
            break
        name = vectors.images[place]
        if (path := place_of(name)) is None:
            same = vectors.path(name).absolute() == Path(image).absolute()
        else:
            same = os.path.realpath(path) == os.path.realpath(image)
        if not same:
            found.append((Match(str(path or vectors.path(name)), float(cosines[place])), path))
    matches = tuple(match for match, _ in found)
    unopened = sum(path is None for _, path in found)
    if out is not None:
        shown: Images = [
            (path, f"{match.similarity:.3f}, {match.image if path is None else path.name}") for match, path in found
        ]
        about = f"By the features of {network.name}, among {len(vectors.images)} images of {images}."
        parts: list[tuple[str, str, Images]] = [
            ("Image", "What was looked for.", [(Path(image), Path(image).name)]),
            (f"The {len(shown)} most similar", "Below each: the cosine of the features, and the file.", shown),
        ]
        command = ["bssl-tf", "similar", *(os.fspath(one) for one in (model, image, images)), "--count", str(count)]
        command += [*([] if folder is None else ["--folder", os.fspath(folder)]), *stated.words()]
        write_text(Path(out), contact_sheet("Similar images", about, parts, command))
    return Similar(matches, len(vectors.images), None if out is None else Path(out), unopened, unreadable)


def _place_of(vectors: Vectors, images: Path, folder: Path | None) -> Callable[[str], Path | None]:
    """Where an image is, if it may be opened.

    A file of vectors may come from a stranger, and a page that shows what it names would show any file of the user's.
    """
    if not _is_file_of_vectors(images):
        return vectors.path
    if folder is None:
        return lambda name: None
    root, given = folder.resolve(), folder.absolute()

    def below(name: str) -> Path | None:
        path = given / name
        # First by the name alone: even to follow links may reach for another machine.
        if "\0" in name or ".." in Path(name).parts or not (path.is_relative_to(given) or path.is_relative_to(root)):
            return None
        return path if Path(os.path.realpath(path)).is_relative_to(root) else None

    return below


def _is_file_of_vectors(images: Path) -> bool:
    return images.suffix in SUFFIXES and not images.is_dir()


def _searched(network: FeatureNetwork, images: Path, folder: Path | None) -> tuple[Vectors, tuple[str, ...]]:
    if _is_file_of_vectors(images):
        vectors = read_vector_file(images)
        again = "Give the run or bundle that it was made with, or make it again with `bssl-tf embed`"
        if vectors.about.sha256 != network.sha256:
            raise UsageError(
                f"{images} holds features of another network ({vectors.about.network}, weights "
                f"{vectors.about.sha256[:8]}, not {network.sha256[:8]})",
                again,
            )
        # Of a saved model the user may state another size.
        if vectors.about.preprocessing != network.preprocessing:
            raise UsageError(f"{images} holds features of images that were prepared differently", again)
        return vectors, ()
    if folder is not None:
        raise UsageError("--folder is for a file of features", "Omit it")
    found = embed(network, [str(images)])
    return found.vectors, found.unreadable
