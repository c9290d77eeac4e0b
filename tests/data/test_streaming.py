from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from bssl_tf.backend import tf
from bssl_tf.data import full_resolution, streaming
from bssl_tf.data.augmentation import LITE, MOCO_V2, crop_boxes
from bssl_tf.data.catalogue import Names
from bssl_tf.data.full_resolution import crop_boxes_of, cut_crops
from bssl_tf.data.image_set import DataSplits, ImageSet
from bssl_tf.data.layout import find_splits
from bssl_tf.data.load import load_data
from bssl_tf.data.preprocessing import evaluation_views, fit_preprocessing
from bssl_tf.data.streamed import StreamedSet
from bssl_tf.data.views import Batch, Sampling, batches, view_numbers
from bssl_tf.errors import DataError
from tests.data.logged import logged

Save = Callable[..., Path]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    folder = tmp_path / "photos"
    folder.mkdir()
    return folder


def load(root: Path, lines: list[str] | None = None, **options: Any) -> DataSplits:
    options = {"image_size": 28, "cache_dir": root.parent / "cache", "loading": "streaming", **options}
    with logged(lines):
        return load_data(str(root), **options)


def streamed(images: ImageSet | None) -> StreamedSet:
    assert isinstance(images, StreamedSet)
    return images


def classes(root: Path, save: Save, size: tuple[int, int] = (28, 28), count: int = 12, ending: str = "jpg") -> None:
    for offset, name in enumerate(("cat", "dog")):
        for index in range(count):
            save(root / name / f"{index:03}.{ending}", 100 * offset + index, size)


def first_batches(
    images: ImageSet, steps: tuple[int, int] = (0, 3), views: int = 2, shard: tuple[int, int] = (0, 1)
) -> list[Batch]:
    sampling = Sampling(fit_preprocessing(images, 28), LITE, 8, 3, *steps, shard)
    return list(batches(images, sampling, views=views, with_labels=True))


def assert_same(one: list[Batch], other: list[Batch]) -> None:
    assert len(one) == len(other)
    for first, second in zip(one, other, strict=True):
        for view, same in zip(first.views, second.views, strict=True):
            np.testing.assert_array_equal(view, same)
        np.testing.assert_array_equal(np.asarray(first.labels), np.asarray(second.labels))


def test_small_images_give_the_same_views_streamed_as_mapped(root: Path, save: Save) -> None:
    classes(root, save)
    ours, mapped = load(root), load(root, loading="mapped")
    assert streamed(ours.train).images.native
    np.testing.assert_array_equal(ours.train.images[:], mapped.train.images)
    np.testing.assert_array_equal(ours.train.require_labels(), mapped.train.require_labels())
    assert fit_preprocessing(ours.train, 28) == fit_preprocessing(mapped.train, 28)
    assert_same(first_batches(ours.train), first_batches(mapped.train))


@pytest.mark.parametrize("size", [(28, 28), (90, 70)])
def test_a_resumed_run_and_every_worker_see_what_one_unbroken_run_sees(
    root: Path, save: Save, size: tuple[int, int]
) -> None:
    classes(root, save, size)
    data = load(root)
    whole = first_batches(data.train, views=1)
    assert_same(whole[1:], first_batches(load(root).train, (1, 3), views=1))
    halves = [first_batches(data.train, shard=(part, 2), views=1) for part in range(2)]
    for batch, first, second in zip(whole, *halves, strict=True):
        for view, one, two in zip(batch.views, first.views, second.views, strict=True):
            np.testing.assert_array_equal(view, np.concatenate([one, two]))


def test_evaluation_sees_what_it_sees_of_a_mapped_set(root: Path, save: Save) -> None:
    classes(root, save, (90, 70))
    ours, mapped = load(root), load(root, loading="mapped")
    assert ours.test is not None and mapped.test is not None
    preprocessing = fit_preprocessing(mapped.train, 28)
    assert fit_preprocessing(ours.train, 28) == preprocessing
    expected = evaluation_views(mapped.test, preprocessing, np.arange(4))
    np.testing.assert_array_equal(evaluation_views(ours.test, preprocessing, np.arange(4)), expected)
    part = ours.train.spread(6)
    assert not isinstance(part, StreamedSet)  # decoded once, into memory
    np.testing.assert_array_equal(part.images, mapped.train.spread(6).images)
    np.testing.assert_array_equal(part.aspect_ratios, mapped.train.spread(6).aspect_ratios)


@pytest.mark.parametrize("limits", [LITE, MOCO_V2])
def test_boxes_for_one_picture_are_those_of_augmentation(limits: Any) -> None:
    numbers = np.random.default_rng(0).random((64, 13), np.float32)
    for ratio in (0.01, 0.6, 1.0, 1.5, 40.0):
        area, shape, top, left = tf.unstack(tf.constant(numbers[:, :4]), axis=1)
        wanted = crop_boxes(tf.fill([64], ratio), area, shape, top, left, limits)
        np.testing.assert_allclose(crop_boxes_of(ratio, numbers, limits), wanted, atol=2e-6)


