"""What `run` does, here and on the host: answers images from files, folders, standard input, videos and cameras."""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bssl_tf_deploy.agreement import Agreement
from bssl_tf_deploy.bundle import MANIFEST
from bssl_tf_deploy.cameras import camera_items, picamera_items, video_items
from bssl_tf_deploy.errors import ImageError, UsageError
from bssl_tf_deploy.folders import is_folder
from bssl_tf_deploy.output_file import OutputFile
from bssl_tf_deploy.predictor import Predictor
from bssl_tf_deploy.progress import Progress
from bssl_tf_deploy.results import FORMATS, Asked, make_format
from bssl_tf_deploy.runtime import Runtime
from bssl_tf_deploy.sources import STDIN, Item, count_items, file_items
from bssl_tf_deploy.stream import in_order, preparer
from bssl_tf_deploy.text import write as write_out


@dataclass(frozen=True)
class RunSettings:
    """Which images are to be answered, and how.

    Attributes:
        images: files, folders, and `-` for paths on standard input.
        camera: OpenCV's number of one; None for none.
        video: a file; None for none.
        picamera: the camera module of a Raspberry Pi.
        frames: at most this many frames of a video or camera; None for all.
        top: how many parts an answer may have, classes or boxes; None for the task's usual number.
        outputs: print the network's outputs instead of answers.
        format: one of `results.FORMATS`.
        out: a file instead of standard output, which is continued if it is partly there.
        annotate: a folder for pictures with the answers drawn in; None for none.
    """

    images: tuple[str, ...] = ()
    camera: int | None = None
    video: str | None = None
    picamera: bool = False
    frames: int | None = None
    top: int | None = None
    outputs: bool = False
    format: str = "table"
    out: Path | None = None
    annotate: Path | None = None

    @property
    def live(self) -> bool:
        """Whether images come from a camera."""
        return self.camera is not None or self.picamera

    def check(self) -> None:
        """Raises `UsageError` where options do not go together."""
        given = [bool(self.images), self.camera is not None, self.video is not None, self.picamera]
        places = "images or folders, - for paths on standard input, or a video or camera"
        if not any(given):
            raise UsageError("no images, video or camera were given", f"Give {places}")
        if sum(given) > 1:
            raise UsageError("images can come from one kind of source only", f"Give {places}")
        if self.frames is not None and self.images:
            raise UsageError("--frames is for videos and cameras", "Omit it")
        if self.images.count(STDIN) > 1:
            raise UsageError("standard input can be read once only", "Give - once")
        if self.format not in FORMATS:
            raise UsageError(f"there is no format {self.format!r}", f"Choose one of {', '.join(FORMATS)}")
        if self.out is not None and self.format not in ("csv", "jsonl"):
            raise UsageError("--out needs --csv or --jsonl, which can be continued", "Add one of them, or omit it")
        if self.annotate is not None and self.outputs:
            raise UsageError("--annotate draws answers, and --outputs gives none", "Omit one of them")


def output_format(*, json: bool, jsonl: bool, csv: bool) -> str:
    """The format that was asked for by switches. Raises `UsageError` for more than one."""
    named = [name for name, given in (("json", json), ("jsonl", jsonl), ("csv", csv)) if given]
    if len(named) > 1:
        raise UsageError(f"--{named[0]} and --{named[1]} do not go together", "Omit one of them")
    return named[0] if named else "table"


