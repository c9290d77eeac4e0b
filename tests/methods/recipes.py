"""Small recipes of every kind, and what they are fed with, for the tests of methods and of the engine."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path

import numpy as np

from bssl_tf.backend import keras, tf
from bssl_tf.data.views import Batch
from bssl_tf.engine.inputs import Inputs
from bssl_tf.engine.run_folder import RunFolder
from bssl_tf.engine.stages import Stage
from bssl_tf.methods.bssl import Bssl, BsslConfig
from bssl_tf.methods.byol import Byol, ByolConfig
from bssl_tf.methods.guided import Guided, GuidedConfig
from bssl_tf.methods.moco import Moco, MocoConfig
from bssl_tf.methods.recipe import Recipe
from bssl_tf.methods.s2bnn import ContrastiveS2bnn, S2bnn, S2bnnConfig
from bssl_tf.methods.supervised import Supervised
from bssl_tf.methods.swav import Swav, SwavConfig
from bssl_tf.models.binarization import binarize
from bssl_tf.models.binary_resnet import binary_resnet
from bssl_tf.models.float_resnet import float_resnet
from bssl_tf.teachers.teacher import Teacher

BATCH = 32


Build = Callable[[Stage], Recipe]


def recipe(name: str, teacher: Teacher) -> Build:
    def build(stage: Stage) -> Recipe:
        keras.utils.set_random_seed(0)
        moco = MocoConfig(16, temperature=0.1, momentum=0.9, queue_size=64, head_batch_norm=True)
        if name == "moco teacher":
            return Moco(float_resnet(28, 1, width=8), moco, part="teacher", batch_size=BATCH, seed=0)
        if name == "byol teacher":
            return Byol(float_resnet(28, 1, width=8), ByolConfig(32, 16, momentum=0.9), part="teacher")
        student = binarize(binary_resnet(28, 1, depth=1), weights=stage.binary_weights)
        small = BsslConfig(hidden_width=32, output_width=32)
        recipes: dict[str, Callable[[], Recipe]] = {
            "moco": lambda: Moco(student, moco, part="student", batch_size=BATCH, seed=0),
            "byol": lambda: Byol(student, ByolConfig(32, 16, momentum=0.9), part="student"),
            "swav": lambda: Swav(student, SwavConfig(32, 16, prototypes=12), frozen_share=0.25),
            "supervised": lambda: Supervised(student, 10),
            "s2bnn": lambda: S2bnn(student, teacher, S2bnnConfig()),
            "contrastive s2bnn": lambda: ContrastiveS2bnn(
                student,
                teacher,
                S2bnnConfig(
                    head_batch_norm=False,
                    contrastive=True,
                    contrastive_temperature=0.1,
                    contrastive_momentum=0.9,
                    contrastive_queue_size=64,
                ),
                batch_size=BATCH,
                seed=0,
            ),
            "guided": lambda: Guided(student, teacher, GuidedConfig(queue_size=64, head_width=32), batch_size=BATCH),
            "bssl": lambda: Bssl(student, teacher, small),
            "bssl frozen": lambda: Bssl(student, teacher, dataclasses.replace(small, classifier="frozen")),
            "bssl features": lambda: Bssl(student, teacher, dataclasses.replace(small, feature_similarity="features")),
            "bssl kl only": lambda: Bssl(student, teacher, dataclasses.replace(small, feature_similarity="off")),
            "bssl fresh": lambda: Bssl(student, teacher, dataclasses.replace(small, carry_classifier=False)),
        }
        return recipes[name]()

    return build


def seen(method: Recipe, *views: tf.Tensor) -> Batch:
    """A batch as the loop makes it."""
    assert method.teacher_outputs is None or callable(method.teacher_outputs)
    said = () if method.teacher_outputs is None else tuple(method.teacher_outputs(view) for view in views)
    return Batch(views, None, said)


def noise(rng: np.random.Generator, count: int = 2) -> list[tf.Tensor]:
    return [tf.constant(rng.standard_normal((BATCH, 28, 28, 1)), tf.float32) for _ in range(count)]


def run_folder(path: Path) -> RunFolder:
    return RunFolder.create(path, {}, {})


def fed(inputs: Inputs, name: str) -> Inputs:
    """What the recipe called `name` takes."""
    return dataclasses.replace(inputs, labels=name == "supervised")
