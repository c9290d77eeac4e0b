"""What `bssl-tf export` does: a classifier is converted, compared with Keras, and written as a bundle for a target."""

from __future__ import annotations

import dataclasses
import logging
import shlex
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from bssl_tf.data.image_set import spread_indices
from bssl_tf.data.preprocessing import evaluation_views
from bssl_tf.environment import environment
from bssl_tf.errors import ConfigError, UsageError
from bssl_tf.files import append_record
from bssl_tf.progress import progress
from bssl_tf.workflows.subjects import Subject, from_model, from_run, is_run
from bssl_tf_converters.lce.answers import answers
from bssl_tf_converters.lce.converter import INPUT_NAME, OUTPUT_NAME
from bssl_tf_converters.lce.export import Converted, convert_model
from bssl_tf_converters.lce.keras_models import ZOO_PREFIX
from bssl_tf_deploy import manifest as m
from bssl_tf_deploy.bundle import check_free, write_bundle
from bssl_tf_deploy.library import TARGETS, Library, library_for, refuse_32_bit

INPUTS = ("float32", "uint8", "int8")
CALIBRATION_IMAGES = 200
COMPARED_IMAGES = 500
_BATCH = 64
_log = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class Exported:
    """A bundle that was written, and what was found out on the way.

    Attributes:
        path: the bundle's folder.
        manifest: what its `manifest.json` states.
        converted: the converted network, and how it compares with Keras.
        library: the runtime library for its target.
    """

    path: Path
    manifest: m.Manifest
    converted: Converted
    library: Library

    def __repr__(self) -> str:
        return f"Exported({str(self.path)!r}, target={self.manifest.target!r})"


@dataclass(frozen=True)
class _Conversion:
    """What the caller wants of the conversion; `calibrate` is 0 without int8."""

    target: str
    input: str
    calibrate: int
    images: int | None
    allow: tuple[str, ...]
    explain: bool


def export(
    model: str | Path,
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
    data: str | Path | None = None,
    data_dir: str | None = None,
    labels: str | Path | None = None,
    weights: str | Path | None = None,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    record: str | Path | None = None,
) -> Exported:
    """Converts a student and its linear probe, or any Keras 2 classifier, into a bundle for a device.

    Args:
        model: a run folder of `pretrain` that was evaluated; or FILE.h5, FILE.keras, a SavedModel folder, or
            larq_zoo:NAME, of which no code is run.
        target: where the bundle is to run: `arm64`, `x86_64` or `android-arm64`.
        out: the bundle's folder; None for RUN/bundle-TARGET or MODEL-bundle-TARGET.
        overwrite: replace a bundle in `out`.
        input: what the network takes: `float32` (normalised images), `uint8` (pixels that it normalises itself), or
            `int8` (and then it gives int8 too).
        int8: float convolutions and dense layers in int8; implied by `input="int8"`.
        calibrate: training images to calibrate int8 on; None for 200.
        images: test images to compare with Keras, and to measure accuracy on; None for 500 to compare, and for the
            accuracy all of them that have a label.
        allow: codes of checks whose errors count as warnings.
        explain: compare layer by layer, and name the first that differs; not with int8.
        data: images of a model that is not a run: `embedded`, `tfds:NAME`, or a folder.
        data_dir: where TFDS keeps its data; None for its own default, or the place in the run's evaluation.
        labels: a file with a model's classes, one a line; None for the data's, if there are as many.
        weights: a weights file for larq_zoo:NAME, which has random ones without.
        mean: a model's inputs are (pixel / 255 - mean) / std; one number, or one for each channel.
        std: see `mean`.
        record: a file that gets a line of JSON with accuracy, parity and size.

    Raises:
        UsageError: options do not go together.
        ConversionError: the network cannot be converted, or does not give what the Keras network gives.
        BundleError: `out` is taken.
        BsslError: see `bssl_tf.errors`.
    """
    _check_choices(target, input)
    source = str(model)
    int8 = int8 or input == "int8"
    if int8 and explain:
        raise UsageError("--explain compares with Keras to the last bit, which int8 does not keep", "Omit one of them")
    if calibrate is not None and not int8:
        raise UsageError("--calibrate needs --int8 or --input int8", "Add one of these, or omit it")
    run = is_run(source)
    if run:
        _refuse({"weights": weights, "data": data, "labels": labels, "mean": mean, "std": std})
    path = Path(out) if out else _default_out(source, _variant(target, input, int8), is_run=run)
    # Before all the work, not after.
    check_free(path, overwrite=overwrite)
    subject = (
        from_run(Path(source), data_dir)
        if run
        else from_model(source, weights=weights, data=data, data_dir=data_dir, labels=labels, mean=mean, std=std)
    )
    _log.info(f"building the runtime for {target}")
    library = library_for(target)
    calibrated = (calibrate or CALIBRATION_IMAGES) if int8 else 0
    wanted = _Conversion(target, input, calibrated, images, tuple(allow), explain)
    converted, accuracy, example_labels = _convert(subject, wanted)
    manifest = write_bundle(
        path,
        _manifest(subject, converted, accuracy, library),
        converted.model,
        converted.golden_inputs,
        converted.golden_outputs,
        example_labels,
        library=library.content,
        overwrite=overwrite,
    )
    if record:
        append_record(Path(record), _record(source, manifest, converted, calibrated))
    return Exported(path, manifest, converted, library)


