"""What `bssl-tf evaluate` does with a network that was fine-tuned for several labels per image."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import numpy as np

from bssl_tf.data.image_set import ImageSet
from bssl_tf.data.listing import labels_of_images
from bssl_tf.data.preprocessing import evaluation_batches
from bssl_tf.errors import DataError
from bssl_tf.evaluation.linear_probe import label_scores
from bssl_tf.evaluation.multilabel import MultiLabelEvaluation, compare, write_multilabel
from bssl_tf.evaluation.protocols import features_of
from bssl_tf.models.place import START
from bssl_tf.models.saved import load_weights, read_network
from bssl_tf.seeding import named_seed
from bssl_tf.workflows.tested import open_tested

_BATCH = 256
_log = logging.getLogger(__name__)


def evaluate_multilabel(
    run: Path, overrides: dict[str, Any], *, save: bool = True, command: str = ""
) -> MultiLabelEvaluation:
    """Compares the network with linear probes on the one that it started from, on the same test images.

    Args:
        run: a finished run of `bssl-tf finetune --task multilabel`.
        overrides: settings of `DataConfig` for another listing, with the same labels.
        save: whether the result replaces that in `run`.
        command: for the record.

    Raises:
        ConfigError: an override does not fit.
        DataError: there are no test images, or other labels.
        BsslError: see `bssl_tf.errors`.
    """
    tested = open_tested(run, overrides)
    config, tuned, data = tested.config, tested.tuned, tested.data
    p = tuned.preprocessing
    names, has = labels_of_images(data.test)
    train_names, train_has = labels_of_images(data.train)
    if not names == train_names == tuned.class_names:
        raise DataError(
            f"{data.name} has other labels than those that {run} was trained with",
            f"Give a listing with these: {', '.join(tuned.class_names)[:200]}",
        )
    before = read_network(run / START).build()
    load_weights(run / START, {"student": before})
    features = features_of(before)

    def of(images: ImageSet) -> np.ndarray:
        return np.concatenate([features(batch) for batch in evaluation_batches(images, p, _BATCH)])

    _log.info("fitting linear probes to the network before fine-tuning")
    seed = config.training.seed
    probe = label_scores(of(data.train), train_has, of(data.test), seed=named_seed(seed, "probe"))
    _log.info("evaluating the fine-tuned network")
    head = features_of(tuned.model)
    logits = np.concatenate([head(batch) for batch in evaluation_batches(data.test, p, _BATCH)])
    if not np.any(has.any(axis=0) & ~has.all(axis=0)):
        raise DataError(f"no label of {data.name} is on some test images and not on others", "Add images")
    found = MultiLabelEvaluation(
        **tested.described(command),
        **compare(names, has, probe, logits, seed=named_seed(seed, "resampling")),
    )
    if save:
        write_multilabel(run, found)
    return found
