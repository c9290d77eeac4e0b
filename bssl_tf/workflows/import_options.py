"""What an import is asked for, checked before TensorFlow is loaded."""

from __future__ import annotations

from pathlib import Path

from bssl_tf.errors import NetworkError, RunFolderError
from bssl_tf.files import storage_errors
from bssl_tf.preprocessing import Preprocessing
from bssl_tf.settings import check_choice
from bssl_tf_converters.checkpoints.teacher_formats import FORMATS


def settle_options(format: str, out: Path, image_size: int, checkpoint: str | Path | None = None) -> Preprocessing:
    """The teacher's preprocessing, unless `import_teacher` would refuse the name, a path or the size."""
    check_choice("the format", format, FORMATS)
    preprocessing = Preprocessing(image_size, 3, FORMATS[format].mean, FORMATS[format].std)
    with storage_errors(out):
        if out.exists() and (not out.is_dir() or any(out.iterdir())):
            raise RunFolderError(f"{out} is not an empty folder", "Choose another --out, or remove it")
    if checkpoint is not None and not Path(checkpoint).exists():
        raise NetworkError(f"there is no checkpoint at {checkpoint}", "Check the path")
    return preprocessing
