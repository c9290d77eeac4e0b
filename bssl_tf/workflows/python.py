"""Training and evaluation from Python: settings are keyword arguments, and the result is a run with further methods.

The commands `bssl-tf teacher`, `pretrain`, `finetune`, `evaluate` and `compare` use the same underlying functions.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bssl_tf.evaluation.protocols import DEFAULT_PROTOCOLS
from bssl_tf.evaluation.records import Evaluation, as_record
from bssl_tf.files import append_record
from bssl_tf.models.place import MEMORY
from bssl_tf.teachers.inputs import TeacherOptions
from bssl_tf.workflows import evaluate as evaluating
from bssl_tf.workflows import finetune as finetuning
from bssl_tf.workflows import pretrain as pretraining
from bssl_tf.workflows import train_teacher as teaching
from bssl_tf.workflows.given import plain, settled
from bssl_tf.workflows.run import Run
from bssl_tf_deploy.system_errors import system_errors

if TYPE_CHECKING:
    from bssl_tf.backend import keras

# Arguments of the trainings that are no settings of the run.
_NO_SETTINGS = ("out", "budget", "preset", "settings", "resume")


@system_errors()
def train_teacher(
    data: str | Path | None = None,
    *,
    out: str | Path,
    method: str | None = None,
    backbone: str | None = None,
    width: int | None = None,
    epochs: int | None = None,
    budget: str | None = None,
    batch_size: int | None = None,
    learning_rate: float | None = None,
    seed: int | None = None,
    threads: int | None = None,
    device: str | None = None,
    distribute: str | None = None,
    probe_data: str | Path | None = None,
    image_size: int | None = None,
    channels: int | None = None,
    limit: int | None = None,
    max_unreadable_share: float | None = None,
    loading: str | None = None,
    data_dir: str | Path | None = None,
    download: bool | None = None,
    preset: str | Path | None = None,
    settings: Mapping[str, Any] | None = None,
    resume: bool = False,
) -> Run:
    """Trains a float teacher on unlabelled images.

    With fewer than about 50,000 of them, take a pretrained one: `bssl_tf.import_teacher("efficientnet_lite0", out=...)`
    makes a folder that `pretrain` takes as well, from weights that were trained with ImageNet's labels. It is what
    `bssl-tf teacher --pretrained` does.

    Arguments that are None take the defaults listed under "Settings" in the documentation.

    Args:
        data: `embedded`, `tfds:NAME`, or a folder of images or shards.
        out: the run folder.
        method: `moco` (MoCo v2) or `byol`.
        backbone: the network.
        width: channels of its first stage.
        epochs: passes over the images.
        budget: how long training may take, such as `30m`; it chooses what no other argument does of epochs, batch size,
            learning rate and queue.
        batch_size: images per step.
        learning_rate: peak learning rate.
        seed: the seed from which all others are derived.
        threads: threads of one op; only the same number reproduces a run bit for bit.
        device: `auto` for a GPU where TensorFlow sees one, `cpu`, `gpu`, or `gpu:N`.
        distribute: devices that share each batch: `none`, `mirrored`, `multiworker` or `tpu`.
        probe_data: a labelled set to probe the accuracy with during training; None for `data`, if that has labels.
        image_size: pixels per side.
        channels: 1 or 3.
        limit: use at most this many images of each split.
        max_unreadable_share: skip unreadable files up to this share of all, 0 to 1.
        loading: `mapped`, `streaming`, or `auto`: decode images once, or during training, or by their number.
        data_dir: where TFDS keeps its data.
        download: allow TFDS to download.
        preset: a preset of the package (`demo`), or a TOML file; arguments override it.
        settings: any other setting of config.toml: `{"moco.queue_size": 64}` or `{"moco": {"queue_size": 64}}`.
        resume: continue the run in `out`, if there is one.

    Raises:
        BsslError: see `bssl_tf.errors`; every message ends with what to do next.
    """
    given = {name: value for name, value in locals().items() if name not in _NO_SETTINGS}
    wanted = settled("teacher", preset, given, settings)
    saved = teaching.train_teacher(wanted, Path(out), resume=resume, budget=budget)
    return Run(Path(out), saved)


@system_errors()
def pretrain(
    data: str | Path | None = None,
    *,
    out: str | Path,
    teacher: str | os.PathLike[str] | None = None,
    teacher_pixels: str | None = None,
    teacher_layout: str | None = None,
    teacher_output: str | None = None,
    method: str | None = None,
    student: str | os.PathLike[str] | keras.Model | None = None,
    width: int | None = None,
    depth: int | None = None,
    epochs: int | None = None,
    budget: str | None = None,
    batch_size: int | None = None,
    learning_rate: float | None = None,
    seed: int | None = None,
    threads: int | None = None,
    device: str | None = None,
    distribute: str | None = None,
    probe_data: str | Path | None = None,
    image_size: int | None = None,
    channels: int | None = None,
    limit: int | None = None,
    max_unreadable_share: float | None = None,
    loading: str | None = None,
    data_dir: str | Path | None = None,
    download: bool | None = None,
    preset: str | Path | None = None,
    settings: Mapping[str, Any] | None = None,
    resume: bool = False,
) -> Run:
    """Trains a binary student from a teacher without labels, or with one of the baselines.

    Arguments that are None take the defaults listed under "Settings" in the documentation.

    Args:
        data: `embedded`, `tfds:NAME`, or a folder of images or shards.
        out: the run folder.
        teacher: a run of `train_teacher`, a folder of `import_teacher`, or a .keras, .h5 or .onnx file.
        teacher_pixels: pixels of a saved model's input: `normalized`, `0..1`, `-1..1`, `0..255`, `imagenet`, `clip`, or
            MEAN/STD; None for `normalized`, or for what an ONNX file shows.
        teacher_layout: axes of an ONNX file's input, `nchw` or `nhwc`; None for what it shows.
        teacher_output: tensor of an ONNX file that holds the features; None to choose one.
        method: `s2bnn` or `bssl`; baselines without a teacher: `moco`, `byol`, `swav`, `supervised`.
        student: the binary network, `zoo:NAME`, `FILE.py:FUNCTION`, a saved Keras model, or a Keras model, which is
            copied with its weights and not changed.
        width: channels of its first stage.
        depth: binary convolutions per stage.
        epochs: epochs per stage.
        budget: how long training may take, such as `30m`; it chooses what no other argument does of epochs, batch size,
            learning rate and queue.
        batch_size: images per step.
        learning_rate: peak learning rate.
        seed: the seed from which all others are derived.
        threads: threads of one op; only the same number reproduces a run bit for bit.
        device: `auto` for a GPU where TensorFlow sees one, `cpu`, `gpu`, or `gpu:N`.
        distribute: devices that share each batch: `none`, `mirrored`, `multiworker` or `tpu`.
        probe_data: a labelled set to probe the accuracy with during training; None for `data`, if that has labels.
        image_size: pixels per side.
        channels: 1 or 3.
        limit: use at most this many images of each split.
        max_unreadable_share: skip unreadable files up to this share of all, 0 to 1.
        loading: `mapped`, `streaming`, or `auto`: decode images once, or during training, or by their number.
        data_dir: where TFDS keeps its data.
        download: allow TFDS to download.
        preset: a preset of the package (`demo`), or a TOML file; arguments override it.
        settings: any other setting of config.toml: `{"s2bnn.temperature": 0.1}` or `{"s2bnn": {"temperature": 0.1}}`.
        resume: continue the run in `out`, if there is one.

    Raises:
        BsslError: see `bssl_tf.errors`; every message ends with what to do next.
    """
    given = {name: value for name, value in locals().items() if name not in _NO_SETTINGS}
    model = None
    if not isinstance(student, (str, os.PathLike, type(None))):
        model = student
        given["student"] = f"{MEMORY}{getattr(model, 'name', type(model).__name__)}"
    wanted = settled("pretrain", preset, given, settings)
    saved = pretraining.pretrain(wanted, Path(out), resume=resume, budget=budget, model=model)
    return Run(Path(out), saved)


@system_errors()
def finetune(
    run: str | os.PathLike[str] | None = None,
    data: str | Path | None = None,
    *,
    out: str | Path,
    student: str | None = None,
    width: int | None = None,
    depth: int | None = None,
    image_size: int | None = None,
    image_width: int | None = None,
    task: str | None = None,
    teacher: str | os.PathLike[str] | None = None,
    unlabelled: str | Path | None = None,
    teacher_pixels: str | None = None,
    teacher_layout: str | None = None,
    teacher_output: str | None = None,
    epochs: int | None = None,
    budget: str | None = None,
    batch_size: int | None = None,
    learning_rate: float | None = None,
    head_learning_rate: float | None = None,
    class_weights: str | None = None,
    float_twin: bool | None = None,
    seed: int | None = None,
    threads: int | None = None,
    device: str | None = None,
    distribute: str | None = None,
    limit: int | None = None,
    loading: str | None = None,
    max_unreadable_share: float | None = None,
    data_dir: str | Path | None = None,
    download: bool | None = None,
    preset: str | Path | None = None,
    settings: Mapping[str, Any] | None = None,
    resume: bool = False,
) -> Run:
    """Trains the whole network of a pretrained student with labels.

    Training ends early when held-out images show no more progress, and the best weights are kept. The result's `export`
    needs no evaluation; its `evaluate` states whether a linear probe would have been better.

    Arguments that are None take the defaults listed under "Settings" in the documentation.

    Args:
        run: a run of `pretrain`, `finetune` or `train_teacher`, a folder of `import_teacher`, or `zoo:NAME`; None to
            resume.
        data: `embedded`, `tfds:NAME`, or a folder with one sub-folder of images for each class.
        out: the run folder.
        student: in place of `run`, a network to train from random weights.
        width: of that network; see `pretrain`.
        depth: likewise.
        image_size: pixels per side, another number than the student's for detection alone.
        image_width: of detection, where the input is not a square: its width; `image_size` is then its height.
        task: what to train for: `classification`, `multilabel`, `detection`, or a task of an installed package.
        teacher: a float network to distil from as well: a run of `train_teacher` or `finetune`, a folder of
            `import_teacher`, or a .keras, .h5 or .onnx file.
        unlabelled: more images, for which the teacher gives soft labels; an epoch then goes through these.
        teacher_pixels: see `pretrain`.
        teacher_layout: see `pretrain`.
        teacher_output: see `pretrain`.
        epochs: passes over the images, at most.
        budget: how long training may take, such as `30m`; it chooses the epochs, 60 at most.
        batch_size: images per step.
        learning_rate: peak learning rate of the backbone.
        head_learning_rate: peak learning rate of the head.
        class_weights: `none`, or `balanced`: rare classes count as much as common ones.
        float_twin: train the same layers with nothing quantised, to compare with; it cannot be exported.
        seed: the seed from which all others are derived.
        threads: threads of one op; only the same number reproduces a run bit for bit.
        device: `auto` for a GPU where TensorFlow sees one, `cpu`, `gpu`, or `gpu:N`.
        distribute: devices that share each batch: `none`, `mirrored`, `multiworker` or `tpu`.
        limit: use at most this many images of each split.
        loading: see `pretrain`.
        max_unreadable_share: skip unreadable files up to this share of all, 0 to 1.
        data_dir: where TFDS keeps its data.
        download: allow TFDS to download.
        preset: a TOML file with a table `[finetune]`; arguments override it.
        settings: any other setting of config.toml: `{"finetune.distillation": 0.3}`.
        resume: continue the run in `out`, if there is one.

    Raises:
        BsslError: see `bssl_tf.errors`; every message ends with what to do next.
    """
    given = {name: value for name, value in locals().items() if name not in _NO_SETTINGS}
    saved = finetuning.finetune(settled("finetune", preset, given, settings), Path(out), resume=resume, budget=budget)
    return Run(Path(out), saved)


@system_errors()
def evaluate(
    run: str | os.PathLike[str],
    *,
    data: str | Path | None = None,
    data_dir: str | Path | None = None,
    download: bool | None = None,
    limit: int | None = None,
    max_unreadable_share: float | None = None,
    loading: str | None = None,
    image_size: int | None = None,
    teacher_pixels: str = "auto",
    teacher_layout: str = "auto",
    teacher_output: str = "",
    protocols: Sequence[str] = DEFAULT_PROTOCOLS,
    controls: bool = True,
    save: bool = True,
    record: str | Path | None = None,
) -> Evaluation:
    """Probes a student or a teacher and its controls; saves the table, the predictions and a student's probe.

    The result's `verdict` states in one sentence whether anything was learned, by paired tests on the same test images.

    Args:
        run: a finished run of `pretrain` or `train_teacher`, a folder of `import_teacher`, or a saved Keras model.
        data: a labelled data set; None for the one that the student was trained on.
        data_dir: where TFDS keeps its data.
        download: allow TFDS to download.
        limit: use at most this many images of each split.
        max_unreadable_share: skip unreadable files up to this share of all, 0 to 1.
        loading: `mapped`, `streaming`, or `auto`: decode images once, or during training, or by their number.
        image_size: size of the images for a saved model, pixels per side; None for the model's own, or 224.
        teacher_pixels: pixels of a saved model's input; see the setting.
        teacher_layout: axes of an ONNX file's input: `nchw`, `nhwc`, or `auto` for what it shows.
        teacher_output: tensor of an ONNX file that holds the features; empty to choose one.
        protocols: names of `bssl_tf.settings.PROTOCOLS`.
        controls: also measure the untrained network, raw pixels and a student's teacher.
        save: replace the table, the predictions and the probe in the run.
        record: a file to append the table to, as a line of JSON.

    Raises:
        DataError: the data set has no labels.
        BsslError: see `bssl_tf.errors`.
    """
    given = {
        "source": data,
        "data_dir": data_dir,
        "download": download,
        "limit": limit,
        "max_unreadable_share": max_unreadable_share,
        "loading": loading,
        "image_size": image_size,
    }
    overrides = {name: plain(value) for name, value in given.items() if value is not None}
    options = TeacherOptions(teacher_pixels, 0, teacher_layout, teacher_output)
    found = evaluating.evaluate(
        Path(run), overrides, protocols=protocols, controls=controls, save=save, teacher=options
    )
    if record:
        append_record(Path(record), as_record(found))
    return found
