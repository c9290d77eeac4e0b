"""A Git LFS pointer or a web page in place of a file is called that, by whatever reads binary files."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from bssl_tf.backend import keras
from bssl_tf.errors import BsslError
from bssl_tf.keras_files.models import open_model
from bssl_tf.keras_files.weights import load_weights_file
from bssl_tf_converters.checkpoints.torch_checkpoint import read_torch_checkpoint
from bssl_tf_converters.tflite.inspection import inspect_model, read_file

POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:" + b"4d" * 32 + b"\nsize 12345\n"
PAGE = b"\n<!DOCTYPE html>\n<html><head><title>404</title></head></html>\n"


def weights(path: Path) -> None:
    image = keras.Input((4,))
    load_weights_file(keras.Model(image, keras.layers.Dense(2)(image)), path)


READERS: dict[str, Callable[[Path], object]] = {
    "teacher.pth": read_torch_checkpoint,
    "model.h5": lambda path: open_model(str(path)),
    "model.keras": lambda path: open_model(str(path)),
    "weights.h5": weights,
    "model.tflite": lambda path: inspect_model(read_file(path)),
}


@pytest.mark.parametrize("name", READERS)
@pytest.mark.parametrize(("content", "called"), [(POINTER, "is a Git LFS pointer"), (PAGE, r"is a web page \(HTML\)")])
def test_what_stands_in_place_of_a_file_is_named(name: str, content: bytes, called: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(BsslError, match=called):
        READERS[name](tmp_path / name)


@pytest.mark.parametrize("file", ["saved_model.pb", "keras_metadata.pb", "variables/variables.data-00000-of-00001"])
def test_a_part_of_a_saved_model_that_was_not_fetched_is_named(file: str, tmp_path: Path) -> None:
    image = keras.Input((4,))
    keras.Model(image, keras.layers.Dense(2)(image)).save(tmp_path / "model")
    (tmp_path / "model" / file).write_bytes(POINTER)
    with pytest.raises(BsslError, match=f"{Path(file).name} is a Git LFS pointer"):
        open_model(str(tmp_path / "model"))
