"""Times a bundle's network on this machine: `bssl-tf-deploy bench`, and on the host `bssl-tf bench`."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import logging
from collections.abc import Callable, Mapping, Sequence
from importlib import metadata
from pathlib import Path

import numpy as np

from bssl_tf_deploy import conditions
from bssl_tf_deploy.benchmark import measure_interleaved
from bssl_tf_deploy.bundle import MANIFEST, Bundle
from bssl_tf_deploy.errors import RuntimeUnavailableError
from bssl_tf_deploy.library import describe
from bssl_tf_deploy.litert import LiteRtInterpreter
from bssl_tf_deploy.operators import profile_operators
from bssl_tf_deploy.predictor import timed_call
from bssl_tf_deploy.preprocess import normalised
from bssl_tf_deploy.quiet import captured_output
from bssl_tf_deploy.record import (
    BINARY,
    Conditions,
    Golden,
    Machine,
    Network,
    Profile,
    Record,
    Run,
    RuntimeLibrary,
    Start,
    State,
    Subject,
    now,
)
from bssl_tf_deploy.runtime import Runtime

log = logging.getLogger(__name__)


def bench_bundle(
    bundle: Bundle,
    runtime: Runtime,
    stock: Mapping[str, bytes],
    beside: Mapping[str, bytes] | None = None,
    *,
    threads: int,
    warmup: int,
    repetitions: int,
    operators_s: float = 0.0,
) -> Record:
    """Times a bundle's network with one image, beside networks of its shape.

    Args:
        bundle: from `read_bundle`.
        runtime: what runs it with `threads`; its golden outputs have been compared.
        stock: name -> model of builtin operators with the bundle's input shape, float32 in and out.
        beside: the same for models that are not of the bundle's architecture.
        threads: for one image.
        warmup: untimed calls of each, 0 or more.
        repetitions: timed calls of each, 1 or more.
        operators_s: seconds for the times of single operators; 0 for none.

    Returns:
        A record without `command` and `commit`.

    Raises:
        RuntimeUnavailableError: a model of `stock` or `beside` does not run, takes other inputs, or gives numbers that
            are not finite; or requested times of operators are not recorded.
    """
    library = runtime.library if isinstance(runtime, LiteRtInterpreter) else None
    if operators_s:
        require_profile(runtime)
    began, before, manifest = now(), State.of(conditions.state()), bundle.manifest
    inputs = bundle.first_inputs
    call, words = timed_call(bundle, runtime)
    calls: dict[str, Callable[[], object]] = {BINARY: call}
    networks = {BINARY: Network("subject", runtime.kernel + words, len(bundle.model))}
    versions = dict(runtime.versions)
    prepared = [normalised(inputs[0], manifest)]
    for name, model in {**stock, **(beside or {})}.items():
        with captured_output():  # LiteRT announces XNNPACK
            reference = LiteRtInterpreter(model, threads)
        require_finite(name, reference, prepared)
        calls[name] = functools.partial(reference.run, prepared)
        networks[name] = Network("stock" if name in stock else "beside", reference.kernel, len(model))
        versions |= reference.versions
    timings = measure_interleaved(calls, warmup=warmup, repetitions=repetitions)
    profiles: tuple[Profile, ...] = ()
    if operators_s and library is not None:
        try:
            with captured_output():
                profiles = (profile_operators(bundle.model, inputs, threads, library, operators_s),)
        except RuntimeUnavailableError as error:
            # What was timed is not lost.
            log.warning("%s", error)
    return Record(
        command=None,
        commit=None,
        time=began,
        machine=Machine.of(conditions.facts()),
        versions=versions | {"numpy": metadata.version("numpy")},
        subject=subject_of(bundle),
        library=described(library) if library is not None else None,
        conditions=Conditions(before, State.of(conditions.state()), warmup_calls=warmup),
        golden=Golden(bundle.golden_images, (threads,)),
        runs=(
            Run(
                threads,
                {
                    name: dataclasses.replace(
                        network, latency=timings[name].latency(), start=Start(first_ms=timings[name].first_ms)
                    )
                    for name, network in networks.items()
                },
                profiles,
            ),
        ),
    )


def require_finite(name: str, runtime: Runtime, inputs: Sequence[np.ndarray]) -> None:
    """Raises `RuntimeUnavailableError` where a network that is to be timed does not take `inputs` or gives nonsense."""
    try:
        outputs = runtime.run(inputs)
    except ValueError as error:
        raise RuntimeUnavailableError(
            f"{name} does not take the bundle's input ({error})", "Name a model for the same size of images"
        ) from error
    if not all(np.isfinite(output).all() for output in outputs):
        raise RuntimeUnavailableError(f"{name} gives numbers that are not finite", "Rebuild that model")


def require_profile(runtime: Runtime) -> None:
    """Raises `RuntimeUnavailableError` where times of single operators are not recorded."""
    if not isinstance(runtime, LiteRtInterpreter) or runtime.library is None:
        raise RuntimeUnavailableError(
            f"the times of operators are recorded by our own runtime, not by {runtime.kernel}", "Omit --operators"
        )


def subject_of(bundle: Bundle) -> Subject:
    """A bundle as a record names it."""
    manifest = bundle.manifest
    digest = hashlib.sha256((bundle.path / MANIFEST).read_bytes()).hexdigest()
    return Subject(
        network=manifest.network.backbone,
        bundle=str(bundle.path),
        bundle_sha256=digest,
        target=manifest.target,
        input_shape=manifest.inputs[0].shape,
    )


def described(library: Path) -> RuntimeLibrary:
    """A library as a record names it; loads it."""
    version, kernels = describe(library)
    return RuntimeLibrary(version, tuple(kernels.split(",")))
