"""What `bssl-tf export` does: a network is converted, compared with Keras, and written as a bundle for a target."""

from __future__ import annotations

import dataclasses
import logging
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from bssl_tf.data.image_set import spread_indices
from bssl_tf.environment import command_line, environment
from bssl_tf.files import append_record
from bssl_tf.progress import progress
from bssl_tf.tasks.task import Arrays
from bssl_tf.workflows.export_options import is_run, settle_options
from bssl_tf.workflows.exported import Exported
from bssl_tf.workflows.subjects import Subject, from_model, from_run
from bssl_tf_converters.lce.answers import both_outputs
from bssl_tf_converters.lce.detection_tail import with_detection_tail
from bssl_tf_converters.lce.export import Converted, convert_model
from bssl_tf_deploy import load
from bssl_tf_deploy import manifest as m
from bssl_tf_deploy.bundle import check_free, write_bundle
from bssl_tf_deploy.embedding import bundle_features
from bssl_tf_deploy.head_commands import learned, report_omitted
from bssl_tf_deploy.heads import Head, changing, write_head
from bssl_tf_deploy.library import Library, library_for
from bssl_tf_deploy.preprocess import whole_pixels
from bssl_tf_deploy.system_errors import system_errors

CALIBRATION_IMAGES = 200
COMPARED_IMAGES = 500
_BATCH = 64
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Conversion:
    """What the caller wants of the conversion; see `export`. `calibrate` is 0 without int8."""

    target: str
    input: str = "float32"
    calibrate: int = 0
    images: int | None = None
    allow: tuple[str, ...] = ()
    explain: bool = False
    postprocess: str = "none"


@system_errors()
def export(
    model: str | os.PathLike[str],
    *,
    target: str,
    out: str | Path | None = None,
    overwrite: bool = False,
    input: str = "float32",
    int8: bool = False,
    calibrate: int | None = None,
    images: int | None = None,
    allow: Sequence[str] = (),
    explain: bool = False,
    postprocess: str = "none",
    data: str | Path | None = None,
    data_dir: str | None = None,
    labels: str | Path | None = None,
    weights: str | Path | None = None,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    heads: Mapping[str, str | Path] | None = None,
    record: str | Path | None = None,
) -> Exported:
    """Converts a student and its linear probe or head, or any Keras 2 classifier, into a bundle for a device.

    Args:
        model: a run folder of `finetune`, or of `pretrain` that was evaluated; or FILE.h5, FILE.keras, a SavedModel
            folder, or larq_zoo:NAME; no code in it is run.
        target: where the bundle will run: `arm64`, `x86_64` or `android-arm64`.
        out: the bundle's folder; None for RUN/bundle-TARGET or MODEL-bundle-TARGET.
        overwrite: replace a bundle in `out`.
        input: the network's input: `float32` (normalised images), `uint8` (pixels that it normalises itself), or
            `int8` (with int8 output too).
        int8: convert float convolutions and dense layers to int8; implied by `input="int8"`.
        calibrate: training images to calibrate int8 on; None for 200.
        images: test images for the comparison with Keras and for the accuracy; None for 500 for the comparison, and
            all that have a label for the accuracy.
        allow: codes of checks whose errors count as warnings.
        explain: compare layer by layer, and name the first that differs; not with int8.
        postprocess: `tflite` ends a detector's model in TFLite_Detection_PostProcess, whose final boxes TFLite apps
            read; `none` leaves decoding to this package.
        data: images of a model that is not a run: `embedded`, `tfds:NAME`, or a folder.
        data_dir: where TFDS keeps its data; None for its default, or the folder recorded in the run's evaluation.
        labels: a file with a model's classes, one per line; None for the data's, if there are as many.
        weights: a weights file for larq_zoo:NAME; None for random weights.
        mean: a model's inputs are (pixel / 255 - mean) / std; one number, or one for each channel.
        std: see `mean`.
        heads: further heads by name, each learned from a folder with one folder of photos for each class, as
            `bssl-tf-deploy learn` does; answers by them are those of `bssl_tf_deploy.load(bundle, head=NAME)`.
        record: a file to append accuracy, parity and size to, as a line of JSON.

    Raises:
        UsageError: options do not go together.
        ConversionError: the network cannot be converted, or does not match the Keras network.
        BundleError: `out` is taken.
        BsslError: see `bssl_tf.errors`.
    """
    source = os.fspath(model)
    int8 = int8 or input == "int8"
    # Before all the work, not after.
    path = settle_options(
        source,
        target=target,
        out=out,
        overwrite=overwrite,
        input=input,
        int8=int8,
        calibrate=calibrate,
        explain=explain,
        postprocess=postprocess,
        of_model={"weights": weights, "data": data, "labels": labels, "mean": mean, "std": std},
        heads=heads or {},
    )
    subject = (
        from_run(Path(source), data_dir)
        if is_run(source)
        else from_model(source, weights=weights, data=data, data_dir=data_dir, labels=labels, mean=mean, std=std)
    )
    calibrated = (calibrate or CALIBRATION_IMAGES) if int8 else 0
    wanted = Conversion(target, input, calibrated, images, tuple(allow), explain, postprocess)
    done = export_subject(subject, wanted, path, overwrite=overwrite)
    if heads:
        done = dataclasses.replace(done, heads=_learn(path, heads))
    if record:
        options: dict[str, Any] = {
            "target": target,
            "out": out,
            "overwrite": overwrite,
            "input": None if input == "float32" else input,
        }
        options |= {"int8": int8 and input != "int8", "calibrate": calibrate, "images": images, "allow": list(allow)}
        options |= {
            "explain": explain,
            "postprocess": None if postprocess == "none" else postprocess,
            "data": data,
            "data_dir": data_dir,
            "labels": labels,
            "weights": weights,
        }
        options |= {name: ",".join(map(str, given)) for name, given in (("mean", mean), ("std", std)) if given}
        command = command_line("export", source, options)
        append_record(Path(record), _record(source, command, done.manifest, done.converted, calibrated))
    return done


