"""Which device a word means, and which words mean none."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bssl_tf.devices import DeviceSettings
from bssl_tf.devices.android import Phone
from bssl_tf.devices.connection import remote_line
from bssl_tf.devices.devices_file import find_device, named_devices
from bssl_tf.devices.local import LocalDevice
from bssl_tf.devices.ssh import SshDevice
from bssl_tf.errors import ConfigError


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "devices.toml"
    path.write_text(
        '[pi]\naddress = "ssh://pi@10.0.0.4:2222"\nremote_dir = "/mnt/x"\n[phone]\naddress = "adb:A1:5555"\n'
        'benchmark_model = "~/tool"\ntflite_library = "/x/lite.aar"\n'
    )
    return path


def test_names_and_addresses_are_found(file: Path) -> None:
    assert list(named_devices(file)) == ["pi", "phone"]
    pi = find_device("pi", file)
    assert pi.settings == DeviceSettings("pi", "ssh://pi@10.0.0.4:2222", "/mnt/x")
    phone = find_device("phone", file).settings
    assert (phone.benchmark_model, phone.tflite_library) == (Path.home() / "tool", Path("/x/lite.aar"))
    assert [type(find_device(name, file)) for name in ("pi", "phone", "local")] == [SshDevice, Phone, LocalDevice]


@pytest.mark.parametrize(
    "address", ["ssh://pi", "ssh://a@b.c", "ssh://a@[::1]:22", "ssh://h:1/", "adb", "adb:emulator-5554", "qemu-arm64"]
)
def test_addresses_of_every_kind_are_taken(address: str, file: Path) -> None:
    assert find_device(address, file).settings.address == address


@pytest.mark.parametrize(
    "address",
    [
        *("pie", "", "ssh://", "ssh://-oProxyCommand=x", "ssh://a b", "ssh://h:0", "ssh://h:65536", "ssh://-l@h"),
        *("ssh://h;x", "ssh://h/path", "adb:", "adb:-s", "adb:a b", "http://h", "LOCAL", "ssh://$(x)", "ssh://h\n"),
    ],
)
def test_other_words_are_refused_with_what_would_do(address: str, file: Path) -> None:
    with pytest.raises(ConfigError, match=r"is not a device\. Give local, .*the devices file has pi, phone"):
        find_device(address, file)


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ("x = 1", "is not a device"),
        ('[pi]\nadress = "local"', "is not a device"),
        ('[pi]\naddress = "pie"', "'pie' is not a device"),
        ('[pi]\naddress = "local"\nuser = "x"', "has user"),
        ('[pi]\naddress = "local"\nremote_dir = 3', "has remote_dir"),
        ('[pi]\naddress = ["local"]', "has address"),
        ('[pi]\naddress = "local"\ntflite_library = "~nouser/x.aar"', "has '~nouser/x.aar', but there is no such user"),
        ("[pi", "not valid TOML"),
    ],
)
def test_a_wrong_file_is_one_line(text: str, word: str, tmp_path: Path) -> None:
    (tmp_path / "devices.toml").write_text(text)
    with pytest.raises(ConfigError, match=word):
        named_devices(tmp_path / "devices.toml")


def test_no_file_is_no_device_but_a_named_one_must_be_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    assert named_devices() == {}
    with pytest.raises(ConfigError, match="missing"):
        named_devices(tmp_path / "other.toml")


@given(st.lists(st.text(st.characters(blacklist_characters="\0", blacklist_categories=["Cs"])), min_size=1, max_size=5))
@settings(deadline=None)
def test_a_remote_shell_gives_back_what_was_quoted(arguments: list[str]) -> None:
    line = remote_line(["printf", "%s\\0", *arguments])
    done = subprocess.run(["sh", "-c", line], capture_output=True, check=True)
    assert done.stdout.decode().split("\0")[:-1] == arguments
