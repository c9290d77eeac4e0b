"""Images and a teacher that several files share."""

from __future__ import annotations

import pytest

from bssl_tf.backend import keras
from bssl_tf.data.augmentation import LITE
from bssl_tf.data.load import load_data
from bssl_tf.data.preprocessing import fit_preprocessing
from bssl_tf.engine.inputs import Inputs
from bssl_tf.models.float_resnet import float_resnet
from bssl_tf.models.heads import mlp_head
from bssl_tf.teachers.teacher import Teacher


@pytest.fixture(scope="module")
def inputs() -> Inputs:
    data = load_data("embedded", image_size=28, limit=256)
    return Inputs(data.train, fit_preprocessing(data.train, 28), LITE)


@pytest.fixture(scope="module")
def teacher() -> Teacher:
    keras.utils.set_random_seed(1)
    backbone = float_resnet(28, 1, width=8)
    return Teacher("a random one", backbone, mlp_head("head", 32, (16,), use_batch_norm=False), None)
