"""Options about networks that are not trained here: of `check`, `export`, `pretrain`, `evaluate` and `embed`."""

from __future__ import annotations

import click

from bssl_tf.cli import completion
from bssl_tf.cli.options import Function, runtime_options

weights_option = click.option(
    "--weights",
    metavar="FILE",
    shell_complete=completion.files,
    show_default="random ones",
    help="HDF5 file with weights for larq_zoo:NAME.",
)
allow_option = click.option(
    "--allow",
    multiple=True,
    metavar="CODE",
    shell_complete=completion.codes,
    help="Treat errors of this check as warnings.",
)
explain_option = click.option(
    "--explain", is_flag=True, help="Compare layer by layer and name the first layer that differs."
)
postprocess_option = click.option(
    "--postprocess",
    default="none",
    type=click.Choice(("none", "tflite")),
    help="For detectors: tflite ends the model in TFLite_Detection_PostProcess, as TFLite apps expect.",
)


_OF_DATA = "normalized; of an ONNX file, what it shows"


def network_options(function: Function, pixels_default: str = _OF_DATA) -> Function:
    """What a saved model, or an ONNX file, does not show itself."""
    for option in reversed(
        [
            click.option(
                "--teacher-pixels",
                "--pixels",
                "teacher_pixels",
                metavar="RANGE",
                shell_complete=completion.words("normalized", "0..1", "-1..1", "0..255", "imagenet", "clip"),
                show_default=pixels_default,
                help="Pixels of a saved model: normalized, 0..1, -1..1, 0..255, imagenet, clip, or MEAN/STD.",
            ),
            click.option(
                "--teacher-layout",
                metavar="AXES",
                shell_complete=completion.words("nchw", "nhwc"),
                show_default="what it shows",
                help="Axes of an ONNX file's input: nchw or nhwc.",
            ),
            click.option(
                "--teacher-output",
                metavar="NAME",
                show_default="the only one, or a usual name",
                help="Tensor of an ONNX file that holds the features.",
            ),
        ]
    ):
        function = option(function)
    return function


def feature_options(function: Function) -> Function:
    """What the network that gives features does not show itself, and what runs a bundle."""
    size = click.option(
        "--image-size",
        type=click.IntRange(min=1),
        metavar="PX",
        show_default="224",
        help="Size of the images for a saved model that takes any size, pixels per side.",
    )
    return size(network_options(runtime_options(function), "what an ONNX file shows"))
