"""What `bssl-tf evaluate` does with a detector."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import numpy as np

from bssl_tf.backend import tf
from bssl_tf.errors import DataError
from bssl_tf.evaluation.detection import (
    ClassPrecision,
    DetectionEvaluation,
    SizePrecision,
    sentence_of,
    write_boxes,
    write_detection,
)
from bssl_tf.tasks.detection.evaluation import average_precision
from bssl_tf.tasks.detection.task import found_by
from bssl_tf.workflows.tested import open_tested

_log = logging.getLogger(__name__)


def evaluate_detection(
    run: Path, overrides: dict[str, Any], *, save: bool = True, command: str = ""
) -> DetectionEvaluation:
    """COCO's average precision of the network on the test images.

    Args:
        run: a finished run of `bssl-tf finetune --task detection`.
        overrides: settings of `DataConfig` for other images with boxes of the same classes.
        save: whether the result replaces that in `run`.
        command: for the record.

    Raises:
        ConfigError: an override does not fit.
        DataError: there are no test images with boxes, or other classes.
        BsslError: see `bssl_tf.errors`.
    """
    tested = open_tested(run, overrides)
    tuned, data = tested.tuned, tested.data
    if data.test.class_names != tuned.class_names:
        raise DataError(
            f"{data.name} has other classes than those that {run} was trained with",
            f"Give boxes of these: {', '.join(tuned.class_names)[:200]}",
        )
    _log.info(f"evaluating on {len(data.test)} test images")
    network = tf.function(lambda images, training: tuned.model(images, training=training), reduce_retracing=True)
    boxes = found_by(network, data.test, tuned.preprocessing)
    found = average_precision(data.test, boxes)
    if found.ap is None or found.ap50 is None or found.ap75 is None:
        raise DataError(f"the test images of {data.name} have no objects that count", "Add annotations")
    rows = zip(
        tuned.class_names,
        data.test.class_counts().tolist(),
        found.of_classes,
        found.ap50_of_classes,
        found.ap75_of_classes,
        found.precisions,
        strict=True,
    )
    evaluation = DetectionEvaluation(
        **tested.described(command),
        image_size=tuned.preprocessing.image_size,
        image_width=tuned.preprocessing.image_width,
        ap=found.ap,
        ap50=found.ap50,
        ap75=found.ap75,
        sentence=sentence_of(found.ap50, found.ap, len(data.test), data.name),
        classes=tuple(
            ClassPrecision(
                name, count, ap, ap50, ap75, tuple((100 * curve).tolist() if np.isfinite(curve).all() else ())
            )
            for name, count, ap, ap50, ap75, curve in rows
        ),
        sizes=(
            SizePrecision("small", *found.small),
            SizePrecision("medium", *found.medium),
            SizePrecision("large", *found.large),
        ),
        float_twin=tuned.float_twin,
    )
    if save:
        # In this order a killed process leaves boxes that fit no figures, which is found out on reading.
        write_boxes(run, boxes, evaluation)
        write_detection(run, evaluation)
    return evaluation
