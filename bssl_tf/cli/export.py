"""`bssl-tf export`."""

from __future__ import annotations

import dataclasses
import json
import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from bssl_tf.cli.options import prose
from bssl_tf.errors import RuntimeUnavailableError

if TYPE_CHECKING:
    from bssl_tf.evaluation.linear_probe import LinearProbe
    from bssl_tf.models.saved import Network
    from bssl_tf_converters.export import Converted
    from bssl_tf_deploy.library import Library
    from bssl_tf_deploy.manifest import Manifest, Training

TARGETS = ("arm64", "x86_64", "android-arm64")
_ARM32 = ("arm32", "arm", "armhf", "armv6", "armv7", "armv7l")


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
@click.argument("run")
@click.option("--target", required=True, type=_Target(TARGETS), help="Where the bundle is to run.")
@click.option("--out", metavar="DIR", help="The bundle. [RUN/bundle-TARGET]")
@click.option("--overwrite", is_flag=True, help="Replace a bundle in --out.")
@click.option(
    "--images", default=500, show_default=True, type=click.IntRange(min=1), help="Test images to compare with Keras on."
)
@click.option("--allow", "allowed", multiple=True, metavar="CODE", help="Let errors of this check pass as warnings.")
@click.option("--data-dir", metavar="DIR", help="Where TFDS keeps its data. [as in the evaluation]")
@click.option("--json", "as_json", is_flag=True, help="Print the record as JSON.")
def command(
    run: str,
    target: str,
    out: str | None,
    overwrite: bool,
    images: int,
    allowed: tuple[str, ...],
    data_dir: str | None,
    as_json: bool,
) -> None:
    """Convert the student and the linear probe of RUN into a bundle for a device.

    RUN is a folder of `bssl-tf pretrain` that `bssl-tf evaluate` has been through. The converted network is checked:
    every binary layer must still be binary (`bssl-tf check` says more), and it must say what the Keras network says on
    test images. The bundle also gets the runtime library for its target, compiled here if needed (`pip install ziglang`
    brings a compiler for all).
    """
    from bssl_tf_deploy.bundle import MODEL, check_free, write_bundle
    from bssl_tf_deploy.library import bundled_name, library_for
    from bssl_tf_deploy.manifest import Training

    folder = Path(run)
    path = Path(out) if out else folder / f"bundle-{target}"
    # Before all the work, not after.
    check_free(path, overwrite=overwrite)

    from bssl_tf.evaluation.commands import run_config
    from bssl_tf.evaluation.linear_probe import load_probe

    config = run_config(folder)
    probe = load_probe(folder / "probe")
    prose(f"building the runtime for {target}")
    library = library_for(target)
    network, converted, example_labels = _convert(folder, probe, target, images, data_dir, allowed)
    source = probe.data.source
    # A folder's name is enough; where it lay on this machine says nothing elsewhere.
    data = source if source == "embedded" or source.startswith("tfds:") else Path(source).name
    training = Training(config.method, data, probe.top1, config.training.seed)
    manifest = write_bundle(
        path,
        _manifest(network, probe, converted, training, library),
        converted.model,
        converted.golden_inputs,
        converted.golden_outputs,
        example_labels,
        library=library.content,
        overwrite=overwrite,
    )
    if as_json:
        click.echo(json.dumps({"bundle": str(path), "manifest": manifest.to_dict()}, indent=2, sort_keys=True))
        return
    binary, parity = converted.report, converted.parity
    click.echo(f"{path}: {MODEL} has {len(converted.model) / 1024:.1f} KiB")
    click.echo(
        f"{binary.binary_convolutions} binary convolutions (LceBconv2d), {binary.float_convolutions} float, "
        f"{binary.fully_connected} float dense"
    )
    click.echo(
        f"parity with Keras on {parity.images} images: {100 * parity.top1_agreement:.2f} % same best class, "
        f"{100 * parity.share_within_tolerance:.2f} % within {parity.tolerance:.2g}, "
        f"differences {parity.median_abs_difference:.2g} (median) to {parity.max_abs_difference:.2g} (largest)"
    )
    needs = f", needs glibc {library.glibc} or newer" if library.glibc else ""
    click.echo(f"{bundled_name(target)}: {len(library.content) / 1024:.1f} KiB, by {library.compiler}{needs}")
    quoted = shlex.quote(str(path))
    prose(f"next: bssl-tf run {quoted} IMAGE, or bssl-tf bench {quoted}")


def _convert(
    run: Path, probe: LinearProbe, target: str, images: int, data_dir: str | None, allowed: tuple[str, ...]
) -> tuple[Network, Converted, list[str]]:
    from bssl_tf.data.image_set import spread_indices
    from bssl_tf.data.open import open_data
    from bssl_tf.models.saved import load_weights, read_network
    from bssl_tf_converters.export import convert_student

    network = read_network(run / "student")
    student = network.build()
    load_weights(run / "student", {"student": student})
    data = open_data(
        dataclasses.replace(probe.data, data_dir=data_dir or probe.data.data_dir), prose, labels_needed=True
    )
    image_set = data.test if data.test is not None and len(data.test) else data.train
    chosen = spread_indices(len(image_set), images)
    views = network.preprocessing.eval_view(image_set, chosen)
    converted = convert_student(student, probe.weights, probe.bias, views, target, prose, allowed)
    labels = image_set.require_labels()[chosen[converted.golden_indices]]
    return network, converted, [image_set.class_names[label] for label in labels]


def _manifest(
    network: Network, probe: LinearProbe, converted: Converted, training: Training, library: Library
) -> Manifest:
    from bssl_tf_converters.lce import INPUT_NAME, OUTPUT_NAME
    from bssl_tf_deploy import manifest as m

    binary = dataclasses.asdict(converted.report)
    p = network.preprocessing
    return m.Manifest(
        format=m.FORMAT,
        target=converted.target,
        created_by=converted.created_by | {"runtime-compiler": library.compiler, "runtime-glibc": library.glibc},
        files={},
        signature=m.Signature(
            m.TensorSignature(INPUT_NAME, converted.input_shape, "float32"),
            m.TensorSignature(OUTPUT_NAME, converted.output_shape, "float32"),
        ),
        preprocessing=m.Preprocessing(p.image_size, p.channels, p.mean, p.std),
        labels=probe.class_names,
        operators=binary.pop("operators"),
        binary=m.Binary(**binary),
        parity=m.ParityFigures(**dataclasses.asdict(converted.parity)),
        network=m.NetworkDescription(network.backbone, network.arguments),
        training=training,
    )
