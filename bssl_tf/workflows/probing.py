"""The look at a network while it trains, on labelled images of one's own where they are named."""

from __future__ import annotations

import dataclasses
import logging

from bssl_tf.backend import keras
from bssl_tf.data.image_set import DataSplits
from bssl_tf.data.open import open_data
from bssl_tf.engine.probe import Probe, make_probe
from bssl_tf.errors import ConfigError, DataError
from bssl_tf.evaluation.protocols import features_of, raw_pixels
from bssl_tf.evaluation.verdict import PHOTOS_FOR_AN_OWN_TEACHER, pretrained_advice
from bssl_tf.models.saved import Network
from bssl_tf.seeding import named_seed
from bssl_tf.settings import DataConfig, TrainingConfig

_log = logging.getLogger(__name__)


def probe_for(
    part: str, network: Network, training: TrainingConfig, data_config: DataConfig, data: DataSplits
) -> Probe | None:
    """The probe of a run: on `training.probe_data` if it names a labelled set, else on what the run trains on.

    With labelled images of one's own each measurement is logged, and before training what the untrained network and raw
    pixels reach by the same measure: within minutes it shows whether anything is learned.

    Args:
        part: which of the method's trained networks to measure.
        network: the same, untrained.
        training: `probe_data` and `probe_every`.
        data_config: of the images that the run trains on.
        data: these images.

    Raises:
        ConfigError: `probe_data` is named, and `probe_every` is 0, or `patience` is set, and nothing can be probed.
        DataError: `probe_data` is not there, or has no labels or no test images.
    """
    preprocessing = network.preprocessing
    if not training.probe_data:
        probe = make_probe(part, data, preprocessing, training.probe_every)
        if probe is None and training.patience:
            raise ConfigError(
                "training.patience is set, but there are no probes",
                "Name a labelled set with --probe-data and training.probe_every above 0, or omit it",
            )
        return probe
    if not training.probe_every:
        raise ConfigError("training.probe_data is set, and training.probe_every is 0", "Give one epoch or more")
    labelled = open_data(
        dataclasses.replace(
            data_config,
            source=training.probe_data,
            image_size=preprocessing.image_size,
            channels=preprocessing.channels,
            limit=0,
        ),
        labels_needed=True,
    )
    probe = make_probe(part, labelled, preprocessing, training.probe_every, announced=True)
    if probe is None:
        raise DataError(
            f"{labelled.name} has no labels, or too few images to hold some out for testing",
            "Name a folder with one sub-folder for each class and about six images or more in each",
        )
    _log_controls(probe, network, training.seed)
    return probe


def hint_at_pretrained(data: DataConfig, images: int | None) -> None:
    """Advises a pretrained teacher where there are few photos to train one from scratch on.

    The embedded images, grey and small, are for trying things out.

    Args:
        data: of the images that the teacher is trained on; its `image_size` is settled.
        images: how many there are; None where that is not known yet.
    """
    if images is not None and images < PHOTOS_FOR_AN_OWN_TEACHER and data.source != "embedded":
        _log.info(f"hint: {pretrained_advice(data.image_size, images)}")


def _log_controls(probe: Probe, network: Network, seed: int) -> None:
    """What there is to beat. Training sets seeds of its own afterwards, so that it does not notice."""
    keras.utils.set_random_seed(named_seed(seed, "probe's untrained network"))
    for name, features in (("untrained", features_of(network.build())), ("raw pixels", raw_pixels)):
        _log.info(f"{name}: {probe.described(probe.top1_of(features))}")