def smooth(size: tuple[int, int]) -> Image.Image:
    """A picture that resampling hardly changes: waves that are long compared with a pixel."""
    x, y = np.linspace(0, 6, size[0])[None, :], np.linspace(0, 5, size[1])[:, None]
    waves = [np.sin(x + y), np.cos(2 * x - y), np.sin(x) * np.cos(y)]
    return Image.fromarray((127 + 100 * np.stack(np.broadcast_arrays(*waves), -1)).astype(np.uint8))


@pytest.mark.parametrize(("ending", "size"), [("png", (60, 40)), ("jpg", (60, 40)), ("jpg", (300, 400))])
def test_crops_at_full_resolution_show_the_part_that_a_mapped_set_shows(
    root: Path, ending: str, size: tuple[int, int]
) -> None:
    for index in range(8):
        smooth(size).rotate(90 * index, expand=True).save(root / f"{index}.{ending}", quality=95)
    ours, mapped = streamed(load(root).train), load(root, loading="mapped").train
    assert not ours.images.native
    weak = LITE.__class__(0.2, 1, 0, 0, 0, 0, 0, 0, 0, 1, 1, 0.5)
    sampling = Sampling(fit_preprocessing(mapped, 28), weak, 8, 1, 0, 1)
    [one], [other] = (list(batches(images, sampling, views=2)) for images in (ours, mapped))
    for view, same in zip(one.views, other.views, strict=True):
        # Standard deviations of the pixels. The mapped picture was resampled once more, at 32 pixels.
        assert np.abs(np.asarray(view) - np.asarray(same)).mean() < 0.05


