"""What a detector learns: perfect outputs cost nothing, and training finds boxes that decoding gives back."""

from __future__ import annotations

import numpy as np
import pytest

from bssl_tf.backend import keras, tf
from bssl_tf.tasks.detection import objective
from bssl_tf.tasks.detection.assignment import cells
from bssl_tf.tasks.detection.objective import decoded, losses
from bssl_tf_deploy.boxes import candidates, suppress

HEIGHT, WIDTH, CLASSES = 64, 96, 3
STRIDES = (8, 16)
BOXES = np.array(
    [[[10, 8, 34, 40], [50, 20, 90, 60], [0, 0, 0, 0]], [[4, 4, 12, 12], [20, 0, 96, 64], [40, 40, 60, 60]]]
)
NAMES = np.array([[0, 2, -1], [1, 1, -2]], np.int32)


def outputs(seed: int) -> dict[int, tuple[tf.Variable, tf.Variable]]:
    random = np.random.default_rng(seed)
    return {
        s: (
            tf.Variable(random.normal(-3, 0.5, (2, HEIGHT // s, WIDTH // s, CLASSES)).astype(np.float32)),
            tf.Variable(random.normal(0.5, 0.3, (2, HEIGHT // s, WIDTH // s, 4)).astype(np.float32)),
        )
        for s in STRIDES
    }


def test_boxes_in_training_are_those_of_the_device() -> None:
    made = outputs(0)
    middles, of_cells = cells(STRIDES, HEIGHT, WIDTH)
    sides = np.concatenate([made[s][1][0].numpy().reshape(-1, 4) for s in STRIDES])
    logits = np.concatenate([made[s][0][0].numpy()[..., :1].reshape(-1) for s in STRIDES])
    device = candidates({s: (made[s][0][0].numpy()[..., :1], made[s][1][0].numpy()) for s in STRIDES}, 1e-6)
    host = decoded(tf.constant(sides[np.newaxis]), middles, of_cells)[0].numpy()
    # Float32 both: exp of two libraries.
    np.testing.assert_allclose(device.boxes, host[np.argsort(-logits, kind="stable")], rtol=1e-4, atol=1e-3)


def test_training_leads_to_the_boxes_and_their_classes() -> None:
    made = outputs(1)
    variables = [variable for pair in made.values() for variable in pair]
    optimizer = keras.optimizers.legacy.Adam(0.1)
    boxes, names = tf.constant(BOXES, tf.float32), tf.constant(NAMES)

    @tf.function
    def step() -> tf.Tensor:
        with tf.GradientTape() as tape:
            found = losses(made, boxes, names, HEIGHT, WIDTH)
        optimizer.apply_gradients(zip(tape.gradient(found["loss"], variables), variables, strict=True))
        return found["loss"]

    first = float(step())
    for _ in range(300):
        last = float(step())
    # What is left: the entropy of a quality just below one.
    assert last < 0.1 < 1 < first
    for image in range(2):
        found = candidates({s: (made[s][0][image].numpy(), made[s][1][image].numpy()) for s in STRIDES}, 0.5)
        kept = suppress(found, 0.6, 10)
        learnt = NAMES[image] >= 0
        order = np.lexsort(kept.boxes.T)
        expected = BOXES[image][learnt]
        of_expected = np.lexsort(expected.T)
        assert kept.classes[order].tolist() == NAMES[image][learnt][of_expected].tolist()
        # Of a box 64 px high.
        np.testing.assert_allclose(kept.boxes[order], expected[of_expected], atol=2.0)


def test_a_place_that_counts_for_nothing_teaches_nothing() -> None:
    made = outputs(2)
    boxes = tf.constant([[[16.0, 16.0, 48.0, 48.0]]] * 2)
    with tf.GradientTape() as tape:
        loss = losses(made, boxes, tf.constant([[-2], [-1]]), HEIGHT, WIDTH)["loss"]
    gradient = tape.gradient(loss, made[8][0]).numpy()
    inside = np.zeros((HEIGHT // 8, WIDTH // 8), bool)
    inside[2:6, 2:6] = True
    assert (gradient[0][inside] == 0).all() and (gradient[0][~inside] > 0).all() and (gradient[1] > 0).all()


@pytest.mark.parametrize("names", [[[-1]], [[-2]]])
def test_images_without_objects_give_a_loss(names: list[list[int]]) -> None:
    made = {s: (scores[:1], sides[:1]) for s, (scores, sides) in outputs(3).items()}
    found = losses(made, tf.zeros((1, 1, 4)), tf.constant(names), HEIGHT, WIDTH)
    assert float(found["box_loss"]) == 0 and np.isfinite(float(found["loss"])) and float(found["loss"]) > 0


def test_devices_that_share_a_batch_average_to_its_loss(monkeypatch: pytest.MonkeyPatch) -> None:
    """Though one device has three objects, another one, and a third none."""
    made, extra = outputs(4), outputs(5)
    pairs = {s: tuple(tf.concat([made[s][i], extra[s][i][:1]], 0) for i in (0, 1)) for s in STRIDES}
    boxes = tf.constant(np.concatenate([BOXES, BOXES[:1]]), tf.float32)
    names = tf.constant(np.concatenate([NAMES, [[-1, -1, -1]]]), tf.int32)
    whole = losses(pairs, boxes, names, HEIGHT, WIDTH)
    counts: list[tf.Tensor] = []

    def of_device(row: int) -> dict[str, tf.Tensor]:
        own = {s: tuple(one[row : row + 1] for one in pair) for s, pair in pairs.items()}
        return losses(own, boxes[row : row + 1], names[row : row + 1], HEIGHT, WIDTH)

    def kept(count: tf.Tensor) -> tf.Tensor:
        counts.append(count)
        return count

    monkeypatch.setattr(objective, "gather", kept)
    for row in range(3):
        of_device(row)
    assert len({float(one[0]) for one in counts}) == 3
    monkeypatch.setattr(objective, "gather", lambda _: tf.concat(counts, 0))
    parts = [of_device(row) for row in range(3)]
    for name, value in whole.items():
        assert float(value) == pytest.approx(np.mean([float(part[name]) for part in parts]), rel=1e-5)
