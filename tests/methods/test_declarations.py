"""What methods declare: defaults and schedules of their papers, what they refuse and advise."""

from __future__ import annotations

import dataclasses
import subprocess
import sys

import pytest

from bssl_tf.errors import ConfigError
from bssl_tf.methods.bssl import BsslConfig
from bssl_tf.methods.moco import Moco, MocoConfig
from bssl_tf.methods.s2bnn import S2bnnConfig
from bssl_tf.models.float_resnet import float_resnet
from bssl_tf.settings import TrainingConfig
from tests.methods.recipes import BATCH


def test_every_setting_of_the_recipes_has_a_default_from_its_paper() -> None:
    assert dataclasses.asdict(BsslConfig()) == {
        "classifier": "joint",
        "classifier_rate": 1.0,
        "feature_similarity": "outputs",
        "balance_start": 0.1,
        "balance_end": 0.3,
        "carry_classifier": True,
        "temperature": 0.2,
        "hidden_width": 2000,
        "output_width": 2000,
    }
    assert S2bnnConfig().temperature == MocoConfig().temperature == 0.2
    assert (TrainingConfig().schedule, TrainingConfig().learning_rate, TrainingConfig().epochs) == ("linear", 3e-4, 200)
    assert (MocoConfig().queue_size, MocoConfig().momentum, MocoConfig().embedding_width) == (65536, 0.999, 128)


def test_declarations_load_no_tensorflow_and_no_pydantic() -> None:
    """Both are left to the moment that a run is configured, so that help and completion are quick."""
    program = (
        "import sys\nfrom bssl_tf.methods import registry\n"
        "methods = [registry.find(name) for name in registry.names()]\nassert len(methods) >= 6\n"
        "heavy = {'tensorflow', 'tf_keras', 'keras', 'larq', 'numpy', 'pydantic'}\n"
        "print(sorted({module.split('.')[0] for module in sys.modules} & heavy))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_moco_refuses_a_queue_that_is_not_a_whole_number_of_batches() -> None:
    with pytest.raises(ConfigError, match=r"Try --set moco\.queue_size=96"):
        Moco(float_resnet(28, 1, width=8), MocoConfig(16, queue_size=100), part="teacher", batch_size=BATCH, seed=0)
