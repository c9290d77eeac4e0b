"""The bundle: whole or absent, the same bytes again, and every kind of damage refused in one line."""

from __future__ import annotations

import dataclasses
import errno
import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bssl_tf_deploy.bundle import read_bundle, write_bundle
from bssl_tf_deploy.errors import BundleError, StorageError
from bssl_tf_deploy.files import without_checksum
from bssl_tf_deploy.golden import typical_magnitude
from bssl_tf_deploy.manifest import Binary, Manifest, Quantization, Training
from bssl_tf_deploy.preprocess import load_image, load_pixels, normalised
from bssl_tf_deploy.tasks.classification import Accuracy, Calibration
from tests.deploy.bundles import PIXELS, golden, manifest, write
from tests.edited import edited


def int8_of(scale: float, zero_point: int) -> dict[str, Any]:
    return {"dtype": "int8", "quantization": {"scale": scale, "zero_point": zero_point}}


def tree(folder: Path) -> dict[str, bytes]:
    return {file.relative_to(folder).as_posix(): file.read_bytes() for file in folder.rglob("*") if file.is_file()}


def refused(path: Path) -> str:
    with pytest.raises(BundleError) as caught:
        read_bundle(path)
    message = str(caught.value)
    assert "\n" not in message
    assert message.count("error[bundle]") == 1
    return message


def edit(bundle: Path, change: Callable[[dict[str, Any]], object]) -> None:
    """As whoever made a hostile or a hand-made one would: without the checksum."""
    content = without_checksum(json.loads((bundle / "manifest.json").read_text()))
    change(content)
    (bundle / "manifest.json").write_text(edited(content))


def replace_file(bundle: Path, name: str, content: bytes) -> None:
    """Another content with the right hash."""
    (bundle / name).write_bytes(content)
    entry = {"sha256": hashlib.sha256(content).hexdigest(), "bytes": len(content)}
    edit(bundle, lambda m: m["files"].update({name: entry}))


def test_what_is_written_is_read(tmp_path: Path) -> None:
    written = write_bundle(tmp_path / "deep" / "b", manifest(), b"model", *golden(), ["a", "b", "c", "d"])
    bundle = read_bundle(tmp_path / "deep" / "b")
    assert bundle.manifest == written
    assert bundle.model == b"model"
    np.testing.assert_array_equal(bundle.golden_inputs[0], golden()[0][0])
    np.testing.assert_array_equal(bundle.golden_outputs[0], golden()[1][0])
    assert bundle.golden_images == 4
    assert "arm64" in (bundle.path / "README.md").read_text()
    assert max(map(len, (bundle.path / "README.md").read_text().splitlines())) <= 120


def test_a_library_lies_in_the_folder_of_its_target_and_is_checked(tmp_path: Path) -> None:
    bundle = write(tmp_path / "b", library=b"library")
    assert (bundle / "lib" / "arm64" / "libbssl_tf_runtime.so").read_bytes() == b"library"
    assert "load_delegate" in (bundle / "README.md").read_text()
    assert "load_delegate" not in (write(tmp_path / "without") / "README.md").read_text()
    read_bundle(bundle)
    write(bundle, library=b"newer", overwrite=True)
    assert (bundle / "lib" / "arm64" / "libbssl_tf_runtime.so").read_bytes() == b"newer"
    write(bundle, overwrite=True)
    assert not (bundle / "lib").exists()
    write(bundle, library=b"library", overwrite=True)
    (bundle / "lib" / "arm64" / "libbssl_tf_runtime.so").write_bytes(b"lib\0ary")
    assert "libbssl_tf_runtime.so was changed" in refused(bundle)
    (bundle / "lib" / "mine").write_text("mine")
    with pytest.raises(BundleError, match="was left unchanged"):
        write(bundle, overwrite=True)


def test_examples_are_the_golden_inputs_again(tmp_path: Path) -> None:
    bundle = read_bundle(write(tmp_path / "b"))
    examples = sorted((tmp_path / "b" / "examples").iterdir())
    assert [file.name for file in examples] == ["0-cat.png", "1-dog-wolf.png", "2-image.png", "3-cat.png"]
    for file, expected in zip(examples, bundle.golden_inputs[0], strict=True):
        np.testing.assert_array_equal(load_image(file, bundle.manifest.preprocessing)[0], expected)


def test_the_same_content_gives_the_same_bytes(tmp_path: Path) -> None:
    first = tree(write(tmp_path / "a"))
    time.sleep(2.1)  # zip archives count time in steps of two seconds
    assert tree(write(tmp_path / "b")) == first


