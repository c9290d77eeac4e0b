"""What a device needs: read a bundle, prepare an image, classify, time. No TensorFlow, nothing of the host side.

    predictor = load("bundle-arm64", threads=4)
    predictor.verify_golden()
    predictor.classify(["cat.jpg"])

Of a bundle's format, `manifest` knows the meaning and `bundle` the files. `library` finds the runtime library, `litert`
puts it into a stock interpreter, `runtime` chooses.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from bssl_tf_deploy.runtime import load as load

__all__ = ["load"]
logging.getLogger(__name__).addHandler(logging.NullHandler())


def __getattr__(name: str) -> Any:
    # Loaded when asked for: the host's command line starts faster without numpy.
    if name == "load":
        from bssl_tf_deploy.runtime import load

        return load
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
