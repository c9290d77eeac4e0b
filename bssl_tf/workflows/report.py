"""What `bssl-tf report` does: all that is known of runs, on one page or as tables."""

from __future__ import annotations

import os
import shlex
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from bssl_tf import __version__
from bssl_tf.errors import ConfigError
from bssl_tf.files import write_text
from bssl_tf.reports.formats import FORMATS
from bssl_tf.reports.page import as_html
from bssl_tf.reports.runs import read_runs
from bssl_tf.reports.sections import make_document
from bssl_tf_deploy.system_errors import system_errors

PAGE = "report.html"
HTML = "html"


@dataclass(frozen=True)
class Reported:
    """A report.

    Attributes:
        path: where it was written; None where it was not.
        content: the page or the tables themselves.
    """

    path: Path | None
    content: str = field(repr=False)


@system_errors()
def report(
    runs: str | os.PathLike[str] | Sequence[str | os.PathLike[str]],
    *,
    out: str | Path | None = None,
    format: str = HTML,
    images: int = 8,
    data_dir: str | None = None,
) -> Reported:
    """Shows all that is known of runs, and compares them.

    Nothing is downloaded, and the run folders get no other file than the report.

    Args:
        runs: one or more run folders of `pretrain` or `train_teacher`, or folders of `import_teacher`.
        out: the file to write; None for RUN/report.html (report.html here, of several runs) with `html`, and for no
            file with the others.
        format: `html`, one page that works offline; or `table`, `markdown`, `csv` or `json`, the tables alone.
        images: sample images of each run (`html` only); 0 omits mistakes, views,
            neighbours and map, which load TensorFlow.
        data_dir: where TFDS keeps its data; None for the place in the run.

    Raises:
        ConfigError: the format is unknown.
        RunFolderError: a folder is not a run, or a record in it is damaged.
        StorageError: the report cannot be written.
    """
    if format != HTML and format not in FORMATS:
        raise ConfigError(f"format is {format!r}", f"Choose one of {', '.join((HTML, *FORMATS))}")
    folders = [Path(run) for run in ([runs] if isinstance(runs, (str, os.PathLike)) else runs)]
    known = read_runs(folders)
    mistakes, pictures = [], []
    trained = [run for run in known if not run.imported]
    if format == HTML and images:
        from bssl_tf.reports.box_pictures import box_picture_section
        from bssl_tf.reports.mistakes import mistake_section
        from bssl_tf.reports.pictures import picture_sections

        mistakes = [*mistake_section(known, images, data_dir), *box_picture_section(known, images, data_dir)]
        pictures = picture_sections(trained, images, data_dir) if trained else []
    options = [*([] if format == HTML else ["--format", format]), *([] if images else ["--no-images"])]
    options += ["--data-dir", data_dir] if data_dir else []
    call = shlex.join(["bssl-tf", "report", *map(str, folders), *options])
    made = f"Made {time.strftime('%Y-%m-%d %H:%M UTC', time.gmtime())} by bssl-tf {__version__}."
    document = make_document(known, call, made, mistakes, pictures)
    content = as_html(document) if format == HTML else FORMATS[format](document)
    if out is None and format == HTML:
        out = known[0].path / PAGE if len(known) == 1 else PAGE
    if out is None:
        return Reported(None, content)
    write_text(Path(out), content)
    return Reported(Path(out), content)
