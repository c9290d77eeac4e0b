"""Folders, standard input and files of answers, as a person uses them."""

from __future__ import annotations

import contextlib
import csv
import io
import json
import os
import pty
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from bssl_tf_deploy import output_file, running
from bssl_tf_deploy.bundle import Bundle, read_bundle
from bssl_tf_deploy.errors import BundleError, StorageError, UsageError
from bssl_tf_deploy.predictor import Predictor
from bssl_tf_deploy.running import RunSettings, run
from tests.deploy.bundles import LABELS, SIZE, write
from tests.measured import measured

ZOO = Path(__file__).parents[2] / "bssl_tf" / "zoo" / "fashion-mnist-28" / "bundle"
PROGRAM = (sys.executable, "-c", "from bssl_tf_deploy.cli import main; main()")
UNREADABLE = 9


class Means:
    """An interpreter whose logits are the means of the channels; stops where it is told to."""

    def __init__(self, stop_after: int | None = None) -> None:
        self.runs, self._stop_after = 0, stop_after

    def run(self, inputs: Sequence[np.ndarray]) -> list[np.ndarray]:
        if self.runs == self._stop_after:
            raise KeyboardInterrupt
        self.runs += 1
        return [inputs[0].mean(axis=(1, 2))]


@pytest.fixture
def bundle(tmp_path: Path) -> Bundle:
    return read_bundle(write(tmp_path / "bundle"))


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Seven images in two folders, one of which cannot be read, and what is not an image."""
    folder = tmp_path / "photos"
    (folder / "below").mkdir(parents=True)
    rng = np.random.default_rng(0)
    for name in ("b.png", "a, b.png", "c\nd.PNG", 'quoted "e".png', "Ä.png", "below/a.png"):
        Image.fromarray(rng.integers(0, 256, (SIZE, SIZE, 3), dtype=np.uint8)).save(folder / name, "PNG")
    (folder / "bad.jpg").write_bytes(b"no image")
    (folder / "notes.txt").write_text("no image either")
    (folder / ".hidden.png").write_bytes(b"")
    (folder / "@eaDir").mkdir()
    (folder / "@eaDir" / "thumbnail.png").write_bytes(b"")
    return folder


NAMES = ["a, b.png", "b.png", "bad.jpg", "c\nd.PNG", 'quoted "e".png', "Ä.png", "below/a.png"]


def run_on(bundle: Bundle, *images: object, **options: Any) -> int:
    return run(Predictor(bundle, Means()), RunSettings(tuple(map(str, images)), **options))


def test_a_folder_is_answered_in_order_and_what_cannot_be_read_is_counted(
    bundle: Bundle, photos: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_on(bundle, photos, format="jsonl", top=1) == UNREADABLE
    said = capsys.readouterr()
    records = [json.loads(line) for line in said.out.splitlines()]
    assert [record["image"] for record in records] == [str(photos / name) for name in NAMES]
    assert [name for name, record in zip(NAMES, records, strict=True) if "error" in record] == ["bad.jpg"]
    predictor = Predictor(bundle, Means())
    for record in records:
        if "error" not in record:
            [[(label, score)]] = predictor.classify(record["image"], top=1)
            assert record["classes"] == [{"label": label, "score": score}]
    reported, counted = said.err.splitlines()
    assert reported.startswith("error[image]: ") and "bad.jpg cannot be read" in reported
    assert counted == "7 images: 6 answered, 1 could not be read"


def test_a_table_for_spreadsheets_has_a_line_for_each_image(
    bundle: Bundle, photos: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for options, columns in (
        ({"top": 2}, ["label_1", "score_1", "label_2", "score_2"]),
        ({"top": 9}, [f"{name}_{place}" for place in (1, 2, 3) for name in ("label", "score")]),
        ({"outputs": True}, ["logits_0", "logits_1", "logits_2"]),
    ):
        run_on(bundle, photos, format="csv", **options)
        text = capsys.readouterr().out
        assert text.count("\n") == 1 + len(NAMES)
        rows = list(csv.DictReader(io.StringIO(text), strict=True))
        assert list(rows[0]) == ["image", "error", *columns]
        assert [row["image"] for row in rows] == [str(photos / name).replace("\n", "\\n") for name in NAMES]
        assert [bool(row["error"]) for row in rows] == [name == "bad.jpg" for name in NAMES]
        if "top" in options:
            assert all(row["error"] or (row["label_1"] in LABELS and float(row["score_1"]) > 0) for row in rows)


def test_a_spreadsheet_runs_nothing_that_a_name_holds(
    bundle: Bundle, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(photos)
    Path("b.png").rename("=1+1.png")
    run_on(bundle, "=1+1.png", "bad.jpg", format="csv")
    assert [row["image"] for row in csv.DictReader(capsys.readouterr().out.splitlines())] == ["'=1+1.png", "bad.jpg"]
    interrupted(bundle, tmp_path / "out.csv", "=1+1.png", 0, format="csv")
    (tmp_path / "out.csv").write_text((tmp_path / "out.csv").read_text() + "'=1+1.png" + "," * 7 + "\n")
    assert run_on(bundle, "=1+1.png", out=tmp_path / "out.csv", format="csv") == 0


def test_json_is_one_list(bundle: Bundle, photos: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run_on(bundle, photos, format="json")
    records = json.loads(text := capsys.readouterr().out)
    assert [record["image"] for record in records] == [str(photos / name) for name in NAMES]
    assert text == json.dumps(records, indent=2) + "\n"


def test_names_cannot_steer_the_terminal(bundle: Bundle, photos: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (photos / "b.png").rename(photos / os.fsdecode(b"\x1b[2J\xff.png"))
    run_on(bundle, photos, top=1)
    said = capsys.readouterr()
    assert "\x1b" not in said.out and "\\x1b[2J\\udcff.png" in said.out
    assert len(said.out.splitlines()) == 6


def interrupted(bundle: Bundle, out: Path, photos: Path | str, after: int, **options: Any) -> None:
    with pytest.raises(KeyboardInterrupt):
        run(Predictor(bundle, Means(after)), RunSettings((str(photos),), out=out, **options))


@pytest.mark.parametrize("kind", ["jsonl", "csv"])
@pytest.mark.parametrize("outputs", [False, True])
def test_a_file_is_continued_wherever_it_was_cut(
    bundle: Bundle, photos: Path, tmp_path: Path, kind: str, outputs: bool
) -> None:
    """At every byte; what is there is not computed again."""
    options: dict[str, Any] = {"format": kind, "outputs": outputs}
    whole, out = tmp_path / f"whole.{kind}", tmp_path / f"out.{kind}"
    assert run_on(bundle, photos, out=whole, **options) == UNREADABLE
    assert not list(tmp_path.glob(".*.run.json"))
    expected = whole.read_bytes()
    interrupted(bundle, out, photos, 5, **options)
    state = (tmp_path / f".out.{kind}.run.json").read_bytes()
    assert expected.startswith(out.read_bytes()) and out.read_bytes().count(b"\n") == 6 + (kind == "csv")
    for cut in range(len(expected) + 1):
        out.write_bytes(expected[:cut])
        (tmp_path / f".out.{kind}.run.json").write_bytes(state)
        interpreter = Means()
        assert run(Predictor(bundle, interpreter), RunSettings((str(photos),), out=out, **options)) == UNREADABLE
        assert out.read_bytes() == expected
        there = max(expected[:cut].count(b"\n") - (kind == "csv"), 0)
        assert interpreter.runs == len(NAMES) - there - (there <= NAMES.index("bad.jpg"))


def test_what_a_power_cut_leaves_is_written_again(bundle: Bundle, photos: Path, tmp_path: Path) -> None:
    whole, out = tmp_path / "whole.jsonl", tmp_path / "out.jsonl"
    run_on(bundle, photos, out=whole, format="jsonl")
    lines = whole.read_bytes().splitlines(keepends=True)
    for left in ([*lines[:2], bytes(500)], [*lines[:2], b"\0" * 40 + b"\n", lines[3]], [b"[1]\n"], [b"\xff\xfe\n"]):
        out.unlink(missing_ok=True)
        interrupted(bundle, out, photos, 2, format="jsonl")
        out.write_bytes(b"".join(left))
        run_on(bundle, photos, out=out, format="jsonl")
        assert out.read_bytes() == whole.read_bytes()


def test_a_file_of_something_else_is_never_touched(bundle: Bundle, photos: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.csv"
    out.write_text("mine\n")
    with pytest.raises(StorageError, match="exists, and is either complete or was not written by this command"):
        run_on(bundle, photos, out=out, format="csv")
    assert out.read_text() == "mine\n"
    out.unlink()
    run_on(bundle, photos, out=out, format="csv")
    complete = out.read_bytes()
    with pytest.raises(StorageError, match="exists, and is either complete"):
        run_on(bundle, photos, out=out, format="csv")
    out.unlink()
    interrupted(bundle, out, photos, 2, format="csv")
    partly = out.read_bytes()
    other = read_bundle(write(tmp_path / "other"))
    (tmp_path / "other" / "manifest.json").write_text((tmp_path / "other" / "manifest.json").read_text() + "\n")
    for made, images, options, word in (
        (other, photos, {}, "bundle"),
        (bundle, photos / "below", {}, "images"),
        (bundle, photos, {"top": 2}, "top"),
        (bundle, photos, {"outputs": True}, "outputs"),
    ):
        with pytest.raises(StorageError, match=f"was started with another {word}"):
            run_on(made, images, out=out, **({"format": "csv"} | options))
    Image.new("RGB", (SIZE, SIZE)).save(photos / "A first.png")
    with pytest.raises(StorageError, match=r"cannot be continued: .*A first\.png is in that place now"):
        run_on(bundle, photos, out=out, format="csv")
    assert out.read_bytes() == partly
    (photos / "A first.png").unlink()
    run_on(bundle, photos, out=out, format="csv")
    assert out.read_bytes() == complete
    (tmp_path / ".out.csv.run.json").write_text("[")
    with pytest.raises(StorageError, match="is damaged"):
        run_on(bundle, photos, out=out, format="csv")
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(StorageError, match="Not a regular file"):
        run_on(bundle, photos, out=tmp_path / "pipe", format="csv")
    with pytest.raises(StorageError, match=r"cannot write .*No such file"):
        run_on(bundle, photos, out=tmp_path / "absent" / "out.csv", format="csv")


def test_two_processes_do_not_write_one_file(bundle: Bundle, photos: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.csv"
    with output_file.OutputFile(out, {}), pytest.raises(StorageError, match="another process is writing"):
        run_on(bundle, photos, out=out, format="csv")


def test_a_full_disk_is_an_error_and_the_file_is_continued(
    bundle: Bundle, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, out = tmp_path / "whole.jsonl", tmp_path / "out.jsonl"
    run_on(bundle, photos, out=whole, format="jsonl")
    room, write_some = [300], os.write

    def full(descriptor: int, data: Any) -> int:
        if not room[0]:
            raise OSError(28, "No space left on device")
        written = write_some(descriptor, data[: room[0]])
        room[0] -= written
        return written

    with monkeypatch.context() as patch:
        patch.setattr("bssl_tf_deploy.output_file.os.write", full)
        with pytest.raises(StorageError, match="No space left"):
            run_on(bundle, photos, out=out, format="jsonl")
    assert len(out.read_bytes()) == 300
    run_on(bundle, photos, out=out, format="jsonl")
    assert out.read_bytes() == whole.read_bytes()


def test_options_that_do_not_go_together_are_refused(bundle: Bundle, tmp_path: Path) -> None:
    for options, message in (
        ({}, "no images, video or camera were given"),
        ({"images": ("a",), "camera": 0}, "one kind of source"),
        ({"video": "a", "picamera": True}, "one kind of source"),
        ({"images": ("a",), "frames": 3}, "--frames is for videos"),
        ({"images": ("-", "-")}, "read once"),
        ({"images": ("a",), "out": tmp_path / "a"}, "--out needs"),
        ({"images": ("a",), "format": "xml"}, "no format 'xml'"),
    ):
        with pytest.raises(UsageError, match=message):
            run(Predictor(bundle, Means()), RunSettings(**options))
    with pytest.raises(UsageError, match="--json and --csv"):
        running.output_format(json=True, jsonl=False, csv=True)


def test_a_second_runtime_is_compared_on_the_way(
    bundle: Bundle, photos: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    class Other(Means):
        name, kernel, versions = "other", "other kernels", dict[str, str]()

        def __init__(self, off: float) -> None:
            super().__init__()
            self._off = off

        def run(self, inputs: Sequence[np.ndarray]) -> list[np.ndarray]:
            return [output + self._off for output in super().run(inputs)]

    assert run(Predictor(bundle, Means()), RunSettings((str(photos),)), Other(0)) == UNREADABLE
    assert "other kernels agrees on 6 images: differences up to 0" in capsys.readouterr().err
    with pytest.raises(BundleError, match="do not agree: 6 of 6 differ"):
        run(Predictor(bundle, Means()), RunSettings((str(photos),)), Other(1))


def test_folders_that_lead_nowhere_are_counted(
    bundle: Bundle, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "empty").mkdir()
    loop = tmp_path / "loop"
    loop.mkdir()
    (loop / "again").symlink_to(loop)
    (loop / "gone.png").symlink_to(tmp_path / "nothing")
    os.mkfifo(loop / "pipe.png")
    assert run_on(bundle, tmp_path / "empty", loop, "x" * 5000, format="jsonl") == UNREADABLE
    errors = [json.loads(line)["error"] for line in capsys.readouterr().out.splitlines()]
    assert [word in error for word, error in zip(("holds no images", "No such file", "too long"), errors, strict=True)]


# As a person calls it.


def call(*arguments: object, **options: Any) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run([*PROGRAM, "run", ZOO, *map(str, arguments)], capture_output=True, timeout=120, **options)


def test_paths_come_on_standard_input_also_odd_ones(photos: Path) -> None:
    odd = os.fsencode(photos) + b"/\xff.png"
    (photos / "b.png").rename(os.fsdecode(odd))
    lines = [b"", odd, b"", os.fsencode(photos / "Ä.png") + b"\r", b"nothing.png", b"x" * 200_000, b"a\0b", b"x" * 5000]
    done = call("-", "--jsonl", "--top", 1, input=b"\n".join(lines))
    assert done.returncode == UNREADABLE
    records = [json.loads(line) for line in done.stdout.splitlines()]
    assert [os.fsencode(record["image"]) for record in records[:3]] == [odd, lines[3][:-1], b"nothing.png"]
    assert ["error" in record for record in records] == [False, False, True, True, True, True]
    assert b"6 images: 2 answered, 4 could not be read" in done.stderr
    assert all(line.startswith(b"error[image]: ") for line in done.stderr.splitlines()[:-1])


def test_an_answer_comes_as_soon_as_its_path_does(photos: Path) -> None:
    with subprocess.Popen(
        [*PROGRAM, "run", ZOO, "-", "--top", "1"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        assert process.stdin and process.stdout and process.stderr
        for name in ("b.png", "Ä.png"):
            process.stdin.write(os.fsencode(photos / name) + b"\n")
            process.stdin.flush()
            assert process.stdout.readline().startswith(os.fsencode(photos / name))
        # Stopped while it waits for the next.
        process.send_signal(signal.SIGINT)
        assert process.wait(30) == 130
        assert process.stderr.read().splitlines() == [b"error[interrupted]: stopped. Run the same command again."]


def test_a_run_that_is_killed_is_continued(tmp_path: Path) -> None:
    folder = many(tmp_path / "many", 3000)
    whole, out = tmp_path / "whole.csv", tmp_path / "out.csv"
    assert call(folder, "--csv", "--out", whole).returncode == 0
    process = subprocess.Popen([*PROGRAM, "run", str(ZOO), folder, "--csv", "--out", out], stderr=subprocess.DEVNULL)
    end = time.monotonic() + 60
    while not (out.exists() and out.stat().st_size > 20_000) and time.monotonic() < end:
        time.sleep(0.005)
    process.kill()
    process.wait()
    there = out.read_bytes().count(b"\n") - 1
    assert 0 < there < 3000
    done = call(folder, "--csv", "--out", out)
    assert done.returncode == 0 and f"{there} images are already in it".encode() in done.stderr
    assert out.read_bytes() == whole.read_bytes()


def test_progress_is_shown_on_a_terminal(tmp_path: Path) -> None:
    folder = many(tmp_path / "many", 400)
    main, terminal = pty.openpty()
    command = [*PROGRAM, "run", str(ZOO), str(folder), "--csv", "--out", str(tmp_path / "out.csv")]
    with subprocess.Popen(command, stderr=terminal, stdout=subprocess.DEVNULL) as process:
        os.close(terminal)
        said = b""
        with contextlib.suppress(OSError):  # Linux reports the end of a terminal as an error.
            while chunk := os.read(main, 4096):
                said += chunk
        assert process.wait(60) == 0
    os.close(main)
    assert b" of 400 images, " in said and b"/s, 0:00:" in said
    assert b"400 images: 400 answered\r\n" in said


def many(folder: Path, count: int) -> Path:
    """A folder of hard links to a few images."""
    folder.mkdir()
    examples = sorted((ZOO / "examples").iterdir())
    originals = []
    for number, file in enumerate(examples):
        originals.append(folder.parent / f"original-{number}.png")
        originals[-1].write_bytes(file.read_bytes())
    for number in range(count):
        # A file system allows some thousand links to one file.
        if number % 20_000 == 19_999:
            for original in originals:
                content = original.read_bytes()
                original.unlink()
                original.write_bytes(content)
        os.link(originals[number % len(originals)], folder / f"photo-{number:06}.png")
    return folder


def peak_memory_mib(*arguments: object) -> float:
    """Of a whole run, which must succeed."""
    return measured([*PROGRAM, "run", ZOO, *arguments]).peak_kib / 1024


def test_memory_does_not_grow_with_the_images(tmp_path: Path) -> None:
    few, more = many(tmp_path / "few", 40), many(tmp_path / "more", 1500)
    # A list of records or of open files would take more; the allocator's own spread is about one.
    assert peak_memory_mib(more, "--json") - peak_memory_mib(few, "--json") < 4


@pytest.mark.slow  # Two minutes.
def test_a_hundred_thousand_files_take_their_names_memory_alone(tmp_path: Path) -> None:
    few, more = many(tmp_path / "few", 40), many(tmp_path / "more", 100_000)
    out = tmp_path / "out.jsonl"
    grown = peak_memory_mib(more, "--jsonl", "--out", out) - peak_memory_mib(few, "--jsonl")
    with out.open() as file:
        assert sum(1 for _ in file) == 100_000
    # 67 bytes for a name and 8 for its place in the list, twice while the list grows.
    assert grown < 20


def test_errors_have_one_line_and_a_status(tmp_path: Path) -> None:
    for arguments, status in (((), 2), (("--csv", "--json", "a.png"), 2), (("--camera", 0, "a.png"), 2)):
        done = call(*arguments)
        assert done.returncode == status and len(done.stderr.splitlines()) == 1 and not done.stdout
    assert call("--cvs", "a.png").returncode == 2
    # An option may stand between images.
    example = next((ZOO / "examples").iterdir())
    done = call(example, "--top", 1, example)
    assert (done.returncode, len(done.stdout.splitlines())) == (0, 2)


def test_a_stricter_output_shows_escapes(photos: Path) -> None:
    done = call(photos / "Ä.png", "--top", 1, env=os.environ | {"PYTHONIOENCODING": "ascii", "PYTHONUTF8": "0"})
    assert done.returncode == 0 and b"\\xc4.png" in done.stdout
