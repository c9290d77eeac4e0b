"""A run that could begin, whichever command it is of: to train, or to state beforehand what it would take."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic

from bssl_tf.engine.budget import within_budget
from bssl_tf.engine.configuration import configured
from bssl_tf.engine.forecast import Forecast, forecast
from bssl_tf.engine.inputs import Inputs, LabelledInputs
from bssl_tf.engine.loop import train
from bssl_tf.engine.preparation import Prepared, prepare
from bssl_tf.engine.probe import Probe, Validation
from bssl_tf.engine.profile import Profile, profile
from bssl_tf.engine.run_folder import RunFolder
from bssl_tf.engine.stages import Stage, plans_of
from bssl_tf.engine.teacher_cache import with_teacher_cache
from bssl_tf.engine.tracking import EVENTS
from bssl_tf.files import write_json
from bssl_tf.methods.recipe import Recipe
from bssl_tf.methods.registry import Sections
from bssl_tf.models.saved import Network

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class ReadyRun(Generic[Sections]):
    """A run that could begin: all that it needs is there and fits together.

    Attributes:
        prepared: its settings, data and devices.
        network: what is trained.
        made_from: fingerprints of data, teacher and student.
        labels_used: whose labels the weights owe something to, a clause; None for nobody's.
        stages: one after another.
        build: the recipe of a stage.
        inputs: what the loop feeds to it.
        probe: what is measured during training.
    """

    prepared: Prepared[Sections]
    network: Network
    made_from: dict[str, str]
    labels_used: str | None
    stages: tuple[Stage, ...]
    build: Callable[[Stage], Recipe]
    inputs: Inputs | LabelledInputs
    probe: Probe | Validation | None

    def train(self, folder: RunFolder, inputs: Inputs | LabelledInputs | None = None) -> Recipe:
        """Trains all stages; `inputs` are others that take the place of its own. Raises what `loop.train` does."""
        training, devices = self.prepared.run.sections.training, self.prepared.distribution
        plans = plans_of(self.stages, training.epochs, folder.planned_epochs())
        fed = self.inputs if inputs is None else inputs
        return train(folder, self.stages, self.build, fed, training, self.probe, devices, plans)

    def inputs_with_teacher(self, recipe: Recipe, epochs: int, fingerprint: str) -> Inputs | LabelledInputs:
        """Its inputs, with what the teacher says of the views of so many epochs; how long that took, the run notes.

        Args:
            recipe: of the first stage.
            epochs: after which the views repeat; 0 keeps nothing, and its inputs stay as they are.
            fingerprint: of all that gives the teacher's outputs.

        Raises:
            BsslError: see `with_teacher_cache`.
        """
        if not epochs:
            return self.inputs
        inputs, seconds = with_teacher_cache(
            self.inputs, recipe, self.prepared.run.sections.training, epochs, fingerprint
        )
        note = self.prepared.out / "teacher_cache.json"
        # On resuming it is there already, and cost nothing.
        if self.prepared.distribution.is_chief and not note.exists():
            write_json(note, {"seconds": round(seconds, 1)})
        return inputs

    def forecast(self) -> Forecast:
        """What training would take, if it did not stop early. Writes nothing."""
        training, devices = self.prepared.run.sections.training, self.prepared.distribution
        return forecast(self.build, self.stages, self.inputs, training, self.probe, devices)

    def profile(self, steps: int) -> Profile:
        """Where the time of a step goes. Writes a trace into the run folder, and nothing else."""
        training, devices = self.prepared.run.sections.training, self.prepared.distribution
        return profile(self.build, self.stages, self.inputs, training, devices, steps, self.prepared.out / EVENTS)


def chosen_for(
    budget: str,
    kind: type[Sections],
    settings: dict[str, Any],
    out: Path,
    ready: Callable[[dict[str, Any]], ReadyRun[Sections]],
    settle: Callable[[dict[str, Any]], dict[str, Any]] = lambda settings: settings,
) -> dict[str, Any]:
    """Settings with which a run takes about as long as it may; what `settings` hold stays. Logs what was chosen.

    Args:
        budget: `30m`, `1h30m`, `90s`.
        kind: of which command the run is.
        settings: of the run.
        out: its folder; a run that continues was planned when it began.
        ready: makes a run of such settings ready.
        settle: adds what is known without the data.

    Raises:
        BsslError: see `ready`, and `bssl_tf.engine.budget`.
    """
    if (out / "config.toml").exists():
        return settings

    def count(trial: dict[str, Any]) -> int:
        return len(prepare(configured(kind, settle(trial), out), out).data.train)

    chosen, line = within_budget(kind, settings, budget, count, lambda trial: ready(trial).forecast())
    _log.info(line)
    return chosen
