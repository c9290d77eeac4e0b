"""The `bssl-tf-deploy` command: what `bssl-tf run`, `embed` and `bench` do, as far as a device can.

`bssl-tf run` and `embed` call the same functions.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import logging
import os
import shlex
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NoReturn

from bssl_tf_deploy import conditions, head_commands
from bssl_tf_deploy.bench import bench_bundle
from bssl_tf_deploy.bundle import read_bundle
from bssl_tf_deploy.door import run_command
from bssl_tf_deploy.embedding import FeatureNetwork, bundle_features, embed, lines, summary
from bssl_tf_deploy.errors import BsslError, ImageError
from bssl_tf_deploy.measure import MeasureSettings, measure_bundle, read_model, thread_counts
from bssl_tf_deploy.predictor import Predictor
from bssl_tf_deploy.quiet import LibraryOutput, captured_output
from bssl_tf_deploy.record import BINARY, Record
from bssl_tf_deploy.running import RunSettings, output_format, run
from bssl_tf_deploy.runtime import MAX_THREADS, RUNTIMES, Runtime, load, load_runtime
from bssl_tf_deploy.serving import command as serving
from bssl_tf_deploy.show import record_lines
from bssl_tf_deploy.text import printable, show, show_json
from bssl_tf_deploy.vectors import check_output, write_vectors


def prepare(bundle: str, threads: int, runtime: str, trust_bundle_library: bool) -> tuple[Predictor, Runtime]:
    """A bundle and what runs it, checked against the golden outputs; see `bssl_tf_deploy.load`.

    What interpreters print meanwhile is kept from the terminal; if there is an error, --debug shows it.
    """
    content = read_bundle(Path(bundle))
    with captured_output() as output:
        try:
            made = load_runtime(content, threads, runtime, trust_bundle_library=trust_bundle_library)
            predictor = Predictor(content, made)
            predictor.verify_golden()
        except BsslError as error:
            printed = LibraryOutput(output())
            printed.__cause__ = error.__cause__
            raise error from printed
    return predictor, made


def bench(predictor: Predictor, runtime: Runtime, options: argparse.Namespace) -> int:
    """Times a bundle's network with one image and prints the record."""
    record = bench_bundle(
        predictor.bundle,
        runtime,
        {},
        {name: read_model(Path(file)) for name, file in options.beside},
        threads=options.threads,
        warmup=options.warmup,
        repetitions=options.repetitions,
    )
    return _printed(record, options)


def embed_images(predictor: Predictor, options: argparse.Namespace) -> int:
    """Writes the features of images to a file; the exit status is that of `run`."""
    found = embed(_features(predictor, options), options.images)
    if found.unreadable:
        show(*found.unreadable, file=sys.stderr)
    if options.packed:
        found = dataclasses.replace(found, vectors=found.vectors.packed())
    write_vectors(options.out, found.vectors)
    if options.as_json:
        show_json(summary(found, options.out))
    else:
        show(*lines(found, options.out))
    return ImageError.exit_status if found.unreadable else 0


def _features(predictor: Predictor, options: argparse.Namespace) -> FeatureNetwork:
    with captured_output():  # LiteRT announces XNNPACK
        return bundle_features(
            predictor, options.threads, options.runtime, trust_bundle_library=options.trust_bundle_library
        )


def with_heads(
    predictor: Predictor, heads: Sequence[str], threads: int, runtime: str, trust_bundle_library: bool
) -> Predictor:
    """The same network with heads that were learned on it, by name; with none, as it is. Raises what `load` does."""
    if not heads:
        return predictor
    several = len(heads) > 1
    with captured_output():  # LiteRT announces XNNPACK
        return load(
            predictor.bundle,
            threads,
            runtime,
            trust_bundle_library=trust_bundle_library,
            head=None if several else heads[0],
            heads=heads if several else (),
        )


def _asked(predictor: Predictor, options: argparse.Namespace) -> Predictor:
    return with_heads(predictor, options.head or (), options.threads, options.runtime, options.trust_bundle_library)


def measure_all(options: argparse.Namespace) -> int:
    """Prints all figures of a bundle; see `bssl_tf_deploy.measure`."""
    cores = conditions.facts()["cores"]
    try:
        threads = thread_counts(options.threads, cores)
    except ValueError:
        show(f"--threads {options.threads} is neither `all` nor numbers from 1 to 64: 1,2,4", file=sys.stderr)
        return 2
    settings = MeasureSettings(
        threads,
        {name: Path(file) for name, file in options.beside},
        options.budget,
        options.sustained,
        not options.no_times,
        options.trust_bundle_library,
    )
    with captured_output():  # LiteRT announces XNNPACK
        record = measure_bundle(Path(options.bundle), settings)
    return _printed(record, options)


