from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from PIL import Image
from scipy import special

from bssl_tf_deploy.bundle import Bundle, read_bundle, write_bundle
from bssl_tf_deploy.errors import BundleError, ImageError
from bssl_tf_deploy.inputs import check_tensors
from bssl_tf_deploy.manifest import Manifest, Quantization
from bssl_tf_deploy.predictor import Predictor
from bssl_tf_deploy.preprocess import normalise
from bssl_tf_deploy.tasks.classification import Calibration, softmax
from tests.deploy.bundles import LABELS, PIXELS, SIZE, golden, manifest, write
from tests.deploy.test_pictures import wide_png


class Fixed:
    """An interpreter that gives what it is told, for any images."""

    def __init__(self, *outputs: np.ndarray) -> None:
        self.outputs = outputs

    def run(self, inputs: Sequence[np.ndarray]) -> list[np.ndarray]:
        return [output[: len(inputs[0])] for output in self.outputs]


class Recorder:
    """An interpreter that keeps what it was given."""

    def __init__(self) -> None:
        self.seen: list[np.ndarray] = []

    def run(self, inputs: Sequence[np.ndarray]) -> list[np.ndarray]:
        self.seen += inputs
        return [golden()[1][0][: len(inputs[0])]]


@pytest.fixture
def bundle(tmp_path: Path) -> Bundle:
    return read_bundle(write(tmp_path / "bundle"))


@given(arrays(np.float32, (3, 5), elements=st.floats(-(2.0**100), 2.0**100, width=32)))
def test_scores_are_probabilities_in_the_order_of_the_logits(logits: np.ndarray) -> None:
    scores = softmax(logits)
    assert np.all((scores >= 0) & (scores <= 1))
    np.testing.assert_allclose(scores.sum(axis=1), 1, rtol=1e-12)
    for row, score in zip(logits, scores, strict=True):
        assert np.all(np.diff(score[np.argsort(row, kind="stable")]) >= 0)


@given(arrays(np.float32, 4, elements=st.floats(-50, 50, width=32)), st.floats(-1000, 1000, width=32))
def test_scores_do_not_change_when_all_logits_are_shifted(logits: np.ndarray, shift: float) -> None:
    np.testing.assert_allclose(softmax(logits.astype(np.float64) + shift), softmax(logits), atol=1e-9)


def test_the_best_classes_come_first_and_ties_in_the_order_of_labels(bundle: Bundle) -> None:
    image = PIXELS[0]
    [best] = Predictor(bundle, Fixed(np.array([[0, 3, 0]], np.float32))).classify([image], top=5)
    assert [label for label, _ in best] == [LABELS[1], LABELS[0], LABELS[2]]
    assert sum(score for _, score in best) == pytest.approx(1)
    [best] = Predictor(bundle, Fixed(np.array([[0, 3, 0]], np.float32))).classify([image], top=1)
    [(label, score)] = best
    assert label == LABELS[1]
    assert score == pytest.approx(np.exp(3) / (np.exp(3) + 2))


@given(
    arrays(np.float32, 3, elements=st.floats(-(2.0**20), 2.0**20, width=32)),
    st.floats(1e-6, 1e6),
)
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_temperature_changes_scores_and_never_the_order(
    bundle: Bundle, logits: np.ndarray, temperature: float
) -> None:
    calibration = Calibration(temperature, 100, 15, 9.0, 2.0)
    table = dataclasses.replace(bundle.manifest.table, calibration=calibration)
    scaled = dataclasses.replace(bundle, manifest=dataclasses.replace(bundle.manifest, table=table))
    [plain], [found] = (
        Predictor(one, Fixed(logits[np.newaxis])).classify(PIXELS[0], top=3) for one in (bundle, scaled)
    )
    assert [label for label, _ in plain] == [label for label, _ in found]
    expected = special.softmax(logits.astype(np.float64) / temperature)
    np.testing.assert_allclose([score for _, score in found], np.sort(expected)[::-1], atol=1e-12)
    np.testing.assert_array_equal(
        Predictor(scaled, Fixed(logits[np.newaxis])).outputs(PIXELS[0])["logits"], logits[np.newaxis]
    )


def with_input(about: Manifest, **changes: Any) -> Manifest:
    return dataclasses.replace(about, inputs=(dataclasses.replace(about.inputs[0], **changes),))


