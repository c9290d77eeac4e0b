"""Builds the runtime library into the package; all else about the package is in pyproject.toml.

    pip install ./deploy                                                      # for this machine
    BSSL_TF_TARGET=arm64 BSSL_TF_COMPILER=zig pip wheel --no-deps ./deploy    # for another; see native/build.py

Where there is no runtime (another system than Linux), the package is built without.
"""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path

from setuptools import Command, Distribution, setup
from setuptools.command.bdist_wheel import bdist_wheel
from setuptools.command.build import build as build_command

from native.build import build
from native.building.compilers import find_compiler
from native.building.targets import LIBRARY, BuildError, host

_HERE = Path(__file__).parent
_PLATFORMS = {"x86_64": "x86_64", "arm64": "aarch64"}
TARGET = os.environ.get("BSSL_TF_TARGET") or host()
COMPILER = os.environ.get("BSSL_TF_COMPILER") or None
if TARGET is not None and TARGET not in _PLATFORMS:
    sys.exit(f"error[build]: there is no wheel for BSSL_TF_TARGET={TARGET}. Set it to x86_64 or arm64.")


class BuildRuntime(Command):
    """Puts the library into the package, and its sources, from which `bssl-tf export` builds for other targets.

    A wheel for 64-bit ARM, where no bundles are made as LCE has no converter there, is without: boards download it.
    Editable installations get the library in the folder of the package itself; their sources lie beside it.
    """

    editable_mode = False
    build_lib: str | None = None

    def initialize_options(self) -> None:
        pass

    def finalize_options(self) -> None:
        self.set_undefined_options("build_py", ("build_lib", "build_lib"))

    def run(self) -> None:
        assert self.build_lib is not None
        package = Path(_HERE if self.editable_mode else self.build_lib, "bssl_tf_deploy")
        if not self.editable_mode and TARGET != "arm64":
            for source in self.get_source_files():
                target = package / source
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(_HERE / source, target)
        if TARGET is None:
            return
        try:
            build(TARGET, package / "lib" / LIBRARY, COMPILER)
        except BuildError as error:
            sys.exit(f"{error.output}\n{error}")

    def get_source_files(self) -> list[str]:
        native = _HERE / "native"
        files = [
            path
            for folder in ("", "include/", "building/", "kernels/", "android/", "jni/", "runner/", "runner/android/")
            for path in native.glob(f"{folder}*")
            if path.suffix in (".cc", ".h", ".inc", ".py")
        ]
        return sorted(path.relative_to(_HERE).as_posix() for path in files)

    def get_outputs(self) -> list[str]:
        return []

    def get_output_mapping(self) -> dict[str, str]:
        return {}


class PlatformWheel(bdist_wheel):
    """Any Python 3, but one platform."""

    def get_tag(self) -> tuple[str, str, str]:
        if TARGET is None:
            return "py3", "none", "any"
        try:
            portable = find_compiler(TARGET, COMPILER).is_zig
        except BuildError as error:
            sys.exit(str(error))
        # manylinux2014 stands for glibc 2.17, which is what zig compiles for here.
        return "py3", "none", f"{'manylinux2014' if portable else 'linux'}_{_PLATFORMS[TARGET]}"


class WithLibrary(Distribution):
    """Not pure Python when there is a runtime."""

    def has_ext_modules(self) -> bool:
        return TARGET is not None


build_command.sub_commands.append(("build_runtime", None))
setup(cmdclass={"build_runtime": BuildRuntime, "bdist_wheel": PlatformWheel}, distclass=WithLibrary)
