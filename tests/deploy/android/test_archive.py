"""What `make android` builds is laid out as Android's documentation says, and loads where pages have 16 KiB."""

from __future__ import annotations

import io
import re
import struct
import subprocess
import sys
import zipfile
from pathlib import Path
from xml.etree import ElementTree

import pytest

from tests.java import ANDROID, ROOT, require_jdk
from tests.native import HARDENED, hardening

ABIS = ("arm64-v8a", "x86_64")
# With other libraries in place of those that zig takes long to compile.
WITHOUT_ZIG = """
import sys
sys.path[:0] = [sys.argv.pop(1)]
from android import build
build.native_library = lambda target, folder: target.encode()
sys.exit(build.main())
"""


@pytest.fixture(autouse=True)
def jdk() -> None:
    require_jdk()


def called(*words: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, *map(str, words)], capture_output=True, text=True, timeout=900, check=False)


def files(content: bytes) -> dict[str, bytes]:
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        assert archive.testzip() is None
        return {name: archive.read(name) for name in archive.namelist()}


def test_the_archive_has_what_gradle_looks_for_and_nothing_of_others(tmp_path: Path) -> None:
    folder = tmp_path / "new"
    done = called("-c", WITHOUT_ZIG, ROOT / "deploy", "--out", folder, "--no-javadoc")
    assert done.returncode == 0, done.stderr
    [out] = folder.iterdir()
    assert re.fullmatch(r"bssl-tf-\d+\.\d+\.\d+\.aar", out.name)
    found = files(out.read_bytes())
    # https://developer.android.com/studio/projects/android-library, "Anatomy of an AAR file"
    assert sorted(found) == [
        *("AndroidManifest.xml", "META-INF/LICENSE", "META-INF/com/android/build/gradle/aar-metadata.properties"),
        *("R.txt", "classes.jar", *(f"jni/{abi}/libbssl_tf_jni.so" for abi in ABIS), "proguard.txt"),
    ]
    assert [found[f"jni/{abi}/libbssl_tf_jni.so"] for abi in ABIS] == [b"android-arm64", b"android-x86_64"]
    manifest = ElementTree.fromstring(found["AndroidManifest.xml"])
    assert manifest.tag == "manifest" and manifest.attrib == {"package": "bssl.tf"}
    [sdk] = manifest
    assert sdk.attrib == {"{http://schemas.android.com/apk/res/android}minSdkVersion": "24"}
    metadata = dict(line.split("=") for line in found[sorted(found)[2]].decode().splitlines())
    assert metadata["aarFormatVersion"] == metadata["aarMetadataVersion"] == "1.0"
    classes = files(found["classes.jar"])
    assert {"bssl/tf/BsslClassifier.class", "bssl/tf/BsslDetector.class", "bssl/tf/BsslDelegate.class"} <= set(classes)
    assert all(name.startswith("bssl/tf/") and name.endswith(".class") for name in classes)
    # Java 8's format, and no path of the machine.
    assert {struct.unpack(">IHH", content[:8]) for content in classes.values()} == {(0xCAFEBABE, 0, 52)}
    assert not any(str(ROOT).encode() in content for content in classes.values())


def test_the_rules_keep_every_native_method_under_its_name() -> None:
    rules = (ANDROID / "proguard.txt").read_text()
    native = {path.stem for path in (ANDROID / "src").rglob("*.java") if re.search(r"static native", path.read_text())}
    assert native == {"BsslDelegate"} == set(re.findall(r"class bssl\.tf\.(\w+) \{\n    native <methods>;\n\}", rules))
    assert "-keepclasseswithmembernames" in rules


def test_without_a_jdk_it_says_what_is_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nonexistent")
    monkeypatch.delenv("JAVA_HOME", raising=False)
    done = called(ANDROID / "build.py", "--out", tmp_path)
    assert done.returncode == 1 and list(tmp_path.iterdir()) == []
    assert done.stderr.startswith("error[build]: there is no JDK (no javac). Install one")


@pytest.mark.slow
def test_the_real_archive_loads_on_android_and_is_the_same_twice(tmp_path: Path) -> None:
    made = []
    for number in range(2):
        done = called(ANDROID / "build.py", "--out", tmp_path / str(number))
        assert done.returncode == 0, done.stderr
        made.append({path.suffix: path.read_bytes() for path in (tmp_path / str(number)).iterdir()})
    assert made[0] == made[1]
    pages = files(made[0][".jar"])
    assert "bssl/tf/BsslClassifier.html" in pages and "bssl/tf/Json.html" not in pages
    found = files(made[0][".aar"])
    for abi, machine in zip(ABIS, (183, 62), strict=True):
        content = found[f"jni/{abi}/libbssl_tf_jni.so"]
        (tmp_path / abi).write_bytes(content)
        assert hardening(tmp_path / abi) == HARDENED
        assert str(ROOT).encode() not in content
        for name in (b"Java_bssl_tf_BsslDelegate_create", b"tflite_plugin_create_delegate", b"libbssl_tf_jni.so"):
            assert b"\0" + name + b"\0" in content
        # Program headers, as the loader reads them: e_machine, where they begin, their size and number.
        assert struct.unpack_from("<H", content, 18) == (machine,)
        [start], (size, count) = struct.unpack_from("<Q", content, 32), struct.unpack_from("<HH", content, 54)
        loaded = 0
        for place in range(start, start + size * count, size):
            kind, _, offset, address, _, _, _, alignment = struct.unpack_from("<IIQQQQQQ", content, place)
            if kind == 1:
                loaded += 1
                assert alignment % 16384 == 0 and (address - offset) % alignment == 0
        assert loaded >= 3
