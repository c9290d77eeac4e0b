"""`bssl-tf export`."""

from __future__ import annotations

import dataclasses
import json
import shlex
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from bssl_tf.cli import completion
from bssl_tf.cli.options import allow_option, explain_option, prose, record_option, weights_option
from bssl_tf.errors import ConfigError, ConversionError, RuntimeUnavailableError

if TYPE_CHECKING:
    import numpy as np

    from bssl_tf.backend import keras
    from bssl_tf.data.image_set import ImageSet
    from bssl_tf.data.preprocessing import evaluation_views
    from bssl_tf.preprocessing import Preprocessing
    from bssl_tf_converters.lce.export import Converted
    from bssl_tf_deploy.library import Library
    from bssl_tf_deploy.manifest import Accuracy, Manifest, NetworkDescription, Training

TARGETS = ("arm64", "x86_64", "android-arm64")
_ARM32 = ("arm32", "arm", "armhf", "armv6", "armv7", "armv7l")
# As in `bssl_tf_converters.lce.keras_models`, which loads TensorFlow.
_ZOO_PREFIX = "larq_zoo:"
# What a run folder knows, and any other model has to be told.
_OF_MODELS = ("weights", "data", "labels", "mean", "std")


@dataclass(frozen=True, eq=False)
class _Subject:
    """A classifier and what its bundle says of it, beside the conversion.

    Attributes:
        model: from preprocessed images to logits.
        preprocessing: of images.
        labels: K names.
        image_set: what to compare on, and to choose golden inputs from.
        train: what to calibrate on.
        network: how to build it.
        training: where its weights come from, if that was bssl-tf.
    """

    model: keras.Model
    preprocessing: Preprocessing
    labels: tuple[str, ...]
    image_set: ImageSet
    train: ImageSet
    network: NetworkDescription
    training: Training | None


class _Numbers(click.ParamType):
    """Numbers with commas between."""

    name = "numbers"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[float, ...]:
        try:
            return value if isinstance(value, tuple) else tuple(float(word) for word in value.split(","))
        except ValueError:
            self.fail(f"{value!r} is not a list of numbers with commas between, as in 0.485,0.456,0.406", param, ctx)


