"""Videos, with the real OpenCV; cameras, with stand-ins for it and for picamera2."""

from __future__ import annotations

import csv
import importlib.util
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from bssl_tf_deploy.bundle import read_bundle
from bssl_tf_deploy.cameras import video_items
from bssl_tf_deploy.errors import ImageError
from bssl_tf_deploy.predictor import Predictor
from bssl_tf_deploy.running import RunSettings, run
from tests.conftest import require_or_skip
from tests.deploy.bundles import write
from tests.deploy.test_running import PROGRAM, ZOO, Means

FRAMES, FPS = 12, 5
# What OpenCV's and picamera2's users call, of a camera that shows red.
OPENCV = """
import time
import numpy as np

CAP_PROP_POS_MSEC, CAP_PROP_FRAME_COUNT = 0, 7

class VideoCapture:
    def __init__(self, source):
        self.source, self.count = source, 0
    def isOpened(self):
        return self.source in (0, 1)
    def read(self):
        self.count += 1
        time.sleep(0.01)
        frame = np.zeros((48, 64, 3), np.uint8)
        frame[..., 2] = 255
        # Camera 1 is unplugged.
        return (False, None) if self.source == 1 and self.count > 5 else (True, frame)
    def release(self):
        print("released", flush=True)
"""
PICAMERA2 = """
import numpy as np

class Picamera2:
    def create_video_configuration(self, main):
        return main
    def configure(self, configuration):
        # As the manual has it, appendix A: the name's order is that of a word's bits.
        self.order = {"BGR888": [255, 0, 0], "RGB888": [0, 0, 255]}[configuration["format"]]
    def start(self):
        pass
    def capture_array(self, name):
        assert name == "main"
        return np.full((48, 64, 3), self.order, np.uint8)
    def stop(self):
        pass
    def close(self):
        print("released", flush=True)
"""
NO_MODULE = "class Picamera2:\n    def __init__(self):\n        raise IndexError('list index out of range')\n"


def pictures() -> np.ndarray:
    """RGB, each of one colour of its own, which compression keeps within a few levels."""
    colours = [(20 * number, 40, 255 - 20 * number) for number in range(FRAMES)]
    return np.stack([np.full((48, 64, 3), colour, np.uint8) for colour in colours])


@pytest.fixture(scope="module")
def video(tmp_path_factory: pytest.TempPathFactory) -> Path:
    require_or_skip(importlib.util.find_spec("cv2") is not None, "OpenCV is not installed")
    return write_video(tmp_path_factory.mktemp("video") / "clip 100%.avi", pictures())


def write_video(file: Path, frames: np.ndarray) -> Path:
    """Of pictures uint8 [N, H, W, 3] in RGB."""
    cv2: Any = importlib.import_module("cv2")
    writer = cv2.VideoWriter(str(file), cv2.VideoWriter_fourcc(*"MJPG"), FPS, frames.shape[2:0:-1])
    assert writer.isOpened()
    for frame in frames:
        writer.write(frame[..., ::-1])
    writer.release()
    return file


def test_every_frame_of_a_video_is_read_in_rgb_with_its_time(video: Path) -> None:
    items = list(video_items(str(video)))
    assert [(item.name, item.frame) for item in items] == [(str(video), number) for number in range(FRAMES)]
    assert [item.seconds for item in items] == pytest.approx([number / FPS for number in range(FRAMES)], abs=1e-3)
    for item, picture in zip(items, pictures(), strict=True):
        assert isinstance(item.image, np.ndarray)
        np.testing.assert_allclose(item.image, picture, atol=6)


def call(*arguments: object, **options: Any) -> subprocess.CompletedProcess[str]:
    command = [*PROGRAM, "run", str(ZOO), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, **options)


def test_a_video_is_answered_frame_by_frame_as_its_pictures_are(video: Path, tmp_path: Path) -> None:
    done = call("--video", video, "--jsonl", "--top", 1)
    assert (done.returncode, done.stderr) == (0, "")
    records = [json.loads(line) for line in done.stdout.splitlines()]
    assert [(record["image"], record["frame"]) for record in records] == [(str(video), n) for n in range(FRAMES)]
    for item, record in zip(video_items(str(video)), records, strict=True):
        assert isinstance(item.image, np.ndarray)
        Image.fromarray(np.ascontiguousarray(item.image)).save(tmp_path / "frame.png")
        if item.frame in (0, 7):
            [alone] = json.loads(call(tmp_path / "frame.png", "--json", "--top", 1).stdout)
            assert alone["classes"] == record["classes"]
    table = call("--video", video, "--top", 1, "--frames", 3).stdout.splitlines()
    assert [line.split("  ")[0] for line in table] == [f"{video} frame {number}" for number in range(3)]
    rows = list(csv.DictReader(call("--video", video, "--csv", "--frames", 3).stdout.splitlines()))
    assert [(row["frame"], row["seconds"]) for row in rows] == [("0", "0.0"), ("1", "0.2"), ("2", "0.4")]


def test_a_video_is_continued_too(video: Path, tmp_path: Path) -> None:
    predictor = Predictor(read_bundle(write(tmp_path / "bundle")), Means())
    whole, out = tmp_path / "whole.csv", tmp_path / "out.csv"
    run(predictor, RunSettings(video=str(video), format="csv", out=whole))
    with pytest.raises(KeyboardInterrupt):
        run(Predictor(predictor.bundle, Means(5)), RunSettings(video=str(video), format="csv", out=out))
    assert out.read_bytes().count(b"\n") == 6
    left = Means()
    run(Predictor(predictor.bundle, left), RunSettings(video=str(video), format="csv", out=out))
    assert (out.read_bytes(), left.runs) == (whole.read_bytes(), FRAMES - 5)


