"""Each loss against a slow reference in float64 loops, and by its properties."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from bssl_tf.backend import tf
from bssl_tf.losses.feature_similarity import feature_similarity
from bssl_tf.losses.guided_distillation import guided_distillation
from bssl_tf.losses.info_nce import info_nce
from bssl_tf.losses.kl_divergence import kl_divergence
from bssl_tf.losses.similarity_distillation import similarity_distillation
from bssl_tf.losses.swapped_prediction import balanced_assignment, swapped_prediction

# float32 sums of a few dozen terms below 10 lose at most some 1e-6 each.
TOLERANCE = 2e-4

vectors = hnp.arrays(np.float32, st.tuples(st.integers(1, 5), st.just(7)), elements=st.floats(-4, 4, width=32)).map(
    lambda a: a + np.float32(0.01) * np.arange(1, 8, dtype=np.float32)
)  # no zero vectors: cosine needs a direction


def softmax(row: np.ndarray) -> list[float]:
    top = max(row)
    powers = [math.exp(v - top) for v in row]
    return [p / sum(powers) for p in powers]


def unit(row: np.ndarray) -> np.ndarray:
    row = row.astype(np.float64)
    return row / math.sqrt(sum(v * v for v in row))


def mean(values: list[float]) -> float:
    return sum(values) / len(values)


@given(vectors, st.floats(0.05, 2), st.randoms(use_true_random=False))
@settings(deadline=None, max_examples=40)
def test_guided_distillation_matches_loops(teacher: np.ndarray, temperature: float, random: object) -> None:
    student = np.roll(teacher, 1, axis=1) * np.float32(0.7)
    expected = []
    for t, s in zip(teacher, student, strict=True):
        p, q = softmax(unit(t) / temperature), softmax(unit(s) / temperature)
        expected.append(-sum(a * math.log(b) for a, b in zip(p, q, strict=True)))
    result = guided_distillation(tf.constant(teacher), tf.constant(student), temperature)
    assert float(result) == pytest.approx(mean(expected), rel=TOLERANCE, abs=TOLERANCE)


@given(vectors)
@settings(deadline=None, max_examples=25)
def test_guided_distillation_is_least_where_student_points_as_teacher(teacher: np.ndarray) -> None:
    other = np.ascontiguousarray(teacher[:, ::-1])
    same = float(guided_distillation(tf.constant(teacher), tf.constant(3 * teacher), 0.2))
    assert same <= float(guided_distillation(tf.constant(teacher), tf.constant(other), 0.2)) + TOLERANCE


def test_guided_distillation_gives_the_teacher_no_gradient() -> None:
    teacher, student = tf.Variable([[1.0, 2.0]]), tf.Variable([[2.0, -1.0]])
    with tf.GradientTape() as tape:
        loss = guided_distillation(teacher, student, 0.2)
    to_teacher, to_student = tape.gradient(loss, [teacher, student])
    assert to_teacher is None
    assert float(tf.norm(to_student)) > 0


@given(vectors, st.floats(0.1, 2))
@settings(deadline=None, max_examples=40)
def test_kl_divergence_matches_loops(target: np.ndarray, temperature: float) -> None:
    student = np.roll(target, 2, axis=1)
    expected = []
    for t, s in zip(target.astype(np.float64), student.astype(np.float64), strict=True):
        p, q = softmax(t / temperature), softmax(s / temperature)
        expected.append(sum(a * (math.log(a) - math.log(b)) for a, b in zip(p, q, strict=True) if a > 1e-300))
    result = float(kl_divergence(tf.constant(target), tf.constant(student), temperature))
    assert result == pytest.approx(mean(expected), rel=1e-3, abs=TOLERANCE)
    assert result >= -TOLERANCE


def test_kl_divergence_is_zero_for_equal_logits_and_for_a_shift() -> None:
    logits = tf.constant([[0.3, -1.0, 2.0]])
    assert float(kl_divergence(logits, logits, 0.2)) == pytest.approx(0, abs=1e-6)
    assert float(kl_divergence(logits, logits + 5.0, 0.2)) == pytest.approx(0, abs=1e-5)


def test_kl_divergence_trains_the_target_too() -> None:
    target, student = tf.Variable([[1.0, 2.0]]), tf.Variable([[2.0, -1.0]])
    with tf.GradientTape() as tape:
        loss = kl_divergence(target, student, 0.2)
    assert all(float(tf.norm(g)) > 0 for g in tape.gradient(loss, [target, student]))


@given(vectors, st.floats(0.05, 1), st.floats(0.05, 1), st.integers(0, 3))
@settings(deadline=None, max_examples=40)
def test_similarity_distillation_matches_loops_over_the_known_anchors(
    teacher: np.ndarray, ours: float, theirs: float, unknown: int
) -> None:
    student = np.roll(teacher, 1, axis=1) * np.float32(0.7)
    anchors = np.random.default_rng(0).standard_normal((9, 7)).astype(np.float32)
    kept = anchors[: 9 - unknown]
    expected = []
    for t, s in zip(teacher, student, strict=True):
        p, q = (
            softmax(np.array([unit(vector) @ unit(anchor) for anchor in kept]) / temperature)
            for vector, temperature in ((t, theirs), (s, ours))
        )
        expected.append(-sum(a * math.log(b) for a, b in zip(p, q, strict=True)))
    # What is not known has no influence, whatever it is.
    anchors[9 - unknown :] = 0
    known = tf.range(9) < 9 - unknown
    result = similarity_distillation(
        tf.constant(teacher), tf.constant(student), tf.constant(anchors), known, theirs, ours
    )
    assert float(result) == pytest.approx(mean(expected), rel=TOLERANCE, abs=TOLERANCE)


def test_similarity_distillation_is_least_for_the_teacher_and_gives_it_no_gradient() -> None:
    teacher, student = tf.Variable([[1.0, 2.0], [0.5, -1.0]]), tf.Variable([[2.0, -1.0], [1.0, 1.0]])
    anchors, known = tf.Variable([[1.0, 0.0], [0.0, 1.0], [-1.0, -1.0]]), tf.constant([True, True, False])
    with tf.GradientTape() as tape:
        loss = similarity_distillation(teacher, student, anchors, known, 0.2, 0.2)
    to_teacher, to_anchors, to_student = tape.gradient(loss, [teacher, anchors, student])
    assert to_teacher is None and to_anchors is None
    assert float(tf.norm(to_student)) > 0
    assert float(similarity_distillation(teacher, 3 * teacher, anchors, known, 0.2, 0.2)) < float(loss)


@given(vectors)
@settings(deadline=None, max_examples=40)
def test_feature_similarity_matches_loops_is_symmetric_and_ignores_length(target: np.ndarray) -> None:
    student = np.roll(target, 3, axis=1)
    expected = mean([2 - 2 * float(unit(t) @ unit(s)) for t, s in zip(target, student, strict=True)])
    forward = float(feature_similarity(tf.constant(target), tf.constant(student)))
    assert forward == pytest.approx(expected, abs=TOLERANCE)
    assert forward == pytest.approx(float(feature_similarity(tf.constant(student), tf.constant(5 * target))), abs=1e-5)


@pytest.mark.parametrize(("factor", "expected"), [(2.0, 0.0), (-2.0, 4.0)])
def test_feature_similarity_limits(factor: float, expected: float) -> None:
    target = tf.constant([[1.0, 2.0, -0.5]])
    assert float(feature_similarity(target, factor * target)) == pytest.approx(expected, abs=1e-6)


@given(vectors, st.floats(0.1, 1))
@settings(deadline=None, max_examples=40)
def test_info_nce_matches_loops(query: np.ndarray, temperature: float) -> None:
    key = np.roll(query, 1, axis=1)
    queue = np.stack([unit(row) for row in np.random.default_rng(0).standard_normal((9, 7))]).astype(np.float32)
    expected = []
    for q, k in zip(query, key, strict=True):
        logits = [unit(q) @ unit(k)] + [unit(q) @ row.astype(np.float64) for row in queue]
        expected.append(-math.log(softmax(np.array(logits) / temperature)[0]))
    result = info_nce(tf.constant(query), tf.constant(key), tf.constant(queue), temperature)
    assert float(result) == pytest.approx(mean(expected), rel=TOLERANCE, abs=TOLERANCE)


def test_info_nce_of_equal_similarities_is_log_of_their_number() -> None:
    same = tf.constant([[1.0, 0.0]])
    assert float(info_nce(same, same, tf.repeat(same, 5, axis=0), 0.2)) == pytest.approx(math.log(6), rel=1e-6)


@given(vectors, st.floats(0.05, 1), st.integers(1, 4))
@settings(deadline=None, max_examples=40)
def test_balanced_assignment_matches_loops(scores: np.ndarray, epsilon: float, iterations: int) -> None:
    scores = scores / 4  # similarities of unit vectors are no larger than 1
    q = [[math.exp(float(v) / epsilon) for v in row] for row in scores]
    for _ in range(iterations):
        for k in range(7):
            total = sum(row[k] for row in q)
            for row in q:
                row[k] /= total
        q = [[v / sum(row) for v in row] for row in q]
    result = balanced_assignment(tf.constant(scores), epsilon, iterations)
    np.testing.assert_allclose(result, q, rtol=TOLERANCE, atol=TOLERANCE)


def test_balanced_assignment_uses_every_prototype_alike(rng: np.random.Generator) -> None:
    scores = rng.normal(size=(60, 6)).astype(np.float32) * 0.1
    scores[:, 0] += 0.5  # all images like the first prototype best
    assert np.all(np.argmax(scores, axis=1) == 0)
    codes = balanced_assignment(tf.constant(scores), 0.05, 50).numpy()
    np.testing.assert_allclose(codes.sum(axis=1), 1, rtol=1e-4)
    np.testing.assert_allclose(codes.sum(axis=0), 10, rtol=0.02)


@given(vectors, st.floats(0.05, 2))
@settings(deadline=None, max_examples=25)
def test_swapped_prediction_matches_loops_and_is_least_for_the_code_itself(codes: np.ndarray, t: float) -> None:
    codes = np.array([softmax(row) for row in codes], np.float32)
    scores = np.roll(codes, 2, axis=1)
    expected = []
    for code, row in zip(codes, scores, strict=True):
        p = softmax(row / t)
        expected.append(-sum(float(c) * math.log(v) for c, v in zip(code, p, strict=True)))
    result = float(swapped_prediction(tf.constant(codes), tf.constant(scores), t))
    assert result == pytest.approx(mean(expected), rel=TOLERANCE, abs=TOLERANCE)
    own = float(swapped_prediction(tf.constant(codes), tf.constant(np.log(codes) * t, tf.float32), t))
    assert own <= result + TOLERANCE


def test_codes_get_no_gradient() -> None:
    scores = tf.constant(np.linspace(-1, 1, 12, dtype=np.float32).reshape(3, 4))
    with tf.GradientTape() as tape:
        tape.watch(scores)
        code = balanced_assignment(scores, 0.05, 3)
    assert tape.gradient(code, scores) is None
    with tf.GradientTape() as tape:
        tape.watch(scores)
        loss = swapped_prediction(tf.nn.softmax(scores), tf.constant(scores.numpy()), 0.1)
    assert tape.gradient(loss, scores) is None
