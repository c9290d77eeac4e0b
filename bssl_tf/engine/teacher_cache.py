"""A frozen teacher's outputs for a fixed set of views, computed once and kept on disk.

The same views come again every few epochs, so the teacher need not look at them again (after Fast Knowledge
Distillation, Shen and Xing, ECCV 2022, arXiv 2112.01528, which keeps regions; here seeds make the same views again).
Runs that share data, teacher, views, batch size and seed share the file; it lies in the cache of decoded images. A
process that is killed while it writes leaves what it has, and the next one continues there.

After the array the file has a SHA-256 over all before it, which is compared when a run opens it: a damaged file is made
again. It is a chain of one hash for each block, so that writing can stop and continue; training reads all of the file
anyway.
"""

from __future__ import annotations

import dataclasses
import hashlib
import logging
import math
import os
import time
from pathlib import Path
from typing import BinaryIO, TypeVar

import numpy as np

from bssl_tf import __version__
from bssl_tf.backend import tf
from bssl_tf.data.cache import cache_key
from bssl_tf.data.views import steps_per_epoch
from bssl_tf.engine.inputs import Inputs, LabelledInputs
from bssl_tf.engine.interruption import stop_requests
from bssl_tf.environment import resolved_threads
from bssl_tf.errors import Interrupted, StorageError, TrainingError
from bssl_tf.files import cache_dir, held_lock, open_regular, read_json, storage_errors, write_json
from bssl_tf.methods.recipe import Recipe
from bssl_tf.progress import progress
from bssl_tf.settings import TrainingConfig

# A kill costs at most the blocks of this time.
_SYNC_S = 10.0
_MAX_BYTES, _PIECE_BYTES = 1 << 44, 1 << 20
_log = logging.getLogger(__name__)
Fed = TypeVar("Fed", bound=Inputs | LabelledInputs)


def with_teacher_cache(
    inputs: Fed, recipe: Recipe, config: TrainingConfig, epochs: int, teacher_fingerprint: str
) -> tuple[Fed, float]:
    """`inputs` whose views repeat every `epochs` epochs, with the teacher's outputs for them; and the seconds spent.

    Args:
        inputs: images and how they become views, for pretraining or for a task.
        recipe: defines which output of the teacher is wanted, and of how many views.
        config: batch size, seed and precision.
        epochs: epochs of different views, at least 1.
        teacher_fingerprint: of all that gives the outputs; see `Teacher.fingerprint`.

    Raises:
        StorageError: the cache cannot be written.
        TrainingError: the teacher's outputs are not finite in float16.
    """
    inputs = dataclasses.replace(inputs, replay_epochs=epochs)
    steps = epochs * steps_per_epoch(len(inputs), config.batch_size)
    assert recipe.teacher_outputs is not None
    key = cache_key(
        "teacher outputs",
        inputs.fingerprint(),
        teacher_fingerprint,
        [getattr(recipe.teacher_outputs, "__name__", ""), recipe.views, config.batch_size, config.seed, epochs],
        [config.precision, resolved_threads(config.threads), __version__],
    )
    path = cache_dir() / f"{key}.teacher.npy"
    began = time.monotonic()
    if not _intact(path):
        if path.exists():
            _log.warning(f"{path} is not used: it is damaged, or was written by a version without checksums")
        _log.info(f"computing the teacher's outputs once for the views of {epochs} epochs, kept in {path}")
        with storage_errors(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            # Another run may want the same file; without locks it is written twice, under one name each.
            with held_lock(path.with_suffix(".lock"), wait=True) as alone:
                if not _intact(path):
                    _write(_Growing(path, shared=alone), inputs, recipe, config, steps)
    try:
        outputs = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError) as error:
        raise StorageError(f"{path} cannot be read ({error})", "Remove it and run the same command again") from error
    return dataclasses.replace(inputs, teacher=outputs), time.monotonic() - began


def _write(
    growing: _Growing, inputs: Inputs | LabelledInputs, recipe: Recipe, config: TrainingConfig, steps: int
) -> None:
    outputs_of = recipe.teacher_outputs
    assert outputs_of is not None

    @tf.function
    def outputs(views: tuple[tf.Tensor, ...]) -> tf.Tensor:
        return tf.cast(inputs.block([outputs_of(view) for view in views]), tf.float16)

    with growing, stop_requests() as stop_requested:
        done = growing.blocks
        if done:
            _log.info(f"the outputs for {done} of {steps} steps already exist")
        stream = inputs.batches(recipe, config, done, steps)
        with progress(total=steps, description="teacher", done=done) as bar:
            for batch in stream:
                block = outputs(batch.views).numpy()
                if not np.all(np.isfinite(block)):
                    raise TrainingError(
                        "the teacher's outputs are too large for float16, in which they are kept",
                        "Add --set teacher_cache_epochs=0",
                    )
                growing.append(block, steps)
                bar.update()
                if stop_requested():
                    growing.sync()
                    raise Interrupted(
                        f"stopped after the teacher's outputs for {growing.blocks} of {steps} steps, which are kept",
                        "Continue with the same command and --resume",
                    )
        growing.finish()


