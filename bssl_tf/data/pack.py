"""Shards of a folder of images: the files as they are, in a few large ones, which any disk reads faster.

    OUT/train-00000-of-00012.tar ...  OUT/test-00000-of-00002.tar     in the order in which the folder is read
    OUT/classes.json                                                  the names of the classes
    OUT/unreadable.tsv                                                files that were skipped, and why, if there are any
    OUT/packing.json                                                  while it is not complete

The images that a folder holds out for testing become the shards of `test`, so training on the shards is training on the
folder. A shard has its name once it is complete; packing that was stopped continues with the next one.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tqdm import tqdm

from bssl_tf.data.cache import SPLITS
from bssl_tf.data.folder import check_folder
from bssl_tf.data.layout import Listing, find_splits
from bssl_tf.data.shard_files import FORMATS, ShardFormat
from bssl_tf.data.shards import CLASSES_FILE, PLAN_FILE
from bssl_tf.errors import BsslError, ConfigError, DataError, RunFolderError, StorageError, first_line
from bssl_tf.files import read_json, write_json, write_text
from bssl_tf_deploy.files import open_regular
from bssl_tf_deploy.text import printable

SKIPPED_FILE = "unreadable.tsv"
_MAX_IMAGE_BYTES = 1 << 30
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Packed:
    """What was written.

    Attributes:
        folder: with the shards.
        shards: how many there are.
        images: in each split.
        size_bytes: of all shards.
        skipped: files that could not be read.
    """

    folder: Path
    shards: int
    images: dict[str, int]
    size_bytes: int
    skipped: int


@dataclass(frozen=True)
class _Shard:
    """Which images of a split go into which file."""

    name: str
    split: str
    first: int
    last: int


def pack_folder(root: Path, out: Path, form: str, shard_bytes: int, max_unreadable_share: float) -> Packed:
    """Writes the shards; see `bssl_tf.workflows.pack`."""
    check_folder(root)
    shard_format = FORMATS[form]
    try:
        splits = find_splits(root, labels_needed=False)
    except OSError as error:
        raise DataError(f"{root} cannot be listed ({error})", "Check its permissions") from error
    sizes = {split: [_size(root / file) for file in listing.files] for split, listing in splits.items()}
    shards = [shard for split in SPLITS if split in sizes for shard in _cut(split, sizes[split], form, shard_bytes)]
    total = sum(map(len, sizes.values()))
    plan: dict[str, Any] = {
        "format": form,
        "fingerprint": _fingerprint(splits, sizes, shards),
        "skipped": {},
        "images": {},
    }
    plan = _begun(out, plan)
    missing = [shard for shard in shards if not (out / shard.name).exists()]
    needed, free = sum(sum(sizes[shard.split][shard.first : shard.last]) for shard in missing), _free(out)
    if needed > free:
        raise StorageError(f"{out} needs {needed} bytes and {free} are free", "Free space, or name another --out")

    with tqdm(total=total, desc=str(root), unit="image", disable=None) as progress:
        for shard in shards:
            if shard in missing:
                written, skipped = _write(root, splits[shard.split], shard, out, shard_format)
                plan["skipped"][shard.name], plan["images"][shard.name] = skipped, written
                write_json(out / PLAN_FILE, plan)
                _refuse(
                    root, [path for paths in plan["skipped"].values() for path in paths], total, max_unreadable_share
                )
            progress.update(shard.last - shard.first)
    if skipped := [pair for pairs in plan["skipped"].values() for pair in pairs]:
        write_text(out / SKIPPED_FILE, "path\tcause\n" + "".join(f"{path}\t{cause}\n" for path, cause in skipped))
        _log.warning(f"{len(skipped)} of {total} files could not be read: see {out / SKIPPED_FILE}")
    if class_names := splits["train"].class_names:
        write_text(out / CLASSES_FILE, json.dumps(class_names, indent=1) + "\n")
    (out / PLAN_FILE).unlink()
    images = {split: sum(plan["images"][shard.name] for shard in shards if shard.split == split) for split in sizes}
    return Packed(out, len(shards), images, sum((out / shard.name).stat().st_size for shard in shards), len(skipped))


def _cut(split: str, sizes: list[int], form: str, shard_bytes: int) -> list[_Shard]:
    """The shards of a split: each is full when the next image would make it larger than `shard_bytes`."""
    borders, used = [0], 0
    for number, size in enumerate(sizes):
        if used and used + size > shard_bytes:
            borders.append(number)
            used = 0
        used += size
    ends = [*borders[1:], len(sizes)]
    suffix = FORMATS[form].suffix
    return [
        _Shard(f"{split}-{number:05d}-of-{len(borders):05d}{suffix}", split, first, last)
        for number, (first, last) in enumerate(zip(borders, ends, strict=True))
        if last > first
    ]


def _begun(out: Path, plan: dict[str, Any]) -> dict[str, Any]:
    """The plan of an earlier call that was stopped, or `plan`, written down; `out` is there afterwards."""
    if out.is_dir() and any(out.iterdir()):
        if not (out / PLAN_FILE).exists():
            raise RunFolderError(f"{out} is not empty", "Name another folder with --out")
        earlier = read_json(out / PLAN_FILE)
        if any(earlier.get(key) != plan[key] for key in ("format", "fingerprint")):
            raise RunFolderError(
                f"{out} holds shards of other images, or of other options",
                "Remove it, or name another folder with --out",
            )
        for left_over in out.glob(".*.tmp"):
            left_over.unlink(missing_ok=True)
        _log.info(f"{out} is continued: {len(earlier['images'])} shards already exist")
        return earlier
    if out.exists() and not out.is_dir():
        raise ConfigError(f"{out} is a file", "Name a folder with --out")
    out.mkdir(parents=True, exist_ok=True)
    write_json(out / PLAN_FILE, plan)
    return plan


def _write(
    root: Path, listing: Listing, shard: _Shard, out: Path, shard_format: ShardFormat
) -> tuple[int, list[list[str]]]:
    """Writes one shard: how many images it has, and the files that could not be read, with the causes."""
    temporary = out / f".{shard.name}.tmp"
    written, skipped = 0, list[list[str]]()
    try:
        with shard_format.writer(temporary) as writer:
            for number in range(shard.first, shard.last):
                file = listing.files[number]
                try:
                    with open_regular(root / file, _MAX_IMAGE_BYTES) as opened:
                        content = opened.read()
                    if not content:
                        raise OSError("the file is empty")
                except OSError as error:
                    skipped.append([printable(file), error.strerror or str(error)])
                    continue
                writer.add(number, file, content, None if listing.labels is None else listing.labels[number])
                written += 1
        _sync(temporary)
        temporary.replace(out / shard.name)
    except (BsslError, OSError):
        raise
    except Exception as error:  # Libraries that write shards have errors of their own for a full disk.
        raise StorageError(
            f"{out / shard.name} cannot be written ({first_line(error)})", "Free space, or name another --out"
        ) from error
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
    return written, skipped


def _refuse(root: Path, skipped: list[list[str]], total: int, max_unreadable_share: float) -> None:
    if len(skipped) > max_unreadable_share * total:
        raise DataError(
            f"{len(skipped)} of {total} images of {root} cannot be read (first: {': '.join(skipped[0])}), more than "
            f"the {max_unreadable_share:.1%} that are tolerated",
            "Repair or remove those files, or raise --max-unreadable-share",
        )


def _fingerprint(splits: dict[str, Listing], sizes: dict[str, list[int]], shards: list[_Shard]) -> str:
    digest = hashlib.sha256(repr([shard.name for shard in shards]).encode())
    for split, listing in splits.items():
        for file, size in zip(listing.files, sizes[split], strict=True):
            digest.update(os.fsencode(file) + f"\0{size}\0".encode())
        digest.update(repr((split, listing.labels, listing.class_names)).encode("utf-8", "surrogateescape"))
    return digest.hexdigest()


def _size(file: Path) -> int:
    try:
        return file.stat().st_size
    except OSError:  # It is counted when it is read.
        return 0


def _free(folder: Path) -> int:
    return shutil.disk_usage(folder).free


def _sync(path: Path) -> None:
    with path.open("rb") as file:
        os.fsync(file.fileno())
