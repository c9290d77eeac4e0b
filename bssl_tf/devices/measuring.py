"""What is done in a session: check a device, bring what it needs, measure there, take everything away again."""

from __future__ import annotations

import dataclasses
import json
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from bssl_tf.devices.connection import Connection
from bssl_tf.devices.device import DEFAULT_BUDGET_S, Facts, Job
from bssl_tf.devices.installing import check_room, install
from bssl_tf.devices.operator_profile import profile, profile_options
from bssl_tf.devices.packages import collect_packages, target_of
from bssl_tf.devices.python_device import PythonDevice
from bssl_tf.devices.session import Session, open_session
from bssl_tf.errors import BsslError, BundleError, DeviceError, ImageError, RuntimeUnavailableError, StorageError
from bssl_tf_deploy.bundle import MANIFEST, checked_file
from bssl_tf_deploy.files import read_regular
from bssl_tf_deploy.library import LIBRARY
from bssl_tf_deploy.manifest import MAX_FILE_BYTES
from bssl_tf_deploy.record import Machine, Profile, Record, State
from bssl_tf_deploy.strict import StrictError
from bssl_tf_deploy.system_errors import next_step

# What loads there is used, whatever its version: the golden outputs say whether it is right.
_LOAD = "import numpy, ai_edge_litert.interpreter"
_ASK_VERSIONS = (
    "from importlib.metadata import version; from bssl_tf_deploy.library import describe, own_library;"
    "print('bssl-tf runtime', describe(own_library())[0] + ', LiteRT', version('ai-edge-litert'))"
)
_TOOL, _PROFILE = "benchmark_model", "operators.csv"
# With the library that is installed there; what it prints goes to the messages, the profile to the output.
_RUN_TOOL = (
    "import os, subprocess, sys; from bssl_tf_deploy.library import own_library;"
    "tool, profile, *options = sys.argv[1:]; os.chmod(tool, 0o700);"
    "options.append(f'--external_delegate_path={own_library()}');"
    "done = subprocess.run([os.path.abspath(tool), *options], stdout=2);"
    "print(open(profile).read() if done.returncode == 0 else ''); sys.exit(done.returncode)"
)


log = logging.getLogger(__name__)


def reach_device(device: PythonDevice) -> None:
    """Raises `DeviceError` where a device cannot be reached, or there is no runtime for it."""
    with open_session(device) as session:
        target_of(device.name, session.facts)


def check_device(device: PythonDevice) -> Facts:
    """What a device is, and what would run a bundle there.

    Raises:
        DeviceError: it cannot be reached, or there is no runtime for it.
    """
    connection = device.connect()
    with open_session(device) as session:
        target = target_of(device.name, session.facts)
        opened = session.ask({"do": "open", "folder": session.folder})
        installed = opened["environments"][-1:] if connection.runtime else [""]
        runtimes = [_versions(session, [path, *(connection.packages or ())]) for path in installed]
        return Facts(
            machine=_machine(device, session.facts),
            target=target,
            state=State.of(session.facts),
            memory_available_mib=session.facts["memory_available_mib"],
            free_mib=opened["free_bytes"] >> 20,
            runtimes=next(filter(None, runtimes), ""),
        )


def _machine(device: PythonDevice, facts: Mapping[str, Any]) -> Machine:
    made = Machine.of(facts, device.name, device.settings.address)
    return dataclasses.replace(made, emulated=not device.times)


def _versions(session: Session, path: Sequence[str]) -> str:
    """Versions of the runtime and the interpreter on a device; "" where they do not load."""
    command = ["-c", _ASK_VERSIONS]
    done = session.run(command, [part for part in path if part])
    return str(done["stdout"]).strip() if done["status"] == 0 else ""


def clean_device(device: PythonDevice) -> bool:
    """Removes all that is ours from a device; whether there was anything. Raises `DeviceError`."""
    with open_session(device) as session:
        return bool(session.ask({"do": "clean", "folder": session.folder}))


