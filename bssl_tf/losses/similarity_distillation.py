"""Distillation of similarities to other images: what a student learns from a teacher without a projection head."""

from __future__ import annotations

from bssl_tf.backend import tf


def similarity_distillation(
    teacher: tf.Tensor,
    student: tf.Tensor,
    anchors: tf.Tensor,
    known: tf.Tensor,
    teacher_temperature: float,
    student_temperature: float,
) -> tf.Tensor:
    """Cross-entropy of the student's distribution over anchors under the teacher's.

        p = softmax(cos(teacher, anchors) / Tt),  q = softmax(cos(student, anchors) / Ts),  loss = -sum p log q

    Its minimum over the student is the teacher's entropy. Source: SEED (arXiv 2101.04731), section 3.2, eq. 4 to 6.

    Args:
        teacher: [B, D] float32, not yet normalised; gets no gradient.
        student: [B, D] float32, not yet normalised.
        anchors: [K, D] float32, the teacher's vectors of other images, not yet normalised; get no gradient.
        known: [K] bool, which anchors count; at least one.
        teacher_temperature: Tt.
        student_temperature: Ts.

    Returns:
        A float32 scalar in nats, at most log K + 2 / Ts.
    """
    anchors = tf.math.l2_normalize(tf.stop_gradient(anchors), axis=-1)
    # A logit this low has no share of a softmax, and no gradient that is not finite.
    masked = tf.where(known, 0.0, -1e9)

    def logits(vectors: tf.Tensor, temperature: float) -> tf.Tensor:
        cosine = tf.matmul(tf.math.l2_normalize(vectors, axis=-1), anchors, transpose_b=True)
        return cosine / temperature + masked

    target = tf.nn.softmax(logits(tf.stop_gradient(teacher), teacher_temperature))
    found = tf.nn.log_softmax(logits(student, student_temperature))
    return -tf.reduce_mean(tf.reduce_sum(tf.where(known, target * found, 0.0), axis=-1))
