"""What is done in a session: check a device, bring what it needs, measure there, take everything away again."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bssl_tf.devices.connection import Connection
from bssl_tf.devices.devices_file import Device
from bssl_tf.devices.instructions import build_plugin, count_instructions
from bssl_tf.devices.operator_profile import operators, profile_options
from bssl_tf.devices.packages import collect_packages, target_of
from bssl_tf.devices.qemu import QemuConnection
from bssl_tf.devices.session import Session, open_session
from bssl_tf.errors import BsslError, BundleError, DeviceError, ImageError, RuntimeUnavailableError, StorageError
from bssl_tf_deploy.bundle import MANIFEST, MODEL, Bundle, checked_file
from bssl_tf_deploy.library import LIBRARY

# Beyond what is put there: for what the measurement itself writes.
_SPARE_BYTES = 8 << 20
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


@dataclass(frozen=True)
class Measured:
    """What a device gave.

    Attributes:
        facts: of the device.
        emulated: then there are no times.
        record: from `bssl_tf_deploy.measure.measure_bundle`; of an emulated one also `instructions` of one image, with
            the `processor`, where they can be counted.
    """

    facts: dict[str, Any]
    emulated: bool
    record: dict[str, Any]


def reach_device(device: Device) -> None:
    """Raises `DeviceError` where a device cannot be reached, or there is no runtime for it."""
    with open_session(device) as session:
        target_of(device.name, session.facts)


def check_device(device: Device) -> dict[str, Any]:
    """Facts of a device, with `target`, `emulated`, `free_mib` and `runtimes`, what would run a bundle there.

    Raises:
        DeviceError: it cannot be reached, or there is no runtime for it.
    """
    connection = device.connect()
    with open_session(device) as session:
        target = target_of(device.name, session.facts)
        opened = session.ask({"do": "open", "folder": session.folder})
        installed = opened["environments"][-1:] if connection.runtime else [""]
        runtimes = [_runtime(session, [path, *(connection.packages or ())]) for path in installed]
        return session.facts | {
            "target": target,
            "emulated": connection.emulated,
            "free_mib": opened["free_bytes"] >> 20,
            "runtimes": [runtime for runtime in runtimes if runtime],
        }


def _runtime(session: Session, path: Sequence[str]) -> str:
    """Versions of the runtime and the interpreter on a device; "" where they do not load."""
    command = ["-c", _ASK_VERSIONS]
    done = session.run(command, [part for part in path if part])
    return str(done["stdout"]).strip() if done["status"] == 0 else ""


def clean_device(device: Device) -> bool:
    """Removes all that is ours from a device; whether there was anything. Raises `DeviceError`."""
    with open_session(device) as session:
        return bool(session.ask({"do": "clean", "folder": session.folder}))


def measure_on_device(
    device: Device,
    bundle: Bundle,
    arguments: Sequence[str],
    beside: Mapping[str, bytes],
    *,
    trust_bundle_library: bool = False,
    say: Callable[[str], None] = lambda line: None,
) -> Measured:
    """Brings a bundle to a device, checks it there, times it, and takes it away again.

    Args:
        device: which.
        bundle: from `read_bundle`.
        arguments: for `bssl-tf-deploy measure`, beyond the bundle.
        beside: name -> model to be timed in turns.
        trust_bundle_library: see `bssl_tf_deploy.load`.
        say: told in a line what is done.

    Raises:
        DeviceError: it cannot be reached or was lost, has no room, or there is no runtime for it.
        BundleError: a file arrived changed, or the golden outputs differ there.
        RuntimeUnavailableError: it cannot run the model.
    """
    connection = device.connect()
    with open_session(device) as session:
        facts = session.facts
        target_of(device.name, facts)
        say(f"{device.name}: {facts['processor']}, {facts['cores']} cores, Python {facts['python']}")
        opened = session.ask({"do": "open", "folder": session.folder})
        path = list(connection.packages or ())
        if connection.runtime:
            environment = _installed(device, connection, session, bundle, opened, trust_bundle_library, say)
            path.insert(0, environment)
        files = {name: checked_file(bundle, name).read_bytes() for name in bundle.manifest.files}
        files[MANIFEST] = (bundle.path / MANIFEST).read_bytes()
        _room(device, opened["free_bytes"], sum(map(len, [*files.values(), *beside.values()])))
        for name, content in files.items():
            session.put(f"bundle/{name}", content)
        command = ["-c", "from bssl_tf_deploy.cli import main; main()", "measure", "bundle", "--json", *arguments]
        for name, content in beside.items():
            session.put(f"{name}.tflite", content)
            command += ["--beside", name, f"{name}.tflite"]
        if connection.emulated:
            command.append("--no-times")
        say(f"{device.name}: measuring")
        done = session.run(command, path, timeout_s=None)
        if done["status"] != 0:
            raise _failed(device, done)
        try:
            record: dict[str, Any] = json.loads(done["stdout"])
        except ValueError as error:
            raise DeviceError(f"{device.name} gave no record ({error})", "Run the same command again") from error
        if device.benchmark_model and not connection.emulated:
            say(f"{device.name}: operators, with benchmark_model")
            record["operators"] = _operators(
                device, session, path, device.benchmark_model, record["golden"]["threads"][0]
            )
        if isinstance(connection, QemuConnection):
            library = Path(opened["folder"], environment, "bssl_tf_deploy", "lib", LIBRARY)
            record |= _counted(connection, bundle, library, say)
        if connection.runtime:
            session.ask({"do": "keep", "environment": environment})
        return Measured(facts, connection.emulated, record)


def _operators(device: Device, session: Session, path: Sequence[str], tool: Path, threads: int) -> dict[str, Any]:
    """Times of the bundle's operators, from a run of their own, which watching makes slower: `threads` and `rows`."""
    try:
        session.put(_TOOL, tool.read_bytes())
    except OSError as error:
        raise DeviceError(f"{tool} cannot be read ({error.strerror})", "Check the path of benchmark_model") from error
    options = ["--graph=bundle/model.tflite", f"--num_threads={threads}", *profile_options(_PROFILE)]
    done = session.run(["-c", _RUN_TOOL, _TOOL, _PROFILE, *options], path, timeout_s=600)
    if done["status"] != 0:
        said = (done["stderr"].strip().splitlines() or [f"exit status {done['status']}"])[-1]
        raise RuntimeUnavailableError(
            f"benchmark_model does not run on {device.name} ({said[:200]})",
            "Take the one that was built for this device",
        )
    return {"threads": threads, "rows": operators(done["stdout"])}