def test_a_bundle_can_be_moved_and_is_readable_by_others(tmp_path: Path) -> None:
    write(tmp_path / "a").rename(tmp_path / "b")
    read_bundle(tmp_path / "b")
    (tmp_path / "plain").mkdir()
    assert (tmp_path / "b").stat().st_mode == (tmp_path / "plain").stat().st_mode


def test_a_bundle_is_replaced_only_on_demand(tmp_path: Path) -> None:
    write(tmp_path / "b")
    before = tree(tmp_path / "b")
    with pytest.raises(BundleError, match=r"already holds a bundle.*--overwrite"):
        write(tmp_path / "b", model=b"other")
    assert tree(tmp_path / "b") == before
    write(tmp_path / "b", model=b"other", overwrite=True)
    assert read_bundle(tmp_path / "b").model == b"other"
    assert [item.name for item in tmp_path.iterdir()] == ["b"]


def test_a_damaged_bundle_can_be_replaced(tmp_path: Path) -> None:
    (write(tmp_path / "b") / "model.tflite").write_bytes(b"")
    write(tmp_path / "b", overwrite=True)
    read_bundle(tmp_path / "b")


@pytest.mark.parametrize("name", ["notes.txt", "examples/mine.png"])
def test_a_bundle_with_something_of_the_users_in_it_is_left_alone(tmp_path: Path, name: str) -> None:
    (write(tmp_path / "b") / name).write_text("mine")
    before = tree(tmp_path / "b")
    with pytest.raises(BundleError, match="was left unchanged"):
        write(tmp_path / "b", model=b"other", overwrite=True)
    assert tree(tmp_path / "b") == before


def test_other_folders_files_and_links_are_left_alone(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "thesis.txt").write_text("mine")
    (tmp_path / "file").write_text("mine")
    (tmp_path / "link").symlink_to(write(tmp_path / "b"))
    for name in ("folder", "file", "link"):
        with pytest.raises(BundleError, match="was left unchanged"):
            write(tmp_path / name, overwrite=True)
    assert (tmp_path / "folder" / "thesis.txt").read_text() == "mine"


def test_an_empty_folder_is_taken(tmp_path: Path) -> None:
    (tmp_path / "b").mkdir()
    read_bundle(write(tmp_path / "b"))


@pytest.mark.parametrize("failing", ["fsync", "rename"])
def test_a_full_disk_leaves_what_was_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failing: str) -> None:
    write(tmp_path / "b")
    before = tree(tmp_path / "b")
    real_rename = Path.rename

    def no_space(*arguments: Any) -> Any:
        # The old bundle may be put aside and back; the new one does not get its place.
        if failing == "rename" and (arguments[1].name == "old" or arguments[0].name == "old"):
            return real_rename(*arguments)
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("os.fsync" if failing == "fsync" else "pathlib.Path.rename", no_space)
    with pytest.raises(StorageError, match="No space left on device"):
        write(tmp_path / "b", model=b"other", overwrite=True)
    with pytest.raises(StorageError, match="No space left on device"):
        write(tmp_path / "c")
    monkeypatch.undo()
    assert tree(tmp_path / "b") == before
    assert [item.name for item in tmp_path.iterdir()] == ["b"]


def test_a_place_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match=r"Not a directory|File exists"):
        write(tmp_path / "file" / "b")


def test_a_killed_writer_leaves_no_bundle_and_its_rest_is_removed_later(tmp_path: Path) -> None:
    code = (
        "import os, sys, time\nfrom pathlib import Path\n"
        "from tests.deploy.bundles import write\n"
        "sync, calls = os.fsync, []\n"
        "def stop(descriptor):\n"
        "    calls.append(sync(descriptor))\n"
        "    if len(calls) == 2:\n"
        "        print('here', flush=True)\n"
        "        time.sleep(60)\n"
        "os.fsync = stop\n"
        "write(Path(sys.argv[1]))\n"
    )
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(Path.cwd()), *filter(None, sys.path)])}
    command = [sys.executable, "-c", code, str(tmp_path / "b")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, env=environment) as writer:
        assert writer.stdout is not None
        assert writer.stdout.readline() == b"here\n"
        writer.send_signal(signal.SIGKILL)
    assert "does not exist" in refused(tmp_path / "b")
    [left] = tmp_path.iterdir()
    assert left.name.startswith(".b.")
    write(tmp_path / "b")
    assert left.exists()  # another process might still write there
    os.utime(left, (0, 0))
    write(tmp_path / "b", overwrite=True)
    assert [item.name for item in tmp_path.iterdir()] == ["b"]