def test_a_network_that_takes_pixels_gets_pixels(tmp_path: Path) -> None:
    about = with_input(manifest(), dtype="uint8")
    write_bundle(tmp_path / "b", about, b"model", [PIXELS], golden()[1], ["a", "b", "c", "d"])
    recorder, second = Recorder(), Recorder()
    predictor = Predictor(read_bundle(tmp_path / "b"), recorder)
    predictor.verify_golden()
    file = sorted((tmp_path / "b" / "examples").iterdir())[0]
    predictor.outputs([file])
    predictor.check_against(second, [file])
    seen = recorder.seen + second.seen
    assert {batch.dtype.name for batch in seen} == {"uint8"}
    np.testing.assert_array_equal(seen[0], PIXELS)
    for batch in seen[1:]:
        np.testing.assert_array_equal(batch[0], PIXELS[0])


def test_a_network_that_takes_int8_gets_int8(tmp_path: Path) -> None:
    (inputs,), outputs = golden()
    taken = Quantization(0.021, -5)
    about = with_input(manifest(), dtype="int8", quantization=taken)
    write_bundle(tmp_path / "b", about, b"model", [taken.integers(inputs)], outputs, ["a", "b", "c", "d"])
    recorder = Recorder()
    bundle = read_bundle(tmp_path / "b")
    files = sorted((tmp_path / "b" / "examples").iterdir())
    Predictor(bundle, recorder).outputs(files)
    assert {batch.dtype.name for batch in recorder.seen} == {"int8"}
    # The pictures went through int8 once already.
    off = np.concatenate(recorder.seen).astype(int) - bundle.golden_inputs[0]
    assert np.max(np.abs(off)) <= 1


def test_golden_outputs_within_rounding_pass(bundle: Bundle) -> None:
    [outputs] = bundle.golden_outputs
    Predictor(bundle, Fixed(outputs)).verify_golden()
    Predictor(bundle, Fixed(outputs * np.float32(1 + 1e-5))).verify_golden()
    one_flipped = outputs.copy()
    one_flipped[2] += 0.1
    Predictor(bundle, Fixed(one_flipped)).verify_golden()


def test_other_golden_outputs_are_refused(bundle: Bundle) -> None:
    [outputs] = bundle.golden_outputs
    two_off = outputs.copy()
    two_off[:2] += 0.1
    for wrong in (two_off, -outputs, outputs * np.float32(1.02), np.full_like(outputs, np.nan), outputs[:, :2]):
        with pytest.raises(BundleError, match="does not reproduce the golden outputs"):
            Predictor(bundle, Fixed(wrong)).verify_golden()


def test_what_the_manifest_does_not_allow_is_refused(bundle: Bundle) -> None:
    """With what was given and what is wanted; the network is not run."""
    recorder = Recorder()
    predictor = Predictor(bundle, recorder)
    [good] = bundle.first_inputs
    nan = good.copy()
    nan[0, 3, 3, 1] = np.nan
    wanted = r"the network takes float32 \[N, 8, 8, 3\]"
    for tensor, message in (
        (PIXELS[:1], rf"image is uint8 \[1, 8, 8, 3\]; {wanted}\. Give pixels to classify"),
        (good.astype(np.float64), rf"image is float64 \[1, 8, 8, 3\]; {wanted}"),
        (good[0], rf"image is float32 \[8, 8, 3\]; {wanted}"),
        (good[:, :7], rf"image is float32 \[1, 7, 8, 3\]; {wanted}"),
        (good[..., :1], rf"image is float32 \[1, 8, 8, 1\]; {wanted}"),
        (good[:0], rf"image is float32 \[0, 8, 8, 3\]; {wanted}"),
        (nan, "holds numbers that are not finite"),
        (good + np.float32(np.inf), "holds numbers that are not finite"),
        (PIXELS[:1].astype(np.float32), r"from 0 to 249; pixels normalised for this network are from -3"),
    ):
        with pytest.raises(ImageError, match=message):
            predictor.run_tensor(tensor)
    assert recorder.seen == []
    predictor.run_tensor(good)
    assert recorder.seen


@pytest.mark.parametrize("dtype", ["uint8", "int8"])
def test_a_network_of_whole_numbers_refuses_floats(tmp_path: Path, dtype: str) -> None:
    quantization = Quantization(0.021, -5) if dtype == "int8" else None
    about = with_input(manifest(), dtype=dtype, quantization=quantization)
    given = PIXELS if quantization is None else quantization.integers(golden()[0][0])
    write_bundle(tmp_path / "b", about, b"model", [given], golden()[1], ["a", "b", "c", "d"])
    predictor = Predictor(read_bundle(tmp_path / "b"), Recorder())
    predictor.run_tensor(given[:1])
    with pytest.raises(ImageError, match=rf"image is float32 .* the network takes {dtype}"):
        predictor.run_tensor(golden()[0][0][:1])


