"""Answers are kept whole, read strictly, and give every figure again."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression

from bssl_tf.checkpoints import read_tensors, write_tensors
from bssl_tf.errors import RunFolderError
from bssl_tf.evaluation.linear_probe import solve_linear_probe
from bssl_tf.evaluation.predictions import FILE, Answers, Predictions, read_predictions, write_predictions
from bssl_tf.evaluation.records import (
    STUDENT,
    Evaluation,
    SubjectScores,
    as_record,
    belong_together,
    read_evaluation,
    untrained,
    write_evaluation,
)
from bssl_tf.evaluation.verdict import Facts, make_verdict
from bssl_tf.settings import DataConfig
from tests.edited import edited


def some(rng: np.random.Generator, draws: int = 1, images: int = 40, classes: int = 4) -> Predictions:
    return Predictions(
        rng.integers(0, classes, (draws, images)), rng.integers(0, classes, images), rng.random((draws, images))
    )


def evaluation(answers: Answers) -> Evaluation:
    return Evaluation(
        run="runs/x", subject=STUDENT, data="embedded", data_settings=DataConfig("embedded", image_size=28),
        train_images=100, test_images=40, test_fingerprint="a", train_fingerprint="b", classes=4,
        class_names=("w", "x", "y", "z"), seed=0, method="s2bnn", backbone="binary_resnet", epochs=2, photos=100,
        labels_used=None, conditions={"machine": "a board", "threads": 2}, command="bssl-tf evaluate runs/x",
        rows=tuple(SubjectScores.of(name, 8, found, None) for name, found in answers.items()),
        verdict=make_verdict(STUDENT, answers, Facts("runs/x", 100, 28, pretrained=False)),
    )  # fmt: skip


@pytest.fixture
def answers(rng: np.random.Generator) -> Answers:
    return {
        STUDENT: {"linear-probe": some(rng), "few-shot-svm-1": some(rng, draws=5)},
        untrained("a/b"): {"finetune-10%": dataclasses.replace(some(rng), confidence=None)},
    }


def test_what_was_written_is_read_again(answers: Answers, tmp_path: Path) -> None:
    write_predictions(tmp_path, answers)
    write_evaluation(tmp_path, evaluation(answers))
    again, record = read_predictions(tmp_path), read_evaluation(tmp_path)
    assert record == evaluation(answers) and belong_together(record, again)
    for subject, protocols in answers.items():
        assert again[subject].keys() == protocols.keys()
        for protocol, one in protocols.items():
            found = again[subject][protocol]
            assert found.accuracies == one.accuracies
            np.testing.assert_array_equal(found.predicted, one.predicted)
            assert (found.confidence is None) == (one.confidence is None)
    again[STUDENT]["linear-probe"] = again[STUDENT]["few-shot-svm-1"]
    assert not belong_together(record, again)
    assert read_evaluation(tmp_path / "elsewhere") is None


@pytest.mark.parametrize(
    ("change", "place"),
    [
        ({"rows": []}, "rows"),
        ({"rows": [{}]}, "rows.0.features"),
        ({"test_images": "40"}, "test_images"),
        ({"surprise": 1}, "surprise"),
        ({"seed": True}, "seed"),
        ({"verdict": None}, "verdict"),
        ({"data_settings": {"source": 3}}, "data_settings.source"),
    ],
)
def test_a_damaged_record_names_the_place(
    answers: Answers, tmp_path: Path, change: dict[str, object], place: str
) -> None:
    (tmp_path / "evaluation.json").write_text(edited(as_record(evaluation(answers)) | change))
    with pytest.raises(RunFolderError, match=rf"evaluation\.json is damaged .{place}: .*bssl-tf evaluate"):
        read_evaluation(tmp_path)


def test_an_accuracy_of_more_than_100_or_of_nothing_is_refused(answers: Answers, tmp_path: Path) -> None:
    for scores in ([101.0], [], [float("nan")], ["60"]):
        record = as_record(evaluation(answers))
        record["rows"][0]["scores"]["linear-probe"] = scores
        (tmp_path / "evaluation.json").write_text(edited(record))
        with pytest.raises(RunFolderError, match="is damaged"):
            read_evaluation(tmp_path)


@pytest.mark.parametrize("part", ["scores", "intervals"])
def test_a_score_without_its_interval_and_an_interval_without_its_score_are_refused(
    answers: Answers, tmp_path: Path, part: str
) -> None:
    """What prints an evaluation takes the two together."""
    record = as_record(evaluation(answers))
    del record["rows"][0][part]["linear-probe"]
    (tmp_path / "evaluation.json").write_text(edited(record))
    with pytest.raises(
        RunFolderError, match=r"damaged \(rows\.0: .*intervals are not of the protocols that scores are of"
    ):
        read_evaluation(tmp_path)


def test_damaged_answers_are_one_clear_line(answers: Answers, tmp_path: Path) -> None:
    with pytest.raises(RunFolderError, match=r"is missing\. Make it again with `bssl-tf evaluate"):
        read_predictions(tmp_path)
    write_predictions(tmp_path, answers)
    tensors, metadata = read_tensors(tmp_path / FILE)
    name = f"linear-probe/predicted/{STUDENT}"
    for changed, about in (
        (tensors | {name: tensors[name][:, :3]}, metadata),
        (tensors | {name: tensors[name].astype(np.float32)}, metadata),
        (tensors | {f"linear-probe/confidence/{STUDENT}": np.full((1, 40), np.nan, np.float32)}, metadata),
        ({key: value for key, value in tensors.items() if key != name}, metadata),
        (tensors | {"nonsense": np.zeros(2, np.int32)}, metadata),
        (tensors, {"format": "9"}),
    ):
        write_tensors(tmp_path / FILE, changed, about)
        with pytest.raises(RunFolderError, match=r"is damaged .*bssl-tf evaluate"):
            read_predictions(tmp_path)
    (tmp_path / FILE).write_bytes(b"cut")
    with pytest.raises(RunFolderError):
        read_predictions(tmp_path)


@given(st.integers(0, 2**32 - 1), st.integers(1, 60), st.integers(2, 6))
def test_the_best_class_and_its_share_are_those_of_a_softmax(seed: int, images: int, classes: int) -> None:
    rng = np.random.default_rng(seed)
    logits, truth = rng.normal(0, 5, (images, classes)), rng.integers(0, classes, images)
    found = Predictions.of_logits(logits, truth)
    softmax = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    np.testing.assert_array_equal(found.predicted[0], softmax.argmax(axis=1))
    assert found.confidence is not None
    np.testing.assert_allclose(found.confidence[0], softmax.max(axis=1), rtol=1e-5)
    mistakes = found.confident_mistakes(5)
    wrong = [place for place in range(images) if found.predicted[0, place] != truth[place]]
    assert len(mistakes) == min(5, len(wrong)) and set(mistakes) <= set(wrong)
    surest = sorted(wrong, key=lambda place: -softmax[place].max())[:5]
    np.testing.assert_allclose(softmax[mistakes].max(axis=1), softmax[surest].max(axis=1), rtol=1e-5)


def test_the_solver_tells_how_near_the_optimum_it_is() -> None:
    x, y = load_digits(return_X_y=True)
    _, _, few = solve_linear_probe(x, y, 10, seed=0, limit=3)
    _, _, solved = solve_linear_probe(x, y, 10, seed=0)
    assert (few.iterations, few.limit, few.converged) == (3, 3, False)
    assert solved.converged
    # scikit-learn ends where no component is above its tolerance, 1e-4.
    assert solved.gradient <= 1e-4 < few.gradient


def test_the_order_and_the_rounding_of_features_change_no_answer() -> None:
    """As another processor would round them: the probe ends at the optimum, not at its last allowed step."""
    x, y = load_digits(return_X_y=True)
    weights, bias, _ = solve_linear_probe(x, y, 10, seed=0)
    rounded = x * (1 + 1e-9 * np.random.default_rng(0).normal(size=x.shape))
    again, offset, _ = solve_linear_probe(rounded, y, 10, seed=0)
    assert np.array_equal((x @ weights + bias).argmax(axis=1), (x @ again + offset).argmax(axis=1))
    turned, shift, _ = solve_linear_probe(x[:, ::-1], y, 10, seed=0)
    assert np.mean((x @ weights + bias).argmax(axis=1) == (x[:, ::-1] @ turned + shift).argmax(axis=1)) > 0.999


def test_the_gradient_is_that_of_the_objective() -> None:
    """By finite differences of scikit-learn's objective, with two classes and with three."""
    from bssl_tf.evaluation.linear_probe import _largest_gradient

    rng = np.random.default_rng(0)
    for classes in (2, 3):
        x, y = rng.normal(size=(50, 4)), rng.integers(0, classes, 50)
        model = LogisticRegression(C=0.3, max_iter=2, tol=1e9).fit(x, y)

        def objective(model: LogisticRegression = model, x: np.ndarray = x, y: np.ndarray = y) -> float:
            chances = model.predict_proba(x)[np.arange(len(y)), y]
            return float(-np.log(chances).mean() + np.square(model.coef_).sum() / (2 * model.C * len(y)))

        slopes = []
        for part in (model.coef_, model.intercept_):
            for place in np.ndindex(part.shape):
                at = part[place]
                ends = []
                for step in (1e-5, -1e-5):
                    part[place] = at + step
                    ends.append(objective())
                part[place] = at
                slopes.append((ends[0] - ends[1]) / 2e-5)
        assert _largest_gradient(model, x, y) == pytest.approx(np.abs(slopes).max(), rel=1e-4)
