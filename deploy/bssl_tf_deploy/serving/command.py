"""The command `serve`."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path

from bssl_tf_deploy.predictor import Predictor
from bssl_tf_deploy.serving.settings import TOKEN_VARIABLE, ServeSettings

COMMAND = "serve"


def add_options(parser: argparse.ArgumentParser) -> None:
    """Those that other commands do not have; `ServeSettings.check` knows their ranges."""
    usual = ServeSettings()
    options = (
        ("--host", str, "ADDRESS", usual.host, f"where to listen [default: {usual.host}, this machine only]"),
        ("--port", int, "PORT", usual.port, f"[default: {usual.port}]"),
        ("--token-file", Path, "FILE", None, f"what clients have to know [default: {TOKEN_VARIABLE}, or a new token]"),
        ("--top", int, "N", None, "classes or boxes to give for each image [default: 3, 100 boxes]"),
        ("--max-mb", int, "MB", usual.max_mb, f"largest upload [default: {usual.max_mb}]"),
        ("--queue", int, "N", usual.queue, f"uploads that may wait [default: {usual.queue}]"),
        ("--timeout", float, "SECONDS", usual.timeout_s, f"for an upload to come [default: {usual.timeout_s:g}]"),
    )
    for name, kind, metavar, default, words in options:
        parser.add_argument(name, type=kind, metavar=metavar, default=default, help=words)
    # One, as a page shows one answer.
    parser.add_argument("--head", nargs=1, metavar="NAME", help="answer by a head that `learn` made")


def run(options: argparse.Namespace, prepare: Callable[[], Predictor]) -> None:
    """Answers images over HTTP; `prepare` is called when the settings were checked. Raises as `serve` does."""
    settings = ServeSettings(
        host=options.host,
        port=options.port,
        token_file=options.token_file,
        top=options.top,
        max_mb=options.max_mb,
        queue=options.queue,
        timeout_s=options.timeout,
    )
    settings.check()
    # Here, as it needs the framework.
    from bssl_tf_deploy.serving.server import serve

    serve(prepare(), settings)
