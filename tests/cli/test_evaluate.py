"""What `bssl-tf evaluate` says after its table."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from bssl_tf.cli.evaluate import _advise
from bssl_tf.evaluation.predictions import Predictions
from bssl_tf.evaluation.records import STUDENT, Solution, SubjectScores, read_evaluation, untrained
from bssl_tf.evaluation.verdict import Facts, make_verdict
from tests.edited import edited
from tests.reports.run_folders import evaluation


@pytest.mark.parametrize(
    ("right", "stopped", "told"),
    [
        ((56, 50), (True, True), "2 of the linear probes were still improving at their limit"),
        ((56, 50), (False, False), None),
        ((60, 20), (True, True), None),  # clear either way
    ],
)
def test_a_solver_that_was_stopped_is_mentioned_where_the_verdict_is_close(
    right: tuple[int, int],
    stopped: tuple[bool, bool],
    told: str | None,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    truth = np.zeros(100, int)
    answers = {
        name: {"linear-probe": Predictions((np.arange(100) >= count)[np.newaxis].astype(int), truth, None)}
        for name, count in zip((STUDENT, untrained(STUDENT)), right, strict=True)
    }
    solutions = [Solution(1.0, 100 if one else 20, 100, 0.1 if one else 1e-5) for one in stopped]
    rows = tuple(
        SubjectScores.of(name, 8, found, solution)
        for (name, found), solution in zip(answers.items(), solutions, strict=True)
    )
    verdict = make_verdict(STUDENT, answers, Facts("run", 100, 28, pretrained=False))
    (tmp_path / "evaluation.json").write_text(edited(evaluation()))
    recorded = read_evaluation(tmp_path)
    assert recorded is not None
    result = dataclasses.replace(recorded, rows=rows, verdict=verdict)
    _advise(result, saved=False)
    said = capsys.readouterr().err
    assert (told in said) if told else "improving" not in said
    # Not saved, so there is no probe to export; the next step says so.
    assert ("without --no-save" in said) == (not verdict.next_step)
