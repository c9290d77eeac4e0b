"""Detection as a task: what is learnt from, what is measured, and when two networks give the same boxes."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from bssl_tf.backend import keras, tf
from bssl_tf.data.augmentation import WEAK
from bssl_tf.data.image_set import ImageSet
from bssl_tf.data.views import Batch, Sampling
from bssl_tf.errors import ConfigError, ConversionError, DataError
from bssl_tf.methods.finetune import METHOD, FinetuneSettings
from bssl_tf.methods.method import Ingredients
from bssl_tf.models.binarization import binary_layers, quantizes_weights
from bssl_tf.models.registry import build_backbone
from bssl_tf.models.saved import Network
from bssl_tf.preprocessing import Preprocessing
from bssl_tf.settings import DataConfig, TrainingConfig
from bssl_tf.tasks import find_task
from bssl_tf.tasks.detection.boxes import BoxSet, Objects
from bssl_tf.tasks.detection.task import MIN_SCORE, Detection, found_by
from bssl_tf.tasks.detection.views import batches, framed_views
from bssl_tf.tasks.fine_tuned import load_fine_tuned, save_fine_tuned
from bssl_tf.tasks.task import Purpose
from bssl_tf_deploy import manifest as m
from bssl_tf_deploy.preprocess import load_view
from bssl_tf_deploy.tasks.detection import Table

SIZE, NAMES = 64, ("a", "b")
PREPROCESSING = Preprocessing(SIZE, 3, (0.4,) * 3, (0.3,) * 3)
WIDE = dataclasses.replace(PREPROCESSING, image_width=96)


def box_set(count: int, seed: int = 0) -> BoxSet:
    """Noise of several shapes, with up to three objects each, of which some count for nothing."""
    rng = np.random.default_rng(seed)
    objects = []
    for number in range(count):
        corners = rng.uniform(0, 0.6, (number % 4, 2))
        boxes = np.concatenate([corners, corners + rng.uniform(0.2, 0.4, corners.shape)], axis=1)
        objects.append(Objects(boxes.astype(np.float32), rng.integers(0, 2, len(boxes)), rng.random(len(boxes)) < 0.2))
    images = rng.integers(0, 256, (count, 73, 73, 3), dtype=np.uint8)
    ratios = rng.choice([0.5, 1, 1.7], count).astype(np.float32)
    sizes = np.stack([np.rint(730 * ratios), np.full(count, 730)], axis=1).astype(np.int32)
    stored = ImageSet("noise", images, ratios, None, (), sizes)
    return BoxSet("noise", stored, np.arange(count), tuple(map(str, range(count))), tuple(objects), NAMES)


def taken(
    labelled: BoxSet, preprocessing: Preprocessing, first: int, last: int, shard: tuple[int, int] = (0, 1)
) -> list[dict[str, np.ndarray]]:
    made = batches(labelled, Sampling(preprocessing, WEAK, 4, 3, first, last, shard))
    return [{"images": one.images.numpy(), **{name: t.numpy() for name, t in one.targets.items()}} for one in made]


@pytest.mark.parametrize("preprocessing", [PREPROCESSING, WIDE])
def test_a_batch_depends_on_seed_and_step_alone_and_shards_are_its_rows(preprocessing: Preprocessing) -> None:
    labelled, size = box_set(10), [preprocessing.width, preprocessing.height] * 2
    whole, later = taken(labelled, preprocessing, 0, 5), taken(labelled, preprocessing, 3, 5)
    parts = [taken(labelled, preprocessing, 0, 5, (part, 2)) for part in (0, 1)]
    assert whole[0]["images"].shape == (4, preprocessing.height, preprocessing.width, 3)
    for name in ("images", "boxes", "classes"):
        for one, other in zip(whole[3:], later, strict=True):
            np.testing.assert_array_equal(one[name], other[name])
        for one, first, second in zip(whole, *parts, strict=True):
            np.testing.assert_array_equal(one[name], np.concatenate([first[name], second[name]]))
    assert not np.array_equal(whole[0]["images"], whole[2]["images"])
    classes = np.concatenate([one["classes"] for one in whole])
    boxes = np.concatenate([one["boxes"] for one in whole])
    assert classes.shape[1] == 3 and set(classes.ravel().tolist()) == {-2, -1, 0, 1}
    there = classes != -1
    assert np.all(boxes[there] >= 0) and np.all(boxes[there] <= size) and np.all(boxes[~there] == 0)
    # Some reach the far borders.
    assert np.all(boxes.reshape(-1, 4).max(axis=0)[2:] > 0.75 * np.array(size[:2]))
    assert np.all(boxes[there][:, 2:] > boxes[there][:, :2])


@pytest.mark.parametrize("preprocessing", [PREPROCESSING, WIDE])
def test_evaluation_and_the_device_see_the_same_frame(preprocessing: Preprocessing) -> None:
    labelled = box_set(3)
    views, frames = framed_views(labelled, preprocessing, [0, 1, 2])
    framing = PREPROCESSING.normalise(np.full(3, 114, np.uint8))
    about = m.Preprocessing(preprocessing.height, preprocessing.width, 3, PREPROCESSING.mean, PREPROCESSING.std)
    for place in range(3):
        ratio = float(labelled.ratios([place])[0])
        # What was squashed to a square, as it was before.
        picture = Image.fromarray(labelled.pixels([place])[0]).resize((round(73 * 10 * ratio), 730))
        pixels, view = load_view(picture, about, "letterbox")
        assert frames[place].left == pytest.approx(view.left, abs=0.01) and (view.width, view.height) == picture.size
        same = np.abs(PREPROCESSING.normalise(pixels)[0] - views[place])
        assert np.median(same) < 0.1
        grey = (pixels[0] == 114).all(axis=2)
        np.testing.assert_array_equal(grey.all(axis=1), (views[place] == framing).all(axis=(1, 2)))


def outputs_of(
    boxes: np.ndarray, classes: np.ndarray, score: float = 0.9, preprocessing: Preprocessing = PREPROCESSING
) -> dict[str, np.ndarray]:
    """What a network would give that finds these boxes, pixels of its input, and nothing else."""
    cells = (preprocessing.height // 8, preprocessing.width // 8)
    outputs = {"scores_8": np.full((*cells, 2), -9, np.float32), "boxes_8": np.zeros((*cells, 4), np.float32)}
    for (left, top, right, bottom), kind in zip(boxes, classes, strict=True):
        x, y = (int((low + high) / 2 // 8) for low, high in ((left, right), (top, bottom)))
        middle_x, middle_y = 8 * x + 4, 8 * y + 4
        outputs["scores_8"][y, x, kind] = math.log(score / (1 - score))
        outputs["boxes_8"][y, x] = np.log(
            np.array([middle_x - left, middle_y - top, right - middle_x, bottom - middle_y]) / 8
        )
    return outputs


@pytest.mark.parametrize("preprocessing", [PREPROCESSING, WIDE])
def test_a_network_that_is_right_has_all_of_the_precision_and_one_that_finds_nothing_none(
    preprocessing: Preprocessing,
) -> None:
    labelled = box_set(12)
    _, frames = framed_views(labelled, preprocessing, range(12))
    truth = []
    for one, frame in zip(labelled.objects, frames, strict=True):
        scale = np.array([frame.right - frame.left, frame.bottom - frame.top] * 2)
        boxes = (one.boxes - [frame.left, frame.top] * 2) / scale * ([preprocessing.width, preprocessing.height] * 2)
        truth.append(outputs_of(boxes, one.classes, preprocessing=preprocessing))

    def network(images: Any, training: bool) -> list[np.ndarray]:
        assert not training and len(images) == 12
        return [np.stack([one[name] for one in truth]) for name in ("scores_8", "boxes_8")]

    found = Detection().metrics(network, labelled, preprocessing)
    assert list(found) == ["ap50", "ap"] and found["ap50"] > 99 and found["ap"] > 95
    given = found_by(network, labelled, preprocessing)[3]
    np.testing.assert_allclose(np.sort(given.boxes, axis=0), np.sort(labelled.objects[3].boxes, axis=0), atol=0.01)

    def blind(images: Any, training: bool) -> list[np.ndarray]:
        return [np.full_like(array, -9) for array in network(images, training)]

    assert Detection().metrics(blind, labelled, preprocessing)["ap50"] == 0

    def both(indices: np.ndarray) -> Iterator[tuple[Any, Any]]:
        right = {name: np.stack([truth[place][name] for place in indices]) for name in ("scores_8", "boxes_8")}
        yield right, {name: np.full_like(array, -9) for name, array in right.items()}

    table = Table(NAMES, (8,), "letterbox", MIN_SCORE, 0.5, 100, None)
    accuracy = Detection().with_accuracy(table, labelled, np.arange(12), both).accuracy
    assert accuracy is not None and accuracy.keras_ap50_percent > 99 and accuracy.ap50_percent == 0


BOXES, CLASSES = np.array([[10.0, 10, 30, 30], [36, 33, 63, 60]]), np.array([0, 1])


@pytest.mark.parametrize(
    ("change", "same"),
    [
        (lambda boxes, classes: (boxes, classes, 0.9), 1),
        (lambda boxes, classes: (boxes + 0.1, classes, 0.87), 1),
        (lambda boxes, classes: (boxes + 3, classes, 0.9), 0),
        (lambda boxes, classes: (boxes, classes[::-1], 0.9), 0),
        # Of two boxes and one, one is missing.
        (lambda boxes, classes: (boxes[:1], classes[:1], 0.9), 2 / 3),
        (lambda boxes, classes: (boxes, classes, MIN_SCORE / 2), 0),
    ],
)
def test_the_same_answers_are_the_same_boxes(change: Callable[..., Any], same: float) -> None:
    task = Detection()
    expected = {name: array[np.newaxis] for name, array in outputs_of(BOXES, CLASSES).items()}
    found = {name: array[np.newaxis] for name, array in outputs_of(*change(BOXES, CLASSES)).items()}
    assert task.same_answers(expected, found) == task.same_answers(found, expected) == pytest.approx(same)


def test_boxes_at_the_least_score_may_come_or_go() -> None:
    above, below = (
        {name: array[np.newaxis] for name, array in outputs_of(BOXES, CLASSES, MIN_SCORE + by).items()}
        for by in (0.001, -0.001)
    )
    assert Detection().same_answers(above, below).tolist() == [1]
    nothing = {name: np.full_like(array, -9) for name, array in above.items()}
    assert Detection().same_answers(nothing, nothing).tolist() == [1]


def test_held_out_images_are_a_share_and_the_same_for_a_seed() -> None:
    task, labelled = find_task("detection"), box_set(60)
    learned, kept = task.held_out(labelled, 1)
    assert len(learned) + len(kept) == 60 and 8 <= len(kept) <= 14
    assert not set(learned.paths) & set(kept.paths)
    assert task.held_out(labelled, 1)[1].paths == kept.paths != task.held_out(labelled, 2)[1].paths
    assert set(np.concatenate([one.classes for one in kept.objects]).tolist()) == {0, 1}
    assert task.class_counts(labelled).sum() == sum(int((~one.ignored).sum()) for one in labelled.objects)


def test_only_pictures_of_the_set_decide_how_pixels_are_normalised() -> None:
    labelled = box_set(6)
    part = labelled.subset([1, 4])
    fitted = Detection().fit_preprocessing(part, SIZE)
    pixels = labelled.pixels([1, 4]) / 255
    assert fitted.mean == pytest.approx(pixels.mean(axis=(0, 1, 2))) and fitted.image_size == SIZE


@pytest.fixture
def backbone() -> Iterator[keras.Model]:
    yield build_backbone("binary_resnet", SIZE, 3, {"depth": 1})


def test_a_float_twin_has_nothing_quantised_and_is_read_as_it_was_saved(backbone: keras.Model, tmp_path: Path) -> None:
    task, labelled = Detection(), box_set(8)
    purpose = Purpose(task, NAMES, labelled.class_counts(), None, WIDE.height, WIDE.width)
    given = Ingredients(backbone, "student", None, 2, TrainingConfig(), 1, True, purpose, False, False)
    recipe = METHOD.build(FinetuneSettings(), given)
    model = recipe.trained["student"]
    assert not binary_layers(model) and not quantizes_weights(model)
    assert len(recipe.rated()) > 10
    images = framed_views(labelled, WIDE, range(2))[0]
    example = {"boxes": tf.constant([[[8.0, 8, 40, 40]]] * 2), "classes": tf.constant([[0], [1]])}
    outcome = recipe.losses(Batch((tf.constant(images),), targets=example), tf.constant(0.0))
    assert np.isfinite(outcome.losses["loss"].numpy())
    network = Network("binary_resnet", PREPROCESSING, {"depth": 1})
    save_fine_tuned(tmp_path, task, NAMES, network, model, network.build(), WIDE, float_twin=True)
    read = load_fine_tuned(tmp_path)
    assert read.preprocessing == WIDE and read.network.preprocessing == PREPROCESSING
    assert read.float_twin and not quantizes_weights(read.model) and not binary_layers(read.backbone)
    for one, other in zip(read.model(images, training=False), model(images, training=False), strict=True):
        np.testing.assert_array_equal(one.numpy(), other.numpy())


def test_the_recipe_trains_backbone_and_head_and_binarises_both_in_the_second_stage(backbone: keras.Model) -> None:
    task, labelled = Detection(), box_set(8)
    purpose = Purpose(task, NAMES, labelled.class_counts(), None, 96, 96)
    given = Ingredients(backbone, "student", None, 2, TrainingConfig(), 1, True, purpose)
    recipes = [METHOD.build(FinetuneSettings(), given)]
    first = Ingredients(backbone, "student", None, 2, TrainingConfig(), 1, True, purpose, False)
    recipes.append(METHOD.build(FinetuneSettings(), first))
    quantised, plain = (
        {layer.name for layer in one.trained["student"].layers if getattr(layer, "kernel_quantizer", None) is not None}
        for one in recipes
    )
    assert not plain and {"neck8_in_conv", "scores_8_branch_conv", "stage1_block1_conv"} <= quantised
    for recipe in recipes:
        assert recipe.trained["student"].input_shape == (None, 96, 96, 3)
        rated = {variable.name for variable, _ in recipe.rated()}
        assert any("neck16" in name for name in rated) and not any("stage1" in name for name in rated)
        trainable = {variable.name for variable in recipe.trainable_variables()}
        assert any("stage1" in name for name in trainable)


def test_losses_have_parts_and_a_gradient_for_every_weight(backbone: keras.Model) -> None:
    task, labelled = Detection(), box_set(8)
    model = task.network(backbone, NAMES, SIZE, SIZE)
    example = next(task.batches(labelled, Sampling(PREPROCESSING, WEAK, 4, 0, 0, 1)))
    with tf.GradientTape() as tape:
        outputs = dict(zip(task.outputs(model), model(example.images, training=True), strict=True))
        losses = task.losses(outputs, example.targets)
    assert set(losses) == {"loss", "class_loss", "box_loss"} <= {"loss", *METHOD.logs}
    gradients = tape.gradient(losses["loss"], model.trainable_variables)
    assert all(one is not None and np.all(np.isfinite(one)) for one in gradients)
    table = task.table(NAMES, model)
    assert table.strides == (8, 16) and table.labels == NAMES
    with pytest.raises(ConversionError, match="is not a detector"):
        task.outputs(backbone)


def test_what_detection_does_not_do_is_refused(backbone: keras.Model) -> None:
    purpose = Purpose(Detection(), NAMES, np.array([3, 4]))
    given = Ingredients(backbone, "student", None, 2, TrainingConfig(), 1, True, purpose)
    with pytest.raises(ConfigError, match="the task detection does not weight classes"):
        METHOD.build(FinetuneSettings(class_weights="balanced"), given)
    with pytest.raises(DataError, match="images with boxes are not streamed"):
        Detection().open(DataConfig("folder", image_size=SIZE, loading="streaming"), validation=True)