def _printed(record: Record, options: argparse.Namespace) -> int:
    record = dataclasses.replace(record, command=shlex.join(["bssl-tf-deploy", *options.given]))
    if options.as_json:
        show_json(record.to_dict(), indent=None, sort_keys=True)
    else:
        show(*record_lines(record))
    return 0


class _Lines(logging.Formatter):
    """A record as one line."""

    def format(self, record: logging.LogRecord) -> str:
        """With "warning: " in front of what is one; file names of strangers are in it."""
        return ("warning: " if record.levelno >= logging.WARNING else "") + printable(record.getMessage())


@contextlib.contextmanager
def _progress(level: int = logging.INFO) -> Iterator[None]:
    """Shows on stderr what is being done, also while native libraries are kept from writing there."""
    with os.fdopen(os.dup(2), "w", encoding="utf-8", errors="replace") as stderr:
        handler = logging.StreamHandler(stderr)
        handler.setFormatter(_Lines())
        logger = logging.getLogger("bssl_tf_deploy")
        logger.setLevel(level)
        logger.addHandler(handler)
        try:
            yield
        finally:
            logger.removeHandler(handler)


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs the command line and exits with the error's status."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    run_command(
        lambda: _run(given),
        debug="--debug" in given,
        interrupted="error[interrupted]: stopped. Run the same command again.",
    )


def _run(given: list[str]) -> int:
    options = _parsed(given)
    options.given = given
    if options.command == "measure":
        with _progress():
            return measure_all(options)
    if options.command in head_commands.COMMANDS:
        head_commands.check(options)
        with _progress(logging.WARNING):
            return head_commands.run(options, lambda: _prepared(options)[0], lambda made: _features(made, options))
    if options.command == serving.COMMAND:
        with _progress(logging.WARNING):
            serving.run(options, lambda: _asked(_prepared(options)[0], options))
        return 0
    settings = _run_settings(options) if options.command == "run" else None
    if options.command == "embed":
        check_output(options.out, overwrite=options.overwrite)
    predictor, runtime = _prepared(options)
    if options.command == "embed":
        with _progress(logging.WARNING):
            return embed_images(predictor, options)
    if settings is None:
        return bench(predictor, runtime, options)
    with _progress(logging.WARNING):
        return run(_asked(predictor, options), settings)


def _prepared(options: argparse.Namespace) -> tuple[Predictor, Runtime]:
    return prepare(options.bundle, options.threads, options.runtime, options.trust_bundle_library)


class _Parser(argparse.ArgumentParser):
    """Its messages repeat what was given: names of files, which others may have chosen."""

    def error(self, message: str) -> NoReturn:
        super().error(printable(message))


def _run_settings(options: argparse.Namespace) -> RunSettings:
    settings = RunSettings(
        images=tuple(options.images),
        camera=options.camera,
        video=options.video,
        picamera=options.picamera,
        frames=options.frames,
        top=options.top,
        outputs=options.outputs,
        format=output_format(json=options.as_json, jsonl=options.jsonl, csv=options.csv),
        out=options.out,
        annotate=options.annotate,
    )
    # Before the bundle is read, not after.
    settings.check()
    return settings


