from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

import numpy as np
import pytest

from bssl_tf.data.embedded import CLASS_NAMES, FILE, load_embedded
from bssl_tf.data.embedded.make import main, make, read_idx
from bssl_tf.errors import DataError

DEBIAN = Path("/usr/share/datasets/fashion-mnist")


def test_it_has_the_promised_images_of_each_class() -> None:
    train, test = load_embedded()
    for images, count in ((train, 1000), (test, 200)):
        assert images.images.shape == (count * 10, 28, 28, 1)
        assert np.bincount(images.require_labels()).tolist() == [count] * 10
        assert images.class_names == CLASS_NAMES
        assert np.all(images.aspect_ratios == 1)


def test_training_and_test_images_do_not_overlap() -> None:
    train, test = load_embedded()
    assert not {image.tobytes() for image in train.images} & {image.tobytes() for image in test.images}


def test_the_file_is_small_and_has_its_licence_beside_it() -> None:
    assert FILE.stat().st_size < 7_000_000
    licence = FILE.with_name("LICENSE.fashion-mnist").read_text()
    assert "Copyright (c) 2017 Zalando SE" in licence
    assert "The above copyright notice and this permission notice shall be included" in licence


def test_the_originals_give_the_shipped_file_again(absent: Callable[[str], NoReturn], tmp_path: Path) -> None:
    if not DEBIAN.is_dir():
        absent(f"Debian's package dataset-fashion-mnist is not installed (no {DEBIAN})")
    again = tmp_path / "again.npz"
    assert main([str(DEBIAN), str(again)]) == 0
    # Contents, not bytes: another zlib may compress otherwise.
    with np.load(again, allow_pickle=False) as made, np.load(FILE, allow_pickle=False) as shipped:
        assert made.files == shipped.files
        for name in made.files:
            np.testing.assert_array_equal(made[name], shipped[name])
    assert again.read_bytes() == make(DEBIAN)


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 cut short", b"text"])
def test_a_damaged_file_is_an_error_with_a_next_step(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "broken.npz"
    file.write_bytes(content)
    with pytest.raises(DataError, match=r"missing or damaged.*Install bssl-tf again"):
        load_embedded(file)
    with pytest.raises(DataError, match="missing or damaged"):
        load_embedded(tmp_path / "nowhere.npz")


def test_a_source_that_cannot_be_read_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(tmp_path)]) == DataError.exit_status
    assert "train-labels-idx1-ubyte.gz" in capsys.readouterr().err
    assert main([]) == 2
    bad = tmp_path / "bad.gz"
    bad.write_bytes(b"not gzip")
    with pytest.raises(DataError, match=r"bad\.gz"):
        read_idx(bad)


def test_loading_it_imports_no_tensorflow() -> None:
    code = (
        "import sys; from bssl_tf.data.load import load_data; load_data('embedded', image_size=28); "
        "assert not {'tensorflow', 'tensorflow_datasets'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
