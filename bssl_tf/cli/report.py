"""`bssl-tf report`."""

from __future__ import annotations

import shlex
import time
from pathlib import Path

import click

from bssl_tf import __version__
from bssl_tf.cli import completion
from bssl_tf.cli.options import prose

_PAGE = "report.html"


@click.command("report")
@click.argument("runs", nargs=-1, required=True, metavar="RUN...", shell_complete=completion.folders)
@click.option(
    "--out",
    metavar="FILE",
    shell_complete=completion.files,
    help=f"Write to FILE. [html: RUN/{_PAGE}, of several runs {_PAGE}; else the screen]",
)
@click.option(
    "--format",
    "form",
    type=click.Choice(("html", "table", "markdown", "csv", "json")),
    default="html",
    show_default=True,
    help="One page with plots and pictures, or the tables alone.",
)
@click.option("--json", "form", flag_value="json", help="The same as --format json.")
@click.option(
    "--images", default=8, show_default=True, type=click.IntRange(1, 64), help="Sample images of each run (html only)."
)
@click.option("--no-images", is_flag=True, help="Leave out views, neighbours and map, which load TensorFlow.")
@click.option(
    "--data-dir", metavar="DIR", shell_complete=completion.folders, help="Where TFDS keeps its data. [as in the run]"
)
def command(
    runs: tuple[str, ...], out: str | None, form: str, images: int, no_images: bool, data_dir: str | None
) -> None:
    """Show all that is known of each RUN, a folder of `bssl-tf pretrain` or `bssl-tf teacher`, and compare them.

    What was trained, accuracy beside controls and teacher, size, latency, training curves; with html as one page that
    works offline, with plots, views as the network sees them, nearest neighbours and a map of the features. What is
    missing is named, with the command that makes it. Nothing is downloaded, and RUN gets no other file.
    """
    from bssl_tf.files import write_text
    from bssl_tf.reports.formats import FORMATS
    from bssl_tf.reports.runs import read_runs
    from bssl_tf.reports.sections import make_document

    known = read_runs([Path(run) for run in runs])
    pictures = []
    if form == "html" and not no_images:
        from bssl_tf.reports.pictures import picture_sections

        pictures = picture_sections(known, images, data_dir, prose)
    options = [*([] if form == "html" else ["--format", form]), *(["--no-images"] if no_images else [])]
    options += ["--data-dir", data_dir] if data_dir else []
    call = shlex.join(["bssl-tf", "report", *runs, *options])
    made = f"Made {time.strftime('%Y-%m-%d %H:%M UTC', time.gmtime())} by bssl-tf {__version__}."
    document = make_document(known, call, made, pictures)
    if form == "html":
        from bssl_tf.reports.page import as_html

        out = out or str(known[0].path / _PAGE if len(known) == 1 else Path(_PAGE))
        content = as_html(document)
    else:
        content = FORMATS[form](document)
    if out is None:
        click.echo(content, nl=False)
        return
    write_text(Path(out), content)
    prose(
        f"{Path(out).resolve()}: {len(content.encode()) / 1024:.0f} KiB"
        + (", open it in a browser" if form == "html" else "")
    )
