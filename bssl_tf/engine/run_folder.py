"""What a run leaves on disk, and how it is found again after a cut.

    runs/NAME/
      config.toml        all that was decided, defaults written out
      environment.json   versions, machine, threads
      metrics.jsonl      one record per line, of an epoch, or with the key `probe` of a probe after it
      tensorboard/       the same for TensorBoard, where that is installed
      tracking.json      names of the run in other tools that show its curves
      checkpoints/       step-000000123.safetensors, the two newest; best-000000120.safetensors, where the best is kept
      teacher/ student/  the result: network.json and weights.safetensors
      start/ head/       of a fine-tuned student: the network that it started from, and its head
      run.lock           held while a process trains here

Order of resuming: read config.toml, check the data's fingerprint, build networks, load the newest whole checkpoint,
cut metrics.jsonl back to its step, go on with the next step.
"""

from __future__ import annotations

import contextlib
import json
import logging
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from bssl_tf.checkpoints import read_tensors, write_tensors
from bssl_tf.errors import RunFolderError
from bssl_tf.files import append_record, locked, read_json, read_records, storage_errors, write_json, write_text
from bssl_tf.settings import read_run_config, write_config

_CHECKPOINT = re.compile(r"step-(\d{9})\.safetensors")
_BEST = re.compile(r"best-(\d{9})\.safetensors")
_KEPT_CHECKPOINTS = 2
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Checkpoint:
    """What a checkpoint file holds.

    Attributes:
        path: the file.
        step: steps done since the run began.
        stage: name of the stage that it was written in.
        tensors: every variable by name.
        sums: of the loss parts over the current epoch so far.
    """

    path: Path
    step: int
    stage: str
    tensors: dict[str, np.ndarray]
    sums: dict[str, float]


def refuse_taken(path: Path) -> None:
    """Raises `RunFolderError` for a file, or a folder that holds something else, `StorageError` if it is unreadable."""
    with storage_errors(path):
        # A run that was killed while it was being made has no config.toml yet: begin again over what it left. Traces of
        # `--profile` may be there before the run is.
        begun = re.compile(r"run\.lock|environment\.json|tensorboard|\..*\.tmp")
        taken = path.is_dir() and any(not begun.fullmatch(item.name) for item in path.iterdir())
        is_file = path.exists() and not path.is_dir()
    if is_file:
        raise RunFolderError(f"{path} is a file, not a folder", "Choose another folder with --out")
    if taken:
        raise RunFolderError(f"{path} is not empty and holds no run", "Choose another folder with --out")


