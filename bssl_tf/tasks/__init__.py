"""What a network is for: a room for each task, with its targets, head, loss, metrics and its part of a bundle.

A task is found by name. `classification`, `detection` and `multilabel` come with this package; others are found by the
entry points `bssl_tf.tasks`, each a subclass of `task.Task`:

    [project.entry-points."bssl_tf.tasks"]
    counting = "my_package.host:Counting"

Its other half, which decodes outputs on the device, has the same name in `bssl_tf_deploy.tasks`.
"""

from __future__ import annotations

import functools
import importlib
from typing import TYPE_CHECKING, Any

from bssl_tf.entry_points import offered
from bssl_tf.errors import ConfigError

if TYPE_CHECKING:
    from bssl_tf.tasks.task import Task

_ENTRY_POINTS = "bssl_tf.tasks"
_OWN = {
    "classification": "bssl_tf.tasks.classification:Classification",
    "detection": "bssl_tf.tasks.detection.task:Detection",
    "multilabel": "bssl_tf.tasks.multilabel:MultiLabel",
}


@functools.cache
def find_task(name: str) -> Task[Any]:
    """The task called `name`.

    Raises:
        ConfigError: there is none here, or what is installed under this name is not a task.
    """
    if name in _OWN:
        module, _, attribute = _OWN[name].partition(":")
        made: Task[Any] = getattr(importlib.import_module(module), attribute)()
        return made
    # Loads TensorFlow, which a report does without.
    from bssl_tf.tasks.task import Task

    entry = next((one for one in offered(_ENTRY_POINTS) if one.name == name), None)
    if entry is None:
        known = sorted({*_OWN, *(one.name for one in offered(_ENTRY_POINTS))})
        raise ConfigError(f"no task is called {name!r:.60}", f"Choose one of {', '.join(known)}")
    try:
        task = entry.load()()
    except Exception as error:  # The code of another package may raise anything.
        raise ConfigError(
            f"the task {name!r:.60} cannot be loaded from {entry.value} ({error})", "Install its package again"
        ) from error
    if not isinstance(task, Task):
        raise ConfigError(f"{entry.value} is not a task", "Make it a subclass of bssl_tf.tasks.task.Task")
    return task
