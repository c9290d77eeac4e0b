"""A run folder as it is: settings, curves, accuracy, bundles, benchmarks, and what is missing or damaged."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from bssl_tf.errors import BsslError, RunFolderError
from bssl_tf.evaluation.detection import DetectionEvaluation, read_detection
from bssl_tf.evaluation.multilabel import MultiLabelEvaluation, read_multilabel
from bssl_tf.evaluation.predictions import Answers, read_predictions
from bssl_tf.evaluation.records import Evaluation, belong_together, read_evaluation
from bssl_tf.files import line_count, read_json, read_records
from bssl_tf.reports.benchmarks import Emulated, TimedNetwork, read_benchmarks
from bssl_tf.reports.fields import number, table, text, whole
from bssl_tf.settings import Import, read_import, read_run_config
from bssl_tf_converters.tflite.inspection import Inspection, inspect_model
from bssl_tf_deploy.bundle import read_bundle
from bssl_tf_deploy.manifest import Manifest
from bssl_tf_deploy.tasks.classification import Table

T = TypeVar("T")


@dataclass(frozen=True)
class RunBundle:
    """A bundle that is whole.

    Attributes:
        name: its folder's.
        model_bytes: of model.tflite.
        inspection: what the model is made of; None where it cannot be read.
        data: what its accuracy is of; "" where that is not known.
        top1: of the converted model itself, percent; None where it was not measured.
        top1_images: test images that it was measured on, which may be fewer than an evaluation's.
    """

    name: str
    manifest: Manifest
    model_bytes: int
    inspection: Inspection | None
    data: str
    top1: float | None
    top1_images: int | None


@dataclass(frozen=True)
class Run:
    """What is known of a run.

    Attributes:
        name: short, and unique among the runs of a report.
        path: its folder.
        given: the same as it was asked for, quoted for a shell.
        command: `teacher`, `pretrain` or `finetune`.
        settings: of config.toml.
        environment: machine, versions and time of its beginning; empty where that is not known.
        teacher: settings of the teacher's run; empty where there is none or it is not a run folder.
        before: of a fine-tuned student, settings of the run that it started from, likewise.
        epochs: records of metrics.jsonl, one an epoch, with what a probe after it found, by its name.
        evaluation: what evaluation.json holds; None where there is none, or it is damaged.
        answers: what each test image was taken for; empty where that is missing or not of `evaluation`.
        multilabel: what evaluation-multilabel.json holds; None where there is none, or it is damaged.
        detection: what evaluation-detection.json holds, likewise.
        finished: whether the trained network is there.
        imported: whether this is not a run but a folder of `bssl-tf import-teacher`, with `settings` of what is known.
        damaged: files that are there and cannot be read, a sentence each.
    """

    name: str
    path: Path
    given: str
    command: str
    settings: dict[str, Any]
    environment: dict[str, Any]
    teacher: dict[str, Any]
    before: dict[str, Any]
    epochs: tuple[dict[str, Any], ...]
    evaluation: Evaluation | None
    answers: Answers
    bundles: tuple[RunBundle, ...]
    benchmarks: tuple[TimedNetwork, ...]
    emulated: tuple[Emulated, ...]
    multilabel: MultiLabelEvaluation | None
    detection: DetectionEvaluation | None
    finished: bool
    imported: bool
    damaged: tuple[str, ...]

    @property
    def evaluated(self) -> bool:
        """Whether there is any evaluation of it."""
        return any(one is not None for one in (self.evaluation, self.multilabel, self.detection))

    @property
    def of_student(self) -> bool:
        """Whether it trains a binary student, with or without labels."""
        return self.command != "teacher"

    @property
    def trained(self) -> str:
        """The folder, and the name, of the network that the run trains: `student` or `teacher`."""
        return "teacher" if self.command == "teacher" else "student"

    @property
    def method(self) -> str:
        return text(self.settings, "method") or "?"


def conditions(records: Sequence[dict[str, Any]], command: str) -> str:
    """Machines, threads, commits, versions and command behind numbers, as one line; what several share once."""

    def all_of(name: str) -> list[str]:
        return [str(record[name]) for record in records if isinstance(record.get(name), (str, int)) and record[name]]

    versions = [f"{name} {version}" for record in records for name, version in table(record, "versions").items()]
    parts = (
        (", ".join(dict.fromkeys(all_of("machine"))) or "machine not recorded"),
        _joined("threads ", all_of("threads")),
        _joined("commit ", [part for text in all_of("commit") for part in text.split(", ")]),
        ", ".join(dict.fromkeys(versions)) or "versions not recorded",
        command,
    )
    return "; ".join(part for part in parts if part)


def only(runs: Sequence[Run]) -> str:
    """The run as a command takes it, or RUN for any of several."""
    return runs[0].given if len(runs) == 1 else "RUN"


def _joined(before: str, found: list[str]) -> str:
    return before + ", ".join(dict.fromkeys(found)) if found else ""


def read_runs(paths: Sequence[Path]) -> list[Run]:
    """What is known of each run, in order; the same folder twice counts once.

    Raises:
        RunFolderError: one of them is not a run folder.
        ConfigError: a config.toml is not TOML.
    """
    given = {path.resolve(): str(path) for path in paths}
    names = _short_names(list(given))
    return [_read_run(folder, name, given[folder]) for folder, name in zip(given, names, strict=True)]


def _short_names(folders: list[Path]) -> list[str]:
    """Folder names; where two are the same, as much of the path before them as tells them apart."""
    names = []
    for folder in folders:
        others = [other for other in folders if other != folder]
        for length in range(1, len(folder.parts) + 1):
            tail = folder.parts[-length:]
            if all(other.parts[-length:] != tail for other in others):
                break
        names.append(str(Path(*tail)))
    return names


def _read_run(folder: Path, name: str, given: str) -> Run:
    damaged: list[str] = []
    imported = read_import(folder)
    settings = read_run_config(folder) if imported is None else _of_import(folder, imported, damaged)
    command = settings["command"]
    evaluation, answers = _evaluation(folder, damaged)
    metrics = folder / "metrics.jsonl"
    epochs = _epochs(_records(metrics, damaged))
    benchmarks, emulated = _benchmarks(folder, damaged)
    trained = "teacher" if command == "teacher" else "student"
    return Run(
        name=name,
        path=folder,
        given=shlex.quote(given),
        command=command,
        settings=settings,
        environment=_json(folder / "environment.json", damaged),
        teacher=_other_run(text(settings, "teacher")),
        before=_other_run(text(settings, "student")),
        epochs=epochs,
        evaluation=evaluation,
        answers=answers,
        bundles=tuple(_bundles(folder, damaged)),
        benchmarks=benchmarks,
        emulated=emulated,
        multilabel=_read(read_multilabel, folder, damaged),
        detection=_read(read_detection, folder, damaged),
        finished=(folder / trained / "network.json").is_file(),
        imported=imported is not None,
        damaged=tuple(damaged),
    )


def _of_import(folder: Path, imported: Import, damaged: list[str]) -> dict[str, Any]:
    """What a run's config.toml would say of an imported teacher."""
    network = _json(folder / "teacher" / "network.json", damaged)
    return {
        "command": "teacher",
        "method": imported.method,
        "backbone": {"name": text(network, "backbone")},
        "data": {name: whole(network, "preprocessing", name) for name in ("image_size", "channels")},
        "labels_used": text(network, "labels_used"),
    }


