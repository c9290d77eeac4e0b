"""Builds the library for Android, an .aar. Needs a JDK, and zig (`pip install ziglang`); no SDK and no NDK.

    python deploy/android/build.py --out dist      # bssl-tf-VERSION.aar and bssl-tf-VERSION-javadoc.jar

| in the archive | |
|---|---|
| AndroidManifest.xml | the library's name and the oldest Android |
| classes.jar | the classes of src/, for Java 8, which every D8 takes |
| R.txt | empty: there are no resources |
| jni/ABI/libbssl_tf_jni.so | the runtime with its door for Java (native/jni), for each of `ABIS` |
| proguard.txt | rules that an app's R8 obeys |
| META-INF/com/android/build/gradle/aar-metadata.properties | what Gradle's plugin asks of an app |
| META-INF/LICENSE | |

What stands in for Android and for TensorFlow Lite while the classes are compiled, stubs/, is not in it. The same
sources, JDK and zig give the same bytes.

jni.h is the JDK's: it has every function in its place, checked by the compiler, and whoever builds the classes has it.
Its jni_md.h describes this machine and not the target, so that ours is used (native/jni/jni_md.h).
"""

from __future__ import annotations

import argparse
import io
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path

if not __package__:
    # Run as a program, Python looks beside this file; `native` and `bssl_tf_deploy` lie one folder higher.
    sys.path[:1] = [str(Path(__file__).resolve().parents[1])]

from bssl_tf_deploy.files import new_file
from native.build import build
from native.building.targets import ANDROID_API, JNI_LIBRARY, BuildError, version

HERE = Path(__file__).resolve().parent
# As Android names kinds of processors, with our targets.
ABIS = {"arm64-v8a": "android-arm64", "x86_64": "android-x86_64"}
PACKAGE = "bssl.tf"
# What every D8 takes. That it is old, javac warns.
_FOR_ANDROID = ("--release", "8", "-encoding", "UTF-8", "-Xlint:-options", "-proc:none")
# No archive can have an earlier time.
_EPOCH = (1980, 1, 1, 0, 0, 0)
_MANIFEST = f"""<?xml version="1.0" encoding="utf-8"?>
<manifest xmlns:android="http://schemas.android.com/apk/res/android" package="{PACKAGE}">
    <uses-sdk android:minSdkVersion="{ANDROID_API}" />
</manifest>
"""
# The format of the archive and of this file; any SDK and any plugin will do.
_METADATA = """aarFormatVersion=1.0
aarMetadataVersion=1.0
minCompileSdk=1
minAndroidGradlePluginVersion=1.0.0
"""


def archive(files: Mapping[str, bytes]) -> bytes:
    """A zip archive of these files, sorted by name, without times and owners."""
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w") as packed:
        for name, content in sorted(files.items()):
            about = zipfile.ZipInfo(name, _EPOCH)
            about.compress_type = zipfile.ZIP_DEFLATED
            about.create_system = 3  # Unix, on every system
            about.external_attr = 0o100644 << 16
            packed.writestr(about, content, compresslevel=9)
    return made.getvalue()


def classes(folder: Path) -> dict[str, bytes]:
    """The compiled classes of src/, by their names in a jar; `folder` is for what they are compiled with."""
    stubs, made = folder / "stubs", folder / "classes"
    _java("javac", [*_FOR_ANDROID, "-d", str(stubs), *_sources("stubs")])
    _java("javac", [*_FOR_ANDROID, "-g:source,lines", "-cp", str(stubs), "-d", str(made), *_sources("src")])
    return _files(made)


def javadoc(folder: Path) -> dict[str, bytes]:
    """The pages of the public classes, by their names in a jar."""
    stubs, made = folder / "stubs", folder / "javadoc"
    title = f"bssl-tf {version()} for Android"
    words = ["-quiet", "-notimestamp", "-Xdoclint:all,-missing", "-windowtitle", title, "-doctitle", title]
    _java("javadoc", [*words, "-cp", str(stubs), "-d", str(made), *_sources("src")])
    return _files(made)


def native_library(target: str, folder: Path) -> bytes:
    """The checked library for a target, such as `android-arm64`."""
    out = folder / target / JNI_LIBRARY
    build(target, out, "zig", product="jni")
    return out.read_bytes()


def aar(folder: Path) -> bytes:
    """The archive; `folder` is for what it is made of.

    Raises:
        BuildError: there is no JDK or no zig, or one of them fails.
        OSError: a file cannot be read or written.
    """
    files = {
        "AndroidManifest.xml": _MANIFEST.encode(),
        "META-INF/LICENSE": (HERE.parents[1] / "LICENSE").read_bytes(),
        "META-INF/com/android/build/gradle/aar-metadata.properties": _METADATA.encode(),
        "R.txt": b"",
        "classes.jar": archive(classes(folder)),
        "proguard.txt": (HERE / "proguard.txt").read_bytes(),
    }
    for abi, target in ABIS.items():
        files[f"jni/{abi}/{JNI_LIBRARY}"] = native_library(target, folder)
    return archive(files)


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; returns the exit status."""
    parser = argparse.ArgumentParser(description="Build the library for Android.")
    parser.add_argument("--out", required=True, type=Path, metavar="FOLDER", help="where to write")
    parser.add_argument("--no-javadoc", action="store_true", help="leave out the documentation")
    options = parser.parse_args(arguments)
    try:
        with tempfile.TemporaryDirectory() as temporary:
            folder, name = Path(temporary), f"bssl-tf-{version()}"
            made = {f"{name}.aar": aar(folder)}
            if not options.no_javadoc:
                made[f"{name}-javadoc.jar"] = archive(javadoc(folder))
        for file, content in made.items():
            _write(options.out / file, content)
            print(f"{options.out / file}: {len(content) / 1024:.1f} KiB")
    except BuildError as error:
        if error.output:
            sys.stderr.write(error.output.rstrip() + "\n")
        print(error, file=sys.stderr)
        return 1
    except OSError as error:
        print(BuildError(f"{error.filename} cannot be written ({error.strerror})", "Choose another"), file=sys.stderr)
        return 1
    return 0


def _java(tool: str, words: Sequence[str]) -> None:
    home = os.environ.get("JAVA_HOME")
    found = shutil.which(tool, path=str(Path(home, "bin"))) if home else shutil.which(tool)
    if found is None:
        raise BuildError(f"there is no JDK (no {tool})", "Install one, such as the package default-jdk-headless")
    # From here and by relative names, so that no path of this machine gets into what is made.
    # A compiler that lives for a moment need not be compiled well itself.
    command = [found, "-J-XX:TieredStopAtLevel=1", "-J-XX:+UseSerialGC", *words]
    done = subprocess.run(command, cwd=HERE, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise BuildError(f"{tool} fails", "See what it printed above", done.stdout + done.stderr)


def _sources(folder: str) -> list[str]:
    return sorted(path.relative_to(HERE).as_posix() for path in (HERE / folder).rglob("*.java"))


def _files(folder: Path) -> dict[str, bytes]:
    found = (path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in found}


def _write(path: Path, content: bytes) -> None:
    """Whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor, temporary = new_file(path.parent, f".{path.name}.", ".tmp")
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


if __name__ == "__main__":
    sys.exit(main())