def _parsed(given: Sequence[str]) -> argparse.Namespace:
    parser = _parser()
    options, left = parser.parse_known_args(given)
    if any(name == BINARY for name, _ in getattr(options, "beside", ())):
        parser.error(f"--beside: {BINARY} is the name of the bundle's own network")
    # argparse takes what comes after an option for none of its own where these may be absent.
    late = {"run": "images", "learn": "folder"}.get(options.command)
    if left and (late is None or any(one.startswith("-") and one != "-" for one in left)):
        parser.error(f"unrecognized arguments: {' '.join(left)}")
    if late is not None:
        setattr(options, late, [*getattr(options, late), *left])
    return options


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(prog="bssl-tf-deploy", description="Run a bundle of bssl-tf on this machine.")
    commands = parser.add_subparsers(dest="command", required=True)
    run_parser = commands.add_parser("run", help="run the network on images")
    embedding = commands.add_parser("embed", help="write the features of images to a file, for search")
    server = commands.add_parser(serving.COMMAND, help="answer images over HTTP, and show a page for a camera")
    timing = commands.add_parser("bench", help="time the network with one image")
    everything = commands.add_parser("measure", help="measure everything: start-up, latency, memory, sustained load")
    heads = head_commands.add_commands(commands)
    for command in (run_parser, embedding, server, timing, everything, *heads):
        command.add_argument("bundle", metavar="BUNDLE", help="the folder that `bssl-tf export` wrote")
        if command is not everything:
            command.add_argument(
                "--threads", default=1, type=_whole(1, MAX_THREADS), help="threads for one image [default: 1]"
            )
            command.add_argument(
                "--runtime", default="auto", choices=RUNTIMES, help="which runtime to use [default: auto]"
            )
        command.add_argument(
            "--trust-bundle-library",
            action="store_true",
            help="if this installation has no runtime, load the one in BUNDLE, which is its author's code",
        )
        if command is not server:
            command.add_argument("--json", action="store_true", dest="as_json", help="print JSON")
        command.add_argument("--debug", action="store_true", help="show the traceback of an error")
    run_parser.add_argument(
        "images", nargs="*", metavar="IMAGE", help="images, folders of images, or - for paths on standard input"
    )
    run_parser.add_argument("--camera", type=_whole(0), metavar="N", help="run on a camera, 0 for the first (OpenCV)")
    run_parser.add_argument("--video", metavar="FILE", help="run on each frame of a video (OpenCV)")
    run_parser.add_argument("--picamera", action="store_true", help="run on a Raspberry Pi camera module (picamera2)")
    run_parser.add_argument("--frames", type=_whole(1), metavar="N", help="stop after N frames of a video or camera")
    run_parser.add_argument("--csv", action="store_true", help="print a table for spreadsheets, one row per image")
    run_parser.add_argument("--jsonl", action="store_true", help="print one JSON object per image and line")
    run_parser.add_argument(
        "--out", type=Path, metavar="FILE", help="write --csv or --jsonl to FILE, and continue it if it is partly there"
    )
    run_parser.add_argument(
        "--top", type=_whole(1), metavar="N", help="classes or boxes to print for each image [default: 3, 100 boxes]"
    )
    run_parser.add_argument(
        "--annotate", type=Path, metavar="FOLDER", help="write each image with its boxes into FOLDER (detection)"
    )
    run_parser.add_argument(
        "--head", action="append", metavar="NAME", help="answer by a head that `learn` made; several, one by one"
    )
    run_parser.add_argument("--outputs", action="store_true", help="print the network's outputs instead of answers")
    head_commands.add_options(heads)
    embedding.add_argument(
        "images", nargs="+", metavar="IMAGE", help="images, folders of images, or - for paths on standard input"
    )
    embedding.add_argument("--out", type=Path, required=True, metavar="FILE", help="the file to write, FILE.npz")
    embedding.add_argument("--packed", action="store_true", help="one bit per feature instead of a float32")
    embedding.add_argument("--overwrite", action="store_true", help="replace FILE if it exists")
    serving.add_options(server)
    timing.add_argument("--repetitions", default=100, type=_whole(1), help="number of timed calls [default: 100]")
    timing.add_argument("--warmup", default=10, type=_whole(0), help="number of untimed calls [default: 10]")
    everything.add_argument("--threads", default="1", metavar="N,N", help="thread counts, or all [default: 1]")
    everything.add_argument(
        "--budget", default=30.0, type=_seconds, help="seconds of timed calls per thread count [default: 30]"
    )
    everything.add_argument(
        "--sustained", default=0.0, type=_seconds, help="seconds to run without a pause [default: none]"
    )
    for command in (timing, everything):
        command.add_argument(
            "--beside",
            nargs=2,
            action="append",
            default=[],
            metavar=("NAME", "FILE"),
            help="a .tflite model of the same input shape, float32 in and out, to time as well, interleaved",
        )
    everything.add_argument("--no-times", action="store_true", help="only compare the golden outputs")
    return parser


def _seconds(text: str) -> float:
    number = float(text)
    if not 0 <= number <= 86400:
        raise argparse.ArgumentTypeError(f"{text} is not from 0 to 86400")
    return number


def _whole(low: int, high: int = 10**9) -> Any:
    def whole(text: str) -> int:
        number = int(text)
        if not low <= number <= high:
            raise argparse.ArgumentTypeError(f"{number} is not from {low} to {high}")
        return number

    whole.__name__ = "number"  # argparse names it in its message
    return whole
