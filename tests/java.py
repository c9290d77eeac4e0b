"""Java on this machine: the library for Android compiled with what stands in for Android, and cases run in one go."""

from __future__ import annotations

import functools
import io
import json
import shutil
import struct
import subprocess
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from bssl_tf_deploy.bundle import MANIFEST
from tests.conftest import require_or_skip

ROOT = Path(__file__).parent.parent
ANDROID = ROOT / "deploy" / "android"
OURS = Path(__file__).parent / "deploy" / "android" / "java"
_FOLDER = tempfile.TemporaryDirectory(prefix="bssl-tf-java-")


def require_jdk() -> None:
    """Skips the test without a JDK."""
    found = all(shutil.which(tool) is not None for tool in ("java", "javac"))
    require_or_skip(found, "no JDK: the package default-jdk-headless brings one")


def jni_headers() -> Path:
    """The folder with the JDK's jni.h."""
    javac = shutil.which("javac")
    assert javac is not None
    return Path(javac).resolve().parents[1] / "include"


@functools.cache
def compiled() -> Path:
    """The library's classes, and the tests' own, in which an interpreter of TensorFlow Lite is as real as can be."""
    require_jdk()
    out = Path(_FOLDER.name) / "classes"
    own = sorted(OURS.rglob("*.java"))
    replaced = {path.relative_to(OURS) for path in own}
    stubs = [p for p in sorted((ANDROID / "stubs").rglob("*.java")) if p.relative_to(ANDROID / "stubs") not in replaced]
    sources = [*sorted((ANDROID / "src").rglob("*.java")), *stubs, *own]
    # It lives for a moment only.
    quick = ["-J-XX:TieredStopAtLevel=1", "-J-XX:+UseSerialGC"]
    command = ["javac", *quick, "--release", "8", "-Xlint:all,-options", "-Werror", "-d", str(out), *map(str, sources)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return out


def run_cases(cases: Sequence[tuple[str, bytes]], libraries: Path | None = None, *words: str) -> list[bytes]:
    """What Java makes of each case, in one process.

    Args:
        cases: kind and content, for `Cases.java`.
        libraries: a folder with native libraries.
        words: more arguments for Java, such as properties of its system.

    Returns:
        For each its result; "!" and the message where that is an exception.
    """
    classes = compiled()
    with tempfile.TemporaryDirectory() as folder:
        given, made = Path(folder, "given"), Path(folder, "made")
        given.write_bytes(b"".join(text(kind) + block(content) for kind, content in cases))
        options = ["-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC", *words]
        if libraries is not None:
            options += ["-Xcheck:jni", f"-Djava.library.path={libraries}"]
        command = ["java", *options, "-cp", str(classes), "bssl.tf.Cases", str(given), str(made)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
        # What -Xcheck:jni finds it prints, and goes on.
        assert "WARNING in native method" not in done.stdout + done.stderr, done.stdout + done.stderr
        results = list(blocks(made.read_bytes()))
    assert len(results) == len(cases)
    return results


def text(value: str) -> bytes:
    """As Java's `readUTF` takes it; without characters beyond the basic plane."""
    encoded = value.encode()
    return struct.pack(">H", len(encoded)) + encoded


def block(content: bytes) -> bytes:
    """With its length before it."""
    return struct.pack(">i", len(content)) + content


def blocks(content: bytes) -> Iterator[bytes]:
    """The reverse, for several."""
    file = io.BytesIO(content)
    while head := file.read(4):
        yield file.read(*struct.unpack(">i", head))


def take_text(file: io.BytesIO) -> str:
    """What Java's `writeUTF` wrote; "" at the end."""
    head = file.read(2)
    return file.read(*struct.unpack(">H", head)).decode() if head else ""


def edited(bundle: Path, change: Callable[[dict[str, Any]], object]) -> None:
    """Lets `change` edit what a bundle's manifest says."""
    content = json.loads((bundle / MANIFEST).read_text())
    change(content)
    (bundle / MANIFEST).write_text(json.dumps(content))
