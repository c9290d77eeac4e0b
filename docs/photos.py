"""Trains on real photos with few labels, as a user would, and records what comes out.

    make photos PHOTOS=folder      # one sub-folder of photos for each class; takes hours

Per seed 250 photos, then 100, and then all, have labels; 750 are kept for testing. What is recorded is not run again,
and training continues where it stopped. `make tables` then shows the records on the page of results.
"""

from __future__ import annotations

import hashlib
import subprocess
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from bssl_tf.files import read_records, write_bytes

ROOT = Path(__file__).resolve().parents[1]
RECORDS = Path("results") / "photos.jsonl"
PLACE = Path("runs") / "photos"
TEACHER, LARGE_TEACHER = PLACE / "teacher", PLACE / "teacher-224px"
UNLABELLED = str(PLACE / "unlabelled")
SEEDS = (0, 1, 2)
LABELS = ("100", "250", "all")
_TESTED = 750
_STUDENT_SIZE = "96"


@dataclass(frozen=True)
class Photo:
    """A file, its class, and the SHA-256 of what is in it, by which photos are drawn."""

    path: Path
    label: str
    digest: str


def photos_in(folder: Path) -> list[Photo]:
    """All of them in the order of their digests, each once: of copies in two classes neither."""
    found: dict[str, Photo] = {}
    ambiguous = set()
    for path in sorted(path for path in folder.glob("*/*") if path.is_file()):
        photo = Photo(path, path.parent.name, hashlib.sha256(path.read_bytes()).hexdigest())
        known = found.setdefault(photo.digest, photo)
        if known.label != photo.label:
            ambiguous.add(photo.digest)
    return [found[digest] for digest in sorted(found) if digest not in ambiguous]


def drawn(photos: Iterable[Photo], labels: str, seed: int) -> list[Photo]:
    """As many of each class as `labels` asks for, in all; another choice for each seed."""
    photos = sorted(photos, key=lambda photo: hashlib.sha256(f"{seed} {photo.digest}".encode()).digest())
    if labels == "all":
        return photos
    classes = sorted({photo.label for photo in photos})
    each = int(labels) // len(classes)
    chosen = [[photo for photo in photos if photo.label == label][:each] for label in classes]
    for label, some in zip(classes, chosen, strict=True):
        if len(some) < each:
            raise SystemExit(f"{label} has {len(some)} photos without those for testing, and {each} are needed")
    return [photo for some in chosen for photo in some]


def write_split(photos: list[Photo], place: Path) -> None:
    """Writes unlabelled/ and labelled-N-seedS/{train,test}/ below `place`, once."""
    tested, rest = photos[:_TESTED], photos[_TESTED:]
    for photo in rest:
        _copy(photo, place / "unlabelled" / f"{photo.digest[:16]}{photo.path.suffix}")
    for labels in LABELS:
        for seed in SEEDS:
            folder = labelled(labels, seed, place)
            for part, some in (("train", drawn(rest, labels, seed)), ("test", tested)):
                for photo in some:
                    _copy(photo, folder / part / photo.label / f"{photo.digest[:16]}{photo.path.suffix}")


def _copy(photo: Photo, to: Path) -> None:
    if not to.exists():
        to.parent.mkdir(parents=True, exist_ok=True)
        write_bytes(to, photo.path.read_bytes())


def labelled(labels: str, seed: int, place: Path = PLACE) -> Path:
    """With all labels there is one choice alone."""
    return place / f"labelled-{labels}" if labels == "all" else place / f"labelled-{labels}-seed{seed}"


def commands() -> Iterator[list[str]]:
    """What is trained and measured, in order: arguments of `bssl-tf`. With 250 labels first, which the README shows."""
    for seed in SEEDS:
        guide = ["pretrain", "--preset", "photos", "--data", UNLABELLED, "--image-size", _STUDENT_SIZE]
        yield [*guide, "--teacher", str(TEACHER), *_into(_student(seed), seed)]
        yield from _with_labels("250", seed)
    for seed in SEEDS:
        yield from _with_labels("100", seed)
        yield from _with_labels("all", seed)


def _with_labels(labels: str, seed: int) -> Iterator[list[str]]:
    data = ["--data", str(labelled(labels, seed))]
    yield _measured(_student(seed), *data)
    for network in (TEACHER, LARGE_TEACHER):
        yield _measured(network, *data, "--protocol", "linear-probe", "--no-controls", "--no-save")
    teacher = PLACE / f"teacher-{labels}-seed{seed}"
    # With all labels an epoch has fourteen times the steps of one with 250.
    training = ["--learning-rate", "1e-4", "--epochs", "3" if labels == "all" else "15"]
    yield ["finetune", str(TEACHER), *data, *training, *_into(teacher, seed)]
    yield _measured(teacher, *_FINE_TUNED)
    taught = [*data, "--preset", "photos", "--teacher", str(teacher), "--unlabelled", UNLABELLED]
    tuned = PLACE / f"tuned-{labels}-seed{seed}"
    yield ["finetune", str(_student(seed)), *taught, *_into(tuned, seed)]
    yield _measured(tuned, *_FINE_TUNED)
    if labels == "250":
        random = PLACE / f"random-{labels}-seed{seed}"
        yield ["finetune", *_RANDOM, *taught, *_into(random, seed)]
        yield _measured(random, *_FINE_TUNED)


_FINE_TUNED = ("--protocol", "fine-tuned", "--no-controls")
_RANDOM = ("--student", "binary_resnet", "--width", "32", "--depth", "4", "--image-size", _STUDENT_SIZE)


def _student(seed: int) -> Path:
    return PLACE / f"student-seed{seed}"


def _into(out: Path, seed: int) -> list[str]:
    return ["--out", str(out), "--seed", str(seed), "--resume"]


def _measured(run: Path, *options: str) -> list[str]:
    return ["evaluate", str(run), *options, "--record", str(RECORDS)]


def main() -> None:
    """Splits the photos, then trains and measures what has no record yet."""
    if len(sys.argv) != 2 or not Path(sys.argv[1]).is_dir():
        raise SystemExit("Usage: make photos PHOTOS=FOLDER, with one sub-folder of photos for each class")
    write_split(photos_in(Path(sys.argv[1])), PLACE)
    for teacher, size in ((TEACHER, "128"), (LARGE_TEACHER, "224")):
        if not (teacher / "import.json").exists():
            _call(["teacher", "--pretrained", "--image-size", size, "--out", str(teacher)])
    for words in commands():
        if words[0] != "evaluate" or not _recorded(words):
            _call(words)


def _recorded(words: list[str]) -> bool:
    command = " ".join(["bssl-tf", *words])
    return RECORDS.exists() and any(record["command"] == command for record in read_records(RECORDS))


def _call(words: list[str]) -> None:
    sys.stdout.write(f"bssl-tf {' '.join(words)}\n")
    sys.stdout.flush()
    done = subprocess.run([sys.executable, "-m", "bssl_tf", *words], stdout=subprocess.DEVNULL, check=False)
    if done.returncode:
        raise SystemExit(done.returncode)


if __name__ == "__main__":
    main()
