"""What `bssl-tf auto` does: the whole way from photos to a bundle and a report, by the other use cases, step by step.

    OUT/teacher/       pretrained, or trained on the photos
    OUT/student/       pretrained without labels, and evaluated with a linear probe
    OUT/tuned/         the same network fine-tuned with the labels, and the teacher's of all photos, and evaluated
    OUT/bundle/        whichever of the two is better on held-out images
    OUT/report.html    all of it

The same call continues where it stopped. A finished training is resumed too: it takes no more steps, but is refused if
its images are others by now.
"""

from __future__ import annotations

import logging
import math
import shlex
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bssl_tf.data.open import check_data
from bssl_tf.errors import ConfigError
from bssl_tf.files import storage_errors
from bssl_tf.settings import DataConfig, FinetuneConfig, check_choice
from bssl_tf.settings.durations import duration_of, seconds_of
from bssl_tf.workflows import finetune as finetuning
from bssl_tf.workflows import python as steps
from bssl_tf.workflows.export import export
from bssl_tf.workflows.import_teacher import import_teacher
from bssl_tf.workflows.plan import PRETRAINED, Plan, plan
from bssl_tf.workflows.report import report
from bssl_tf.workflows.run import Run
from bssl_tf_deploy.library import TARGETS, library_for
from bssl_tf_deploy.system_errors import system_errors

# Of the time: fine-tuning goes through all photos too.
_FINETUNING_SHARE = 0.5
# Of the pretrained teacher; views of a smaller student are resampled for it.
_SMALLEST = 32
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Auto:
    """What came out.

    Attributes:
        run: the better one of the two runs.
        bundle: its bundle.
        report: the page about both runs.
        top1: accuracy of the bundle's model on held-out images, percent; None where none were held out.
        images: how many these are.
        sentence: the same for a person.
        next_step: what to run next.
    """

    run: Path
    bundle: Path
    report: Path
    top1: float | None
    images: int
    sentence: str
    next_step: str


@system_errors()
def auto(
    data: str | Path,
    *,
    labels: str | Path,
    target: str,
    budget: str,
    out: str | Path = "runs/auto",
    image_size: int = 96,
) -> Auto:
    """Goes the whole way: teacher, student without labels, probe and fine-tuning with labels, bundle, report.

    With fewer than 50,000 photos, the teacher is the pretrained one if it is installed; otherwise one is trained on the
    photos. The bundle holds the linear probe or the fine-tuned network, whichever is better on held-out images. After
    an interruption the same call continues.

    Args:
        data: the folder with all photos, labelled or not.
        labels: the labelled ones, one sub-folder of images for each class.
        target: where the bundle will run: `arm64`, `x86_64` or `android-arm64`.
        budget: how long all training may take, such as `1h`; evaluation and export come on top.
        out: the folder for everything that is made.
        image_size: of the student, pixels per side.

    Raises:
        ConfigError: `target`, `budget` or `image_size` is wrong, or `budget` too short.
        DataError: there are no photos, or no labels.
        RuntimeUnavailableError: there is no compiler for `target`.
        BsslError: see `bssl_tf.errors`; every message ends with what to do next.
    """
    out = Path(out)
    # Mistakes first.
    check_choice("the target", target, TARGETS)
    check_data(DataConfig(str(labels), image_size=image_size))
    for_tuning = _FINETUNING_SHARE * seconds_of(budget)
    found = plan(Path(data), duration_of(seconds_of(budget) - for_tuning))
    library_for(target)
    if found.lacking:
        _log.info("hint: a pretrained teacher is better below 50,000 photos: `pip install 'bssl-tf[pretrained]'`")

    _step(1, "the teacher")
    teacher = _teacher(found, data, out / "teacher", image_size)
    _step(2, "the student, without labels")
    student = steps.pretrain(
        data,
        out=out / "student",
        teacher=teacher,
        budget=found.student,
        image_size=image_size,
        channels=3 if (teacher / "import.json").exists() else None,
        resume=True,
    )
    _step(3, "a linear probe on it")
    student.evaluate(data=labels)
    _step(4, "fine-tuning")
    taught: dict[str, Any] = {"teacher": str(teacher), "unlabelled": str(data)}
    epochs = _affordable_epochs(student, labels, out / "tuned", for_tuning, taught)
    tuned = student.finetune(labels, out=out / "tuned", epochs=epochs, resume=True, **taught)
    heads = tuned.evaluate().heads
    best, kind = (tuned, "fine-tuned") if heads is not None and heads.points > 0 else (student, "linear probe")
    _step(5, f"bundle ({kind}) and report")
    done = export(best.path, target=target, out=out / "bundle", overwrite=True)
    page = report([student.path, tuned.path], out=out / "report.html").path
    assert page is not None
    accuracy = getattr(done.manifest.table, "accuracy", None)
    measured = (
        f"{accuracy.top1_percent:.1f} % of {accuracy.images} held-out images are classified correctly ({kind})"
        if accuracy is not None
        else f"there were no held-out images to measure its accuracy on ({kind})"
    )
    return Auto(
        best.path,
        done.path,
        page,
        None if accuracy is None else accuracy.top1_percent,
        0 if accuracy is None else accuracy.images,
        f"{done.path} is ready for {target}: {measured}.",
        f"bssl-tf run {shlex.quote(str(done.path))} PHOTO",
    )


def _step(number: int, what: str) -> None:
    _log.info(f"step {number} of 5: {what}")


def _teacher(found: Plan, data: str | Path, out: Path, image_size: int) -> Path:
    """The folder of a teacher, which may be there already."""
    if (out / "import.json").exists():
        return out
    if found.pretrained and not (out / "config.toml").exists():
        # A killed import leaves half a folder.
        part = out.with_name(f"{out.name}.part")
        with storage_errors(part):
            shutil.rmtree(part, ignore_errors=True)
            import_teacher(PRETRAINED, out=part, image_size=max(image_size, _SMALLEST))
            part.rename(out)
        return out
    # A budget that was planned when a pretrained one was still installed has no time for it.
    steps.train_teacher(data, out=out, budget=found.teacher or found.student, image_size=image_size, resume=True)
    return out


def _affordable_epochs(
    student: Run, labels: str | Path, out: Path, seconds: float, taught: dict[str, Any]
) -> int | None:
    """As many as fit into the time, at most as many as by default; None for a run that continues.

    Raises:
        ConfigError: not even one fits.
    """
    if (out / "config.toml").exists():
        return None
    settings = {"student": str(student.path), "data": {"source": str(labels)}, **taught}
    expected = finetuning.ready_to_finetune(settings, out, resume=False).forecast()
    epochs = min(FinetuneConfig().training.epochs, math.floor((seconds - expected.graphs_s) / expected.epoch_s))
    if epochs < 1:
        raise ConfigError(
            f"{duration_of(seconds)} of the budget is not enough to fine-tune for an epoch",
            f"Give {duration_of((expected.graphs_s + expected.epoch_s) / _FINETUNING_SHARE)} or more",
        )
    return epochs