def _json(path: Path, damaged: list[str]) -> dict[str, Any]:
    if not path.exists():
        return {}
    try:
        return read_json(path)
    except RunFolderError as error:
        damaged.append(f"{path.name}: {error.what}.")
        return {}


def _records(path: Path, damaged: list[str]) -> list[dict[str, Any]]:
    try:
        records, lines = read_records(path), line_count(path)
    except RunFolderError as error:
        damaged.append(f"{path.name}: {error.what}.")
        return []
    if len(records) < lines:
        damaged.append(f"{path.name}: line {len(records) + 1} is not a record; it and all later lines are ignored.")
    return [record for record in records if isinstance(record, dict)]


def _epochs(records: list[dict[str, Any]]) -> tuple[dict[str, Any], ...]:
    probes = {number(one, "step"): {text(one, "probe"): _score(one)} for one in records if text(one, "probe")}
    return tuple(
        probes.get(number(record, "step"), {}) | record
        for record in records
        if "probe" not in record and number(record, "epoch") is not None
    )


def _score(probe: dict[str, Any]) -> float | None:
    score = number(probe, "score")
    return number(probe, "top1") if score is None else score


def _benchmarks(folder: Path, damaged: list[str]) -> tuple[tuple[TimedNetwork, ...], tuple[Emulated, ...]]:
    try:
        timed, emulated, faults = read_benchmarks(folder)
    except RunFolderError as error:
        damaged.append(f"{error.what}.")
        return (), ()
    damaged += [f"{fault}." for fault in faults]
    return tuple(timed), tuple(emulated)


def _other_run(path: str) -> dict[str, Any]:
    """Settings of another run, or what is known of an imported teacher; a Keras model, or one moved away, has none."""
    if not path:
        return {}
    try:
        imported = read_import(Path(path))
        return read_run_config(Path(path)) if imported is None else _of_import(Path(path), imported, [])
    except (BsslError, OSError):
        return {}


def _evaluation(folder: Path, damaged: list[str]) -> tuple[Evaluation | None, Answers]:
    try:
        found = read_evaluation(folder)
    except BsslError as error:
        damaged.append(f"{error.what}.")
        return None, {}
    if found is None:
        return None, {}
    try:
        answers = read_predictions(folder)
    except BsslError as error:
        damaged.append(f"{error.what}.")
        return found, {}
    if not belong_together(found, answers):
        damaged.append("predictions.safetensors does not belong to evaluation.json; evaluate again.")
        return found, {}
    return found, answers


def _read(read: Callable[[Path], T | None], folder: Path, damaged: list[str]) -> T | None:
    try:
        return read(folder)
    except BsslError as error:
        damaged.append(f"{error.what}.")
        return None


def _bundles(folder: Path, damaged: list[str]) -> list[RunBundle]:
    found = []
    for path in sorted(folder.glob("*/manifest.json")):
        name = path.parent.name
        try:
            bundle = read_bundle(path.parent)
        except BsslError as error:
            damaged.append(f"{name}: {error.what}.")
            continue
        try:
            inspection = inspect_model(bundle.model)
        except BsslError as error:
            damaged.append(f"{name}: {error.what}.")
            inspection = None
        table = bundle.manifest.table
        accuracy = table.accuracy if isinstance(table, Table) else None
        # A fine-tuned network is measured on the data that it was trained with.
        trained = bundle.manifest.training
        own = table.probe.data if isinstance(table, Table) and table.probe else trained.data if trained else ""
        data = own if isinstance(table, Table) else ""
        measured = (accuracy.top1_percent, accuracy.images) if accuracy else (None, None)
        found.append(RunBundle(name, bundle.manifest, len(bundle.model), inspection, data, *measured))
    return found