ENTRIES: dict[str, Callable[..., object]] = {
    "classify": lambda predictor, images, **options: predictor.classify(images, **options),
    "answers": lambda predictor, images, **options: predictor.answers(images, **options),
    "outputs": lambda predictor, images, **options: predictor.outputs(images, **options),
    "check_against": lambda predictor, images, **options: predictor.check_against(Recorder(), images, **options),
}


@pytest.mark.parametrize("entry", ENTRIES)
def test_what_is_not_an_image_is_refused_by_every_way_in(bundle: Bundle, tmp_path: Path, entry: str) -> None:
    recorder = Recorder()
    predictor, call = Predictor(bundle, recorder), ENTRIES[entry]
    wanted = r"expected: a path, a Pillow image, or uint8 pixels \[H, W, 3 or 1\] or \[N, H, W, 3 or 1\]"
    ready = golden()[0][0]
    for images, message in (
        (ready[:1], rf"is float32 \[1, 8, 8, 3\]; {wanted}\. .* goes to run_tensor"),
        (ready[0], rf"is float32 \[8, 8, 3\]; {wanted}"),
        (PIXELS[0].astype(np.int64), rf"is int64 \[8, 8, 3\]; {wanted}"),
        (PIXELS[0].astype(bool), rf"is bool \[8, 8, 3\]; {wanted}"),
        (PIXELS[0, ..., 0], rf"is uint8 \[8, 8\]; {wanted}\. .*np.newaxis"),
        (PIXELS[0].transpose(2, 0, 1), rf"is uint8 \[3, 8, 8\]; {wanted}\. Put the channels last"),
        (np.zeros((8, 8, 4), np.uint8), rf"is uint8 \[8, 8, 4\]; {wanted}\. .*no alpha"),
        (np.zeros((2, 2, 8, 8, 3), np.uint8), rf"is uint8 \[2, 2, 8, 8, 3\]; {wanted}"),
        (np.zeros((0, 8, 3), np.uint8), r"is \[0, 8, 3\], without pixels"),
        (b"photo.jpg", rf"is of type bytes; {wanted}"),
        (7, rf"is of type int; {wanted}"),
        (None, rf"is of type NoneType; {wanted}"),
        ({"image": PIXELS[0]}, rf"is of type dict; {wanted}"),
        ([PIXELS[0].tolist()], rf"is of type list; {wanted}"),
        ([b"photo.jpg"], rf"is of type bytes; {wanted}"),
        ([], "there are no images"),
        (PIXELS[:0], "there are no images"),
        (tmp_path / "nothing.png", "nothing.png cannot be read: No such file"),
        ([str(tmp_path)], "is a folder"),
    ):
        with pytest.raises(ImageError, match=message):
            call(predictor, images)
    assert recorder.seen == []
    call(predictor, PIXELS[0])
    assert recorder.seen


def seen(entry: str, bundle: Bundle, images: object, **options: Any) -> list[np.ndarray]:
    """The tensors that the network is given."""
    recorder = Recorder()
    ENTRIES[entry](Predictor(bundle, recorder), images, **options)
    return recorder.seen


