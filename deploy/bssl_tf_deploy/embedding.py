"""What `embed` does, here and on the host: the features of images, out of a bundle or whatever else has features."""

from __future__ import annotations

import contextlib
import dataclasses
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from bssl_tf_deploy.bundle import MODEL
from bssl_tf_deploy.errors import BundleError, ImageError
from bssl_tf_deploy.features import features_model
from bssl_tf_deploy.folders import is_folder
from bssl_tf_deploy.inputs import OneImage
from bssl_tf_deploy.manifest import Preprocessing
from bssl_tf_deploy.predictor import Predictor, Prepared
from bssl_tf_deploy.preprocess import averaged
from bssl_tf_deploy.progress import Progress
from bssl_tf_deploy.runtime import load_runtime
from bssl_tf_deploy.sources import count_items, file_items
from bssl_tf_deploy.stream import in_order, preparer
from bssl_tf_deploy.tasks.classification import NAME as CLASSIFICATION
from bssl_tf_deploy.tasks.classification import softmax
from bssl_tf_deploy.vectors import FORMAT, About, Vectors

_BATCH = 32
_PIXELS = 16


@dataclass(frozen=True, eq=False)
class FeatureNetwork:
    """What features come from.

    Attributes:
        name: of the network.
        sha256: of its weights.
        preprocessing: of images.
        prepare: an image as the network takes it, [1, H, W, C]; called in several threads. Raises `ImageError`.
        features: of [B, H, W, C], float32 [B, D].
        scores: of the same, the probability of each class, float64 [B, K]; None without a classifier.
    """

    name: str
    sha256: str
    preprocessing: Preprocessing
    prepare: Callable[[OneImage], Prepared]
    features: Callable[[np.ndarray], np.ndarray]
    scores: Callable[[np.ndarray], np.ndarray] | None = None


@dataclass(frozen=True, eq=False)
class Embedded:
    """Features of images.

    Attributes:
        vectors: of those that could be read.
        scores: of the same, the probability of each class, float64 [N, K]; None without a classifier.
        pixels: of the same, float32 [N, P], the network's inputs averaged down to 16 px or less.
        unreadable: what to say of each other image.
    """

    vectors: Vectors
    unreadable: tuple[str, ...]
    scores: np.ndarray | None = None
    pixels: np.ndarray | None = None


def bundle_features(
    predictor: Predictor, threads: int = 1, runtime: str = "auto", *, trust_bundle_library: bool = False
) -> FeatureNetwork:
    """The features of a bundle's network: what its classifier reads.

    Args:
        predictor: of the bundle, checked against its golden outputs.
        threads: see `bssl_tf_deploy.load`, as the others.
        runtime: see there.
        trust_bundle_library: see there.

    Raises:
        BundleError: its output does not come from a dense layer.
        RuntimeUnavailableError: see `bssl_tf_deploy.load`.
    """
    bundle = predictor.bundle
    manifest = bundle.manifest
    if len(manifest.inputs) > 1 or len(manifest.outputs) > 1:
        raise BundleError(f"{bundle.path} takes or gives more than one tensor", "Give a bundle of a classifier")
    changed = dataclasses.replace(bundle, model=features_model(bundle.model))
    made = load_runtime(changed, threads, runtime, trust_bundle_library=trust_bundle_library)

    def features(batch: np.ndarray) -> np.ndarray:
        return made.run([batch])[0].reshape(len(batch), -1)

    def scores(batch: np.ndarray) -> np.ndarray:
        calibration = manifest.table.calibration
        [logits] = predictor.run_tensor(batch).values()
        return softmax(logits, 1.0 if calibration is None else calibration.temperature)

    return FeatureNetwork(
        manifest.network.backbone,
        manifest.files[MODEL].sha256,
        manifest.preprocessing,
        predictor.prepare,
        features,
        scores if manifest.task == CLASSIFICATION else None,
    )


def embed(network: FeatureNetwork, images: Sequence[str], *, detailed: bool = False) -> Embedded:
    """The features of images, in order; those that cannot be read are left out and reported.

    Args:
        network: what they come from.
        images: files, folders, and `-` for paths on standard input. Names are relative to a folder that is given alone.
        detailed: `scores` and `pixels` too.

    Raises:
        ImageError: none of them can be read, or there are none.
    """
    folder = images[0] if len(images) == 1 and is_folder(images[0]) else ""
    names, unreadable = list[str](), list[str]()
    batch, rows = list[np.ndarray](), list[np.ndarray]()
    scores, pixels = list[np.ndarray](), list[np.ndarray]()

    def run() -> None:
        if batch:
            tensor = np.concatenate(batch)
            rows.append(network.features(tensor))
            if detailed:
                pixels.append(averaged(tensor.astype(np.float32), _PIXELS))
            if detailed and network.scores is not None:
                scores.append(network.scores(tensor))
            batch.clear()

    total = count_items(images) if sys.stderr.isatty() else None
    with contextlib.ExitStack() as stack:
        bar = stack.enter_context(Progress(total, 0, shown=True))
        ready = stack.enter_context(
            contextlib.closing(in_order(file_items(images), preparer(network.prepare), live=False))
        )
        for item, prepared in ready:
            if isinstance(prepared, ImageError):
                unreadable.append(str(prepared))
            else:
                names.append(Path(item.name).relative_to(folder).as_posix() if folder else item.name)
                batch.append(prepared.tensor)
                if len(batch) == _BATCH:
                    run()
            bar.step(readable=not isinstance(prepared, ImageError))
        run()
    if not names:
        first = f"; the first: {unreadable[0].removeprefix('error[image]: ')}" if unreadable else ""
        raise ImageError(f"none of {len(unreadable)} images can be read{first}".rstrip("."), "Check the paths")
    values = np.concatenate(rows).astype(np.float32, copy=False)
    about = About(FORMAT, network.name, network.sha256, network.preprocessing, values.shape[1], folder, len(unreadable))
    joined = [np.concatenate(parts) if parts else None for parts in (scores, pixels)]
    return Embedded(Vectors(about, tuple(names), values), tuple(unreadable), *joined)


def summary(embedded: Embedded, out: Path) -> dict[str, Any]:
    """What a program wants to know of a file that was written, for JSON."""
    about = embedded.vectors.about
    return {
        "out": str(out),
        "images": len(embedded.vectors.images),
        "dimensions": about.dimensions,
        "packed": embedded.vectors.thresholds is not None,
        "network": about.network,
        "sha256": about.sha256,
        "unreadable": list(embedded.unreadable),
    }


def lines(embedded: Embedded, out: Path) -> Iterator[str]:
    """The same for a person."""
    about, packed = embedded.vectors.about, embedded.vectors.thresholds is not None
    left = f", {len(embedded.unreadable)} could not be read" if embedded.unreadable else ""
    kind = f"{about.dimensions} bits" if packed else f"{about.dimensions} numbers (float32)"
    yield f"{out}: {len(embedded.vectors.images)} images, {kind} each, of {about.network}{left}"