@pytest.mark.parametrize("name", ["model.tflite", "golden.npz", "README.md", "examples/0-cat.png"])
def test_a_changed_cut_or_missing_file_is_named(tmp_path: Path, name: str) -> None:
    file = write(tmp_path / "b") / name
    content = file.read_bytes()
    file.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    assert f"{name} was changed" in refused(tmp_path / "b")
    file.write_bytes(content[:-1])
    assert f"{name} has {len(content) - 1} bytes instead of {len(content)}" in refused(tmp_path / "b")
    file.unlink()
    assert f"{name} cannot be read (No such file" in refused(tmp_path / "b")


def test_what_is_no_bundle_is_told(tmp_path: Path) -> None:
    assert "does not exist" in refused(tmp_path / "nothing")
    (tmp_path / "file").write_text("")
    assert "is not a folder" in refused(tmp_path / "file")
    assert "is not a bundle (it has no manifest.json)" in refused(tmp_path)


BROKEN_MANIFESTS = [b"", b'{"format": 1', b"\xff\xfe", b"[" * 100_000, b"{}" * 2**23 + b" "]


@pytest.mark.parametrize("content", BROKEN_MANIFESTS, ids=range(5))
def test_a_broken_manifest_is_told(tmp_path: Path, content: bytes) -> None:
    (write(tmp_path / "b") / "manifest.json").write_bytes(content)
    refused(tmp_path / "b")


@pytest.mark.parametrize("version", [0, 1, 2, 3, 5, "4", 4.0, None, True, 10**30])
def test_an_unknown_format_is_told(tmp_path: Path, version: object) -> None:
    edit(write(tmp_path / "b"), lambda m: m.update(format=version))
    assert "this version of bssl-tf reads format 4" in refused(tmp_path / "b")


def test_a_calibration_is_read_strictly_and_stands_in_the_readme(tmp_path: Path) -> None:
    table = dataclasses.replace(manifest().table, calibration=Calibration(1.375, 250, 15, 9.5, 2.25))
    write_bundle(tmp_path / "b", manifest(table=table), b"model", *golden(), ["a", "b", "c", "d"])
    assert read_bundle(tmp_path / "b").manifest.table == table
    text = " ".join((tmp_path / "b" / "README.md").read_text().split())
    assert "softmax(logits / 1.375): this temperature was fitted to 250 labelled test images" in text
    assert "with 15 bins: 9.50 % before, 2.25 % after" in text and "Guo et al., ICML 2017" in text
    for key, value, message in (
        ("temperature", 0, "temperature is not from 1e-6"),
        ("temperature", -1.0, "temperature is not from 1e-6"),
        ("temperature", "1", "temperature is not a number"),
        ("ece_percent_after", 101, "calibration is not in percent"),
        ("images", 1.5, "images is not of type int"),
        ("more", 1, "unknown key 'more'"),
    ):
        other = shutil.copytree(tmp_path / "b", tmp_path / f"{key}-{value}")
        edit(other, lambda m, key=key, value=value: m["table"]["calibration"].update({key: value}))  # type: ignore[misc]
        assert message in refused(other)
    edit(tmp_path / "b", lambda m: m["table"].pop("calibration"))
    assert "missing key 'calibration'" in refused(tmp_path / "b")


def test_a_bundle_may_take_and_give_int8(tmp_path: Path) -> None:
    about, ([inputs], outputs) = manifest(), golden()
    taken, given = Quantization(0.022, -5), Quantization(0.05, 3)
    about = dataclasses.replace(
        about,
        inputs=(dataclasses.replace(about.inputs[0], dtype="int8", quantization=taken),),
        outputs=(dataclasses.replace(about.outputs[0], dtype="int8", quantization=given),),
        binary=Binary(3, 0, 0, 1000, 2),
        table=dataclasses.replace(about.table, accuracy=Accuracy(40, 50.0, 52.5)),
    )
    write_bundle(tmp_path / "b", about, b"model", [taken.integers(inputs)], outputs, ["a", "b", "c", "d"])
    bundle = read_bundle(tmp_path / "b")
    assert (bundle.manifest.inputs, bundle.manifest.outputs) == (about.inputs, about.outputs)
    assert bundle.golden_inputs[0].dtype == np.int8 and bundle.golden_outputs[0].dtype == np.float32
    np.testing.assert_allclose(normalised(bundle.golden_inputs[0], bundle.manifest), inputs, atol=0.011)
    for number, file in enumerate(sorted((tmp_path / "b" / "examples").iterdir())):
        off = load_pixels(file, about.preprocessing)[0].astype(int) - PIXELS[number]
        assert np.max(np.abs(off)) <= 1
    text = readme_of(tmp_path / "b")
    assert "input `image` int8 [1, 8, 8, 3]" in text and "output `logits` int8 [1, 3]" in text
    assert "2 convolutions and dense operators in int8" in text and "then int8" in text
    assert "on 40 test images: 50.00 % (52.50 % in Keras" in text


