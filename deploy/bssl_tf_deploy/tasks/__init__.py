"""The device's half of a task: what its table in the manifest holds, and how outputs become answers.

A task is found by the name that the manifest gives. `classification`, `detection` and `multilabel` come with this
package; others are found by the entry points `bssl_tf_deploy.tasks`, each a subclass of `task.Task`:

    [project.entry-points."bssl_tf_deploy.tasks"]
    counting = "my_package.device:Counting"

The host's half (targets, head, loss, metrics) has the same name, in `bssl_tf.tasks`.
"""

from __future__ import annotations

import functools
import importlib
from importlib import metadata

from bssl_tf_deploy.errors import BundleError
from bssl_tf_deploy.tasks.task import Task

_ENTRY_POINTS = "bssl_tf_deploy.tasks"
_OWN = {
    "classification": "bssl_tf_deploy.tasks.classification:Classification",
    "detection": "bssl_tf_deploy.tasks.detection:Detection",
    "multilabel": "bssl_tf_deploy.tasks.multilabel:MultiLabel",
}


@functools.cache
def find_task(name: str) -> Task:
    """The task called `name`.

    Raises:
        BundleError: there is none here, or what is installed under this name is not a task.
    """
    if name in _OWN:
        module, _, attribute = _OWN[name].partition(":")
        made: Task = getattr(importlib.import_module(module), attribute)()
        return made
    entry = next(iter(metadata.entry_points(group=_ENTRY_POINTS, name=name)), None)
    if entry is None:
        known = sorted({*_OWN, *(one.name for one in metadata.entry_points(group=_ENTRY_POINTS))})
        raise BundleError(
            f"the bundle is for the task {name!r:.60}, and this installation knows {', '.join(known)}",
            "Install the version of bssl-tf-deploy, or the package, that provides this task",
        )
    try:
        task = entry.load()()
    except Exception as error:  # The code of another package may raise anything.
        raise BundleError(
            f"the task {name!r:.60} cannot be loaded from {entry.value} ({error})", "Install its package again"
        ) from error
    if not isinstance(task, Task):
        raise BundleError(f"{entry.value} is not a task", "Make it a subclass of bssl_tf_deploy.tasks.task.Task")
    return task