class _Target(click.Choice):
    """A target; those of 32-bit ARM are refused with the reason."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if value in _ARM32:
            raise RuntimeUnavailableError(
                f"there is no runtime for {value}: interpreters hand operators over by value, in a structure that has "
                "grown with their versions, which only the calling conventions of 64-bit processors forgive",
                "Install a 64-bit system (a Raspberry Pi 3 or newer runs one) and export for arm64",
            )
        return super().convert(value, param, ctx)


@click.command("export")
@click.argument("model", metavar="RUN|MODEL", shell_complete=completion.models)
@click.option("--target", required=True, type=_Target(TARGETS), help="Where the bundle is to run.")
@click.option(
    "--out",
    metavar="DIR",
    shell_complete=completion.folders,
    help="The bundle. [RUN/bundle-TARGET, MODEL-bundle-TARGET]",
)
@click.option("--overwrite", is_flag=True, help="Replace a bundle in --out.")
@click.option(
    "--input",
    "input_dtype",
    default="float32",
    show_default=True,
    type=click.Choice(("float32", "uint8", "int8")),
    help="What the network takes: normalised images, pixels that it normalises itself, or int8 (it gives int8 too).",
)
@click.option("--int8", is_flag=True, help="Float convolutions and dense layers in int8; so with --input int8.")
@click.option(
    "--calibrate",
    "calibration_images",
    default=200,
    show_default=True,
    type=click.IntRange(min=1),
    help="Training images to calibrate int8 on.",
)
@click.option(
    "--images", default=500, show_default=True, type=click.IntRange(min=1), help="Test images to compare with Keras on."
)
@allow_option
@explain_option
@click.option(
    "--data",
    metavar="SOURCE",
    shell_complete=completion.sources,
    help="MODEL's images: embedded, tfds:NAME, or a folder of images.",
)
@click.option(
    "--data-dir",
    metavar="DIR",
    shell_complete=completion.folders,
    help="Where TFDS keeps its data. [as in the evaluation]",
)
@click.option(
    "--labels",
    metavar="FILE",
    shell_complete=completion.files,
    help="MODEL's classes, one a line. [the data's, if there are as many]",
)
@weights_option
@click.option(
    "--mean",
    type=_Numbers(),
    help="MODEL's inputs are (pixel / 255 - mean) / std. [0; 0.485,0.456,0.406 for larq_zoo:NAME]",
)
@click.option("--std", type=_Numbers(), help="One number, or one a channel. [1; 0.229,0.224,0.225 for larq_zoo:NAME]")
@record_option("Append accuracy, parity and size to FILE, a line of JSON each.")
@click.option("--json", "as_json", is_flag=True, help="Print the manifest as JSON.")
def command(
    model: str,
    target: str,
    out: str | None,
    overwrite: bool,
    input_dtype: str,
    int8: bool,
    calibration_images: int,
    images: int,
    allowed: tuple[str, ...],
    explaining: bool,
    data: str | None,
    data_dir: str | None,
    labels: str | None,
    weights: str | None,
    mean: tuple[float, ...] | None,
    std: tuple[float, ...] | None,
    record_file: str | None,
    as_json: bool,
) -> None:
    """Convert a student and its linear probe, or any Keras 2 classifier, into a bundle for a device.

    RUN is a folder of `bssl-tf pretrain` that `bssl-tf evaluate` has been through. MODEL is FILE.h5, FILE.keras, a
    SavedModel folder, or larq_zoo:NAME with --weights, a file that load_weights takes; no code in it is run, and it
    needs --data, and --mean and --std as in its training.

    The converted network is checked: every binary layer must still be binary (`bssl-tf check` says more), and it must
    say what the Keras network says on test images. In int8, where it rounds more than that, its accuracy is told
    beside that of the Keras network. The bundle also gets the runtime library for its target, compiled
    here if needed (`pip install ziglang` brings a compiler for all).
    """
    from bssl_tf.files import append_record
    from bssl_tf_deploy.bundle import MODEL, check_free, write_bundle
    from bssl_tf_deploy.library import bundled_name, library_for

    int8 = int8 or input_dtype == "int8"
    if int8 and explaining:
        raise click.UsageError("--explain compares with Keras to the last bit, which int8 does not keep; leave it out")
    context = click.get_current_context()
    if not int8 and context.get_parameter_source("calibration_images") is ParameterSource.COMMANDLINE:
        raise click.UsageError("--calibrate needs --int8 or --input int8")
    is_run = _is_run(model)
    if is_run:
        _refuse_options(context)
    variant = [target] if input_dtype == "float32" and not int8 else [target, input_dtype]
    if int8 and input_dtype != "int8":
        variant.append("int8")
    path = Path(out) if out else _default_out(model, "-".join(variant), is_run=is_run)
    # Before all the work, not after.
    check_free(path, overwrite=overwrite)
    subject = (
        _from_run(Path(model), data_dir) if is_run else _from_model(model, weights, data, data_dir, labels, mean, std)
    )
    prose(f"building the runtime for {target}")
    library = library_for(target)
    calibration = calibration_images if int8 else 0
    found = _convert(subject, target, images, allowed, input_dtype, calibration, explaining=explaining)
    converted, accuracy, example_labels = found
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
    if record_file:
        append_record(Path(record_file), _record(model, manifest, converted, calibration))
    if as_json:
        click.echo(json.dumps({"bundle": str(path), "manifest": manifest.to_dict()}, indent=2, sort_keys=True))
        return
    binary, parity = converted.report, converted.parity
    click.echo(f"{path}: {MODEL} has {len(converted.model) / 1024:.1f} KiB")
    click.echo(
        f"{binary.binary_convolutions} binary convolutions (LceBconv2d), {binary.float_convolutions} float, "
        f"{binary.fully_connected} float dense"
        + (f", {binary.int8_operators} convolutions and dense operators in int8" if int8 else "")
    )
    beside = "Keras, rounded to int8 in the same way," if int8 else "Keras"
    click.echo(
        f"parity with {beside} on {parity.images} images: {100 * parity.top1_agreement:.2f} % same best class, "
        f"{100 * parity.share_within_tolerance:.2f} % within {parity.tolerance:.2g}, "
        f"differences {parity.median_abs_difference:.2g} (median) to {parity.max_abs_difference:.2g} (largest)"
    )
    if accuracy is not None:
        click.echo(
            f"top-1 on {accuracy.images} test images: {accuracy.top1_percent:.2f} %, "
            f"{accuracy.keras_top1_percent:.2f} % in Keras"
        )
    else:
        prose("accuracy is not measured: there are no labelled test images of these classes")
        if int8:
            same = (converted.logits.argmax(axis=1) == converted.keras_logits.argmax(axis=1)).mean()
            click.echo(f"same best class as Keras in float32 on {parity.images} images: {100 * same:.2f} %")
    needs = f", needs glibc {library.glibc} or newer" if library.glibc else ""
    click.echo(f"{bundled_name(target)}: {len(library.content) / 1024:.1f} KiB, by {library.compiler}{needs}")
    quoted = shlex.quote(str(path))
    prose(f"next: bssl-tf run {quoted} IMAGE, or bssl-tf bench {quoted}")


def _is_run(source: str) -> bool:
    """Whether `source` names a run folder; of what is not there, only a file's name says that it is a model."""
    path = Path(source)
    if path.exists():
        return (path / "config.toml").is_file()
    return not source.startswith(_ZOO_PREFIX) and path.suffix not in (".h5", ".hdf5", ".keras")


