"""What the runtime is built for, from which sources, and what may be in it."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import shutil
import struct
import sys
from pathlib import Path
from typing import Literal

# The last one is for emulators on a PC.
ANDROID_TARGETS = ("android-arm64", "android-x86_64")
TARGETS = ("x86_64", "arm64", *ANDROID_TARGETS)
# As compilers name them.
MACHINES = {"x86_64": "x86_64", "arm64": "aarch64", "android-arm64": "aarch64", "android-x86_64": "x86_64"}
# What can be made: the library, the library with a door for Java, and the program in runner/.
Product = Literal["library", "jni", "runner"]
LIBRARY = "libbssl_tf_runtime.so"
JNI_LIBRARY = "libbssl_tf_jni.so"
RUNNER = "bssl_tf_runner"
EXPORTS = {
    "tflite_plugin_create_delegate",
    "tflite_plugin_destroy_delegate",
    "bssl_runtime_version",
    "bssl_runtime_kernels",
    "bssl_runtime_profile",
}
JNI_EXPORTS = EXPORTS | {
    f"Java_bssl_tf_BsslDelegate_{name}" for name in ("create", "destroy", "nativeVersion", "nativeKernels")
}
MAX_BYTES = 200 * 1024
# manylinux2014's, older than every system that has a Python for an interpreter's wheel.
ZIG_GLIBC = (2, 17)
# Devices with pages of 16 KiB do not load a library that is laid out for smaller ones.
ANDROID_PAGE = 16384
ANDROID_API = 24  # Android 7
# Every function that the runtime may take from Android's libc.so. Who needs another one adds it here, once it is sure
# that Android has it, and to the headers in android/.
ANDROID_IMPORTS = (
    *("free", "malloc", "memchr", "memcmp", "memcpy", "memmove", "memset", "posix_memalign", "snprintf", "strcmp"),
    *("strlen", "strtol", "pthread_create", "pthread_join", "pthread_cond_broadcast", "pthread_cond_destroy"),
    *("pthread_cond_signal", "pthread_cond_wait", "pthread_mutex_destroy", "pthread_mutex_lock"),
    *("pthread_mutex_unlock", "sched_yield", "clock_gettime", "getpid", "calloc", "__stack_chk_fail"),
)
# The same for the runner, by library; its headers are in runner/android/.
RUNNER_IMPORTS = {
    "libc.so": (
        *("__errno", "__libc_init", "calloc", "clock_gettime", "dprintf", "exit", "fclose", "fflush", "fopen", "fread"),
        *("free", "fwrite", "memcpy", "memset", "printf", "putchar", "puts", "snprintf", "strchr", "strcmp"),
        *("strerror", "strlen", "strstr", "strtol", "vsnprintf", "__stack_chk_fail"),
    ),
    "libdl.so": ("dlerror", "dlopen", "dlsym"),
}
NATIVE = Path(__file__).resolve().parent.parent


class BuildError(Exception):
    """The library cannot be built here; one line: what happened, and what to do next.

    Args:
        what: without a final full stop.
        next_step: an imperative sentence without a final full stop.
        output: the compiler's own, for the terminal.
    """

    def __init__(self, what: str, next_step: str, output: str = "") -> None:
        super().__init__(f"error[build]: {' '.join(what.split())}. {' '.join(next_step.split())}.")
        self.output = output


def host() -> str | None:
    """The target that this machine is, or None: another system than Linux, or a processor of 32 bits."""
    if sys.platform != "linux" or struct.calcsize("P") != 8 or hasattr(sys, "getandroidapilevel"):
        return None
    return {"x86_64": "x86_64", "aarch64": "arm64"}.get(platform.machine())


def sources(product: Product = "library") -> list[Path]:
    """The C++ files to compile, relative to `NATIVE`."""
    patterns = {
        "library": ("*.cc", "kernels/*.cc"),
        "jni": ("*.cc", "kernels/*.cc", "jni/*.cc"),
        "runner": ("runner/*.cc",),
    }[product]
    return sorted(path.relative_to(NATIVE) for pattern in patterns for path in NATIVE.glob(pattern))


def jni_headers() -> Path:
    """The folder with a JDK's jni.h: that of $JAVA_HOME, else of the `javac` that is found.

    Raises:
        BuildError: there is no JDK.
    """
    javac = shutil.which("javac")
    homes = [Path(os.environ.get("JAVA_HOME") or "/nowhere"), *([Path(javac).resolve().parents[1]] if javac else [])]
    for home in homes:
        if (home / "include" / "jni.h").is_file():
            return home / "include"
    raise BuildError("there is no JDK (no jni.h)", "Install one, such as the package default-jdk-headless")


def headers() -> list[Path]:
    """All that a source may include."""
    files = (path for path in sorted(NATIVE.glob("**/*.*")) if path.suffix in (".h", ".inc"))
    return [path for path in files if path.parent.name != "tests"]


def version() -> str:
    """The package's version, which the library reports as its own.

    In a checkout that of pyproject.toml, which an installation may lag behind; installed, that of the distribution.

    Raises:
        BuildError: there is neither.
    """
    project = NATIVE.parent / "pyproject.toml"
    try:
        if sys.version_info >= (3, 11):
            import tomllib
        else:
            import tomli as tomllib
        if project.is_file():
            return str(tomllib.loads(project.read_text(encoding="utf-8"))["project"]["version"])
        return importlib.metadata.version("bssl-tf-deploy")
    except (ImportError, KeyError, ValueError) as error:
        raise BuildError(
            f"the version is neither in {project} nor installed", "Install bssl-tf-deploy again, or get its sources"
        ) from error
