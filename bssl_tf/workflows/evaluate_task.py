"""What `bssl-tf evaluate` does with a network that was fine-tuned for another task than classification."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from bssl_tf.evaluation.detection import DetectionEvaluation
from bssl_tf.evaluation.multilabel import MultiLabelEvaluation
from bssl_tf.workflows.run_folders import task_of


def evaluate_task(
    run: Path, overrides: dict[str, Any], *, save: bool, command: str
) -> DetectionEvaluation | MultiLabelEvaluation | None:
    """The evaluation by the task's own measure; None where `evaluate.evaluate` is for the network.

    Args:
        run, overrides, save, command: see `evaluate_multilabel` and `evaluate_detection`, which load TensorFlow.

    Raises:
        BsslError: see there.
    """
    match task_of(run):
        case "detection":
            from bssl_tf.workflows.evaluate_detection import evaluate_detection

            return evaluate_detection(run, overrides, save=save, command=command)
        case "multilabel":
            from bssl_tf.workflows.evaluate_multilabel import evaluate_multilabel

            return evaluate_multilabel(run, overrides, save=save, command=command)
    return None
