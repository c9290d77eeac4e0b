"""`bssl-tf report`."""

from __future__ import annotations

import click

from bssl_tf.cli import completion
from bssl_tf.cli.options import prose
from bssl_tf_deploy.text import show


@click.command("report")
@click.argument("runs", nargs=-1, required=True, metavar="RUN...", shell_complete=completion.folders)
@click.option(
    "--out",
    metavar="FILE",
    shell_complete=completion.files,
    show_default="html: RUN/report.html, or report.html for several runs; others: the screen",
    help="Write to FILE.",
)
@click.option(
    "--format",
    "form",
    type=click.Choice(("html", "table", "markdown", "csv", "json")),
    default="html",
    help="One page with plots and images, or only the tables.",
)
@click.option("--json", "form", flag_value="json", help="The same as --format json.")
@click.option("--images", default=8, type=click.IntRange(1, 64), help="Sample images of each run (html only).")
@click.option("--no-images", is_flag=True, help="Omit mistakes, views, neighbours and map, which need TensorFlow.")
@click.option(
    "--data-dir",
    metavar="DIR",
    shell_complete=completion.folders,
    show_default="as in the run",
    help="Where TFDS keeps its data.",
)
def command(
    runs: tuple[str, ...], out: str | None, form: str, images: int, no_images: bool, data_dir: str | None
) -> None:
    """Report everything known about each RUN, a folder of `bssl-tf pretrain`, `teacher` or
    `import-teacher`, and compare them.

    The verdict comes first, then accuracy with controls and teacher, confusions between classes, size, latency and
    training curves. In html it is one page that works offline, with plots, the most confident mistakes, views as the
    network sees them, nearest neighbours and a map of the features. Anything missing is listed with the command that
    produces it. Nothing is downloaded, and no other file is written to RUN.
    """
    from bssl_tf.workflows.report import report

    done = report(runs, out=out, format=form, images=0 if no_images else images, data_dir=data_dir)
    if done.path is None:
        show(*done.content.removesuffix("\n").split("\n"))
        return
    prose(
        f"{done.path.resolve()}: {len(done.content.encode()) / 1024:.0f} KiB"
        + (", open it in a browser" if form == "html" else "")
    )