def _refuse_options(context: click.Context) -> None:
    """Raises `click.UsageError` for an option that would do nothing."""
    for name in _OF_MODELS:
        if context.get_parameter_source(name) is ParameterSource.COMMANDLINE:
            raise click.UsageError(f"--{name} does not go with a run folder, which has its own; leave it out")


def _default_out(source: str, target: str, *, is_run: bool) -> Path:
    path = Path(source.removeprefix(_ZOO_PREFIX))
    if is_run:
        return path / f"bundle-{target}"
    return path.parent / f"{path.name if path.is_dir() else path.stem}-bundle-{target}"


def _from_run(run: Path, data_dir: str | None) -> _Subject:
    from bssl_tf.data.open import open_data
    from bssl_tf.evaluation.linear_probe import load_probe
    from bssl_tf.models.saved import load_weights, read_network
    from bssl_tf.workflows.evaluate import run_config
    from bssl_tf_converters.lce.deployable import with_classifier
    from bssl_tf_deploy.manifest import NetworkDescription, Training

    config = run_config(run)
    probe = load_probe(run / "probe")
    network = read_network(run / "student")
    student = network.build()
    load_weights(run / "student", {"student": student})
    source = probe.data.source
    again = f"bssl-tf evaluate {shlex.quote(str(run))} --data FOLDER"
    data = open_data(
        dataclasses.replace(probe.data, data_dir=data_dir or probe.data.data_dir),
        prose,
        labels_needed=True,
        lost=f"{run / 'probe/probe.json'} names it, as seen from where the run was evaluated: `{again}` with its place",
    )
    # A folder's name is enough; where it lay on this machine says nothing elsewhere.
    name = source if source == "embedded" or source.startswith("tfds:") else Path(source).name
    return _Subject(
        with_classifier(student, probe.weights, probe.bias),
        network.preprocessing,
        probe.class_names,
        data.test if data.test is not None and len(data.test) else data.train,
        data.train,
        NetworkDescription(network.backbone, network.arguments),
        Training(config.method, name, probe.top1, config.training.seed),
    )


def _from_model(
    source: str,
    weights: str | None,
    data_source: str | None,
    data_dir: str | None,
    labels: str | None,
    mean: tuple[float, ...] | None,
    std: tuple[float, ...] | None,
) -> _Subject:
    from bssl_tf.data.open import open_data
    from bssl_tf.preprocessing import Preprocessing
    from bssl_tf.settings import DataConfig
    from bssl_tf.workflows.networks import open_network
    from bssl_tf_converters.lce.export import without_softmax
    from bssl_tf_converters.lce.keras_models import ZOO_MEAN, ZOO_STD
    from bssl_tf_deploy.manifest import NetworkDescription

    if not data_source:
        raise ConfigError(
            f"{source} does not say what images it is for",
            "Pass --data FOLDER, --data tfds:NAME or --data embedded, and --mean and --std as in its training",
        )
    model = without_softmax(open_network(source, Path(weights) if weights else None), prose)
    if (
        len(model.inputs) != 1
        or len(model.outputs) != 1
        or len(model.output.shape) != 2
        # Of a single number (yes or no behind a sigmoid) the best would always be the first.
        or model.output.shape[-1] == 1
    ):
        raise ConversionError(
            f"{source} is no classifier: it gives {[list(tensor.shape) for tensor in model.outputs]}",
            "Give a model with one input, and with one number a class as output, two for yes and no",
        )
    height, width, channels = model.input.shape[1:] if len(model.input.shape) == 4 else (0, 1, 0)
    if height != width or not height or channels not in (1, 3):
        raise ConversionError(
            f"{source} takes {list(model.input.shape)}, and bundles are for square images, grey or RGB",
            "Build the model for images [S, S, 1] or [S, S, 3] of a fixed size",
        )
    usual = (ZOO_MEAN, ZOO_STD) if source.startswith(_ZOO_PREFIX) else ((0.0,), (1.0,))
    constants = [
        numbers * channels if len(numbers) == 1 else numbers for numbers in (mean or usual[0], std or usual[1])
    ]
    try:
        preprocessing = Preprocessing(height, channels, *constants)
    except ConfigError as error:
        raise ConfigError(
            error.what, "Give --mean and --std as in its training: one number, or one a channel"
        ) from error
    config = DataConfig(data_source, data_dir or "", image_size=height, channels=channels)
    data = open_data(config, prose, labels_needed=False)
    image_set = data.test if data.test is not None and len(data.test) else data.train
    names = _labels(labels, image_set, model.output.shape[-1])
    return _Subject(model, preprocessing, names, image_set, data.train, NetworkDescription(model.name, {}), None)


