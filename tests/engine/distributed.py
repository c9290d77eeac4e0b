"""A worker of the tests of several devices: `python distributed.py WHAT KIND OUT [WORKER STEP SECONDS]`.

`losses` writes for every method, and for fine-tuning, the losses of 20 steps as JSON, with `mirrored` also those of one
device; `weights` trains a run in the folder OUT and writes its final tensors there, unless its WORKER is killed SECONDS
after STEP began; `every` does so for three epochs of every method, in a folder of OUT for each.
"""

from __future__ import annotations

import dataclasses
import json
import os
import signal
import sys
import threading
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from bssl_tf.backend import configure, keras, tf
from bssl_tf.checkpoints import write_tensors
from bssl_tf.data.augmentation import LITE, WEAK
from bssl_tf.data.image_set import ImageSet
from bssl_tf.data.load import load_data
from bssl_tf.data.preprocessing import fit_preprocessing
from bssl_tf.descent import descend
from bssl_tf.engine.distribution import ALONE, Distribution, distribution_of
from bssl_tf.engine.inputs import Inputs, LabelledInputs
from bssl_tf.engine.loop import train
from bssl_tf.engine.run_folder import FollowersRunFolder, RunFolder
from bssl_tf.engine.stages import Stage
from bssl_tf.engine.step import make_optimizer, make_step
from bssl_tf.evaluation.linear_probe import LinearProbe
from bssl_tf.methods.bssl import Bssl, BsslConfig
from bssl_tf.methods.byol import Byol, ByolConfig
from bssl_tf.methods.finetune import FineTuned, FinetuneSettings
from bssl_tf.methods.guided import Guided, GuidedConfig
from bssl_tf.methods.moco import Moco, MocoConfig
from bssl_tf.methods.recipe import Recipe
from bssl_tf.methods.s2bnn import ContrastiveS2bnn, S2bnnConfig
from bssl_tf.methods.supervised import Supervised
from bssl_tf.methods.swav import Swav, SwavConfig
from bssl_tf.models.heads import mlp_head
from bssl_tf.models.layers import batch_norm, binary_conv, built_for_replicas, with_replica_batch_norm
from bssl_tf.preprocessing import Preprocessing
from bssl_tf.settings import DataConfig, TrainingConfig
from bssl_tf.tasks import find_task
from bssl_tf.tasks.task import Purpose
from bssl_tf.teachers.teacher import Teacher
from bssl_tf.workflows.distilling import Taught

BATCH, STEPS = 16, 20
# On a binary network a number within rounding of zero may change its sign, and the loss by a ten-thousandth: in a few
# steps that is unlikely, and every later one would learn of it.
BINARY_STEPS = 5
IMAGES, EPOCHS = 64, 12
# Of narrower projection heads all units may be silent for an image, and the direction of its embedding is rounding.
WIDTH = 16
layers = keras.layers


def network(*, binary: bool = False) -> keras.Model:
    """As few layers as have all kinds of variable, since each takes time to trace."""
    images = layers.Input((28, 28, 1))
    x = batch_norm("norm")(layers.Conv2D(WIDTH, 3, strides=8, use_bias=False, name="stem")(images))
    if binary:
        x = binary_conv(WIDTH, 3, "conv")(x)
    return keras.Model(images, layers.GlobalAveragePooling2D()(layers.ReLU()(x)))


def recipes(teacher: Teacher) -> dict[str, Callable[[], Recipe]]:
    """All methods, on a float network, where sums in another order change little."""
    moco = MocoConfig(8, temperature=0.1, momentum=0.9, queue_size=32, head_batch_norm=True)
    both = S2bnnConfig(contrastive=True, contrastive_momentum=0.9, contrastive_queue_size=32)
    small = BsslConfig(hidden_width=32, output_width=8, classifier_rate=0.5)
    return {
        "moco": lambda: Moco(network(), moco, part="student", batch_size=BATCH, seed=0),
        "byol": lambda: Byol(network(), ByolConfig(32, 16, momentum=0.9), part="student"),
        "swav": lambda: Swav(network(), SwavConfig(32, 8, prototypes=6), frozen_share=0.25),
        "supervised": lambda: Supervised(network(), 10),
        "s2bnn": lambda: ContrastiveS2bnn(network(), teacher, both, batch_size=BATCH, seed=0),
        "bssl": lambda: Bssl(network(), teacher, small),
        "guided": lambda: Guided(network(), teacher, GuidedConfig(queue_size=32, head_width=32), batch_size=BATCH),
    }


