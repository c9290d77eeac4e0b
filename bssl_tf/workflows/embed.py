"""What `bssl-tf embed` does: the features of images, in a file for search, selection, or programs of one's own."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Sequence
from pathlib import Path

from bssl_tf.workflows.feature_networks import Stated, feature_network
from bssl_tf.workflows.vector_files import check_vector_output, write_vector_file
from bssl_tf_deploy.embedding import Embedded
from bssl_tf_deploy.embedding import embed as features_of_images
from bssl_tf_deploy.system_errors import system_errors


@system_errors()
def embed(
    model: str | os.PathLike[str],
    images: str | os.PathLike[str] | Sequence[str | os.PathLike[str]],
    *,
    out: str | Path,
    packed: bool = False,
    overwrite: bool = False,
    image_size: int | None = None,
    teacher_pixels: str | None = None,
    teacher_layout: str | None = None,
    teacher_output: str | None = None,
    threads: int = 1,
    runtime: str = "auto",
    trust_bundle_library: bool = False,
) -> Embedded:
    """Writes the features of images to a file.

    Features are what the network makes of an image before it decides on a class: images that it finds similar have
    similar ones. Of a bundle they are computed by the bundle's own model. Images are prepared as on a device.

    Args:
        model: a bundle; the folder of `pretrain`, `finetune`, `train_teacher` or `import_teacher`; `zoo:NAME`; or a
            saved model, which gives one vector for each image: a .keras, .h5 or .onnx file or a SavedModel, of which no
            code is run.
        images: files and folders. Names in the file are relative to a folder that is given alone.
        out: the file to write, `.npz` (see `bssl_tf_deploy.vectors`) or, with the extra `parquet`, `.parquet` (see
            `bssl_tf.workflows.vector_files`).
        packed: one bit per feature: whether it is above its mean over the images of the file.
        overwrite: replace `out`.
        image_size: of the images for a saved model that takes any size, pixels per side; None for 224.
        teacher_pixels: pixels of a saved model's input: `0..1`, `-1..1`, `0..255`, `imagenet`, `clip`, or MEAN/STD of
            pixel / 255. None for what an ONNX file shows; a Keras model does not show it.
        teacher_layout: axes of an ONNX file's input: `nchw`, `nhwc`, or None for what it shows.
        teacher_output: tensor of an ONNX file that holds the features; None to choose one.
        threads: of a bundle, for one image, 1 to 64.
        runtime: of a bundle: `own`, `lce`, or `auto`, see `bssl_tf_deploy.load`.
        trust_bundle_library: see `bssl_tf_deploy.load`.

    Returns:
        The vectors, and a line about each image that could not be read.

    Raises:
        ImageError: no image can be read.
        BundleError: the bundle is not sound, or not a classifier's.
        RunFolderError: `model` is none of these, or an unfinished run.
        NetworkError: the zoo has no such network, or a saved model cannot be opened, or gives something else.
        ConfigError: what a saved model does not state is missing, or stated of another network.
        StorageError: `out` exists, or cannot be written.
        RuntimeUnavailableError: the bundle cannot be run here, or `.parquet` cannot be written.
    """
    path = Path(out)
    check_vector_output(path, overwrite=overwrite)
    given = [images] if isinstance(images, (str, os.PathLike)) else images
    stated = Stated(image_size, teacher_pixels, teacher_layout, teacher_output)
    network = feature_network(
        model, stated, threads=threads, runtime=runtime, trust_bundle_library=trust_bundle_library
    )
    found = features_of_images(network, [os.fspath(image) for image in given])
    if packed:
        found = dataclasses.replace(found, vectors=found.vectors.packed())
    write_vector_file(path, found.vectors)
    return found
