"""This project's side: `python -m benchmarks.training.ours CASE [xla]`, see `worker`."""

from __future__ import annotations

import json
import sys
import tempfile
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.training import cases
from benchmarks.training.cases import Case
from benchmarks.training.worker import matrix_flops_per_s, matrix_shape, serve, timed_steps
from bssl_tf.backend import configure, keras, tf
from bssl_tf.data.augmentation import LITE
from bssl_tf.data.image_set import ImageSet
from bssl_tf.data.views import Batch, view_numbers
from bssl_tf.descent import gradients_of
from bssl_tf.engine.distribution import ALONE
from bssl_tf.engine.inputs import Inputs
from bssl_tf.engine.profile import profile
from bssl_tf.engine.stages import Stage
from bssl_tf.engine.step import make_optimizer, make_step, objective_of
from bssl_tf.methods.method import Ingredients
from bssl_tf.methods.recipe import Recipe
from bssl_tf.methods.s2bnn import METHOD, S2bnnConfig
from bssl_tf.models.binarization import named_weights, sign_kernels
from bssl_tf.models.counts import count
from bssl_tf.models.heads import mlp_head
from bssl_tf.models.precision import in_precision
from bssl_tf.models.registry import build_backbone
from bssl_tf.preprocessing import Preprocessing
from bssl_tf.settings import TrainingConfig
from bssl_tf.teachers.teacher import Teacher

_STAGE = Stage("binary_weights", True, 1)


