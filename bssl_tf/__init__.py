"""Binary self-supervised learning in TensorFlow: from unlabelled images to a 1-bit network on a device.

What the commands of `bssl-tf` do, Python can call, with the same settings as keyword arguments:

    import bssl_tf as bt

    teacher = bt.train_teacher("photos/", out="runs/teacher")
    student = bt.pretrain("photos/", teacher=teacher, out="runs/student")
    print(student.evaluate(data="labelled/").verdict.sentence)
    bundle = student.export(target="x86_64")
    print(bt.load(bundle.path).classify("photo.jpg"))

With fewer than about 50,000 photos, `bt.import_teacher("efficientnet_lite0", out="runs/teacher")` gives a pretrained
teacher in place of the first line; its weights were trained with ImageNet's labels.

Errors are `bssl_tf.errors.BsslError`, with one line that ends in the next step. Progress is logged below the logger
`bssl_tf`, which is silent until a handler is added: `logging.basicConfig(level=logging.INFO)`.

Importing this package loads none of its dependencies; each function loads what it needs when it is first named.
`bssl_tf.backend` is the gate to TensorFlow.
"""

from __future__ import annotations

import importlib
import logging
from typing import Any

__version__ = "0.1.0"
# Name -> the module that it comes from when it is first named; __init__.pyi has the same for type checkers.
_OFFERED = {
    "Run": "bssl_tf.workflows.run",
    "auto": "bssl_tf.workflows.auto",
    "bench": "bssl_tf.workflows.bench",
    "check": "bssl_tf.workflows.check",
    "compare": "bssl_tf.workflows.compare",
    "embed": "bssl_tf.workflows.embed",
    "evaluate": "bssl_tf.workflows.python",
    "export": "bssl_tf.workflows.export",
    "finetune": "bssl_tf.workflows.python",
    "import_teacher": "bssl_tf.workflows.import_teacher",
    "inspect": "bssl_tf.workflows.inspect",
    "load": "bssl_tf_deploy.runtime",
    "make_data": "bssl_tf.workflows.make_data",
    "pack": "bssl_tf.workflows.pack",
    "pretrain": "bssl_tf.workflows.python",
    "report": "bssl_tf.workflows.report",
    "select": "bssl_tf.workflows.select",
    "similar": "bssl_tf.workflows.similar",
    "train_teacher": "bssl_tf.workflows.python",
}
__all__ = ["__version__", *_OFFERED]
logging.getLogger(__name__).addHandler(logging.NullHandler())


def __getattr__(name: str) -> Any:
    if name not in _OFFERED:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(_OFFERED[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_OFFERED})
