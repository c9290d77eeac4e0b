from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bssl_tf.data.load import load_data
from bssl_tf.data.open import open_data
from bssl_tf.errors import DataError, MissingDataError
from bssl_tf.settings import DataConfig


def test_embedded_data_need_no_disk(tmp_path: Path) -> None:
    data = load_data("embedded", image_size=28, cache_dir=tmp_path / "cache")
    assert data.name == "embedded"
    assert data.test is not None
    assert (len(data.train), len(data.test)) == (10_000, 2_000)
    assert not (tmp_path / "cache").exists()


def test_embedded_data_can_be_had_in_colour_and_in_part() -> None:
    data = load_data("embedded", image_size=28, channels=3, limit=500)
    assert data.test is not None
    assert data.train.images.shape == (500, 28, 28, 3)
    assert np.all(data.train.images[..., 0] == data.train.images[..., 2])
    assert len(data.test) == 500
    assert np.bincount(data.train.require_labels()).min() > 20


@pytest.mark.parametrize(
    ("spec", "options", "message"),
    [
        ("", {}, r"no data set was named\. Give `embedded`, tfds:NAME"),
        ("  ", {}, "no data set was named"),
        ("embeded", {}, r"there is no data set 'embeded'\. Did you mean `embedded`\?"),
        ("Embedded", {}, r"Did you mean `embedded`\?"),
        ("tfds/mnist", {}, r"Did you mean `tfds:NAME`\?"),
        ("nowhere/at/all", {}, r"nowhere/at/all does not exist\. Check the path"),
        ("embedded", {"image_size": 7}, r"image_size is 7\. Give a whole number of pixels from 8 to 1024"),
        ("embedded", {"image_size": 1025}, "image_size is 1025"),
        ("embedded", {"channels": 2}, r"channels is 2\. Give 1 \(grey\) or 3 \(RGB\)"),
        ("embedded", {"channels": 0}, "channels is 0"),
        ("embedded", {"max_unreadable_share": 1.5}, "max_unreadable_share is 1.5"),
        ("embedded", {"limit": 1}, r"limit is 1\. Give at least 2 images"),
    ],
)
def test_every_wrong_argument_says_what_and_what_next(spec: str, options: dict[str, Any], message: str) -> None:
    with pytest.raises(DataError, match=message):
        load_data(spec, **{"image_size": 28, **options})


def test_a_lost_folder_gets_the_hint_of_who_remembered_it(tmp_path: Path) -> None:
    config = DataConfig(str(tmp_path / "photos"), image_size=28)
    with pytest.raises(MissingDataError, match=r"photos does not exist\. config\.toml names it\."):
        try:
            open_data(config, labels_needed=False)
        except MissingDataError as error:
            raise error.with_next_step("config.toml names it") from error
    with pytest.raises(DataError, match=r"photos does not exist\. Check the path"):
        open_data(config, labels_needed=False)
    assert open_data(DataConfig("embedded", image_size=28, limit=4), labels_needed=False).train


def test_a_space_after_the_keyword_does_no_harm() -> None:
    assert load_data("embedded ", image_size=28, limit=2).name == "embedded"
