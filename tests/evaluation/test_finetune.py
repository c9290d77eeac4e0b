from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bssl_tf.backend import keras, tf
from bssl_tf.data.image_set import ImageSet
from bssl_tf.data.load import load_data
from bssl_tf.data.preprocessing import evaluation_views, fit_preprocessing
from bssl_tf.errors import BsslError, ConfigError, DataError, TrainingError
from bssl_tf.evaluation.finetune import fine_tuned, finetune, labelled_subset
from bssl_tf.models.binarization import binarize, binary_layers
from bssl_tf.models.binary_resnet import binary_resnet
from bssl_tf.preprocessing import Preprocessing
from bssl_tf.seeding import named_seed

tf.config.experimental.enable_op_determinism()


@pytest.fixture(scope="module")
def embedded() -> tuple[ImageSet, Preprocessing]:
    train = load_data("embedded", image_size=28, limit=100).train
    return train, fit_preprocessing(train, 28)


@pytest.fixture(scope="module")
def binary() -> keras.Model:
    keras.utils.set_random_seed(0)
    return binary_resnet(28, 1, depth=1)


def halves(count: int) -> ImageSet:
    """Noise with a bright upper half (class 0) or lower half (class 1): a flip from left to right tells nothing."""
    rng = np.random.default_rng(count)
    labels = rng.integers(0, 2, count)
    images = rng.integers(0, 100, (count, 16, 16, 1), np.uint8)
    for image, label in zip(images, labels, strict=True):
        image[8 * label : 8 * label + 8] += 120
    return ImageSet("halves", images, np.ones(count, np.float32), labels, ("up", "down"))


