"""From a bundle to something that runs it."""

from __future__ import annotations

from collections.abc import Sequence
from importlib import metadata
from pathlib import Path
from typing import Protocol

import numpy as np

from bssl_tf_deploy.bundle import Bundle, checked_file, read_bundle
from bssl_tf_deploy.errors import RuntimeUnavailableError
from bssl_tf_deploy.head_predictor import HeadPredictor
from bssl_tf_deploy.library import bundled_name, host_target, own_library
from bssl_tf_deploy.litert import LiteRtInterpreter
from bssl_tf_deploy.predictor import Predictor
from bssl_tf_deploy.system_errors import memory_shortage, system_errors

RUNTIMES = ("auto", "own", "lce")
MAX_THREADS = 64
# Other distributions offer interpreters under this name: classes that take (model: bytes, threads: int). The host
# brings LCE's, which this package knows nothing of.
_ENTRY_POINTS = "bssl_tf_deploy.runtimes"


class Runtime(Protocol):
    """What runs a model and says what it is.

    Attributes:
        name: `own` or `lce`.
        kernel: what computes, in words.
        versions: of the packages that compute.
    """

    name: str
    kernel: str
    versions: dict[str, str]

    def run(self, inputs: Sequence[np.ndarray]) -> list[np.ndarray]:
        """The model's outputs in its order, float32 [B, ...], of inputs [B, ...] of its types, in its order."""


@system_errors()
def load(
    bundle: Path | str | Bundle,
    threads: int = 1,
    runtime: str = "auto",
    *,
    trust_bundle_library: bool = False,
    head: str | None = None,
    heads: Sequence[str] = (),
) -> Predictor:
    """Reads a bundle, checks its files against their hashes, and makes its model ready to run.

    The caller should call `verify_golden` once, which compares this machine's results with those at export.

    Args:
        bundle: a folder that `bssl-tf export` wrote, or what `read_bundle` made of it.
        threads: threads for one image, 1 to 64.
        runtime: `own`, the library of this package in a stock interpreter; `lce`, the interpreter of Larq Compute
            Engine, where bssl-tf is installed; `auto`, our own if there is one here, else LCE's.
        trust_bundle_library: if this package has no library for this machine, load the one that lies in the bundle.
            A library is code that may do whatever you may do. Its hash is compared with the manifest's, but both come
            from whoever made the bundle: so only pass True for a bundle that you would run a program from.
        head: answer by a head that `bssl-tf-deploy learn` made, instead of the bundle's own classes. Where none of
            them is to be trusted, an answer begins with `unknown`, with the score that was too low.
        heads: several of them: `answers` gives a dictionary by name for each image, from one run of the network.

    Returns:
        A predictor with an interpreter of its own; any number of them can be in use at once, each by one thread.

    Raises:
        BundleError: the bundle or a head is not sound, or there is no such head.
        RuntimeUnavailableError: nothing here can run it.
        ValueError: `threads` or `runtime` is out of range, or both `head` and `heads` are given.
    """
    content = bundle if isinstance(bundle, Bundle) else read_bundle(Path(bundle))

    def make(content: Bundle) -> Runtime:
        return load_runtime(content, threads, runtime, trust_bundle_library=trust_bundle_library)

    if head is not None and heads:
        raise ValueError("give either head or heads")
    if head is not None or heads:
        return HeadPredictor(content, heads or [str(head)], make, alone=head is not None)
    return Predictor(content, make(content))


def load_runtime(
    bundle: Bundle, threads: int = 1, runtime: str = "auto", *, trust_bundle_library: bool = False
) -> Runtime:
    """What `load` puts into its predictor; arguments and errors are the same."""
    if runtime not in RUNTIMES:
        raise ValueError(f"there is no runtime {runtime!r}, only {', '.join(RUNTIMES)}")
    if not 1 <= threads <= MAX_THREADS:
        raise ValueError(f"{threads} threads are not 1 to {MAX_THREADS}")
    if runtime == "lce":
        return _lce(bundle, threads)
    try:
        library = _find_library(bundle, trust_bundle_library)
    except RuntimeUnavailableError:
        # Only where there is no library: one that does not load is an error to be seen.
        if runtime == "auto" and _offered("lce"):
            return _lce(bundle, threads)
        raise
    return LiteRtInterpreter(bundle.model, threads, library)


def _find_library(bundle: Bundle, trust_bundle_library: bool) -> Path:
    target = host_target()
    own = own_library()
    if own is not None:
        return own
    name = bundled_name(target)
    if name not in bundle.manifest.files:
        raise RuntimeUnavailableError(
            f"bssl-tf-deploy was installed without a runtime library, and {bundle.path} has none for {target}",
            "Install the wheel for this machine, or the package again with a compiler",
        )
    if not trust_bundle_library:
        raise RuntimeUnavailableError(
            f"bssl-tf-deploy was installed without a runtime library, and that of {bundle.path} is not trusted",
            "Install the wheel for this machine; or, if you trust the bundle's author to run code here, add "
            "--trust-bundle-library",
        )
    return checked_file(bundle, name)


def _offered(name: str) -> metadata.EntryPoint | None:
    return next(iter(metadata.entry_points(group=_ENTRY_POINTS, name=name)), None)


def _lce(bundle: Bundle, threads: int) -> Runtime:
    entry = _offered("lce")
    if entry is None:
        raise RuntimeUnavailableError(
            "LCE's interpreter is not installed here", "Install bssl-tf on an x86-64 machine or a Mac, or use our own"
        )
    try:
        made: Runtime = entry.load()(bundle.model, threads)
    except ImportError as error:
        raise memory_shortage(error) or RuntimeUnavailableError(
            f"LCE's interpreter cannot be loaded ({error})", "Install bssl-tf again"
        ) from error
    return made
