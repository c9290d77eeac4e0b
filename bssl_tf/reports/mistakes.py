"""The most confident mistakes, as pictures: wrong labels and odd photos show here first. Opens the evaluated data."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Sequence

from bssl_tf.data.open import open_data
from bssl_tf.errors import BsslError, DataError, MissingDataError
from bssl_tf.evaluation.predictions import Predictions
from bssl_tf.evaluation.records import Evaluation
from bssl_tf.reports.classes import headline_answers
from bssl_tf.reports.document import Grid, Group, Picture, Section
from bssl_tf.reports.pictures import png_of
from bssl_tf.reports.runs import Run

_A_ROW = 6
_log = logging.getLogger(__name__)
_LOST = "Run it in the folder that the evaluation was started in, or pass --no-images"


def mistake_section(runs: Sequence[Run], images: int, data_dir: str | None) -> list[Section]:
    """For each evaluated run the test images that it is surest about and wrong; no section without evaluated runs.

    Args:
        runs: those without answers, or without mistakes, have none.
        images: at most this many of each run, rounded up to whole rows.
        data_dir: where TFDS keeps its data, if not where the evaluation had it. Nothing is downloaded.
    """
    groups = []
    for run in runs:
        found = headline_answers(run)
        if run.evaluation is None or found is None:
            continue
        _log.info(f"mistakes of {run.name}")
        try:
            groups.append(_group(run, run.evaluation, *found, images, data_dir))
        except BsslError as error:
            groups.append(Group(run.name, (), (f"{error.what}. {error.next_step}.",)))
    about = (
        "Misclassified test images with the highest confidence: look for wrong labels and for what they have in common."
    )
    return [Section("Most confident mistakes", about, tuple(groups))] if groups else []


def _group(
    run: Run,
    found: Evaluation,
    protocol: str,
    answers: Predictions,
    images: int,
    data_dir: str | None,
) -> Group:
    settings = dataclasses.replace(
        found.data_settings, data_dir=data_dir or found.data_settings.data_dir, download=False
    )
    try:
        test = open_data(settings, labels_needed=True).test
    except MissingDataError as error:
        raise error.with_next_step(_LOST) from error
    if test is None or test.fingerprint() != found.test_fingerprint:
        raise DataError(f"the test images of {found.data} are not those that were evaluated", "Evaluate again")
    places = answers.confident_mistakes(-(-images // _A_ROW) * _A_ROW)
    wrong = int((~answers.correct[0]).sum())
    if not len(places) or answers.confidence is None:
        return Group(run.name, (), (f"{protocol}: {wrong} mistakes, but no confidence to order them by.",))
    names = found.class_names
    pictures = []
    for place in places:
        taken, truth = names[answers.predicted[0, place]], names[answers.truth[place]]
        share = 100 * float(answers.confidence[0, place])
        pictures.append(
            Picture(
                png_of(test.images[place] / 255),
                f"test image {place}, a {truth} classified as {taken}",
                f"{taken} {share:.0f} %, is {truth}",
                good=False,
            )
        )
    rows = tuple(tuple(pictures[start : start + _A_ROW]) for start in range(0, len(pictures), _A_ROW))
    return Group(
        run.name,
        (
            Grid(
                f"The {len(pictures)} most confident of {wrong} mistakes",
                f"{protocol} on {found.data}; n = {found.test_images} test images. Below each: the predicted class, "
                "the classifier's confidence, and the true class.",
                tuple(f"{place}" for place in range(1, min(_A_ROW, len(pictures)) + 1)),
                rows,
            ),
        ),
    )
