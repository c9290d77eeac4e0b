"""The commands `learn`, `forget` and `verify` of `bssl-tf-deploy`: heads that live on the device."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from bssl_tf_deploy.bundle import Bundle, read_bundle
from bssl_tf_deploy.embedding import FeatureNetwork
from bssl_tf_deploy.errors import ImageError, UsageError
from bssl_tf_deploy.heads import (
    UNKNOWN,
    Head,
    Kind,
    changing,
    check_name,
    head_names,
    head_path,
    read_head,
    undo,
    write_head,
)
from bssl_tf_deploy.labelled import Labelled, class_folders, labelled
from bssl_tf_deploy.learning import fit, most_photos, with_class, without_class
from bssl_tf_deploy.predictor import Predictor
from bssl_tf_deploy.tasks.classification import NAME as CLASSIFICATION
from bssl_tf_deploy.text import show, show_json

COMMANDS = ("learn", "forget", "verify")
LEARNED = "learned"
KINDS: dict[str, Kind] = {"logistic": "linear", "prototypes": "prototypes"}
# Of right answers on held-out photos, how many may become `unknown`.
UNKNOWN_PERCENT = 5.0


def check(options: argparse.Namespace) -> None:
    """Raises `UsageError` where options do not go together, before the bundle is read."""
    if options.head is not None:
        check_name(options.head)
    if options.command != "learn":
        return
    if options.undo and (options.folder or options.add_class or options.method or options.unknown is not None):
        raise UsageError("--undo brings the previous head back, and takes no photos", "Omit FOLDER and other options")
    if not options.undo and len(options.folder) != 1:
        given = "more than one folder was" if options.folder else "no photos were"
        raise UsageError(f"{given} given", "Give FOLDER, with one folder of photos for each class")
    if options.add_class is not None and (options.method or options.unknown is not None):
        raise UsageError("--add-class keeps --method and --unknown of the head", "Omit them")
    if options.add_class == UNKNOWN:
        raise UsageError(f"`{UNKNOWN}` cannot be a class", "Give the class another name, such as `other`")


def learn(bundle: Bundle, network: FeatureNetwork, options: argparse.Namespace) -> int:
    """Makes a head from photos, or adds a class to one; the exit status is that of `run`."""
    folder, name = Path(options.folder[0]), options.head
    with changing(bundle):
        if options.add_class is not None:
            before = read_head(bundle, name)
            most = most_photos(len(before.about.labels) + 1, before.kept.shape[1])
            photos = labelled(network, {options.add_class: folder}, most)
            head = with_class(before, options.add_class, photos.features)
        else:
            percent = UNKNOWN_PERCENT if options.unknown is None else options.unknown
            head, photos = learned(network, folder, KINDS[options.method or "logistic"], percent)
        path = write_head(bundle, name, head)
    report_omitted(head, photos)
    _print(head, path, options)
    return ImageError.exit_status if photos.unreadable else 0


def learned(
    network: FeatureNetwork, folder: Path, kind: Kind = "linear", unknown_percent: float = UNKNOWN_PERCENT
) -> tuple[Head, Labelled]:
    """A head for the photos in `folder`, one folder for each class, and these. Raises what `learning.fit` does."""
    folders = class_folders(folder)
    dimensions = network.features(network.prepare(_grey(network)).tensor).shape[1]
    photos = labelled(network, folders, most_photos(len(folders), dimensions))
    return fit(kind, network.sha256, photos.labels, photos.features, photos.classes, unknown_percent), photos


def undo_learning(bundle: Bundle, options: argparse.Namespace) -> int:
    """Brings the previous head back."""
    with changing(bundle):
        head = undo(bundle, options.head)
    _print(head, head_path(bundle, options.head), options)
    return 0


def forget(bundle: Bundle, options: argparse.Namespace) -> int:
    """Takes a class away from a head."""
    with changing(bundle):
        head = without_class(read_head(bundle, options.head), options.label)
        path = write_head(bundle, options.head, head)
    _print(head, path, options)
    return 0


def verify(predictor: Predictor, network: FeatureNetwork | None, options: argparse.Namespace) -> int:
    """Reports that a bundle is intact, which it was checked for before, and measures answers on labelled photos."""
    bundle = predictor.bundle
    head = None if options.head is None else read_head(bundle, options.head)
    record: dict[str, Any] = {"golden_images": bundle.golden_images, "heads": head_names(bundle)}
    lines = [f"{bundle.path}: all files are intact, and {bundle.golden_images} golden outputs are reproduced"]
    status = 0
    if network is not None:
        photos, measured = _measured(bundle, network, head, Path(options.data))
        _report_unreadable(photos)
        record |= measured
        lines += _verified(measured)
        status = ImageError.exit_status if photos.unreadable else 0
    elif head is not None:
        lines += described(head)
    if options.as_json:
        show_json(record)
    else:
        show(*lines)
    return status


def _measured(
    bundle: Bundle, network: FeatureNetwork, head: Head | None, folder: Path
) -> tuple[Labelled, dict[str, Any]]:
    """Right and `unknown` answers of each class."""
    if head is None and bundle.manifest.task != CLASSIFICATION:
        raise UsageError(f"{bundle.path} has no classes of its own to measure", "Add --head NAME")
    labels = head.about.labels if head is not None else bundle.manifest.table.labels
    folders = class_folders(folder)
    if odd := sorted(set(folders) - {*labels, *([UNKNOWN] if head is not None else [])}):
        raise UsageError(
            f"{folder} has folders of no known class: {', '.join(odd[:9])}",
            f"Name them after the classes, {', '.join(labels[:9])}"
            + (f", or {UNKNOWN} for photos of anything else" if head is not None else ""),
        )
    photos = labelled(network, folders, scores=head is None)
    scores = photos.scores if head is None else head.scores(photos.features)
    assert scores is not None
    unknown = np.zeros(len(scores), bool) if head is None else head.unknown(photos.features)
    answers = [UNKNOWN if hidden else labels[best] for best, hidden in zip(scores.argmax(axis=1), unknown, strict=True)]
    wanted = [photos.labels[one] for one in photos.classes]
    right = np.array([one == other for one, other in zip(answers, wanted, strict=True)])
    kept = set() if head is None else {row.tobytes() for row in head.kept}
    return photos, {
        "photos": len(answers),
        "accuracy_percent": 100 * float(right.mean()),
        "unknown_percent": 100 * float(unknown.mean()),
        "learned_from": sum(row.tobytes() in kept for row in photos.features),
        "unreadable": list(photos.unreadable),
        "classes": {
            label: {
                "photos": int(np.sum(photos.classes == number)),
                "right": int(np.sum(right[photos.classes == number])),
                "unknown": int(np.sum(unknown[photos.classes == number])),
            }
            for number, label in enumerate(photos.labels)
        },
    }


def _verified(measured: dict[str, Any]) -> Iterator[str]:
    yield (
        f"accuracy on {measured['photos']} photos: {measured['accuracy_percent']:.1f} %, "
        f"{measured['unknown_percent']:.1f} % answered `{UNKNOWN}`"
    )
    for label, one in measured["classes"].items():
        yield f"  {label}  {one['right']} of {one['photos']} right, {one['unknown']} {UNKNOWN}"
    if measured["learned_from"]:
        yield (
            f"warning: the head was learned from {measured['learned_from']} of these photos; give others for an "
            "accuracy that means something"
        )


def report_omitted(head: Head, photos: Labelled) -> None:
    """Says on stderr which photos a head was not learned from, and why."""
    _report_unreadable(photos)
    used = dict(zip(head.about.labels, head.about.photos, strict=True))
    most = most_photos(len(used), head.kept.shape[1])
    for label, found in zip(photos.labels, photos.found, strict=True):
        if found > most:
            show(f"{label}: {used[label]} of {found} photos were used, evenly spread", file=sys.stderr)


def _report_unreadable(photos: Labelled) -> None:
    if photos.unreadable:
        show(*photos.unreadable, f"{len(photos.unreadable)} photos could not be read", file=sys.stderr)


def _print(head: Head, path: Path, options: argparse.Namespace) -> None:
    about = head.about
    if options.as_json:
        total = sum(about.photos)
        show_json(
            {
                "head": options.head,
                "file": str(path),
                "kind": about.kind,
                "classes": dict(zip(about.labels, about.photos, strict=True)),
                "held_out_accuracy_percent": 100 * sum(about.held_out.right) / total,
                "held_out_right": dict(zip(about.labels, about.held_out.right, strict=True)),
                "held_out_unknown": dict(zip(about.labels, about.held_out.unknown, strict=True)),
                "temperature": about.temperature,
                "confidence": about.confidence,
                "similarity": about.similarity,
            }
        )
    else:
        show(*described(head), f"{path}. Use it: bssl-tf-deploy run BUNDLE IMAGE --head {options.head}")


def described(head: Head) -> Iterator[str]:
    """Lines for a person: classes, and what was measured on held-out photos."""
    about, measured = head.about, head.about.held_out
    total = sum(about.photos)
    kind = "a linear head" if about.kind == "linear" else "class means"
    yield f"{kind} on {len(head.weights)} features: {len(about.labels)} classes, {total} photos"
    accuracy = 100 * sum(measured.right) / total
    yield f"accuracy on held-out photos ({measured.folds}-fold cross-validation): {accuracy:.1f} %"
    for label, photos, right in zip(about.labels, about.photos, measured.right, strict=True):
        yield f"  {label}  {right} of {photos}"
    similarity = "" if about.similarity is None else f" or a similarity below {about.similarity:.4g}"
    yield (
        f"`{UNKNOWN}` is answered at a confidence below {about.confidence:.4g}{similarity}, as for "
        f"{sum(measured.unknown)} of the held-out photos (temperature {about.temperature:.4g})"
    )


def _grey(network: FeatureNetwork) -> np.ndarray:
    p = network.preprocessing
    return np.full((p.height, p.width, p.channels), 128, np.uint8)


def run(
    options: argparse.Namespace, prepare: Callable[[], Predictor], features: Callable[[Predictor], FeatureNetwork]
) -> int:
    """Runs one of the commands.

    Args:
        options: of the command.
        prepare: reads the bundle and checks it against its golden outputs.
        features: of what `prepare` made.
    """
    if options.command == "forget" or (options.command == "learn" and options.undo):
        bundle = read_bundle(Path(options.bundle))
        return forget(bundle, options) if options.command == "forget" else undo_learning(bundle, options)
    predictor = prepare()
    if options.command == "learn":
        return learn(predictor.bundle, features(predictor), options)
    return verify(predictor, features(predictor) if options.data else None, options)


def add_commands(commands: Any) -> tuple[argparse.ArgumentParser, ...]:
    """Adds the three commands; what all commands have is added by the caller."""
    learning = commands.add_parser("learn", help="learn classes from photos, or add one")
    forgetting = commands.add_parser("forget", help="take a class away that was learned")
    verifying = commands.add_parser("verify", help="check a bundle, and measure answers on labelled photos")
    return learning, forgetting, verifying


def add_options(parsers: tuple[argparse.ArgumentParser, ...]) -> None:
    """Adds their own arguments, after BUNDLE."""
    learning, forgetting, verifying = parsers
    learning.add_argument(
        "folder", nargs="*", metavar="FOLDER", help="one folder of photos for each class; with --add-class, photos"
    )
    learning.add_argument(
        "--add-class", metavar="NAME", help="add a class to those that are there, with FOLDER's photos"
    )
    learning.add_argument(
        "--method", choices=tuple(KINDS), help="logistic regression, or the nearest class mean [default: logistic]"
    )
    learning.add_argument(
        "--unknown",
        type=_percent,
        metavar="PERCENT",
        help="of right answers on held-out photos that may become `unknown` [default: 5]",
    )
    learning.add_argument("--undo", action="store_true", help="bring the previous head back")
    forgetting.add_argument("label", metavar="CLASS", help="the class to take away")
    verifying.add_argument("--data", metavar="FOLDER", help="one folder of photos for each class, and `unknown`")
    for one in (learning, forgetting):
        one.add_argument("--head", default=LEARNED, metavar="NAME", help=f"which head [default: {LEARNED}]")
    verifying.add_argument("--head", metavar="NAME", help="a head that was learned, not the bundle's own classes")


def _percent(text: str) -> float:
    number = float(text)
    if not 0 <= number <= 50:
        raise argparse.ArgumentTypeError(f"{text} is not from 0 to 50")
    return number
