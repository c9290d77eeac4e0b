"""Nothing that users hand over ends in a traceback: one line, a next step, a status of its own."""

from __future__ import annotations

import errno
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import bssl_tf.errors
from bssl_tf import zoo
from bssl_tf.cli import main as host
from bssl_tf.errors import BsslError
from bssl_tf_deploy import cli as device
from bssl_tf_deploy.files import without_checksum
from tests.edited import edited

STATUSES = {
    kind.code: kind.exit_status
    for kind in vars(bssl_tf.errors).values()
    if isinstance(kind, type) and issubclass(kind, BsslError)
}
Called = tuple[int, str, str]
Call = Callable[..., Called]


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("door") / "bundle"
    zoo.copy_bundle(zoo.find("fashion-mnist-28"), folder)
    return folder


@pytest.fixture
def call(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Call:
    """Runs a command line, `bssl-tf` or `bssl-tf-deploy`, in this process: status, stdout, stderr."""

    def run(*words: Any) -> Called:
        program, *arguments = map(str, words)
        # TensorFlow takes the number of threads once in a process.
        if "tensorflow" in sys.modules:
            monkeypatch.setattr("tensorflow.config.threading.set_intra_op_parallelism_threads", lambda _: None)
        monkeypatch.setattr(sys, "argv", [program, *arguments])
        with pytest.raises(SystemExit) as left:
            (host if program == "bssl-tf" else device).main()
        out, said = capsys.readouterr()
        assert isinstance(left.value.code, int)
        return left.value.code, out, said

    return run


def assert_answered(called: Called, *codes: str) -> str:
    """One error, as its last line, with a next step and the status of its code; returns that line."""
    status, _, said = called
    assert "Traceback" not in said
    errors = [line for line in said.splitlines() if line.startswith("error[")]
    assert len(errors) == 1 and said.splitlines()[-1] == errors[0], said
    found = re.fullmatch(r"error\[([\w-]+)\]: (.+)\. ([A-Z\-`].+)\.", errors[0])
    assert found, errors[0]
    assert status == STATUSES[found[1]] and found[1] not in ("unexpected", "backend"), said
    assert not codes or found[1] in codes
    assert errors[0].isprintable()
    return errors[0]


# What a name may be that is not the file which is wanted.
def too_long(tmp: Path) -> Path:
    return tmp / ("x" * 300)


def below_a_file(tmp: Path) -> Path:
    (tmp / "file").write_bytes(b"not what it is taken for")
    return tmp / "file" / "below"


def a_loop(tmp: Path) -> Path:
    (tmp / "loop").symlink_to(tmp / "loop")
    return tmp / "loop"


def a_pipe(tmp: Path) -> Path:
    os.mkfifo(tmp / "pipe")
    return tmp / "pipe"


def an_endless_device(tmp: Path) -> Path:
    return Path("/dev/zero")


def of_other_bytes(tmp: Path) -> Path:
    return tmp / os.fsdecode(b"caf\xe9\x1b[2J")


NAMES = {one.__name__: one for one in (too_long, below_a_file, a_loop, a_pipe, an_endless_device, of_other_bytes)}
# {} is the name, {bundle} a sound bundle, {tmp} a folder.
TAKING = {
    "run": "bssl-tf run {} {bundle}/examples/1-trouser.png",
    "run image": "bssl-tf run {bundle} {}",
    "inspect": "bssl-tf inspect {}",
    "check": "bssl-tf check --no-convert {}",
    "check weights": "bssl-tf check --no-convert larq_zoo:QuickNet --weights {}",
    "export": "bssl-tf export {} --target arm64",
    "evaluate": "bssl-tf evaluate {}",
    "report": "bssl-tf report {} --format table",
    "summary": "bssl-tf summary {}",
    "teacher data": "bssl-tf teacher --data {} --out {tmp}/out",
    "teacher preset": "bssl-tf teacher --preset {} --out {tmp}/out",
    "teacher out": "bssl-tf teacher --data embedded --out {}",
    "pretrain teacher": "bssl-tf pretrain --data embedded --teacher {} --out {tmp}/out",
    "pretrain out": "bssl-tf pretrain --data embedded --method moco --out {}",
    "compare": "bssl-tf compare {}.toml --report-only",
    "devices file": "bssl-tf devices --devices-file {}",
    "bench": "bssl-tf bench {} --warmup 0 --repetitions 1",
    "bench beside": "bssl-tf bench {bundle} --device local --beside other={}",
    "bench tool": "bssl-tf bench {bundle} --device local --benchmark-model {}",
    "import-teacher": "bssl-tf import-teacher moco_v2 {} --out {tmp}/out",
    "zoo": "bssl-tf zoo fashion-mnist-28 --out {}/below",
    "zoo bundle": "bssl-tf zoo fashion-mnist-28 --bundle {}/below",
    "device run": "bssl-tf-deploy run {} {bundle}/examples/1-trouser.png",
    "device image": "bssl-tf-deploy run {bundle} {}",
    "device measure": "bssl-tf-deploy measure {}",
    "device bench beside": "bssl-tf-deploy bench {bundle} --repetitions 1 --beside other {}",
    "device beside": "bssl-tf-deploy measure {bundle} --budget 1 --beside other {}",
}
# Where such a name can be written to.
SOUND = {(taking, "of_other_bytes") for taking in ("zoo", "zoo bundle", "teacher out", "pretrain out")}


WAYS = [(taking, name) for taking in TAKING for name in NAMES if (taking, name) not in SOUND]


@pytest.mark.parametrize(("taking", "name"), WAYS)
def test_a_name_of_something_else_is_answered_in_one_line(
    call: Call, bundle: Path, tmp_path: Path, taking: str, name: str
) -> None:
    path = NAMES[name](tmp_path)
    words = [
        word.replace("{}", str(path)).replace("{bundle}", str(bundle)).replace("{tmp}", str(tmp_path))
        for word in TAKING[taking].split()
    ]
    assert_answered(call(*words))


KINDS = {
    "EACCES": "Check the permissions",
    "EPERM": "Check the permissions",
    "EROFS": "not mounted read-only",
    "EIO": "Check the disk",
    "EMFILE": "ulimit -n",
    "ENFILE": "Close other programs",
    "ENOSPC": "Free space there",
    "EDQUOT": "Free space there",
    "ESTALE": "Mount",
    "EBUSY": "Close the program",
    "ENODEV": "is connected",
    "ENOMEM": "Use smaller sizes",
    "ETIMEDOUT": "network",
    "EREMOTEIO": "Check the path and the disk",
}
LOOKING = ("evaluate", "report", "teacher data", "teacher out", "pretrain teacher", "zoo", "check")


@pytest.mark.parametrize("name", KINDS)
@pytest.mark.parametrize("taking", LOOKING)
def test_an_error_of_the_system_has_the_next_step_of_its_kind(
    call: Call, bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, taking: str, name: str
) -> None:
    """Where nothing more is known of it: `Path.exists` and its like raise most of them."""
    number, broken, look, make = getattr(errno, name), str(tmp_path / "broken"), os.stat, os.mkdir

    def fail(real: Callable[..., Any]) -> Callable[..., Any]:
        def failing(path: Any, *arguments: Any, **options: Any) -> Any:
            if isinstance(path, (str, os.PathLike)) and os.fspath(path).startswith(broken):
                raise OSError(number, os.strerror(number), os.fspath(path))
            return real(path, *arguments, **options)

        return failing

    words = [
        word.replace("{}", broken).replace("{bundle}", str(bundle)).replace("{tmp}", str(tmp_path))
        for word in TAKING[taking].split()
    ]
    monkeypatch.setattr(os, "stat", fail(look))
    monkeypatch.setattr(os, "mkdir", fail(make))
    called = call(*words)
    monkeypatch.undo()
    line = assert_answered(called)
    assert os.strerror(number) in line and KINDS[name] in line and broken in line


def in_process(program: str, *words: Any, **options: Any) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", f"from {program} import main; main()", *map(str, words)]
    options = {"stdout": subprocess.PIPE} | options
    return subprocess.run(command, stderr=subprocess.PIPE, text=True, timeout=120, check=False, **options)


PROGRAMS = ("bssl_tf.cli.main", "bssl_tf_deploy.cli")


@pytest.mark.parametrize("options", [(), ("--json",), ("--outputs",)])
@pytest.mark.parametrize("program", PROGRAMS)
def test_a_full_output_is_an_error_of_storage(bundle: Path, program: str, options: tuple[str, ...]) -> None:
    image = bundle / "examples" / "1-trouser.png"
    with open("/dev/full", "w") as full:  # noqa: PTH123
        done = in_process(program, "run", bundle, image, *options, stdout=full)
    line = assert_answered((done.returncode, "", done.stderr), "storage")
    assert "standard output: No space left on device. Free space" in line and done.stderr == line + "\n"


@pytest.mark.parametrize("program", PROGRAMS)
def test_an_output_that_nobody_reads_ends_quietly(bundle: Path, program: str) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    try:
        done = in_process(program, "run", bundle, bundle / "examples" / "1-trouser.png", stdout=writer)
    finally:
        os.close(writer)
    assert done.returncode == 1 and "Traceback" not in done.stderr and "Exception ignored" not in done.stderr


@pytest.mark.parametrize("program", PROGRAMS)
def test_closed_streams_change_no_status_and_no_file(bundle: Path, program: str) -> None:
    """A file that is opened after it would get the number of the closed output, and then what is printed."""
    image = bundle / "examples" / "1-trouser.png"
    manifest = (bundle / "manifest.json").read_bytes()
    for closed in ((1,), (2,), (0, 1, 2)):
        command = [sys.executable, "-c", f"from {program} import main; main()", "run", str(bundle), str(image)]
        done = subprocess.run(
            ["sh", "-c", 'exec "$@" ' + " ".join(f"{number}>&-" for number in closed), "sh", *command],
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        assert done.returncode == 0 and done.stderr == "", closed
    assert (bundle / "manifest.json").read_bytes() == manifest


@pytest.mark.parametrize("program", PROGRAMS)
def test_a_terminal_that_takes_ascii_only_gets_escapes(bundle: Path, tmp_path: Path, program: str) -> None:
    image = tmp_path / "Größe.png"
    image.write_bytes((bundle / "examples" / "1-trouser.png").read_bytes())
    done = in_process(program, "run", bundle, image, env=os.environ | {"PYTHONIOENCODING": "ascii"})
    assert done.returncode == 0 and "Gr\\xf6\\xdfe.png  trouser" in done.stdout, done.stderr


class _Planted(Exception):
    pass


def planted(*_: Any, **__: Any) -> None:
    raise _Planted("a fault\nof ours \x1b[2J")


@pytest.mark.parametrize("program", ["bssl-tf", "bssl-tf-deploy"])
def test_a_fault_of_ours_is_one_line_that_names_the_file_with_the_traceback(
    call: Call, bundle: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, program: str
) -> None:
    monkeypatch.setattr(device, "read_bundle", planted)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    status, out, said = call(program, "run", bundle, "image.png")
    found = re.fullmatch(
        r"error\[unexpected\]: _Planted: a fault of ours \\x1b\[2J \(details in (.+)\)\. "
        r"This is a fault in bssl-tf: report it with that file\.\n",
        said,
    )
    assert status == 16 and out == "" and found, said
    details = Path(found[1])
    assert details.stat().st_mode & 0o777 == 0o600
    assert "Traceback" in details.read_text() and "in planted" in details.read_text()
    debug = ("--debug", "run") if program == "bssl-tf" else ("run", "--debug")
    status, _, said = call(program, *debug, bundle, "image.png")
    assert status == 16 and "Traceback" in said and "\x1b" not in said
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "none"))
    status, _, said = call(program, "run", bundle, "image.png")
    assert status == 16 and "report it with what --debug prints" in said and "Traceback" not in said


