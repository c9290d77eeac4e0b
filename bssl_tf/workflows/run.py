"""A finished run, as the trainings return it, with what to do next as methods."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from bssl_tf.evaluation.records import Evaluation
    from bssl_tf.workflows.exported import Exported
    from bssl_tf.workflows.report import Reported


@dataclass(frozen=True)
class Run:
    """A finished run; a notebook shows what `bssl-tf summary` prints of it.

    Attributes:
        path: the run folder, which `bssl-tf` commands take too.
        network: the folder in it with the trained network.
    """

    path: Path
    network: Path

    def __fspath__(self) -> str:
        return str(self.path)

    def _repr_pretty_(self, printer: Any, cycle: bool) -> None:
        from bssl_tf.errors import BsslError
        from bssl_tf.workflows.summary import summarise

        try:
            known = str(summarise(self.path))
        except BsslError as error:  # a notebook is no place to fail in for showing something
            known = str(error)
        printer.text(f"{self.path}\n{known}")

    def evaluate(self, **options: Any) -> Evaluation:
        """See `bssl_tf.evaluate`."""
        from bssl_tf.workflows.python import evaluate

        return evaluate(self.path, **options)

    def finetune(self, data: str | Path | None = None, **options: Any) -> Run:
        """See `bssl_tf.finetune`."""
        from bssl_tf.workflows.python import finetune

        return finetune(self.path, data, **options)

    def export(self, **options: Any) -> Exported:
        """See `bssl_tf.export`."""
        from bssl_tf.workflows.export import export

        return export(self.path, **options)

    def report(self, **options: Any) -> Reported:
        """See `bssl_tf.report`."""
        from bssl_tf.workflows.report import report

        return report(self.path, **options)