def export_subject(subject: Subject, wanted: Conversion, path: Path, *, overwrite: bool = False) -> Exported:
    """Converts a network of any task, checks it against Keras, and writes its bundle.

    Args:
        subject: the network and what it is for.
        wanted: what is wanted of the conversion.
        path: the bundle's folder.
        overwrite: replace a bundle at `path`.

    Raises:
        ConversionError: the network cannot be converted, or does not match the Keras network.
        BundleError: `path` is taken.
        BsslError: see `bssl_tf.errors`.
    """
    check_free(path, overwrite=overwrite)
    _log.info(f"building the runtime for {wanted.target}")
    library = library_for(wanted.target)
    converted, table, words = _convert(subject, wanted)
    manifest = write_bundle(
        path,
        _manifest(subject, converted, table, library),
        converted.model,
        converted.golden_inputs,
        converted.golden_outputs,
        words,
        library=library.content,
        overwrite=overwrite,
    )
    return Exported(path, manifest, converted, library)


def _learn(bundle: Path, heads: Mapping[str, str | Path]) -> dict[str, Head]:
    """Heads on the features of the converted network, as they are on the device; writes them into the bundle."""
    predictor = load(bundle)
    network = bundle_features(predictor)
    found = {}
    for name, folder in heads.items():
        _log.info(f"learning the head {name}")
        head, photos = learned(network, Path(folder))
        with changing(predictor.bundle):
            write_head(predictor.bundle, name, head)
        report_omitted(head, photos)
        found[name] = head
    return found


def _convert(subject: Subject, wanted: Conversion) -> tuple[Converted, Any, Sequence[str]]:
    """The conversion, the task's table with what was measured, and a word for each golden input."""
    image_set, task = subject.image_set, subject.task
    chosen = spread_indices(len(image_set), wanted.images or COMPARED_IMAGES)
    views = task.views(image_set, subject.preprocessing, chosen)
    calibration = None
    if wanted.calibrate:
        calibration = task.views(
            subject.train, subject.preprocessing, spread_indices(len(subject.train), wanted.calibrate)
        )
    converted = convert_model(
        subject.model,
        views,
        wanted.target,
        wanted.allow,
        subject.preprocessing if wanted.input == "uint8" else None,
        calibration=calibration,
        int8_ends=wanted.input == "int8",
        explaining=wanted.explain,
        outputs=task.outputs(subject.model),
        agree=task.same_answers,
        least_agreement=task.least_agreement,
    )
    table = subject.table
    if image_set is not subject.train:
        # On all of them, so that it can stand beside the evaluation's; on those compared where their number was given.
        measured = np.arange(len(image_set)) if wanted.images is None else chosen
        plain = converted
        table = task.with_accuracy(table, image_set, measured, lambda some: _both(subject, plain, wanted, some))
    if wanted.postprocess == "tflite":
        _log.info("ending the model in TFLite's operator for boxes")
        pixels = subject.preprocessing
        taken = whole_pixels(views, pixels.mean, pixels.std) if wanted.input == "uint8" else views
        converted = with_detection_tail(converted, taken, table)
    return converted, table, task.example_words(image_set, chosen[converted.golden_indices])


def _both(
    subject: Subject, converted: Converted, wanted: Conversion, indices: np.ndarray
) -> Iterator[tuple[Arrays, Arrays]]:
    """Outputs of the Keras network and of the converted one for the images at `indices`, a batch at a time."""
    steps = progress(range(0, len(indices), _BATCH), total=-(-len(indices) // _BATCH), description="accuracy")
    views = (
        subject.task.views(subject.image_set, subject.preprocessing, indices[start : start + _BATCH]) for start in steps
    )
    pixels = subject.preprocessing if wanted.input == "uint8" else None
    outputs = subject.task.outputs(subject.model)
    return both_outputs(subject.model, converted.model, views, outputs, pixels, xnnpack=converted.xnnpack)


def _record(
    source: str, command: str, manifest: m.Manifest, converted: Converted, calibration_images: int
) -> dict[str, Any]:
    """What a conversion costs, for comparisons."""
    return {
        "source": source,
        "command": command,
        "target": manifest.target,
        "input": manifest.inputs[0].dtype,
        "int8_operators": manifest.binary.int8_operators,
        "calibration_images": calibration_images,
        "model_size_bytes": len(converted.model),
        "task": manifest.task,
        "table": dataclasses.asdict(manifest.table),
        "parity": dataclasses.asdict(manifest.parity),
        "training": manifest.training and dataclasses.asdict(manifest.training),
        **environment(0),
    }


def _manifest(subject: Subject, converted: Converted, table: Any, library: Library) -> m.Manifest:
    binary = dataclasses.asdict(converted.report)
    # On Android there is no glibc.
    of_library = {"runtime-compiler": library.compiler, "runtime-glibc": library.glibc}
    p = subject.preprocessing
    return m.Manifest(
        format=m.FORMAT,
        task=subject.task.name,
        commit=environment(0)["commit"],
        target=converted.target,
        created_by=converted.created_by | {name: version for name, version in of_library.items() if version},
        files={},
        inputs=converted.inputs,
        outputs=converted.outputs,
        preprocessing=m.Preprocessing(p.height, p.width, p.channels, p.mean, p.std),
        operators=binary.pop("operators"),
        binary=m.Binary(**binary),
        parity=converted.parity,
        network=subject.network,
        training=subject.training,
        table=table,
    )