def _check_choices(target: str, input: str) -> None:
    refuse_32_bit(target)
    for name, value, known in (("target", target, TARGETS), ("input", input, INPUTS)):
        if value not in known:
            raise ConfigError(f"{name} is {value!r}", f"Choose one of {', '.join(known)}")


def _refuse(given: dict[str, object]) -> None:
    """Raises `UsageError` for an option that a run folder would make do nothing."""
    for name, value in given.items():
        if value is not None:
            raise UsageError(f"--{name} does not go with a run folder, which has its own", "Omit it")


def _variant(target: str, input: str, int8: bool) -> str:
    """What a bundle's folder is called after."""
    words = [target] if input == "float32" and not int8 else [target, input]
    return "-".join([*words, "int8"] if int8 and input != "int8" else words)


def _default_out(source: str, variant: str, *, is_run: bool) -> Path:
    path = Path(source.removeprefix(ZOO_PREFIX))
    if is_run:
        return path / f"bundle-{variant}"
    return path.parent / f"{path.name if path.is_dir() else path.stem}-bundle-{variant}"


def _convert(subject: Subject, wanted: _Conversion) -> tuple[Converted, m.Accuracy | None, list[str]]:
    """The conversion, its accuracy if it can be known, and a word for each golden input: its true class, if known."""
    image_set = subject.image_set
    chosen = spread_indices(len(image_set), wanted.images or COMPARED_IMAGES)
    views = evaluation_views(image_set, subject.preprocessing, chosen)
    calibration = None
    if wanted.calibrate:
        calibration = evaluation_views(
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
    )
    golden = chosen[converted.golden_indices]
    if image_set.labels is None:
        return converted, None, ["image"] * len(golden)
    words = [image_set.class_names[label] for label in image_set.labels[golden]]
    return converted, _accuracy(subject, converted, wanted, chosen), words


def _accuracy(subject: Subject, converted: Converted, wanted: _Conversion, compared: np.ndarray) -> m.Accuracy | None:
    """Top-1 of both networks on test images whose class the model has; None where there are none.

    All of them, so that it can stand beside the evaluation's; those that were compared where their number was given.
    """
    if subject.image_set is subject.train:
        return None
    all_labels = subject.image_set.labels_as(subject.labels)
    chosen = np.arange(len(all_labels)) if wanted.images is None else compared
    chosen = chosen[all_labels[chosen] >= 0]
    if not len(chosen):
        return None
    _report_unmatched(subject, all_labels)
    steps = progress(range(0, len(chosen), _BATCH), total=-(-len(chosen) // _BATCH), description="accuracy")
    views = (
        evaluation_views(subject.image_set, subject.preprocessing, chosen[start : start + _BATCH]) for start in steps
    )
    pixels = subject.preprocessing if wanted.input == "uint8" else None
    both = answers(subject.model, converted.model, views, pixels)
    keras_own, own = (100 * float((best == all_labels[chosen]).mean()) for best in both)
    return m.Accuracy(len(chosen), own, keras_own)


def _report_unmatched(subject: Subject, labels: np.ndarray) -> None:
    """Names the classes of test images that the model lacks, and the model's classes without a test image."""
    images = subject.image_set
    unknown = labels < 0
    if unknown.any():
        names = sorted({images.class_names[label] for label in images.require_labels()[unknown]})
        count = int(unknown.sum())
        what = "1 test image is" if count == 1 else f"{count} test images are"
        _log.warning(f"{what} of a class that is not among the labels, and left out of the accuracy: {_some(names)}")
    seen = set(labels.tolist())
    if missing := [name for place, name in enumerate(subject.labels) if place not in seen]:
        _log.warning(f"{len(missing)} of {len(subject.labels)} labels have no test image: {_some(missing)}")


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:5]) + (", ..." if len(names) > 5 else "")


def _record(source: str, manifest: m.Manifest, converted: Converted, calibration_images: int) -> dict[str, Any]:
    """What a conversion costs, for comparisons."""
    return {
        "source": source,
        "command": shlex.join(["bssl-tf", *sys.argv[1:]]),
        "target": manifest.target,
        "input": manifest.signature.input.dtype,
        "int8_operators": manifest.binary.int8_operators,
        "calibration_images": calibration_images,
        "model_size_bytes": len(converted.model),
        "accuracy": manifest.accuracy and dataclasses.asdict(manifest.accuracy),
        "parity": dataclasses.asdict(manifest.parity),
        "training": manifest.training and dataclasses.asdict(manifest.training),
        **environment(0),
    }


def _manifest(subject: Subject, converted: Converted, accuracy: m.Accuracy | None, library: Library) -> m.Manifest:
    binary = dataclasses.asdict(converted.report)
    p = subject.preprocessing
    return m.Manifest(
        format=m.FORMAT,
        target=converted.target,
        created_by=converted.created_by | {"runtime-compiler": library.compiler, "runtime-glibc": library.glibc},
        files={},
        signature=m.Signature(
            m.TensorSignature(
                INPUT_NAME, converted.input_shape, converted.golden_inputs.dtype.name, converted.input_quantization
            ),
            m.TensorSignature(
                OUTPUT_NAME,
                converted.output_shape,
                "int8" if converted.output_quantization else "float32",
                converted.output_quantization,
            ),
        ),
        preprocessing=m.Preprocessing(p.image_size, p.channels, p.mean, p.std),
        labels=subject.labels,
        operators=binary.pop("operators"),
        binary=m.Binary(**binary),
        parity=m.ParityFigures(**dataclasses.asdict(converted.parity)),
        network=subject.network,
        training=subject.training,
        accuracy=accuracy,
    )