class RunFolder:
    """One run on disk; `create` makes a fresh one.

    Attributes:
        path: the folder.
        listeners: are called with each record of metrics.jsonl once it is written.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.listeners: list[Callable[[dict[str, Any]], None]] = []

    @property
    def config_path(self) -> Path:
        return self.path / "config.toml"

    @property
    def command(self) -> str:
        """One of `settings.COMMANDS`. Raises `RunFolderError` where config.toml does not name it."""
        return str(read_run_config(self.path)["command"])

    @property
    def metrics_path(self) -> Path:
        return self.path / "metrics.jsonl"

    @classmethod
    def create(cls, path: Path, tables: dict[str, Any], environment: dict[str, Any]) -> RunFolder:
        """Makes a fresh run folder.

        Args:
            path: the folder, empty or not there yet.
            tables: of config.toml, with every default.
            environment: of environment.json, see `bssl_tf.environment`.

        Raises:
            RunFolderError: `path` exists and is not empty.
            StorageError: it cannot be written.
        """
        with storage_errors(path):
            path.mkdir(parents=True, exist_ok=True)
        refuse_taken(path)
        run = cls(path)
        write_json(path / "environment.json", environment)
        # Last, because its presence is what makes the folder a run.
        write_config(run.config_path, tables)
        return run

    def planned_epochs(self) -> list[tuple[int, int]]:
        """Epochs per stage since a step, the newest last: more than one where the run was made longer."""
        recorded = self.environment().get("planned_epochs")
        if recorded is not None:
            return [(one["step"], one["epochs"]) for one in recorded]
        training = read_run_config(self.path).get("training")
        epochs = training.get("epochs") if isinstance(training, dict) else None
        if type(epochs) is not int:
            raise RunFolderError(f"{self.config_path} does not have training.epochs", "Restore it from a copy")
        return [(0, epochs)]

    def environment(self) -> dict[str, Any]:
        """What environment.json holds; what a run continues by has the form in which it was written.

        Raises:
            RunFolderError: it is missing or damaged.
        """
        path = self.path / "environment.json"
        content = read_json(path)
        planned = content.get("planned_epochs")
        if planned is not None and not (isinstance(planned, list) and planned and all(map(_is_plan, planned))):
            raise RunFolderError(f"{path} is damaged (planned_epochs)", "Restore it from a copy")
        if not isinstance(content.get("config", {}), dict):
            raise RunFolderError(f"{path} is damaged (config)", "Restore it from a copy")
        return content

    def locked(self) -> contextlib.AbstractContextManager[None]:
        """Holds the folder against a second process. Raises `RunFolderError` where another one trains here."""
        return locked(self.path / "run.lock", "another process is training", "--out")

    def record(self, record: dict[str, Any]) -> None:
        """Appends a line to metrics.jsonl. Raises `StorageError`."""
        append_record(self.metrics_path, record)
        for listener in self.listeners:
            listener(record)

    def scores(self, after: int, until: int) -> list[float]:
        """What probes measured after one step and until another; 0 where features were not finite."""
        if not self.metrics_path.exists():
            return []
        probes = [record for record in read_records(self.metrics_path) if "probe" in record]
        return [score_of(one) for one in probes if after < _step_of(one, beyond=until) <= until]

    def rewind_metrics(self, step: int) -> None:
        """Drops records later than `step`, which is logged, and a line that a killed process left half written.

        And weights that were the best at a later step.
        """
        for path in self._bests():
            if _best_step(path) > step:
                path.unlink(missing_ok=True)
        if self.metrics_path.exists():
            records = read_records(self.metrics_path)
            kept = [record for record in records if _step_of(record, beyond=step) <= step]
            if len(kept) < len(records):
                _log.warning(
                    f"{self.metrics_path} has records up to step {records[-1].get('step')}, but the newest usable "
                    f"checkpoint is {f'of step {step}' if step else 'missing'}: training continues after step {step}"
                )
            write_text(self.metrics_path, "".join(json.dumps(record, sort_keys=True) + "\n" for record in kept))

    def checkpoints(self) -> list[Path]:
        """Checkpoint files, oldest first."""
        folder = self.path / "checkpoints"
        return sorted(p for p in folder.glob("step-*.safetensors") if _CHECKPOINT.fullmatch(p.name))

    def newest_step(self) -> int:
        """The step of the newest checkpoint, intact or not; 0 where there is none."""
        return max((int(path.stem.removeprefix("step-")) for path in self.checkpoints()), default=0)

    def save_checkpoint(self, step: int, stage: str, tensors: dict[str, np.ndarray], sums: dict[str, float]) -> None:
        """Writes a checkpoint, then removes all but the newest two. Raises `StorageError`."""
        metadata = {"step": str(step), "stage": stage, "sums": json.dumps(sums)}
        write_tensors(self.path / "checkpoints" / f"step-{step:09d}.safetensors", tensors, metadata)
        for old in [*self.checkpoints()[:-_KEPT_CHECKPOINTS], *self._bests()[:-_KEPT_CHECKPOINTS]]:
            with contextlib.suppress(OSError):
                old.unlink()

    def save_best(self, step: int, tensors: dict[str, np.ndarray]) -> None:
        """Writes the weights that a probe found to be the best so far. Raises `StorageError`.

        Two are kept: a run may have to start again before this step.
        """
        write_tensors(self.path / "checkpoints" / f"best-{step:09d}.safetensors", tensors, {"step": str(step)})

    def best(self) -> tuple[int, dict[str, np.ndarray]] | None:
        """The step after which a probe found the network to be the best, and its weights; None where none was kept.

        Raises:
            RunFolderError: they are damaged.
        """
        kept = self._bests()
        return (_best_step(kept[-1]), read_tensors(kept[-1])[0]) if kept else None

    def described(self, step: int) -> str:
        """What a probe measured after `step`, for a person."""
        found = [one for one in read_records(self.metrics_path) if "probe" in one and one.get("step") == step]
        return f"{found[0].get('metric', 'top1')} {score_of(found[0]):.1f}" if found else "not measured"

    def _bests(self) -> list[Path]:
        found = (self.path / "checkpoints").glob("best-*.safetensors")
        return sorted(path for path in found if _BEST.fullmatch(path.name))

    def latest_checkpoint(self) -> Checkpoint | None:
        """The newest checkpoint that is whole, or None when there is none yet.

        Raises:
            RunFolderError: there are checkpoints, and none of them is whole.
        """
        # A killed write leaves its temporary file; it is nobody's any more while we hold the lock.
        for leftover in (self.path / "checkpoints").glob(".*.tmp"):
            with contextlib.suppress(OSError):
                leftover.unlink()
        failure: RunFolderError | None = None
        for path in reversed(self.checkpoints()):
            try:
                return _read_checkpoint(path)
            except RunFolderError as error:
                failure = failure or error
                _log.warning(f"{error} Trying the previous checkpoint.")
        if failure is not None:
            raise RunFolderError(
                f"no checkpoint in {self.path / 'checkpoints'} is intact", "Remove the run folder and train again"
            ) from failure
        return None


class FollowersRunFolder(RunFolder):
    """The run folder as workers other than the chief have it: they read it and write nothing."""

    def locked(self) -> contextlib.AbstractContextManager[None]:
        """The chief holds the lock."""
        return contextlib.nullcontext()

    def record(self, record: dict[str, Any]) -> None:
        """The chief does."""

    def rewind_metrics(self, step: int) -> None:
        """The chief does."""

    def save_checkpoint(self, step: int, stage: str, tensors: dict[str, np.ndarray], sums: dict[str, float]) -> None:
        """The chief does."""

    def save_best(self, step: int, tensors: dict[str, np.ndarray]) -> None:
        """The chief does."""


def score_of(record: dict[str, Any]) -> float:
    """What a probe's record in metrics.jsonl says of the network: more is better."""
    score = record.get("score", record.get("top1"))
    return float(score) if isinstance(score, (int, float)) else 0.0


def _best_step(path: Path) -> int:
    return int(path.stem.rpartition("-")[2])


def _step_of(record: dict[str, Any], *, beyond: int) -> float:
    """Of a record of metrics.jsonl; beyond a step where it is none."""
    step = record.get("step", 0)
    return step if isinstance(step, (int, float)) else beyond + 1


def _is_plan(one: Any) -> bool:
    return isinstance(one, dict) and all(type(one.get(key)) is int and one[key] >= 0 for key in ("step", "epochs"))


def _read_checkpoint(path: Path) -> Checkpoint:
    tensors, metadata = read_tensors(path)
    try:
        sums = {str(key): float(value) for key, value in json.loads(metadata["sums"]).items()}
        return Checkpoint(path, int(metadata["step"]), metadata["stage"], tensors, sums)
    except (KeyError, ValueError, TypeError, AttributeError, RecursionError) as error:
        raise RunFolderError(
            f"{path} has damaged metadata ({error})", "Remove this file to resume without it"
        ) from error