def readme_of(bundle: Path) -> str:
    """Its text with every line break a space."""
    return " ".join((bundle / "README.md").read_text().split())


def test_a_bundle_may_take_pixels(tmp_path: Path) -> None:
    about = manifest()
    about = dataclasses.replace(about, inputs=(dataclasses.replace(about.inputs[0], dtype="uint8"),))
    write_bundle(tmp_path / "b", about, b"model", [PIXELS], golden()[1], ["a", "b", "c", "d"])
    bundle = read_bundle(tmp_path / "b")
    assert bundle.golden_inputs[0].dtype == np.uint8
    np.testing.assert_array_equal(bundle.golden_inputs[0], PIXELS)
    for number, file in enumerate(sorted((tmp_path / "b" / "examples").iterdir())):
        np.testing.assert_array_equal(load_pixels(file, about.preprocessing)[0], PIXELS[number])
    text = readme_of(tmp_path / "b")
    assert "uint8 [1, 8, 8, 3]" in text and "normalises them itself" in text and "/ std" not in text
    # The pictures are those of the same bundle with a float input.
    floats = tree(write(tmp_path / "floats") / "examples")
    assert sorted(floats.values()) == sorted(tree(tmp_path / "b" / "examples").values())


def test_a_bundle_of_a_network_from_elsewhere_claims_no_accuracy(tmp_path: Path) -> None:
    about = manifest(training=None)
    about = dataclasses.replace(about, table=dataclasses.replace(about.table, probe=None))
    write_bundle(tmp_path / "b", about, b"model", *golden(), ["a", "b", "c", "d"])
    assert read_bundle(tmp_path / "b").manifest.training is None
    text = readme_of(tmp_path / "b")
    assert "not trained with bssl-tf" in text and "probe" not in text and "top-1 accuracy" not in text


def test_the_readme_states_which_labels_the_backbone_learned_from(tmp_path: Path) -> None:
    assert "trained without labels (method s2bnn on embedded" in readme_of(write(tmp_path / "without"))
    about = manifest(training=Training("bssl", "tfds:cifar10", "ImageNet's labels (its teacher)", 7))
    write_bundle(tmp_path / "with", about, b"model", *golden(), ["a", "b", "c", "d"])
    text = readme_of(tmp_path / "with")
    assert "trained with the help of ImageNet's labels (its teacher) (method bssl on tfds:cifar10" in text
    assert "without labels" not in text
    assert "of commit 0123456789ab" in text


def test_the_readme_shows_no_version_that_is_not_known(tmp_path: Path) -> None:
    about = manifest(created_by={"bssl-tf": "0.1.0", "numpy": "", "runtime-glibc": ""}, commit=None)
    write_bundle(tmp_path / "b", about, b"model", *golden(), ["a", "b", "c", "d"], library=b"library")
    text = readme_of(tmp_path / "b")
    assert "Made by bssl-tf with bssl-tf 0.1.0." in text
    assert "with 64-bit Linux:" in text and "glibc" not in text and "numpy ," not in text


def test_the_readme_for_android_shows_the_calls_for_an_app_as_the_tutorial_promises(tmp_path: Path) -> None:
    about = manifest(target="android-arm64")
    write_bundle(tmp_path / "b", about, b"model", *golden(), ["a", "b", "c", "d"], library=b"library")
    lines = (tmp_path / "b" / "README.md").read_text().splitlines()
    assert '    char *keys[] = {"num_threads"}, *values[] = {"4"};' in lines and max(map(len, lines)) <= 120
    text = " ".join(lines)
    assert text.index("tflite_plugin_create_delegate") < text.index("TfLiteInterpreterOptionsAddDelegate")
    tutorial = (Path(__file__).parents[2] / "docs/pages/tutorial.md").read_text()
    assert "`README.md` shows the calls" in " ".join(tutorial.split())