@pytest.mark.parametrize("function", ["inspect", "check", "evaluate", "report", "export"])
def test_python_gets_errors_of_the_system_as_ours(tmp_path: Path, function: str) -> None:
    import bssl_tf as bt

    options = {"export": {"target": "arm64"}}.get(function, {})
    with pytest.raises(BsslError, match=r"File name too long.*Choose a shorter name"):
        getattr(bt, function)(too_long(tmp_path), **options)


HOSTILE = "a\nerror[x]: forged\x1b[2J\x07\u202e\u2066\x9b31m\u2028\r\ud800"


@pytest.mark.parametrize("program", ["bssl-tf", "bssl-tf-deploy"])
def test_labels_and_names_of_files_cannot_steer_the_terminal(
    call: Call, bundle: Path, tmp_path: Path, program: str
) -> None:
    copy = shutil.copytree(bundle, tmp_path / "copy\n\x1b[2J\u202e")
    about = without_checksum(json.loads((copy / "manifest.json").read_text()))
    about["table"]["labels"] = [f"{HOSTILE}{number}" for number in range(len(about["table"]["labels"]))]
    (copy / "manifest.json").write_text(edited(about))
    image = tmp_path / "image\n\x1b[2J.png"
    shutil.copyfile(bundle / "examples" / "1-trouser.png", image)
    ways: list[tuple[Any, ...]] = [("run", copy, image), ("bench", copy, "--repetitions", 1, "--warmup", 0)]
    ways += [("inspect", copy)] if program == "bssl-tf" else [("measure", copy, "--no-times")]
    for way in ways:
        status, out, said = call(program, *way)
        assert status == 0, said
        assert all(line.isprintable() for line in (out + said).split("\n")), way
        assert not any(line.startswith("error[") for line in out.split("\n"))
    status, out, _ = call(program, "run", copy, image)
    assert out.count("\n") == 3 and "a\\nerror[x]: forged\\x1b[2J\\x07\\u202e\\u2066\\x9b31m\\u2028\\r\\ud800" in out
    status, out, _ = call(program, "run", "--json", copy, image)
    assert status == 0 and HOSTILE in json.loads(out)[0]["classes"][0]["label"] and "\x1b" not in out
    for missing in (tmp_path / "none\n\x1b[2J", tmp_path / "none\u202e.png"):
        assert_answered(call(program, "run", copy, missing), "image")
        assert_answered(call(program, "run", missing, image), "bundle")
