"""What `bssl-tf inspect` does: what a .tflite model or a bundle is made of and costs. Loads no TensorFlow."""

from __future__ import annotations

import os
from pathlib import Path

from bssl_tf.errors import ConversionError
from bssl_tf_converters.tflite.inspection import Inspection, inspect_model, read_file
from bssl_tf_deploy.bundle import read_bundle
from bssl_tf_deploy.system_errors import system_errors


@system_errors()
def inspect(file: str | os.PathLike[str]) -> Inspection:
    """Operators, MACs, weights and memory of a model.

    Args:
        file: a .tflite file, or a bundle's folder.

    Raises:
        ConversionError: the file is not a valid .tflite model.
        BundleError: the folder is not a valid bundle.
    """
    # Not Path.is_dir, which raises in a folder that may not be entered.
    content = read_bundle(Path(file)).model if os.path.isdir(file) else read_file(Path(file))  # noqa: PTH112
    try:
        return inspect_model(content)
    except ConversionError as error:
        raise ConversionError(f"{file}: {error.what}", "Give a .tflite file or a bundle, or get it again") from error