def second_output(content: dict[str, Any]) -> None:
    content["outputs"].append(content["outputs"][0] | {"name": "boxes"})
    content["parity"]["outputs"]["boxes"] = content["parity"]["outputs"]["logits"]


def all_keys(content: dict[str, Any], above: tuple[str, ...] = ()) -> list[tuple[str, ...]]:
    keys = []
    for key, value in content.items():
        keys.append((*above, key))
        # Keys of these are free.
        if isinstance(value, dict) and key not in ("created_by", "files", "operators", "arguments"):
            keys += all_keys(value, (*above, key))
    return keys


KEYS = [key for key in all_keys(manifest().to_dict()) if key != ("format",)]


@pytest.mark.parametrize("key", KEYS, ids=".".join)
def test_every_key_is_needed_and_has_its_type(key: tuple[str, ...]) -> None:
    for change in ("missing", "wrong", "extra"):
        content = json.loads(json.dumps(manifest().to_dict()))
        place = content
        for part in key[:-1]:
            place = place[part]
        if change == "missing":
            del place[key[-1]]
        elif change == "wrong":
            place[key[-1]] = True
        else:
            place["surprise"] = 1
        with pytest.raises(BundleError, match=r"manifest\.json is damaged") as caught:
            Manifest.from_dict(content)
        assert ("surprise" if change == "extra" else key[-1]) in str(caught.value)


@pytest.mark.parametrize(
    "name",
    [
        *(
            "../x",
            "/etc/passwd",
            "..",
            ".",
            "",
            "a/b",
            "examples/../../x",
            ".hidden",
            "a\\b",
            "examples/",
            "x\n",
            "C:x",
        ),
        *("lib/x.so", "lib/arm32/x.so", "lib/arm64/../x.so", "lib/arm64/", "lib/arm64/examples/x"),
    ],
)
def test_file_names_that_lead_elsewhere_are_refused_unread(tmp_path: Path, name: str) -> None:
    bundle = write(tmp_path / "b")
    edit(bundle, lambda m: m["files"].update({name: m["files"]["README.md"]}))
    assert "is not the name of a file in a bundle" in refused(bundle)


@pytest.mark.parametrize("size", [-1, 2**31, 10**30])
def test_sizes_out_of_range_are_refused(tmp_path: Path, size: int) -> None:
    edit(write(tmp_path / "b"), lambda m: m["files"]["model.tflite"].update(bytes=size))
    assert "not a size from 0 to 1 GiB" in refused(tmp_path / "b")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda m: m["table"]["labels"].append("one too many"), "outputs[0].shape is not [1, 4]"),
        (lambda m: m["table"]["labels"].clear(), "table.labels is not a list of at least one"),
        (lambda m: m["preprocessing"].update(height=16), "inputs[0].shape is not [1, 16, 8, 3]"),
        (lambda m: m["preprocessing"].update(width=1), "preprocessing.width is not in 8 to 1024"),
        (lambda m: m["outputs"].append(m["outputs"][0]), "outputs is not a list of different names"),
        (lambda m: m["outputs"].append(m["outputs"][0] | {"name": "boxes"}), "parity.outputs is not one for each"),
        (second_output, "outputs is not a list of one, the logits"),
        (lambda m: m["inputs"].clear(), "inputs is not a list of at least one"),
        (lambda m: m["outputs"].clear(), "outputs is not a list of at least one"),
        (lambda m: m["outputs"][0].update(name="../x"), "outputs[0].name"),
        (lambda m: m["outputs"][0].update(shape=[2, 3]), "that of a batch of one"),
        (lambda m: m["preprocessing"].update(std=[0.1, 0.0, 0.1]), "above zero"),
        (lambda m: m["preprocessing"].update(mean=[0.1]), "one number for each channel"),
        (lambda m: m["preprocessing"].update(mean=[float("nan")] * 3), "finite"),
        (lambda m: m["inputs"][0].update(dtype="int16"), "float32 or uint8 or int8"),
        (lambda m: m["inputs"][0].update(dtype="int8"), "inputs[0].quantization is not that of int8"),
        (lambda m: m["outputs"][0].update(quantization={"scale": 1, "zero_point": 0}), "that of int8"),
        (
            lambda m: m["outputs"][0].update(int8_of(0, 0)),
            "above zero",
        ),
        (lambda m: m["outputs"][0].update(int8_of(1e-60, 0)), "above zero and within float32"),
        (lambda m: m["outputs"][0].update(int8_of(1e60, 0)), "above zero and within float32"),
        (lambda m: m["outputs"][0].update(int8_of(1, 128)), "to 127"),
        (
            lambda m: m["table"].update(accuracy={"images": 1, "top1_percent": 101, "keras_top1_percent": 0}),
            "in percent",
        ),
        (lambda m: m["outputs"][0].update(dtype="uint8"), "is not float32 or int8"),
        (lambda m: m["inputs"][0].update(dtype="uint8"), "golden.npz does not fit"),
        (lambda m: m["files"]["model.tflite"].update(sha256="0"), "64 hexadecimal digits"),
        (lambda m: m["files"].pop("model.tflite"), "does not list model.tflite"),
    ],
)
def test_values_that_contradict_each_other_are_refused(tmp_path: Path, change: Any, message: str) -> None:
    edit(write(tmp_path / "b"), change)
    assert message in refused(tmp_path / "b")