def _labels(file: str | None, image_set: ImageSet, count: int) -> tuple[str, ...]:
    """One name for each class: out of the file, else the data's if there are as many, else numbers."""
    if file is None:
        if len(image_set.class_names) == count:
            return image_set.class_names
        return tuple(map(str, range(count)))
    try:
        names = tuple(line.strip() for line in Path(file).read_text(encoding="utf-8").splitlines() if line.strip())
    except (OSError, ValueError) as error:
        cause = error.strerror if isinstance(error, OSError) else "it is no text in UTF-8"
        raise ConfigError(f"{file} cannot be read ({cause})", "Give a text file with one label a line") from error
    if len(names) != count:
        raise ConfigError(f"{file} has {len(names)} labels, and the model {count} classes", "Give one label a line")
    return names


def _convert(
    subject: _Subject,
    target: str,
    images: int,
    allowed: tuple[str, ...],
    input_dtype: str,
    calibration_images: int,
    *,
    explaining: bool,
) -> tuple[Converted, Accuracy | None, list[str]]:
    """The conversion, its accuracy if it can be known, and a word for each golden input: its true class, if known."""
    from bssl_tf.data.image_set import spread_indices
    from bssl_tf_converters.lce.export import convert_model

    image_set = subject.image_set
    chosen = spread_indices(len(image_set), images)
    views = evaluation_views(image_set, subject.preprocessing, chosen)
    calibration = None
    if calibration_images:
        calibration = evaluation_views(
            subject.train, subject.preprocessing, spread_indices(len(subject.train), calibration_images)
        )
    converted = convert_model(
        subject.model,
        views,
        target,
        prose,
        allowed,
        subject.preprocessing if input_dtype == "uint8" else None,
        calibration=calibration,
        int8_ends=input_dtype == "int8",
        explaining=explaining,
    )
    golden = chosen[converted.golden_indices]
    if image_set.labels is None:
        return converted, None, ["image"] * len(golden)
    words = [image_set.class_names[label] for label in image_set.labels[golden]]
    return converted, _accuracy(subject, converted, image_set.labels[chosen]), words


def _accuracy(subject: _Subject, converted: Converted, labels: np.ndarray) -> Accuracy | None:
    """Top-1 of both networks; None where these are no test images, or the model's classes are not the data's."""
    from bssl_tf_deploy.manifest import Accuracy

    if subject.image_set is subject.train or subject.image_set.class_names != subject.labels:
        return None
    own, keras_own = (
        100 * float((logits.argmax(axis=1) == labels).mean()) for logits in (converted.logits, converted.keras_logits)
    )
    return Accuracy(len(labels), own, keras_own)


def _record(source: str, manifest: Manifest, converted: Converted, calibration_images: int) -> dict[str, Any]:
    """What a conversion costs, for comparisons."""
    from bssl_tf.environment import environment

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


def _manifest(subject: _Subject, converted: Converted, accuracy: Accuracy | None, library: Library) -> Manifest:
    from bssl_tf_converters.lce.converter import INPUT_NAME, OUTPUT_NAME
    from bssl_tf_deploy import manifest as m

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
