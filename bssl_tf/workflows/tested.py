"""A network that was fine-tuned for another task than classification, with data to measure it on."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bssl_tf.backend import configure
from bssl_tf.environment import environment, resolved_threads
from bssl_tf.errors import ConfigError, DataError
from bssl_tf.evaluation.task_evaluation import TaskEvaluation
from bssl_tf.settings import DataConfig, FinetuneConfig, PretrainConfig, read_settings
from bssl_tf.tasks.fine_tuned import FineTuned, load_fine_tuned
from bssl_tf.workflows.run_folders import run_config


@dataclass(frozen=True, eq=False)
class Tested:
    """What is measured, and on what.

    Attributes:
        run: its folder.
        config: of the run.
        tuned: its network.
        data_config: how `data` was opened.
        data: what the task's `open` returned; its test part is not empty.
    """

    run: Path
    config: PretrainConfig | FinetuneConfig
    tuned: FineTuned
    data_config: DataConfig
    data: Any

    def described(self, command: str) -> dict[str, Any]:
        """The fields of `TaskEvaluation`; `command` is what the user called."""
        shared = TaskEvaluation(
            run=str(self.run),
            data=self.data.name,
            data_settings=self.data_config,
            train_images=len(self.data.train),
            test_images=len(self.data.test),
            test_fingerprint=self.data.test.fingerprint(),
            seed=self.config.training.seed,
            labels_used=self.tuned.network.labels_used,
            conditions=environment(self.config.training.threads),
            command=command,
        )
        # Not asdict, which would turn the settings into a dictionary too.
        return dict(vars(shared))


def open_tested(run: Path, overrides: dict[str, Any]) -> Tested:
    """Sets up TensorFlow, and opens a finished run of `bssl-tf finetune` and its data.

    Args:
        run: the run folder.
        overrides: settings of `DataConfig` for other data of the same kind.

    Raises:
        ConfigError: an override does not fit.
        DataError: there are no test images.
        BsslError: see `bssl_tf.errors`.
    """
    config = run_config(run)
    configure(resolved_threads(config.training.threads))
    tuned = load_fine_tuned(run)
    size = tuned.preprocessing.image_size
    if overrides.get("image_size", size) != size:
        raise ConfigError(f"{run} takes images of {size} px", "Omit --image-size")
    base = dataclasses.asdict(config.data) | ({"limit": 0, "data_dir": ""} if "source" in overrides else {})
    data_config = read_settings(DataConfig, base | overrides, "data.")
    data = tuned.task.open(data_config, validation=False)
    if data.test is None or not len(data.test):
        raise DataError(f"{data.name} has too few images to hold some out for testing", "Add images")
    return Tested(run, config, tuned, data_config, data)
