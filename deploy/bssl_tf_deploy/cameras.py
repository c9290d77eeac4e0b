"""Frames of video files and cameras, through OpenCV or picamera2, which are imported only when asked for."""

from __future__ import annotations

import contextlib
import logging
import os
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from bssl_tf_deploy.errors import CameraError, ImageError, RuntimeUnavailableError
from bssl_tf_deploy.files import require_regular
from bssl_tf_deploy.sources import Item

_log = logging.getLogger(__name__)
_MAX_VIDEO_BYTES = 1 << 40
_FIRST_FRAME_S = 30.0
Frame = np.ndarray
"""uint8 [H, W, 3], RGB."""


def video_items(path: str) -> Iterator[Item]:
    """Every frame of a video file, in order, turned upright as the file states.

    Raises:
        ImageError: it is missing, not a file, or not a video that OpenCV can read.
        RuntimeUnavailableError: OpenCV is not installed.
    """
    cv2 = _opencv()
    try:
        # OpenCV would take an address on the network, or wait for a pipe.
        require_regular(Path(path), _MAX_VIDEO_BYTES)
    except OSError as error:
        raise ImageError(f"{path} cannot be read: {error.strerror}", "Check the file") from error
    capture = cv2.VideoCapture(str(Path(path).absolute()))
    # A name with digits would be the first of a series of images.
    is_video = capture.isOpened() and capture.getBackendName() != "CV_IMAGES"
    try:
        number = 0
        while is_video and (frame := _read(capture)) is not None:
            yield Item(path, frame, number, round(capture.get(cv2.CAP_PROP_POS_MSEC) / 1000, 3))
            number += 1
        if not number:
            raise ImageError(f"{path} is not a video that OpenCV can read", "Check the file, or convert it to MP4")
        stated = int(capture.get(cv2.CAP_PROP_FRAME_COUNT))
        if stated > number:
            # Not an error: of some containers it is an estimate.
            _log.warning("%s: %d frames could be read, and it states %d", path, number, stated)
    finally:
        capture.release()


def camera_items(number: int) -> Iterator[Item]:
    """The newest frame of a camera, as often as one is wanted; frames that come meanwhile are dropped.

    Args:
        number: OpenCV's: 0 is the first camera, /dev/video0 on Linux.

    Raises:
        CameraError: there is no such camera, or it stops.
        RuntimeUnavailableError: OpenCV is not installed.
    """
    cv2 = _opencv()
    name = f"camera {number}"
    capture = cv2.VideoCapture(number)
    if not capture.isOpened():
        raise CameraError(
            f"{name} cannot be opened",
            "Check that it is connected, that no other program uses it, and "
            "that you may read /dev/video* (on Linux: be in the group `video`)",
        )
    return _newest(name, lambda: _read(capture), capture.release)


def picamera_items() -> Iterator[Item]:
    """The newest frame of a Raspberry Pi's camera module, as `camera_items` gives it.

    Raises:
        CameraError: there is none, or it stops.
        RuntimeUnavailableError: picamera2 is not installed.
    """
    try:
        from picamera2 import Picamera2
    except ImportError as error:
        raise RuntimeUnavailableError(
            f"picamera2 cannot be loaded ({error})",
            "On a Raspberry Pi run `sudo apt install python3-picamera2`, and make the virtual environment with "
            "--system-site-packages; for USB cameras use --camera",
        ) from error
    try:
        camera = Picamera2()
        # Its names are of the order in a word: of this one the bytes are red, green, blue (Picamera2 manual, A).
        camera.configure(camera.create_video_configuration(main={"format": "BGR888"}))
        camera.start()
    except Exception as error:  # libcamera's errors are of many kinds; IndexError where there is no camera.
        raise CameraError(
            f"the camera module cannot be started ({error})", "Check its cable, and `rpicam-hello --list-cameras`"
        ) from error

    def end() -> None:
        with contextlib.suppress(Exception):
            camera.stop()
            camera.close()

    return _newest("picamera", lambda: np.asarray(camera.capture_array("main"))[..., :3], end)


def _newest(name: str, read: Callable[[], Frame | None], end: Callable[[], None]) -> Iterator[Item]:
    """Reads in a thread of its own, so that frames do not queue up in the driver and grow old."""
    fresh, stop = threading.Condition(), threading.Event()
    state: dict[str, Any] = {"fresh": False, "number": -1, "error": None}

    def watch() -> None:
        error = f"{name} gives no frames any more"
        try:
            while not stop.is_set() and (frame := read()) is not None:
                with fresh:
                    state.update(fresh=True, frame=frame, number=state["number"] + 1, at=time.monotonic())
                    fresh.notify()
        except Exception as failed:
            error = f"{name} failed ({failed})"
        finally:
            with fresh:
                state["error"] = error
                fresh.notify()
            end()

    started = time.monotonic()
    thread = threading.Thread(target=watch, name=name, daemon=True)
    thread.start()
    try:
        while True:
            with fresh:
                came = fresh.wait_for(lambda: state["fresh"] or state["error"], _FIRST_FRAME_S)
                if not came or not state["fresh"]:
                    what = state["error"] or f"{name} has given no frame for {_FIRST_FRAME_S:.0f} s"
                    raise CameraError(what, "Check the camera and its cable, then run the same command again")
                state["fresh"] = False
                item = Item(name, state["frame"], state["number"], round(state["at"] - started, 3))
            yield item
    finally:
        stop.set()
        thread.join(timeout=2)


def _opencv() -> Any:
    # What it prints would stand between answers; set before it is loaded.
    os.environ.setdefault("OPENCV_LOG_LEVEL", "OFF")
    os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")
    try:
        import cv2
    except ImportError as error:
        raise RuntimeUnavailableError(
            f"OpenCV cannot be loaded ({error})", "Install it with `pip install 'bssl-tf-deploy[camera]'`"
        ) from error
    return cv2


def _read(capture: Any) -> Frame | None:
    there, frame = capture.read()
    # Blue comes first.
    return frame[..., ::-1] if there else None