def test_both_decoders_cut_the_same_crop(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for index, size in enumerate([(300, 200), (640, 480), (2000, 1500)]):
        smooth(size).save(root / f"{index}.jpg", quality=90)
    images = streamed(load(root).train).images
    numbers = view_numbers(1, 0, 3, 4)
    decoded: list[str] = []
    cut_jpeg = full_resolution._cut_jpeg

    def counted(*arguments: Any) -> Any:
        decoded.append("part")
        return cut_jpeg(*arguments)

    monkeypatch.setattr(full_resolution, "_cut_jpeg", counted)
    found = {}
    for worth in (-1, 1e9):
        monkeypatch.setattr(full_resolution, "_WORTH_SPARING", worth)
        found[worth] = cut_crops(images, np.arange(3), numbers, LITE, 28).astype(int)
    assert decoded == ["part"] * 3
    assert np.abs(found[-1] - found[1e9]).mean() < 1  # grey levels


def test_a_small_crop_is_sharper_than_from_a_cache(root: Path) -> None:
    pixels = np.zeros((560, 560, 3), np.uint8)
    pixels[:, ::2] = 255  # lines of one pixel, which 32 pixels for 560 cannot show
    for index in range(2):
        Image.fromarray(pixels).save(root / f"{index}.png")
    numbers = np.full((1, 1, 13), 0.01, np.float32)
    images = streamed(load(root).train).images
    tiny = LITE.__class__(0.0025, 0.0025, 0, 0, 0, 0, 0, 0, 0, 1, 1, 0)  # 28 of 560 pixels
    crop = cut_crops(images, np.arange(1), numbers, tiny, 28)
    assert crop.std() > 60
    assert images[0].std() < 20


def test_turned_grey_cmyk_and_wide_pictures_are_cut_too(root: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    smooth((80, 40)).save(root / "turned.jpg", exif=exif)
    smooth((80, 40)).rotate(-90, expand=True).save(root / "upright.jpg", quality=95)
    smooth((80, 40)).convert("L").save(root / "grey.jpg")
    smooth((80, 40)).convert("CMYK").save(root / "cmyk.jpg")
    smooth((3000, 1)).save(root / "wide.png")
    images = streamed(load(root).train).images
    names = [images.encoded.describe(index) for index in range(5)]
    cut = cut_crops(images, np.arange(5), np.repeat(view_numbers(1, 0, 1, 2), 5, axis=1), LITE, 28).astype(int)
    by_name = dict(zip(names, np.moveaxis(cut, 1, 0), strict=True))
    assert np.abs(by_name["turned.jpg"] - by_name["upright.jpg"]).mean() < 3
    assert np.ptp(by_name["grey.jpg"], axis=-1).max() == 0
    assert all(crop.std() > 1 for crop in by_name.values())


def test_grey_networks_get_grey_crops(root: Path, save: Save) -> None:
    classes(root, save, (50, 40))
    images = streamed(load(root, channels=1).train).images
    assert cut_crops(images, np.arange(3), view_numbers(1, 0, 3, 1), LITE, 28).shape == (1, 3, 28, 28, 1)


def test_unreadable_images_are_counted_named_and_replaced_by_their_class(root: Path, save: Save) -> None:
    classes(root, save, (50, 40))
    for index in range(2):
        (root / "cat" / f"{index:03}.jpg").write_bytes(b"\xff\xd8\xff\xe0 no image")
        (root / "dog" / f"{index:03}.jpg").write_bytes(save(root / "whole.tmp.png", 7, (50, 40)).read_bytes()[:200])
    (root / "whole.tmp.png").unlink()
    lines: list[str] = []
    data = load(root, max_unreadable_share=0.5)
    with logged(lines):
        once, again = (first_batches(data.train, (0, 4)) for _ in range(2))
    assert_same(once, again)
    unreadable = streamed(data.train).images.unreadable
    assert 1 <= len(unreadable) <= 4
    assert any("1 image cannot be read" in line and "unreadable.tsv" in line for line in lines)
    [listed] = (root.parent / "cache").glob("*.unreadable.tsv")
    rows = listed.read_text().splitlines()
    assert rows[0] == "path\tcause" and len(rows) == len(unreadable) + 1
    for position, substitute in streamed(data.train).images._substitutes.items():
        labels = data.train.require_labels()
        assert substitute is not None and labels[position] == labels[substitute]


@pytest.mark.parametrize("size", [(28, 28), (50, 40)])
def test_too_many_unreadable_images_stop_with_the_error_of_a_mapped_set(
    root: Path, save: Save, size: tuple[int, int]
) -> None:
    classes(root, save, size)
    for index in range(8):
        file = root / "cat" / f"{index:03}.jpg"
        file.write_bytes(file.read_bytes()[: 200 + index])
    data = load(root)
    mapped = fit_preprocessing(load(root, loading="mapped", max_unreadable_share=1).train, 28)
    with pytest.raises(DataError, match=r"2 of 24 images .* cannot be read .* raise --max-unreadable-share"):
        list(batches(data.train, Sampling(mapped, LITE, 8, 0, 0, 9), views=1))


def test_an_unlabelled_set_takes_the_next_image(root: Path, save: Save) -> None:
    for index in range(6):
        save(root / f"{index}.png", index, (28, 28))
    (root / "5.png").write_bytes(b"")
    images = load(root, max_unreadable_share=0.5).train
    np.testing.assert_array_equal(images.images[5], images.images[0])


def test_large_sets_are_streamed_and_small_ones_mapped(root: Path, save: Save, monkeypatch: pytest.MonkeyPatch) -> None:
    classes(root, save)
    assert load(root, loading="auto").train.loading == "mapped from disk"
    monkeypatch.setattr(streaming, "MAPPED_BYTES", 24 * 32 * 32 * 3 - 1)
    lines: list[str] = []
    assert load(root, lines, loading="auto").train.loading == "streamed"
    assert any("24 images" in line and "are streamed" in line and "--loading mapped" in line for line in lines)
    assert load(root, loading="auto", limit=8).train.loading == "mapped from disk"


def aged(root: Path) -> None:
    """Makes the folders so old that their times can be relied on."""
    for folder in (root, *(path for path in root.rglob("*") if path.is_dir())):
        os.utime(folder, (time.time() - 100,) * 2)


def test_the_list_of_files_is_made_once_and_again_when_files_come_or_go(
    root: Path, save: Save, monkeypatch: pytest.MonkeyPatch
) -> None:
    classes(root, save)
    listings: list[Path] = []

    def counted(root: Path, **rest: Any) -> Any:
        listings.append(root)
        return find_splits(root, **rest)

    monkeypatch.setattr("bssl_tf.data.folder.find_splits", counted)
    aged(root)
    first = load(root)
    assert len(load(root).train) == len(first.train)
    assert load(root).train.fingerprint() == first.train.fingerprint()
    assert len(listings) == 1
    save(root / "dog" / "new.jpg", 5, (28, 28))
    aged(root / "cat")
    assert len(load(root).train) + len(load(root).test or ()) == 25
    assert len(listings) > 1
    aged(root)
    load(root)
    before = len(listings)
    save(root / "cat" / "003.jpg", 5, (40, 40))  # in place, so that no folder changes
    aged(root)
    load(root)
    assert len(listings) == before + 1


def test_a_damaged_list_is_made_again(root: Path, save: Save) -> None:
    classes(root, save)
    aged(root)
    first = load(root).train.fingerprint()
    [places] = (root.parent / "cache").glob("*.catalogue/train_places.npy")
    content = bytearray(places.read_bytes())
    content[-3] ^= 1
    places.write_bytes(content)
    lines: list[str] = []
    assert load(root, lines).train.fingerprint() == first
    assert any("is made again" in line and "train_places" in line for line in lines)


def test_another_image_has_another_fingerprint(root: Path, save: Save) -> None:
    classes(root, save, ending="bmp")
    first = load(root).train.fingerprint()
    assert load(root).train.fingerprint() == first
    save(root / "cat" / "001.bmp", 77, (28, 28))  # of as many bytes
    save(root / "dog" / "001.bmp", 78, (28, 28))
    assert load(root).train.fingerprint() != first


def test_names_that_are_not_utf_8_are_kept() -> None:
    names = ["a", os.fsdecode(b"\xff\xfe.jpg"), "ü/ö.png", ""]
    kept = Names.of(names)
    assert [kept[index] for index in range(len(kept))] == names