class Side:
    """A case, built by the parts that `bssl-tf pretrain --method s2bnn` is built of."""

    def __init__(self, case: Case, *, xla: bool = False) -> None:
        self._case = case
        keras.utils.set_random_seed(case.seed)
        self._config = TrainingConfig(
            batch_size=case.batch_size,
            learning_rate=cases.LEARNING_RATE,
            seed=case.seed,
            threads=case.threads,
            precision=case.precision,  # type: ignore[arg-type]
            xla=xla,
        )
        preprocessing = Preprocessing(case.image_size, 3, cases.MEAN, cases.STD)
        pixels = np.random.default_rng(case.seed).integers(
            0, 256, (case.images, case.image_size, case.image_size, 3), np.uint8
        )
        images = ImageSet("random images", pixels, np.ones(case.images, np.float32), None)
        self._inputs = Inputs(images, preprocessing, LITE)
        backbone = build_backbone(cases.TEACHER, case.image_size, 3, cases.TEACHER_SIZES)
        width = int(backbone.output_shape[-1])
        head = mlp_head("head", width, (width, cases.EMBEDDING_WIDTH), use_batch_norm=False)
        backbone.trainable = head.trainable = False
        teacher = Teacher("random", in_precision(backbone, case.precision), head, preprocessing)
        self._teacher = teacher.for_views(preprocessing)
        self._student = in_precision(build_backbone(case.network, case.image_size, 3, dict(case.sizes)), case.precision)
        self._recipe = self._build(_STAGE)
        optimizer = make_optimizer(self._config)
        optimizer.build(self._recipe.trainable_variables())
        self._optimizer = optimizer
        self._step = make_step(self._recipe, optimizer, 0.0, xla=xla)
        self._rate = tf.constant(cases.LEARNING_RATE, tf.float32)
        self._scheduled = tf.constant(0.0, tf.float32)
        self._stream = self._batches()

    def _build(self, stage: Stage) -> Recipe:
        settings = S2bnnConfig(temperature=cases.TEMPERATURE)
        given = Ingredients(
            self._student, "student", self._teacher, 0, self._config, stage_epochs=stage.epochs, first_stage=True
        )
        return METHOD.build(settings, given)

    def _batches(self) -> Iterator[Batch]:
        # As many steps as nobody waits for: the stream is made once, so that no window begins with its start.
        return iter(self._inputs.batches(self._recipe, self._config, 0, 1 << 40))

    def _train_by(self, batch: Batch) -> float:
        # The loop brings every part of the loss to the host.
        parts = {name: float(value) for name, value in self._step(batch, self._rate, self._scheduled).items()}
        return parts["loss"]

    def outputs(self, folder: str, images: int) -> dict[str, Any]:
        """Writes weights and images for the other side, and what they give here, computed in float32, eagerly.

        Both sides then train from these weights; those of 1-bit layers are made ones with which sums are exact.
        """
        case, recipe = self._case, self._recipe
        for kernel in sign_kernels(self._student):
            kernel.assign(_exact(kernel.numpy()))
        models = {**recipe.trained, "teacher": self._teacher.backbone, "teacher_head": self._teacher.head}
        weights = {
            f"{part}/{name}": weight for part, model in models.items() for name, weight in named_weights(model).items()
        }
        raw = self._inputs.images.images[:images]
        numbers = view_numbers(case.seed, 0, images, 1)[0]
        view = self._views(raw, numbers)
        # Training mode writes moving averages: what the other side starts from is what was here before.
        arrays = {name: weight.numpy() for name, weight in weights.items()}
        np.savez(Path(folder, "weights.npz"), **arrays)
        np.savez(Path(folder, "images.npz"), images=raw, numbers=numbers, view=view)
        batch = Batch((tf.constant(view),))
        variables = recipe.trainable_variables()
        gradients, outcome = gradients_of(objective_of(recipe), (batch, self._scheduled), variables, self._optimizer)
        names = {id(weight): name for name, weight in weights.items()}
        np.savez(
            Path(folder, "ours.npz"),
            **{names[id(v)]: np.asarray(gradient) for v, gradient in zip(variables, gradients, strict=True)},
        )
        work = {part: count(model) for part, model in models.items()}
        macs = {part: counts.binary_macs + counts.float_macs for part, counts in work.items()}
        return {"loss": float(outcome.losses["loss"]), "forward_flops": {part: 2 * n for part, n in macs.items()}}

    def _views(self, raw: np.ndarray, numbers: np.ndarray) -> np.ndarray:
        from bssl_tf.data.augmentation import augment

        ratios = tf.ones(len(raw), tf.float32)
        made = augment(tf.constant(raw), ratios, tf.constant(numbers), LITE, self._case.image_size)
        mean, std = np.array(cases.MEAN, np.float32), np.array(cases.STD, np.float32)
        return np.asarray((made - mean) / std)

    def window(self, steps: int) -> dict[str, Any]:
        """See `worker.timed_steps`."""
        return timed_steps(self._stream, self._train_by, steps)

    def matrix_rate(self) -> dict[str, float]:
        """See `worker.matrix_flops_per_s`, by precision."""
        left, right = tf.random.stateless_normal((2, *matrix_shape()), seed=(0, self._case.seed))
        rates = {}
        for precision in cases.PRECISIONS:
            a, b = tf.cast(left, precision), tf.cast(right, precision)
            # `a` and `b` are those of this turn, as the function is used within it.
            rates[precision] = matrix_flops_per_s(lambda a=a, b=b: tf.matmul(a, b).numpy())  # type: ignore[misc]
        return rates

    def profiled(self, steps: int) -> dict[str, float]:
        """Where the time of a step goes, by part; see `bssl_tf.engine.profile`."""
        with tempfile.TemporaryDirectory() as trace:
            found = profile(self._build, [_STAGE], self._inputs, self._config, ALONE, steps, Path(trace))
        return found.seconds


def _exact(kernel: np.ndarray) -> np.ndarray:
    """Latent weights of the same signs whose scale is 1 and whose sums are exact in float32, whatever their order.

    Otherwise a sum that should be zero is a little more or less, and a ReLU lets its gradient through or not. The
    gradient of every other input channel ends at the quantiser's limits.

    Args:
        kernel: [K, K, C, D], C even.
    """
    sizes = np.where(np.arange(kernel.shape[2]) % 2, 1.5, 0.5)[:, np.newaxis]
    return (np.where(kernel >= 0, sizes, -sizes)).astype(np.float32)


def _versions() -> dict[str, str]:
    return {name: metadata.version(name) for name in ("tensorflow", "tf-keras", "larq", "numpy")}


def main() -> None:
    """Serves the case of the command line."""
    case = Case(**json.loads(sys.argv[1]))
    configure(case.threads, case.precision)
    side = Side(case, xla="xla" in sys.argv[2:])
    serve(
        {
            "versions": _versions,
            "outputs": side.outputs,
            "window": side.window,
            "matrix_rate": side.matrix_rate,
            "profile": side.profiled,
        }
    )


if __name__ == "__main__":
    main()
