"""The `bssl-tf-deploy` command: what `bssl-tf run` and `bssl-tf bench` do, as far as a device can.

`bssl-tf run` calls the same functions.
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

import numpy as np

from bssl_tf_deploy import conditions
from bssl_tf_deploy.bench import bench_bundle
from bssl_tf_deploy.bundle import read_bundle
from bssl_tf_deploy.door import run_command
from bssl_tf_deploy.errors import BsslError, ImageError
from bssl_tf_deploy.measure import MeasureSettings, measure_bundle, thread_counts
from bssl_tf_deploy.predictor import Predictor
from bssl_tf_deploy.quiet import LibraryOutput, captured_output
from bssl_tf_deploy.record import Record
from bssl_tf_deploy.runtime import MAX_THREADS, RUNTIMES, Runtime, load_runtime
from bssl_tf_deploy.show import record_lines
from bssl_tf_deploy.text import printable, show, show_json


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


def run_images(
    predictor: Predictor, images: Sequence[str], top: int, *, outputs: bool, as_json: bool, check: Runtime | None = None
) -> int:
    """Prints the answer for each image, or the network's outputs; reports an image that cannot be read.

    Args:
        predictor: from `prepare`.
        images: files.
        top: how many parts an answer may have: classes.
        outputs: print the network's outputs instead of answers.
        as_json: print one JSON list at the end instead of lines.
        check: a second runtime, that has to give the same for the same images.

    Returns:
        The exit status: 0, or that of `ImageError`.

    Raises:
        BundleError: the second runtime does not agree.
    """
    records: list[dict[str, Any]] = []
    for image in images:
        try:
            answer, numbers = predictor.answer(predictor.prepare(Path(image)), top)
        except ImageError as error:
            show(error, file=sys.stderr)
            records.append({"image": image, "error": str(error)})
            continue
        if outputs:
            records.append({"image": image, "outputs": {name: array.tolist() for name, array in numbers.items()}})
            lines = [_numbers(name, array, alone=len(numbers) == 1) for name, array in numbers.items()]
        else:
            records.append({"image": image, **predictor.task.record(answer)})
            lines = list(predictor.task.lines(answer))
        if not as_json:
            show(*(f"{image}  {line}" for line in lines))
    if as_json:
        show_json(records)
    readable = [record["image"] for record in records if "error" not in record]
    if check is not None and readable:
        largest = predictor.check_against(check, readable)
        show(f"{check.kernel} agrees on {len(readable)} images: differences up to {largest:.2g}", file=sys.stderr)
    return 0 if len(readable) == len(records) else ImageError.exit_status


def _numbers(name: str, array: np.ndarray, *, alone: bool) -> str:
    numbers = " ".join(f"{value:.6g}" for value in array.ravel())
    return numbers if alone else f"{name}  {numbers}"


def bench(predictor: Predictor, runtime: Runtime, options: argparse.Namespace) -> int:
    """Times a bundle's network with one image and prints the record."""
    record = bench_bundle(
        predictor.bundle,
        runtime,
        {},
        threads=options.threads,
        warmup=options.warmup,
        repetitions=options.repetitions,
    )
    return _printed(record, options)


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


@contextlib.contextmanager
def _progress() -> Iterator[None]:
    """Shows on stderr what is being done, also while native libraries are kept from writing there."""
    with os.fdopen(os.dup(sys.stderr.fileno()), "w", encoding="utf-8", errors="replace") as stderr:
        handler = logging.StreamHandler(stderr)
        handler.setFormatter(logging.Formatter("%(message)s"))
        logger = logging.getLogger("bssl_tf_deploy")
        logger.setLevel(logging.INFO)
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
    options = _parser().parse_args(given)
    options.given = given
    if options.command == "measure":
        with _progress():
            return measure_all(options)
    predictor, runtime = prepare(options.bundle, options.threads, options.runtime, options.trust_bundle_library)
    if options.command == "bench":
        return bench(predictor, runtime, options)
    return run_images(predictor, options.images, options.top, outputs=options.outputs, as_json=options.as_json)


class _Parser(argparse.ArgumentParser):
    """Its messages repeat what was given: names of files, which others may have chosen."""

    def error(self, message: str) -> NoReturn:
        super().error(printable(message))


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(prog="bssl-tf-deploy", description="Run a bundle of bssl-tf on this machine.")
    commands = parser.add_subparsers(dest="command", required=True)
    run = commands.add_parser("run", help="run the network on images")
    timing = commands.add_parser("bench", help="time the network with one image")
    everything = commands.add_parser("measure", help="measure everything: start-up, latency, memory, sustained load")
    for command in (run, timing, everything):
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
        command.add_argument("--json", action="store_true", dest="as_json", help="print the record as JSON")
        command.add_argument("--debug", action="store_true", help="show the traceback of an error")
    run.add_argument("images", nargs="+", metavar="IMAGE")
    run.add_argument("--top", default=3, type=_whole(1), help="classes to print for each image [default: 3]")
    run.add_argument("--outputs", action="store_true", help="print the network's outputs instead of answers")
    timing.add_argument("--repetitions", default=100, type=_whole(1), help="number of timed calls [default: 100]")
    timing.add_argument("--warmup", default=10, type=_whole(0), help="number of untimed calls [default: 10]")
    everything.add_argument("--threads", default="1", metavar="N,N", help="thread counts, or all [default: 1]")
    everything.add_argument(
        "--budget", default=30.0, type=_seconds, help="seconds of timed calls per thread count [default: 30]"
    )
    everything.add_argument(
        "--sustained", default=0.0, type=_seconds, help="seconds to run without a pause [default: none]"
    )
    everything.add_argument(
        "--beside", nargs=2, action="append", default=[], metavar=("NAME", "FILE"), help="a model to time, interleaved"
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
