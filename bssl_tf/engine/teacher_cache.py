"""A frozen teacher's outputs for a fixed set of views, computed once and kept on disk.

The same views come again every few epochs, so the teacher need not look at them again (after Fast Knowledge
Distillation, Shen and Xing, ECCV 2022, arXiv 2112.01528, which keeps regions; here seeds make the same views again).
Runs that share data, teacher, views, batch size and seed share the file; it lies in the cache of decoded images.
"""

from __future__ import annotations

import dataclasses
import logging
import time
from pathlib import Path

import numpy as np

from bssl_tf import __version__
from bssl_tf.backend import tf
from bssl_tf.data.cache import cache_key
from bssl_tf.data.views import VIEWS_FORMAT, steps_per_epoch
from bssl_tf.engine.inputs import Inputs
from bssl_tf.environment import resolved_threads
from bssl_tf.errors import StorageError, TrainingError
from bssl_tf.files import atomic_writer, cache_dir
from bssl_tf.methods.recipe import Recipe
from bssl_tf.progress import progress
from bssl_tf.settings import TrainingConfig

_log = logging.getLogger(__name__)


def with_teacher_cache(
    inputs: Inputs, recipe: Recipe, config: TrainingConfig, epochs: int, teacher_fingerprint: str
) -> tuple[Inputs, float]:
    """`inputs` whose views repeat every `epochs` epochs, with the teacher's outputs for them; and the seconds spent.

    Args:
        inputs: images and how they become views.
        recipe: defines which output of the teacher is wanted, and of how many views.
        config: batch size, seed and precision.
        epochs: epochs of different views, at least 1.
        teacher_fingerprint: see `Teacher.fingerprint`.

    Raises:
        StorageError: the cache cannot be written.
        TrainingError: the teacher's outputs are not finite in float16.
    """
    inputs = dataclasses.replace(inputs, replay_epochs=epochs)
    steps = epochs * steps_per_epoch(len(inputs.images), config.batch_size)
    assert recipe.teacher_outputs is not None
    key = cache_key(
        "teacher outputs",
        inputs.images.fingerprint(),
        teacher_fingerprint,
        inputs.preprocessing.to_dict(),
        dataclasses.asdict(inputs.augmentation),
        [getattr(recipe.teacher_outputs, "__name__", ""), recipe.views, config.batch_size, config.seed, epochs],
        [config.precision, resolved_threads(config.threads), VIEWS_FORMAT, __version__],
    )
    path = cache_dir() / f"{key}.teacher.npy"
    began = time.monotonic()
    if not path.exists():
        _log.info(f"computing the teacher's outputs once for the views of {epochs} epochs, kept in {path}")
        _write(path, inputs, recipe, config, steps)
    try:
        outputs = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError) as error:
        raise StorageError(f"{path} cannot be read ({error})", "Remove it and run the same command again") from error
    return dataclasses.replace(inputs, teacher=outputs), time.monotonic() - began


def _write(path: Path, inputs: Inputs, recipe: Recipe, config: TrainingConfig, steps: int) -> None:
    outputs_of = recipe.teacher_outputs
    assert outputs_of is not None

    @tf.function
    def outputs(views: tuple[tf.Tensor, ...]) -> tf.Tensor:
        return tf.cast(tf.stack([outputs_of(view) for view in views]), tf.float16)

    with atomic_writer(path) as file:
        stream = inputs.batches(recipe, config, 0, steps)
        for step, batch in enumerate(progress(stream, total=steps, description="teacher")):
            block = outputs(batch.views).numpy()
            if not np.all(np.isfinite(block)):
                raise TrainingError(
                    "the teacher's outputs are too large for float16, in which they are stored",
                    "Add --set teacher_cache_epochs=0",
                )
            if step == 0:
                header = {"descr": "<f2", "fortran_order": False, "shape": (steps, *block.shape)}
                np.lib.format.write_array_header_1_0(file, header)  # type: ignore[no-untyped-call]
            file.write(block.tobytes())
