"""Guided distribution calibration: the loss of S2-BNN."""

from __future__ import annotations

from bssl_tf.backend import tf


def guided_distillation(teacher_embedding: tf.Tensor, student_embedding: tf.Tensor, temperature: float) -> tf.Tensor:
    """Cross-entropy of the student's distribution under the teacher's, over the dimensions of the embedding.

        p = softmax(normalised teacher / T),  q = softmax(normalised student / T),  loss = -sum p log q

    Its minimum over the student is the teacher's entropy, so it does not fall to zero. No T squared factor.
    Source: S2-BNN (arXiv 2102.08946), section 3.3 and eq. 5.

    Args:
        teacher_embedding: [B, D] float32, not yet normalised; gets no gradient.
        student_embedding: [B, D] float32, not yet normalised.
        temperature: T, 0.2 in the paper.

    Returns:
        A float32 scalar in nats.
    """
    teacher = tf.nn.softmax(tf.math.l2_normalize(tf.stop_gradient(teacher_embedding), axis=-1) / temperature)
    student = tf.nn.log_softmax(tf.math.l2_normalize(student_embedding, axis=-1) / temperature)
    return -tf.reduce_mean(tf.reduce_sum(teacher * student, axis=-1))