def test_golden_outputs_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    import io

    bundle = write(tmp_path / "b")
    [inputs], [outputs] = golden()
    nan, same, constant = outputs.copy(), np.repeat(outputs[:1], 4, axis=0), np.full_like(outputs, 0.5)
    nan[1, 1] = np.nan
    for arrays, message in (
        ({}, "does not hold the golden inputs and outputs"),
        ({"input/image": inputs}, "does not hold the golden inputs and outputs"),
        ({"inputs": inputs, "outputs": outputs}, "does not hold the golden inputs and outputs"),
        ({"input/image": inputs, "output/logits": outputs[:2]}, "logits is float32 [2, 3] instead of float32 [4, 3]"),
        ({"input/image": inputs.astype(np.float64), "output/logits": outputs}, "image is float64"),
        ({"input/image": inputs[:0], "output/logits": outputs[:0]}, "does not fit the manifest"),
        ({"input/image": np.array([{}], dtype=object), "output/logits": outputs}, "does not hold"),
        ({"input/image": inputs, "output/logits": nan}, "logits holds numbers that are not finite"),
        (
            {"input/image": np.full_like(inputs, np.inf), "output/logits": outputs},
            "image holds numbers that are not finite",
        ),
        ({"input/image": inputs, "output/logits": same}, "the golden outputs are equal"),
        ({"input/image": inputs, "output/logits": constant}, "the golden outputs are equal"),
        ({"input/image": inputs[:1], "output/logits": constant[:1]}, "the golden outputs are equal"),
    ):
        file = io.BytesIO()
        np.savez(file, **arrays)
        replace_file(bundle, "golden.npz", file.getvalue())
        told = refused(bundle)
        assert "golden.npz" in told and message in told
    for content in (b"", b"no archive", b"\x93NUMPY", file.getvalue()[:100]):
        replace_file(bundle, "golden.npz", content)
        assert "golden.npz" in refused(bundle)


@pytest.mark.parametrize("wrong", [np.nan, 0.0])
def test_golden_outputs_of_no_use_are_not_written(tmp_path: Path, wrong: float) -> None:
    inputs, [outputs] = golden()
    with pytest.raises(BundleError, match=r"golden\.npz.*(not finite|are equal)"):
        write_bundle(tmp_path / "b", manifest(), b"model", inputs, [np.full_like(outputs, wrong)], ["a"] * 4)
    assert not (tmp_path / "b").exists()


def test_a_bundle_of_an_unknown_task_is_refused_with_those_known(tmp_path: Path) -> None:
    bundle = write(tmp_path / "b")
    edit(bundle, lambda m: m.update(task="telepathy"))
    assert "for the task 'telepathy', and this installation knows classification" in refused(bundle)


@pytest.mark.parametrize("zeros", [0, 9, 10, 11, 500])
def test_what_a_relu_makes_0_does_not_count_in_the_typical_magnitude(zeros: int) -> None:
    """Tolerances are shares of it, so a map of which nearly half is 0 must not be asked to agree to the last bit."""
    rest = np.linspace(-2, -1, 11, dtype=np.float32)
    assert typical_magnitude(np.concatenate([np.zeros(zeros, np.float32), rest])) == pytest.approx(1.5)


def test_outputs_that_are_all_0_have_no_typical_magnitude() -> None:
    assert typical_magnitude(np.zeros((2, 3), np.float32)) == 0