def fine_tunings(images: ImageSet, preprocessing: Preprocessing) -> dict[str, tuple[Recipe, LabelledInputs]]:
    """Tasks with classes weighted, with a teacher, and with images for the teacher alone; on a float network, as above.

    It is called in the scope of the devices, as a run makes its networks there.
    """
    sets = tuple(json.dumps([f"bit {bit}" for bit in range(4) if number >> bit & 1]) for number in range(10))
    teacher = Teacher("random", built_for_replicas(network, 3), None, None)
    weights = np.random.default_rng(0).normal(0, 3, (WIDTH, 10)).astype(np.float32)
    probe = LinearProbe(weights, np.zeros(10, np.float32), images.class_names, 0.0, DataConfig())
    outputs = Taught(teacher, probe).outputs

    def made(name: str, labelled: ImageSet, taught: Any = None, unlabelled: Any = None, **options: Any) -> Any:
        task = find_task(name)
        purpose = Purpose(task, task.class_names(labelled), task.class_counts(labelled), taught)
        backbone = built_for_replicas(network, 2)
        recipe = FineTuned(backbone, purpose, FinetuneSettings(**options), CONFIG.learning_rate)
        return recipe, LabelledInputs(labelled, preprocessing, WEAK, task, unlabelled, 2)

    return {
        "classification": made("classification", images, class_weights="balanced"),
        "taught": made("classification", images, outputs),
        "taught, unlabelled": made("classification", images, outputs, images),
        "multilabel": made("multilabel", dataclasses.replace(images, class_names=sets), class_weights="balanced"),
    }


def main(what: str, kind: str, out: Path, killed: list[str]) -> None:
    configure(1)
    # Graphs this small gain nothing, and making them faster takes longer than running them.
    tf.config.optimizer.set_experimental_options({"disable_meta_optimizer": True})
    if kind == "mirrored":
        two = [tf.config.LogicalDeviceConfiguration()] * 2
        tf.config.set_logical_device_configuration(tf.config.list_physical_devices("CPU")[0], two)
    devices = distribution_of(kind, BATCH)  # type: ignore[arg-type]
    assert devices.replicas == (1 if kind == "none" else 2)
    images = load_data("embedded", image_size=28, limit=IMAGES).train
    inputs = Inputs(images, fit_preprocessing(images, 28), LITE)
    keras.utils.set_random_seed(1)
    teacher = Teacher("random", network(), mlp_head("head", WIDTH, (8,), use_batch_norm=False), None)

    def build(name: str) -> Recipe:
        keras.utils.set_random_seed(0)
        if name == "binary":
            return Supervised(network(binary=True), 10)
        if name == "binary moco":
            config = MocoConfig(8, momentum=0.9, queue_size=32)
            return Moco(network(binary=True), config, part="student", batch_size=BATCH, seed=0)
        return recipes(teacher)[name]()

    if what == "losses":
        with_labels = dataclasses.replace(inputs, labels=True)
        found: dict[str, Any] = {}
        for each in (ALONE, devices) if kind == "mirrored" else (devices,):
            with each.scope():
                two_views = build("byol")
                batches = list(each.batches(partial(with_labels.batches, two_views, CONFIG, 0, STEPS)))
                found[str(each.replicas)] = {name: losses(build(name), batches) for name in recipes(teacher)}
                if kind == "mirrored":
                    found[f"binary on {each.replicas}"] = losses(build("binary"), batches[:BINARY_STEPS])
                found[f"fine-tuning on {each.replicas}"] = {
                    name: losses(recipe, list(each.batches(partial(fed.batches, recipe, CONFIG, 0, STEPS))))
                    for name, (recipe, fed) in fine_tunings(images, inputs.preprocessing).items()
                }
        if kind == "mirrored":
            found["drawn"] = [drawn(each) for each in (ALONE, devices)]
            found["scaled"] = scaled(devices)
            found["batch norm"] = {
                f"{whole} {own}": normalised(devices, whole, own) for whole in (True, False) for own in (True, False)
            }
        if devices.is_chief:
            out.write_text(json.dumps(found))
        return

    if killed and devices.worker == int(killed[0]):
        die(out, int(killed[1]), float(killed[2]))
    if what == "weights":
        finish(out, EPOCHS, lambda: build("binary moco"), inputs, devices)
        return
    for name in recipes(teacher):
        finish(out / name, 3, partial(build, name), dataclasses.replace(inputs, labels=name == "supervised"), devices)


