"""The agent, through the session that talks to it; and alone, with a harness that falls silent."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
import time
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from bssl_tf.devices import DeviceSettings
from bssl_tf.devices.local import LocalDevice
from bssl_tf.devices.session import Session, open_session
from bssl_tf.errors import BundleError, DeviceError, StorageError


@pytest.fixture
def device(tmp_path: Path) -> LocalDevice:
    return LocalDevice(DeviceSettings("here", "local", str(tmp_path / "a" / "b")))


@pytest.fixture
def session(device: LocalDevice) -> Iterator[Session]:
    with open_session(device) as opened:
        opened.ask({"do": "open", "folder": opened.folder})
        yield opened


def archive(**contents: str) -> bytes:
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w") as file:
        for name, content in contents.items():
            file.writestr(f"{name}.py", content)
    return made.getvalue()


def everything(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*"))


def install(session: Session, name: str, **modules: str) -> None:
    session.put("packages/a.whl", archive(**modules))
    session.ask({"do": "install", "environment": name, "archives": ["packages/a.whl"]})


def test_a_session_leaves_nothing_not_even_the_folders_above(device: LocalDevice, tmp_path: Path) -> None:
    with open_session(device) as session:
        session.ask({"do": "open", "folder": session.folder})
        session.put("bundle/x", b"123")
        install(session, "env-1", module="answer = 42")
        assert "a/b/run/bundle/x" in everything(tmp_path) and "a/b/env-1/module.py" in everything(tmp_path)
    assert everything(tmp_path) == []


def test_an_error_in_the_harness_leaves_nothing(device: LocalDevice, tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError), open_session(device) as session:
        session.ask({"do": "open", "folder": session.folder})
        install(session, "env-1", module="")
        raise ZeroDivisionError
    assert everything(tmp_path) == []


def test_what_is_kept_is_found_again_and_older_versions_go(device: LocalDevice, tmp_path: Path) -> None:
    for number in (1, 2):
        with open_session(device) as session:
            session.ask({"do": "open", "folder": session.folder})
            install(session, f"env-{number}", module=f"answer = {number}")
            done = session.run(["-c", "import module; print(module.answer)"], [f"env-{number}"])
            assert (done["status"], done["stdout"]) == (0, f"{number}\n")
            session.ask({"do": "keep", "environments": [f"env-{number}"]})
    assert everything(tmp_path / "a/b") == [".bssl-tf-device", "env-2", "env-2/module.py"]
    with open_session(device) as session:
        assert session.ask({"do": "open", "folder": session.folder})["environments"] == ["env-2"]
    assert everything(tmp_path / "a/b") == [".bssl-tf-device", "env-2", "env-2/module.py"]
    with open_session(device) as session:
        assert session.ask({"do": "clean", "folder": session.folder}) is True
    assert everything(tmp_path) == ["a"]


def test_a_file_that_changed_on_the_way_is_refused(session: Session, tmp_path: Path) -> None:
    request = {"do": "put", "name": "bundle/model.tflite", "bytes": 3, "sha256": "0" * 64}
    with pytest.raises(BundleError, match=r"bundle/model\.tflite was corrupted on the way to here"):
        session.ask(request, b"abc")
    assert "a/b/run/bundle/model.tflite" not in everything(tmp_path)


@pytest.mark.parametrize("name", ["../x", "/x", "a/../../x", "", "a//b", ".", "a/./b", "a\0b"])
def test_nothing_is_written_outside_of_the_session(session: Session, tmp_path: Path, name: str) -> None:
    before = everything(tmp_path)
    with pytest.raises(DeviceError, match="not the name of a file"):
        session.ask({"do": "put", "name": name, "bytes": 0, "sha256": ""})
    assert everything(tmp_path) == before


@pytest.mark.parametrize("name", ["env-1/../x", "run", "../env-1"])
def test_an_environment_has_no_other_name(session: Session, name: str) -> None:
    with pytest.raises(DeviceError, match="not the name of an environment"):
        session.ask({"do": "install", "environment": name, "archives": []})


def test_a_damaged_package_is_not_half_installed(session: Session, tmp_path: Path) -> None:
    session.put("a.whl", archive(module="")[:-30])
    with pytest.raises(BundleError, match=r"a\.whl .* was corrupted on the way"):
        session.ask({"do": "install", "environment": "env-1", "archives": ["a.whl"]})
    assert not (tmp_path / "a/b/env-1").exists()


def test_a_folder_of_somebody_else_is_left_alone(device: LocalDevice, tmp_path: Path) -> None:
    (tmp_path / "a" / "b" / "env-mine").mkdir(parents=True)
    for request in ("open", "clean"):
        with open_session(device) as session:
            if request == "clean":
                assert session.ask({"do": "clean", "folder": session.folder}) is False
            else:
                with pytest.raises(DeviceError, match="not a folder of bssl-tf"):
                    session.ask({"do": "open", "folder": session.folder})
    assert everything(tmp_path) == ["a", "a/b", "a/b/env-mine"]


def test_an_empty_folder_of_somebody_else_may_be_used_and_is_empty_again(device: LocalDevice, tmp_path: Path) -> None:
    (tmp_path / "a" / "b").mkdir(parents=True)
    with open_session(device) as session:
        session.ask({"do": "open", "folder": session.folder})
        session.put("x", b"1")
    assert everything(tmp_path) == ["a", "a/b"]


def test_a_second_session_waits_its_turn(session: Session, device: LocalDevice) -> None:
    with open_session(device) as other, pytest.raises(DeviceError, match="in use"):
        other.ask({"do": "open", "folder": other.folder})
    # The first one goes on.
    session.put("x", b"")


def test_a_place_that_cannot_be_written_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    device = LocalDevice(DeviceSettings("here", "local", str(tmp_path / "file" / "x")))
    with open_session(device) as session, pytest.raises(StorageError, match="here cannot write: Not a directory"):
        session.ask({"do": "open", "folder": session.folder})


def test_what_a_session_that_lost_its_power_left_goes(device: LocalDevice, tmp_path: Path) -> None:
    folder = tmp_path / "a" / "b"
    for left in ("run/bundle", "env-1.part", "env-2"):
        (folder / left).mkdir(parents=True)
    (folder / ".bssl-tf-device").write_text("")
    with open_session(device) as session:
        assert session.ask({"do": "open", "folder": session.folder})["environments"] == ["env-2"]
    assert everything(folder) == [".bssl-tf-device", "env-2"]


def test_programs_report_their_status_and_messages(session: Session) -> None:
    program = "import sys; print('out'); print('said', file=sys.stderr); sys.exit(3)"
    assert session.run(["-c", program], []) == {"status": 3, "stdout": "out\n", "stderr": "said\n"}
    killed = session.run(["-c", "import os; os.kill(os.getpid(), 9)"], [])
    assert killed["status"] == -9


def test_an_unknown_request_is_refused(session: Session) -> None:
    with pytest.raises(DeviceError, match="could not carry out a request"):
        session.ask({"do": "dance"})
    session.put("x", b"")


def test_silence_ends_a_session_and_what_it_started(tmp_path: Path) -> None:
    """A cable that is pulled without a word: no end of input, no hang-up, only silence."""
    program = "import sys; from bssl_tf_deploy.agent import Agent; Agent(0, 1, silence_s=0.5).serve()"
    with subprocess.Popen([sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as agent:
        assert agent.stdin is not None and agent.stdout is not None

        def ask(**request: Any) -> None:
            assert agent.stdin is not None
            agent.stdin.write(json.dumps(request).encode() + b"\n")
            agent.stdin.flush()

        ask(do="open", folder=str(tmp_path / "folder"))
        assert b"free_bytes" in agent.stdout.readline()
        child = f"import os, time; open({str(tmp_path / 'pid')!r}, 'w').write(str(os.getpid())); time.sleep(100)"
        ask(do="run", arguments=["-c", child], path=[], python=[])
        for _ in range(10):
            # Words keep it alive.
            time.sleep(0.2)
            ask(ping=1)
        assert agent.poll() is None
        pid = int((tmp_path / "pid").read_text())
        assert agent.wait(timeout=20) == 0
        assert everything(tmp_path) == ["pid"]
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)