def test_what_is_not_a_video_is_one_line_and_a_status(video: Path, tmp_path: Path) -> None:
    cut = tmp_path / "cut.avi"
    cut.write_bytes(video.read_bytes()[:200])
    (tmp_path / "text.mp4").write_text("no video")
    os.mkfifo(tmp_path / "pipe.mp4")
    for file in (
        cut,
        tmp_path / "text.mp4",
        tmp_path / "pipe.mp4",
        tmp_path,
        "http://a/b.mp4",
    ):
        with pytest.raises(ImageError):
            list(video_items(str(file)))
    done = call("--video", tmp_path / "text.mp4")
    assert done.returncode == 9 and not done.stdout
    [line] = done.stderr.splitlines()
    assert line.startswith("error[image]: ") and "is not a video that OpenCV can read" in line


def test_a_video_that_was_cut_short_is_answered_as_far_as_it_goes(video: Path, tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (FRAMES, 48, 64, 3), dtype=np.uint8)
    cut = write_video(tmp_path / "cut.avi", noise)
    content = cut.read_bytes()
    cut.write_bytes(content[: len(content) // 2])
    done = call("--video", cut, "--csv", "--top", 1)
    frames = len(done.stdout.splitlines()) - 1
    assert done.returncode == 0 and 0 < frames < FRAMES
    assert all(line.startswith("warning: ") and f"{frames} frames" in line for line in done.stderr.splitlines())


@pytest.fixture
def stand_in(tmp_path: Path) -> dict[str, str]:
    """An environment in which OpenCV and picamera2 are stand-ins."""
    (tmp_path / "cv2.py").write_text(OPENCV)
    (tmp_path / "picamera2.py").write_text(PICAMERA2)
    return os.environ | {"PYTHONPATH": str(tmp_path)}


@pytest.mark.parametrize("camera", [["--camera", "0"], ["--picamera"]])
def test_a_camera_is_answered_in_rgb_until_enough(stand_in: dict[str, str], camera: list[str], tmp_path: Path) -> None:
    done = call(*camera, "--frames", 4, "--jsonl", "--outputs", env=stand_in)
    assert (done.returncode, done.stderr) == (0, "")
    *lines, released = done.stdout.splitlines()
    assert released == "released"
    records = [json.loads(line) for line in lines]
    # The newest each time: some may have been dropped.
    frames = [record["frame"] for record in records]
    assert len(frames) == 4 and frames == sorted(set(frames)) and records[-1]["seconds"] > records[0]["seconds"] >= 0
    Image.new("RGB", (64, 48), "red").save(tmp_path / "red.png")
    [red] = json.loads(call(tmp_path / "red.png", "--json", "--outputs").stdout)
    assert all(record["outputs"] == red["outputs"] for record in records)


def test_a_slow_network_gets_the_newest_frame(stand_in: dict[str, str]) -> None:
    program = (
        "import time\nfrom bssl_tf_deploy.cameras import camera_items\nitems = camera_items(0)\n"
        "for _ in range(3):\n    print(next(items).frame)\n    time.sleep(0.5)\nitems.close()\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, env=stand_in, timeout=60)
    frames = list(map(int, done.stdout.split()[:3]))
    # Of 100 a second, at most; on a busy machine still far more than one.
    assert frames[1] - frames[0] > 5 and frames[2] - frames[1] > 5
    assert done.stdout.split()[3:] == ["released"]


def test_a_camera_that_stops_or_is_absent_is_an_error(stand_in: dict[str, str], tmp_path: Path) -> None:
    done = call("--camera", 1, "--csv", "--out", tmp_path / "out.csv", env=stand_in)
    assert done.returncode == 17 and "camera 1 gives no frames any more" in done.stderr
    assert 1 <= len((tmp_path / "out.csv").read_text().splitlines()) - 1 <= 5
    # What a camera showed cannot be shown again.
    done = call("--camera", 0, "--csv", "--out", tmp_path / "out.csv", env=stand_in)
    assert done.returncode == 8 and "exists" in done.stderr
    done = call("--camera", 2, env=stand_in)
    assert done.returncode == 17 and "camera 2 cannot be opened" in done.stderr
    (tmp_path / "picamera2.py").write_text(NO_MODULE)
    done = call("--picamera", env=stand_in)
    assert done.returncode == 17 and "camera module cannot be started" in done.stderr
    (tmp_path / "picamera2.py").write_text("raise ImportError('no libcamera')")
    (tmp_path / "cv2.py").write_text("raise ImportError('no libGL')")
    steps = {"--picamera": "apt install python3-picamera2", "--camera=0": "bssl-tf-deploy[camera]"}
    for argument, step in steps.items():
        done = call(argument, env=stand_in)
        assert done.returncode == 10 and step in done.stderr and len(done.stderr.splitlines()) == 1


def test_a_camera_is_let_go_when_the_run_is_stopped(stand_in: dict[str, str]) -> None:
    with subprocess.Popen(
        [*PROGRAM, "run", ZOO, "--camera", "0", "--jsonl"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=stand_in
    ) as process:
        assert process.stdout and process.stderr
        process.stdout.readline()
        process.send_signal(signal.SIGINT)
        start = time.monotonic()
        said, errors = process.communicate(timeout=30)
        assert process.returncode == 130 and time.monotonic() - start < 10
        assert said.splitlines()[-1] == b"released"
        assert errors.splitlines() == [b"error[interrupted]: stopped. Run the same command again."]