def _counted(connection: QemuConnection, bundle: Bundle, library: Path, say: Callable[[str], None]) -> dict[str, Any]:
    """`instructions` of one image; empty where nothing here can count them."""
    say("counting instructions")
    try:
        with tempfile.TemporaryDirectory() as folder:
            plugin = build_plugin(Path(folder))
            found = count_instructions(
                lambda arguments: connection.counting(arguments, plugin), bundle.path / MODEL, library
            )
    except DeviceError as error:
        say(f"no instruction counts: {error}")
        return {}
    return {"instructions": {"processor": connection.processor, **found}}


def _installed(
    device: Device,
    connection: Connection,
    session: Session,
    bundle: Bundle,
    opened: Mapping[str, Any],
    trust_bundle_library: bool,
    say: Callable[[str], None],
) -> str:
    """The environment's name on the device, made if it is not there."""
    packages = collect_packages(
        device.name,
        session.facts,
        bring_wheels=connection.packages is None and session.run(["-c", _LOAD], [])["status"] != 0,
        bundle=bundle,
        trust_bundle_library=trust_bundle_library,
    )
    if packages.environment not in opened["environments"]:
        contents = {
            name: content if isinstance(content, bytes) else content.read_bytes()
            for name, content in packages.archives.items()
        }
        _room(device, opened["free_bytes"], packages.unpacked_bytes + sum(map(len, contents.values())))
        say(f"{device.name}: installing {len(contents)} packages, {packages.unpacked_bytes >> 20} MB")
        for name, content in contents.items():
            session.put(f"packages/{name}", content)
        request = {"environment": packages.environment, "archives": [f"packages/{name}" for name in contents]}
        if packages.requirements:
            session.ask({"do": "pip", "requirements": packages.requirements} | request, timeout_s=1800)
        else:
            session.ask({"do": "install"} | request, timeout_s=600)
    return packages.environment


def _room(device: Device, free: int, needed: int) -> None:
    if free < needed + _SPARE_BYTES:
        raise DeviceError(
            f"the disk of {device.name} has {free >> 20} MB free, and {(needed + _SPARE_BYTES) >> 20} MB are needed",
            "Free space there, or name another place with --remote-dir",
        )


def _failed(device: Device, done: Mapping[str, Any]) -> BsslError:
    """What `bssl-tf-deploy measure` said on the device, as the error that it was."""
    lines = done["stderr"].strip().splitlines() or [f"exit status {done['status']}"]
    for kind in (BundleError, StorageError, ImageError, RuntimeUnavailableError):
        if done["status"] == kind.exit_status and lines[-1].startswith(f"error[{kind.code}]: "):
            what, _, next_step = lines[-1].removeprefix(f"error[{kind.code}]: ").rstrip(".").partition(". ")
            return kind(f"on {device.name}: {what}", next_step or "Look at the device")
    if done["status"] < 0:
        return DeviceError(
            f"the measurement on {device.name} was killed (signal {-done['status']})",
            "Look whether the device has enough memory",
        )
    return DeviceError(f"the measurement on {device.name} failed ({lines[-1][:300]})", "Look at the device")