def _intact(path: Path) -> bool:
    """Whether a finished file is there and ends in the checksum of all that is before it."""
    try:
        with open_regular(path, _MAX_BYTES) as file:
            checksum = _checksum(file, None)
            return file.read(len(checksum) + 1) == checksum
    # An unreadable file is reported by whoever opens it next. numpy raises whatever it likes for a damaged header.
    except Exception as error:
        _log.debug("%s: %s", path, error)
        return False


def _checksum(file: BinaryIO, blocks: int | None) -> bytes:
    """The checksum of the header and so many blocks, or all, which it reads; the file is then at their end.

    Raises:
        ValueError: the file is shorter, or it is not one of ours.
    """
    np.lib.format.read_magic(file)  # type: ignore[no-untyped-call]
    shape, _, kind = np.lib.format.read_array_header_1_0(file)  # type: ignore[no-untyped-call]
    size, end = math.prod(shape[1:]) * kind.itemsize, file.tell()
    blocks = shape[0] if blocks is None else blocks
    if size < 1 or os.fstat(file.fileno()).st_size < end + blocks * size or blocks > shape[0]:
        raise ValueError("it is too short")
    file.seek(0)
    checksum = hashlib.sha256(file.read(end)).digest()
    for _ in range(blocks):
        block = hashlib.sha256()
        # Not a block at once: a damaged header may call the whole file one.
        for start in range(0, size, _PIECE_BYTES):
            block.update(file.read(min(_PIECE_BYTES, size - start)))
        checksum = _longer(checksum, block.digest())
    return checksum


def _longer(checksum: bytes, block_sha256: bytes) -> bytes:
    """The checksum when a block follows."""
    return hashlib.sha256(checksum + block_sha256).digest()


class _Growing:
    """The file while it is being written: whole blocks that a process killed at any moment leaves behind.

        KEY.teacher.npy.part            header and blocks
        KEY.teacher.npy.part.json       how many of them were on the disk for certain, and their checksum

    Attributes:
        blocks: how many there are.
    """

    def __init__(self, path: Path, *, shared: bool) -> None:
        """Opens what an earlier process left.

        Args:
            path: of the finished file.
            shared: whether there is a lock, so that the unfinished file may have a name that is found again.
        """
        self._path = path
        self._part = path.with_name(path.name + (".part" if shared else f".{os.getpid()}.part"))
        self._note = self._part.with_name(self._part.name + ".json")
        self.blocks, self._end, self._checksum = self._left()
        self._synced_at = time.monotonic()

    def __enter__(self) -> _Growing:
        self._file = self._part.open("r+b" if self.blocks else "w+b")
        self._file.truncate(self._end)
        self._file.seek(0, os.SEEK_END)
        return self

    def __exit__(self, *error: object) -> None:
        self._file.close()

    def append(self, block: np.ndarray, blocks: int) -> None:
        """Adds a block, float16, of `blocks` in all."""
        if not self.blocks:
            header = {"descr": "<f2", "fortran_order": False, "shape": (blocks, *block.shape)}
            np.lib.format.write_array_header_1_0(self._file, header)  # type: ignore[no-untyped-call]
            end = self._file.tell()
            self._file.seek(0)
            self._checksum = hashlib.sha256(self._file.read(end)).digest()
        content = block.tobytes()
        self._file.write(content)
        self._checksum = _longer(self._checksum, hashlib.sha256(content).digest())
        self.blocks += 1
        if time.monotonic() - self._synced_at > _SYNC_S:
            self.sync()

    def sync(self) -> None:
        """Puts on the disk what there is, and notes how much."""
        self._file.flush()
        os.fsync(self._file.fileno())
        write_json(self._note, {"blocks": self.blocks, "sha256": self._checksum.hex()})
        self._synced_at = time.monotonic()

    def finish(self) -> None:
        """Adds the checksum, and gives the file its name."""
        self._file.write(self._checksum)
        self._file.flush()
        os.fsync(self._file.fileno())
        self._part.replace(self._path)
        self._note.unlink(missing_ok=True)

    def _left(self) -> tuple[int, int, bytes]:
        """Blocks that are certainly there and intact, where they end, and their checksum; zeros without any."""
        try:
            note = read_json(self._note)
            with open_regular(self._part, _MAX_BYTES) as file:
                checksum = _checksum(file, note["blocks"])
                if note["blocks"] > 0 and checksum.hex() == note["sha256"]:
                    return note["blocks"], file.tell(), checksum
        # A note that is missing or damaged, or a file that is not what it was: it is made once more. numpy raises
        # whatever it likes for a damaged header.
        except Exception as error:
            _log.debug("%s: %s", self._part, error)
        return 0, 0, b""
