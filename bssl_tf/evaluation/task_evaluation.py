"""What an evaluation of a fine-tuned network states whatever its task is. No TensorFlow."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, ClassVar

from pydantic import ConfigDict, Field

from bssl_tf.evaluation.records import STRICT, Count
from bssl_tf.settings import DataConfig


@dataclass(frozen=True)
class TaskEvaluation:
    """The fields that all tasks share; `workflows.tested` fills them.

    Attributes:
        run: the folder that was evaluated.
        data: the data set's name.
        data_settings: how to open it again.
        train_images: that the network, or probes next to it, could learn from.
        test_images: that precisions are of.
        test_fingerprint: of the test images and what they are labelled with.
        seed: of the run.
        labels_used: whose labels went into the weights, a clause; None if none.
        conditions: machine, versions, time.
        command: what the user called.
    """

    __pydantic_config__: ClassVar[ConfigDict] = STRICT

    run: str
    data: str
    data_settings: DataConfig
    train_images: Count
    test_images: Annotated[int, Field(ge=1)]
    test_fingerprint: str
    seed: int
    labels_used: str | None
    conditions: dict[str, Any]
    command: str