def run(predictor: Predictor, settings: RunSettings, check: Runtime | None = None) -> int:
    """Prints or writes the answer for each image, in order; reports and counts those that cannot be read.

    Images are prepared in other threads while the network runs. Memory does not grow with their number, but by the
    names of one folder.

    Args:
        predictor: checked against its golden outputs.
        settings: what to do.
        check: a second runtime, that has to give the same for the same images.

    Returns:
        The exit status: 0, or that of `ImageError` if any image could not be read.

    Raises:
        UsageError: settings do not go together, or the bundle's task draws nothing.
        BundleError: the second runtime does not agree.
        CameraError: the camera cannot be used, or stops.
        ImageError: the video cannot be read.
        StorageError: `out` or `annotate` cannot be written, or is of something else.
    """
    settings.check()
    bundle, task = predictor.bundle, predictor.task
    if settings.annotate is not None and not task.draws:
        raise UsageError(f"answers of the task {bundle.manifest.task} are not drawn into pictures", "Omit --annotate")
    limit = settings.top or task.usual_limit
    made = make_format(
        settings.format,
        task,
        bundle.manifest,
        Asked(limit, settings.outputs),
        frames=not settings.images,
    )
    items = _items(settings)
    with contextlib.ExitStack() as stack:
        write: Callable[[str], None] = write_out
        answered = unreadable = 0
        if settings.out is not None:
            file = stack.enter_context(OutputFile(settings.out, _state(predictor, settings, limit)))
            items = file.continued(items, made)
            write, answered, unreadable = file.write, file.answered, file.unreadable
        else:
            write(made.head())
        before = answered + unreadable
        pictures = None
        if settings.annotate is not None:
            # Needs Pillow's fonts.
            from bssl_tf_deploy.drawing import Annotations

            pictures = Annotations(settings.annotate, task, more=before > 0)
        bar = stack.enter_context(_bar(settings, before))
        if before:
            bar.say(f"{settings.out}: {before} images are already in it")
        agreement = Agreement(bundle)
        # Closed before the output is: a camera is let go, and threads end.
        ready = stack.enter_context(
            contextlib.closing(in_order(items, preparer(predictor.prepare), live=settings.live))
        )
        for item, prepared in ready:
            if isinstance(prepared, ImageError):
                bar.say(str(prepared))
                write(made.error(item, prepared))
                unreadable += 1
            else:
                answer, outputs = predictor.answer(prepared, limit)
                if pictures is not None:
                    pictures.add(item, answer)
                write(made.answer(item, answer, outputs))
                answered += 1
                if check is not None:
                    predictor.compare(agreement, check, prepared)
            bar.step(readable=not isinstance(prepared, ImageError))
        write(made.tail())
        if settings.out is not None or any(one == STDIN or is_folder(one) for one in settings.images):
            left = f", {unreadable} could not be read" if unreadable else ""
            bar.say(f"{answered + unreadable} images: {answered} answered{left}")
        if check is not None and agreement.images:
            agreement.require()
            agreed = f"agrees on {agreement.images} images: differences up to {agreement.largest:.2g}"
            bar.say(f"{check.kernel} {agreed}")
    return ImageError.exit_status if unreadable else 0


def _items(settings: RunSettings) -> Iterator[Item]:
    if settings.images:
        return file_items(settings.images)
    if settings.video is not None:
        items = video_items(settings.video)
    else:
        items = picamera_items() if settings.camera is None else camera_items(settings.camera)
    return items if settings.frames is None else _first(items, settings.frames)


def _first(items: Iterator[Item], count: int) -> Iterator[Item]:
    # Closes `items` when it is closed, which islice does not.
    with contextlib.closing(items):  # type: ignore[type-var]
        yield from itertools.islice(items, count)


def _bar(settings: RunSettings, before: int) -> Progress:
    # Answers on the same terminal are progress enough.
    shown = sys.stderr.isatty() and (settings.out is not None or not sys.stdout.isatty())
    total = count_items(settings.images) if shown and settings.images else settings.frames
    return Progress(total, before, shown=shown)


def _state(predictor: Predictor, settings: RunSettings, limit: int) -> dict[str, Any] | None:
    """What a file of answers is of, to be continued by the same alone."""
    if settings.live:
        return None
    manifest = (predictor.bundle.path / MANIFEST).read_bytes()
    names = [one if one == STDIN else str(Path(one).absolute()) for one in settings.images]
    return {
        "bundle": hashlib.sha256(manifest).hexdigest(),
        "format": settings.format,
        "top": limit,
        "outputs": settings.outputs,
        "images": names,
        "video": settings.video and str(Path(settings.video).absolute()),
        "frames": settings.frames,
        **predictor.task.state(),
    }