def measure_on_device(device: PythonDevice, job: Job) -> Record:
    """Brings a bundle to a device, checks it there, times it, and takes it away again. See `Device.measure`."""
    connection, bundle, name = device.connect(), job.bundle, device.name
    with open_session(device) as session:
        facts = session.facts
        target_of(name, facts)
        log.info("%s: %s, %s cores, Python %s", name, facts["processor"], facts["cores"], facts["python"])
        opened = session.ask({"do": "open", "folder": session.folder})
        path = list(connection.packages or ())
        environment = ""
        if connection.runtime:
            environment = _installed(name, connection, session, job, opened)
            path.insert(0, environment)
        record = _measured(device, session, job, path, opened["free_bytes"])
        record = dataclasses.replace(record, machine=_machine(device, facts))
        if device.settings.benchmark_model is not None and device.times:
            log.info("%s: operators, with benchmark_model", name)
            profile = _operators(name, session, path, device.settings.benchmark_model, record.runs[0].threads)
            first = record.runs[0]
            first = dataclasses.replace(first, profiles=(*first.profiles, profile))
            record = dataclasses.replace(record, runs=(first, *record.runs[1:]))
        library = Path(opened["folder"], environment, "bssl_tf_deploy", "lib", LIBRARY)
        record = dataclasses.replace(record, counts=device.counts(bundle, library))
        if connection.runtime:
            session.ask({"do": "keep", "environments": [environment]})
        return record


def _measured(device: PythonDevice, session: Session, job: Job, path: Sequence[str], free_bytes: int) -> Record:
    """What `bssl-tf-deploy measure` gives there."""
    bundle = job.bundle
    files = {name: checked_file(bundle, name).read_bytes() for name in bundle.manifest.files}
    files[MANIFEST] = (bundle.path / MANIFEST).read_bytes()
    check_room(device.name, free_bytes, sum(map(len, [*files.values(), *job.beside.values()])))
    for name, content in files.items():
        session.put(f"bundle/{name}", content)
    command = ["-c", "from bssl_tf_deploy.cli import main; main()", "measure", "bundle", "--json"]
    budget_s = DEFAULT_BUDGET_S if job.budget_s is None else job.budget_s
    command += ["--threads", job.thread_words, "--budget", str(budget_s), "--sustained", str(job.sustained_s)]
    for name, content in job.beside.items():
        session.put(f"{name}.tflite", content)
        command += ["--beside", name, f"{name}.tflite"]
    command += [] if device.times else ["--no-times"]
    command += ["--trust-bundle-library"] if job.trust_bundle_library else []
    log.info("%s: measuring", device.name)
    done = session.run(command, path, timeout_s=None)
    if done["status"] != 0:
        raise _failed(device.name, done)
    try:
        return Record.from_dict(json.loads(done["stdout"]))
    except (ValueError, RecursionError, StrictError) as error:
        raise DeviceError(f"{device.name} returned no record ({error})", "Run the same command again") from error


def _operators(name: str, session: Session, path: Sequence[str], tool: Path, threads: int) -> Profile:
    """Times of the bundle's operators by `benchmark_model`."""
    try:
        session.put(_TOOL, read_regular(tool, MAX_FILE_BYTES))
    except OSError as error:
        raise DeviceError(f"{tool} cannot be read ({error.strerror})", next_step(error)) from error
    options = ["--graph=bundle/model.tflite", f"--num_threads={threads}", *profile_options(_PROFILE)]
    done = session.run(["-c", _RUN_TOOL, _TOOL, _PROFILE, *options], path, timeout_s=600)
    if done["status"] != 0:
        said = (done["stderr"].strip().splitlines() or [f"exit status {done['status']}"])[-1]
        raise RuntimeUnavailableError(
            f"benchmark_model does not run on {name} ({said[:200]})",
            "Use the one built for this device",
        )
    return profile(done["stdout"])


def _installed(name: str, connection: Connection, session: Session, job: Job, opened: Mapping[str, Any]) -> str:
    """The environment's name on the device, made if it is not there."""
    facts = session.facts
    packages = collect_packages(
        name,
        facts,
        job.library(target_of(name, facts)),
        bring_wheels=connection.packages is None and session.run(["-c", _LOAD], [])["status"] != 0,
    )
    install(name, session, packages, opened)
    return packages.environment


def _failed(name: str, done: Mapping[str, Any]) -> BsslError:
    """What `bssl-tf-deploy measure` printed on the device, as the error that it was."""
    lines = done["stderr"].strip().splitlines() or [f"exit status {done['status']}"]
    for kind in (BundleError, StorageError, ImageError, RuntimeUnavailableError):
        if done["status"] == kind.exit_status and lines[-1].startswith(f"error[{kind.code}]: "):
            what, _, next_step = lines[-1].removeprefix(f"error[{kind.code}]: ").rstrip(".").partition(". ")
            return kind(f"on {name}: {what}", next_step or "Check the device")
    if done["status"] < 0:
        return DeviceError(
            f"the measurement on {name} was killed (signal {-done['status']})",
            "Check whether the device has enough memory",
        )
    return DeviceError(f"the measurement on {name} failed ({lines[-1][:300]})", "Check the device")