def finish(out: Path, epochs: int, build: Callable[[], Recipe], inputs: Inputs, devices: Distribution) -> None:
    """Trains a run, from its last checkpoint on, and writes its final tensors."""
    run = (RunFolder if devices.is_chief else FollowersRunFolder)(out)
    devices.wait_for_all()
    config = dataclasses.replace(CONFIG, epochs=epochs, optimizer="adam", learning_rate=1e-3)
    recipe = train(run, [Stage("only", True, epochs)], lambda _: build(), inputs, config, None, devices)
    if devices.is_chief:
        models = recipe.trained | recipe.companions
        tensors = {f"{part}/{w.name}": w.numpy() for part, model in models.items() for w in model.weights}
        write_tensors(out / "final.safetensors", tensors | {k: np.asarray(v) for k, v in recipe.state.items()}, {})


# Not Adam: it makes full steps of gradients that are nothing but rounding, such as BYOL's of a bias before batch norm.
CONFIG = TrainingConfig(epochs=5, batch_size=BATCH, optimizer="sgd", learning_rate=5e-4)


def losses(recipe: Recipe, batches: list[Any]) -> list[dict[str, float]]:
    optimizer = make_optimizer(CONFIG)
    optimizer.build(recipe.trainable_variables())
    step = make_step(recipe, optimizer, 0.0)
    found = []
    for number, batch in enumerate(batches):
        scheduled = tf.constant(recipe.scheduled(number / STEPS), tf.float32)
        parts = step(batch, tf.constant(CONFIG.learning_rate), scheduled)
        found.append({name: float(value) for name, value in parts.items()})
    # Batch norm's moving averages, which no loss shows.
    moving = [weight for model in recipe.trained.values() for weight in model.non_trainable_weights]
    found[-1] |= {weight.name: float(np.abs(weight.numpy()).sum()) for weight in moving}
    return found


def normalised(devices: Distribution, whole_batch: bool, users: bool) -> list[Any]:
    """What batch norm on two devices makes of the numbers 0 to 7 in training, and its moving average.

    It is ours, or Keras' own in a model in a network of a user.
    """
    with dataclasses.replace(devices, synchronized_batch_norm=whole_batch).scope():
        if users:
            vector = keras.Input(1)
            inner = keras.Model(vector, keras.layers.BatchNormalization(momentum=0.9, epsilon=1e-5)(vector))
            network = with_replica_batch_norm(keras.Model(vector, inner(vector)))
            norm = network.layers[-1].layers[-1]
        else:
            network = norm = batch_norm("norm")
            norm.build((None, 1))

        def numbers(context: tf.distribute.ReplicaContext) -> tf.Tensor:
            return tf.reshape(tf.range(4.0) + 4.0 * context.replica_id_in_sync_group, (4, 1))

        rows = devices.strategy.experimental_distribute_values_from_function(numbers)
        made = devices.strategy.run(tf.function(lambda x: network(x, training=True)), (rows,))
    parts = devices.strategy.experimental_local_results(made)
    return [np.concatenate(parts)[:, 0].tolist(), norm.moving_mean.numpy().tolist()]


def drawn(devices: Distribution) -> list[list[float]]:
    """First weights of a network, and of a head that is made after it."""
    with devices.scope():
        models = built_for_replicas(network, 7), mlp_head("head", WIDTH, (8,), use_batch_norm=False)
        return [model.weights[0].numpy().ravel()[:8].tolist() for model in models]


def scaled(devices: Distribution) -> list[list[float]]:
    """A weight and the scale of its loss after a step, and after one in which a device's gradient is not finite."""
    with devices.scope():
        weight = tf.Variable(1.0)
        optimizer = keras.mixed_precision.LossScaleOptimizer(keras.optimizers.SGD(0.5), initial_scale=8)
        optimizer.build([weight])

        @tf.function
        def step(factor: tf.Tensor) -> None:
            descend(lambda own: (tf.sqrt(weight * own), {}), (factor,), [weight], optimizer)

        found = []
        for factors in ((4.0, 16.0), (4.0, 0.0)):
            step(
                devices.strategy.experimental_distribute_values_from_function(
                    lambda context, factors=factors: tf.constant(factors[context.replica_id_in_sync_group])
                )
            )
            found.append([float(weight.numpy()), float(optimizer.loss_scale)])
    return found


def die(out: Path, step: int, seconds: float) -> None:
    """Kills this process so long after it has begun a step."""

    def kill() -> None:
        (out / "killed").touch()
        os.kill(os.getpid(), signal.SIGKILL)

    def scheduled(self: Recipe, progress: float) -> float:
        if round(progress * EPOCHS * IMAGES / BATCH) == step:
            threading.Timer(seconds, kill).start()
        return 0.0

    Moco.scheduled = scheduled  # type: ignore[method-assign]


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], Path(sys.argv[3]), sys.argv[4:])