@pytest.fixture(scope="module", params=[1, 3], ids=["grey", "rgb"])
def network(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """Of a network for grey images, and of one for colours."""
    channels: int = request.param
    p = dataclasses.replace(
        manifest().preprocessing, channels=channels, mean=(0.5, 0.4, 0.3)[:channels], std=(0.2, 0.3, 0.25)[:channels]
    )
    about = with_input(manifest(preprocessing=p), shape=(1, SIZE, SIZE, channels))
    out = tmp_path_factory.mktemp("network") / "bundle"
    write_bundle(out, about, b"model", [golden()[0][0][..., :channels]], golden()[1], ["a", "b", "c", "d"])
    return read_bundle(out)


@given(
    pixels=arrays(np.uint8, st.tuples(st.integers(1, 30), st.integers(1, 30), st.sampled_from((1, 3)))),
    entry=st.sampled_from(sorted(ENTRIES)),
)
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
def test_the_same_pixels_give_the_same_bits_wherever_they_come_from(
    network: Bundle, tmp_path: Path, pixels: np.ndarray, entry: str
) -> None:
    """Of any size and shape: as a file, a Pillow image, arrays in both orders, and one of a batch."""
    image = Image.fromarray(pixels[..., 0] if pixels.shape[-1] == 1 else pixels)
    image.save(tmp_path / "image.png")
    expected = seen(entry, network, tmp_path / "image.png")
    assert [one.shape for one in expected] == [network.manifest.inputs[0].shape]
    blue_first = np.ascontiguousarray(pixels[..., ::-1])
    for images, options in (
        (str(tmp_path / "image.png"), {}),
        ([tmp_path / "image.png"], {"bgr": True}),
        (image, {}),
        (Image.open(tmp_path / "image.png"), {"bgr": True}),
        (pixels, {}),
        (blue_first, {"bgr": True}),
        (blue_first[np.newaxis], {"bgr": True}),
        (np.asfortranarray(pixels), {}),
        ((one for one in [pixels]), {}),
    ):
        [found] = seen(entry, network, images, **options)
        np.testing.assert_array_equal(found, expected[0])
    mixed = seen(entry, network, [pixels, np.stack([pixels, pixels]), image, tmp_path / "image.png"])
    assert len(mixed) == 5
    for found in mixed:
        np.testing.assert_array_equal(found, expected[0])


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["RGB", "RGBA", "I;16", "P", "CMYK"])
def test_a_pillow_image_is_prepared_as_its_file_is(
    network: Bundle, tmp_path: Path, orientation: int, kind: str
) -> None:
    """Its orientation, transparency and 16-bit grey; whether it was loaded before or not."""
    rng = np.random.default_rng(orientation)
    if kind == "I;16":
        image = Image.fromarray(rng.integers(0, 4096, (14, 9), dtype=np.uint16))
    else:
        image = Image.fromarray(rng.integers(0, 256, (14, 9, 4), dtype=np.uint8), "RGBA").convert(kind)
    exif = Image.Exif()
    exif[0x0112] = orientation
    file = tmp_path / ("image.jpg" if kind == "CMYK" else "image.png")
    image.save(file, exif=exif)
    [expected] = seen("outputs", network, file)
    for loaded in (False, True):
        with Image.open(file) as opened:
            if loaded:
                opened.load()
            [found] = seen("outputs", network, opened)
        np.testing.assert_array_equal(found, expected)


def test_a_pillow_image_that_cannot_be_read_is_named(bundle: Bundle, tmp_path: Path) -> None:
    file = tmp_path / "cut.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)).save(file)
    file.write_bytes(file.read_bytes()[:4000])
    with Image.open(file) as opened, pytest.raises(ImageError, match=r"cut\.png cannot be read: .*truncated"):
        Predictor(bundle, Recorder()).outputs(opened)
    with pytest.raises(ImageError, match=r"the image cannot be read: .*floating-point"):
        Predictor(bundle, Recorder()).outputs(Image.new("F", (9, 9)))


def test_dark_wide_colours_are_refused_where_pillow_dropped_them(bundle: Bundle, tmp_path: Path) -> None:
    """A file is read again, for the low bytes that all its levels are in; of an image they are gone."""
    file = tmp_path / "dark.png"
    file.write_bytes(wide_png(np.random.default_rng(0).integers(0, 1024, (9, 9, 3), dtype=np.uint16)))
    assert seen("outputs", bundle, file)
    with Image.open(file) as opened, pytest.raises(ImageError, match="drops the low bytes"):
        seen("outputs", bundle, opened)


def test_one_answer_for_each_image(bundle: Bundle) -> None:
    predictor = Predictor(bundle, Fixed(*bundle.golden_outputs))
    assert [len(predictor.classify(images)) for images in (PIXELS, PIXELS[0], [PIXELS, PIXELS[0]])] == [4, 1, 5]
    assert predictor.outputs(PIXELS)["logits"].shape == (4, 3)
    assert predictor.run_tensor(bundle.golden_inputs[0][:2])["logits"].shape == (2, 3)


def test_inputs_of_other_names_are_refused(bundle: Bundle) -> None:
    predictor, [good] = Predictor(bundle, Recorder()), bundle.first_inputs
    with pytest.raises(ImageError, match="the inputs are picture; the network takes image"):
        predictor.run_tensor({"picture": good})
    with pytest.raises(ImageError, match=r"image is a list; the network takes float32 \[N, 8, 8, 3\]"):
        predictor.run_tensor({"image": good.tolist()})
    np.testing.assert_array_equal(predictor.run_tensor({"image": good})["logits"], predictor.run_tensor(good)["logits"])


@given(st.integers(0, 2**32 - 1))
def test_every_picture_normalised_is_within_the_range(seed: int) -> None:
    p = manifest().preprocessing
    pixels = np.random.default_rng(seed).choice(np.array([0, 1, 254, 255], np.uint8), (2, SIZE, SIZE, 3))
    check_tensors(manifest(), {"image": normalise(pixels, p.mean, p.std)})
