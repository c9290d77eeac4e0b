"""What `bssl-tf select` does: the photos of a folder that are worth labelling first, as a list and a page."""

from __future__ import annotations

import math
import os
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from bssl_tf.errors import UsageError
from bssl_tf.evaluation.selection import Points, margins
from bssl_tf.evaluation.selection import select as selected
from bssl_tf.files import write_bytes, write_text
from bssl_tf.reports.contact_sheet import contact_sheet
from bssl_tf.workflows.feature_networks import Stated, feature_network, prepared_by
from bssl_tf_deploy.embedding import Embedded, FeatureNetwork, embed
from bssl_tf_deploy.manifest import Preprocessing
from bssl_tf_deploy.system_errors import system_errors

_PIXELS = Preprocessing(16, 16, 3, (0.5, 0.5, 0.5), (0.25, 0.25, 0.25))


@dataclass(frozen=True)
class Chosen:
    """A photo to label.

    Attributes:
        image: its path.
        distance: to the nearest photo that was chosen before or has a label, in units of the median distance to the
            mean; None for the first.
        margin: how sure the classifier is of its class, 0 to 1; None without one.
    """

    image: str
    distance: float | None
    margin: float | None


@dataclass(frozen=True)
class Selected:
    """What was chosen.

    Attributes:
        chosen: the most worthwhile first.
        among: how many photos there were.
        network: whose features were compared: a name, or `raw pixels`.
        out: the list.
        page: the page.
        unreadable: a line about each photo that could not be read or listed.
    """

    chosen: tuple[Chosen, ...]
    among: int
    network: str
    out: Path
    page: Path
    unreadable: tuple[str, ...] = field(repr=False)


@system_errors()
def select(
    images: str | os.PathLike[str],
    *,
    count: int = 200,
    network: str | os.PathLike[str] | None = None,
    labelled: str | os.PathLike[str] | None = None,
    seed: int = 0,
    out: str | Path = "select.txt",
    image_size: int | None = None,
    teacher_pixels: str | None = None,
    teacher_layout: str | None = None,
    teacher_output: str | None = None,
    threads: int = 1,
    runtime: str = "auto",
    trust_bundle_library: bool = False,
) -> Selected:
    """Chooses the photos of a folder that are worth labelling first.

    They differ as much as possible from each other (greedy k-center: Sener and Savarese, ICLR 2018); with a network
    that has a classifier, those that it is unsure of come first (margin sampling: Scheffer et al., IDA 2001). Of
    near-duplicates one is chosen at most, so that there may be fewer than `count`. The same seed, network and photos
    give the same list.

    Args:
        images: the folder.
        count: how many to choose, 1 or more.
        network: whose features are compared, see `embed`; None for 16x16 pixels, which find differences of colour and
            composition only.
        labelled: a folder of photos that have labels already, from which the new ones should differ.
        seed: of the first photo, where none has a label.
        out: the list to write, a path per line; the page has the same name with `.html`.
        image_size: see `embed`, as the others.
        teacher_pixels: see there.
        teacher_layout: see there.
        teacher_output: see there.
        threads: see there.
        runtime: see there.
        trust_bundle_library: see there.

    Raises:
        UsageError: `out` is the page itself, or something is stated of a network and none is given.
        ImageError: no photo can be read.
        StorageError: a file cannot be written.
        BsslError: see `embed`.
    """
    out = Path(out)
    if out.suffix == ".html":
        raise UsageError(f"--out {out} is the list, and the page has its name with .html", "Write --out select.txt")
    stated = Stated(image_size, teacher_pixels, teacher_layout, teacher_output)
    if network is not None:
        features = feature_network(
            network, stated, threads=threads, runtime=runtime, trust_bundle_library=trust_bundle_library
        )
    elif words := stated.words():
        raise UsageError(f"{' '.join(words)}: for a saved model", "Add --network, or omit it")
    else:
        features = _pixels()
    found = embed(features, [os.fspath(images)], detailed=True)
    known = None if labelled is None else embed(features, [os.fspath(labelled)], detailed=True)
    paths = [str(found.vectors.path(name)) for name in found.vectors.images]
    # A list has a path per line.
    listable = np.array(["\n" not in path for path in paths])
    unreadable = found.unreadable + (() if known is None else known.unreadable)
    unreadable += tuple(
        f"{path} has a line break in its name, and is not chosen"
        for path, fits in zip(paths, listable, strict=True)
        if not fits
    )
    places = np.flatnonzero(listable)
    sure = None if found.scores is None else margins(found.scores[places])
    picked = selected(
        _points(found, places),
        count,
        seed=seed,
        labelled=None if known is None else _points(known),
        margin=sure,
    )
    chosen = tuple(
        Chosen(
            paths[places[place]],
            None if math.isinf(distance) else float(distance),
            None if sure is None else float(sure[place]),
        )
        for place, distance in zip(picked.chosen, picked.distances, strict=True)
    )
    write_bytes(out, b"".join(os.fsencode(one.image) + b"\n" for one in chosen))
    page = out.with_suffix(".html")
    command = ["bssl-tf", "select", os.fspath(images), "--count", str(count), "--seed", str(seed)]
    command += [] if network is None else ["--network", os.fspath(network), *stated.words()]
    command += [] if labelled is None else ["--labelled", os.fspath(labelled)]
    about = f"{len(chosen)} of {len(paths)} photos of {images}, chosen by the features of {features.name}."
    caption = "The most worthwhile first, row by row. Below each: the file" + (
        "." if sure is None else ", and how sure the classifier is of its class (margin, 0 to 1)."
    )
    shown = [
        (Path(one.image), Path(one.image).name + ("" if one.margin is None else f", {one.margin:.2f}"))
        for one in chosen
    ]
    write_text(page, contact_sheet("Photos to label first", about, [("Photos", caption, shown)], command))
    return Selected(chosen, len(paths), features.name, out, page, unreadable)


def _points(found: Embedded, places: np.ndarray | None = None) -> Points:
    assert found.pixels is not None
    chosen = slice(None) if places is None else places
    return Points(found.vectors.values[chosen], found.pixels[chosen])


def _pixels() -> FeatureNetwork:
    """Not a network: the image itself, very small."""
    return FeatureNetwork("raw pixels", "", _PIXELS, prepared_by(_PIXELS), lambda batch: batch.reshape(len(batch), -1))