def pooled(size: int, cells: int) -> keras.Model:
    """The mean brightness of `cells` x `cells` parts of the picture, without a weight."""
    layers = keras.layers
    return keras.Sequential([layers.Input((size, size, 1)), layers.AvgPool2D(size // cells), layers.Flatten()])


def slow_subset_sizes(counts: list[int], total: int) -> list[int]:
    """One image of each class in turn until `total` are taken; classes by size, for a cut round is left to chance."""
    taken = [0] * len(counts)
    while True:
        for i, count in enumerate(counts):
            if sum(taken) == total:
                return sorted(taken)
            taken[i] += taken[i] < count


@given(
    st.lists(st.integers(1, 12), min_size=1, max_size=5).map(sorted),
    st.floats(0.01, 1),
    st.floats(0.01, 1),
    st.integers(0, 2**31 - 1),
)
def test_a_subset_takes_the_same_of_every_class(counts: list[int], share: float, other: float, seed: int) -> None:
    labels = np.random.default_rng(seed).permutation(np.repeat(np.arange(len(counts)) * 3, counts))
    total = round(share * len(labels))
    if total < len(counts):
        with pytest.raises(DataError, match="less than one"):
            labelled_subset(labels, share, seed)
        return
    chosen = labelled_subset(labels, share, seed)
    assert chosen.dtype == np.int64 and len(chosen) == total
    assert np.all(np.diff(chosen) > 0)
    sizes = np.unique(labels[chosen], return_counts=True)[1].tolist()
    assert len(sizes) == len(counts)
    assert sorted(sizes) == slow_subset_sizes(counts[::-1], total)
    np.testing.assert_array_equal(chosen, labelled_subset(labels, share, seed))
    if other > share:
        assert set(chosen) <= set(labelled_subset(labels, other, seed))


def test_every_image_and_every_class_has_the_same_chance() -> None:
    labels = np.arange(20) % 4
    chosen = np.zeros(20)
    for seed in range(2000):
        chosen[labelled_subset(labels, 0.3, seed)] += 1 / 2000  # one of each class, and two by chance
    np.testing.assert_allclose(chosen, 0.3, atol=0.05)  # about five standard deviations


@pytest.mark.parametrize(
    ("count", "share", "kind", "message"),
    [
        (300, 0.01, DataError, "1 % of 300 labelled images is less than one for each of 10 classes"),
        (300, 0.01, DataError, "take 4 % or more"),
        (0, 0.1, DataError, "less than one"),
        (300, 0.0, ConfigError, "above 0"),
        (300, 1.5, ConfigError, "at most 1"),
        (300, float("nan"), ConfigError, "above 0"),
    ],
)
def test_a_share_without_an_image_a_class_is_one_clear_line(
    count: int, share: float, kind: type[BsslError], message: str
) -> None:
    with pytest.raises(kind) as error:
        labelled_subset(np.arange(count) % 10, share, 0)
    assert message in str(error.value)


def test_what_is_labelled_right_is_learned() -> None:
    train, test = halves(200), halves(100)
    preprocessing = fit_preprocessing(train, 16)
    truth = test.require_labels()
    mislabelled = replace(test, labels=np.where(np.arange(100) < 30, 1 - truth, truth))
    for images, top1 in ((test, 100.0), (mislabelled, 70.0)):
        result = finetune(
            pooled(16, 2), train, images, preprocessing, share=0.2, seed=0, steps=30, batch_size=16, learning_rate=0.1
        )
        assert (result.top1, result.labelled_images, result.steps) == (top1, 40, 30)
        assert result.predictions.confidence is not None and result.predictions.confidence.min() > 0.5


def test_only_the_chosen_share_is_learned_from(embedded: tuple[ImageSet, Preprocessing]) -> None:
    images, preprocessing = embedded
    test = load_data("embedded", image_size=28).test
    assert test is not None
    chosen = images.subset(labelled_subset(images.require_labels(), 0.3, named_seed(5, "labelled subset")))
    backbone, steps, batch_size, learning_rate = pooled(28, 7), 5, 10, 0.1
    model = fine_tuned(
        backbone, chosen, preprocessing, seed=5, steps=steps, batch_size=batch_size, learning_rate=learning_rate
    )
    predicted = np.argmax(model(evaluation_views(test, preprocessing, range(len(test)))), axis=1)
    result = finetune(
        backbone,
        images,
        test,
        preprocessing,
        share=0.3,
        seed=5,
        steps=steps,
        batch_size=batch_size,
        learning_rate=learning_rate,
    )
    np.testing.assert_array_equal(result.predictions.predicted[0], predicted)
    assert result.top1 == 100 * float(np.mean(predicted == test.require_labels()))
    assert (result.labelled_images, result.steps) == (30, steps)
    assert 30 < result.top1 < 90


def test_everything_is_trained_but_the_network_that_was_given_is_not_changed(
    embedded: tuple[ImageSet, Preprocessing],
) -> None:
    train, preprocessing = embedded
    backbone = binary_resnet(28, 1, depth=1)
    backbone.trainable = False  # as a teacher comes
    before = backbone.get_weights()
    tuned = fine_tuned(backbone, train, preprocessing, seed=0, steps=2, batch_size=16, learning_rate=1e-3)
    for old, still in zip(before, backbone.get_weights(), strict=True):
        np.testing.assert_array_equal(old, still)
    assert not any(layer.trainable for layer in backbone.layers)
    assert tuned.output_shape == (None, 10)
    for old, weight in zip(before, tuned.weights, strict=False):
        assert np.any(old != weight.numpy()), weight.name  # kernels, batch norm and its statistics


def test_binary_layers_keep_their_latent_weights_within_one(
    binary: keras.Model, embedded: tuple[ImageSet, Preprocessing]
) -> None:
    train, preprocessing = embedded
    largest = []
    for backbone in (binary, binarize(binary, weights=False)):  # the second one has no constraint
        tuned = fine_tuned(backbone, train, preprocessing, seed=0, steps=3, batch_size=16, learning_rate=10.0)
        kernels = [w.numpy() for w in tuned.weights if "block" in w.name and "kernel" in w.name]
        assert len(kernels) == len(binary_layers(binary))
        largest.append(max(float(np.abs(kernel).max()) for kernel in kernels))
    assert largest[0] == 1.0 < largest[1]


def test_a_seed_fixes_the_weights_whatever_the_state_of_the_libraries(
    binary: keras.Model, embedded: tuple[ImageSet, Preprocessing]
) -> None:
    train, preprocessing = embedded
    tuned = []
    for state in (1, 2):
        keras.utils.set_random_seed(state)
        tuned.append(fine_tuned(binary, train, preprocessing, seed=0, steps=3, batch_size=16, learning_rate=1e-3))
    for one, other in zip(*(model.get_weights() for model in tuned), strict=True):
        np.testing.assert_array_equal(one, other)


def test_another_seed_is_another_training() -> None:
    images = halves(40)
    one, other = (
        fine_tuned(
            pooled(16, 2), images, fit_preprocessing(images, 16), seed=seed, steps=3, batch_size=8, learning_rate=0.1
        )
        for seed in (0, 1)
    )
    assert np.any(one.layers[-1].kernel != other.layers[-1].kernel)


def test_the_learning_rate_falls_from_its_value_in_a_straight_line_to_zero() -> None:
    """Adam moves the bias by about the learning rate a step while its gradient stays the same: here 1/4, as good as."""
    images = halves(40)
    images = replace(images, labels=np.zeros(40, np.int64) + (np.arange(40) % 4 == 0))
    blank = replace(images, images=np.full_like(images.images, 50))
    preprocessing = Preprocessing(16, 1, (50 / 255,), (1.0,))
    tuned = fine_tuned(pooled(16, 2), blank, preprocessing, seed=0, steps=4, batch_size=40, learning_rate=1e-3)
    moved = 1e-3 * (1 + 3 / 4 + 2 / 4 + 1 / 4)
    np.testing.assert_allclose(tuned.layers[-1].bias, [moved, -moved], rtol=0.01)


def test_fewer_images_than_a_batch_are_one_batch() -> None:
    images = halves(5)
    preprocessing = fit_preprocessing(images, 16)
    one, other = (
        fine_tuned(pooled(16, 2), images, preprocessing, seed=0, steps=3, batch_size=size, learning_rate=0.1)
        for size in (5, 64)
    )
    np.testing.assert_array_equal(one.layers[-1].kernel, other.layers[-1].kernel)


@pytest.mark.parametrize("setting", [{"steps": 0}, {"batch_size": 0}, {"learning_rate": 0.0}])
def test_a_setting_that_is_not_positive_is_refused(setting: dict[str, int]) -> None:
    images = halves(20)
    with pytest.raises(ConfigError, match="positive"):
        finetune(pooled(16, 2), images, images, fit_preprocessing(images, 16), share=1.0, seed=0, **setting)


def test_missing_labels_and_missing_images_are_named() -> None:
    images = halves(20)
    unlabelled = replace(images, labels=None, class_names=())
    preprocessing = fit_preprocessing(images, 16)
    for train, test in ((unlabelled, images), (images, unlabelled)):
        with pytest.raises(DataError, match="has no labels"):
            finetune(pooled(16, 2), train, test, preprocessing, share=1.0, seed=0)
    with pytest.raises(DataError, match="no test images"):
        finetune(pooled(16, 2), images, images.head(0), preprocessing, share=1.0, seed=0)


def test_a_loss_that_is_not_finite_stops_with_a_clear_line() -> None:
    images, backbone = halves(20), pooled(16, 2)
    backbone.add(keras.layers.Dense(2, bias_initializer=keras.initializers.Constant(float("nan"))))
    with pytest.raises(TrainingError, match="the loss is nan at step 1"):
        finetune(backbone, images, images, fit_preprocessing(images, 16), share=1.0, seed=0, steps=2)
