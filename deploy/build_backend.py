"""setuptools as the build backend, which asks for the package ziglang where no compiler is installed."""

from __future__ import annotations

import os
import shutil
from typing import Any

from setuptools import build_meta

from native.building.compilers import find_compiler
from native.building.targets import BuildError, host

__all__ = [
    "build_editable",
    "build_sdist",
    "build_wheel",
    "get_requires_for_build_editable",
    "get_requires_for_build_sdist",
    "get_requires_for_build_wheel",
    "prepare_metadata_for_build_editable",
    "prepare_metadata_for_build_wheel",
]

build_editable = build_meta.build_editable
build_sdist = build_meta.build_sdist
get_requires_for_build_sdist = build_meta.get_requires_for_build_sdist
prepare_metadata_for_build_editable = build_meta.prepare_metadata_for_build_editable
prepare_metadata_for_build_wheel = build_meta.prepare_metadata_for_build_wheel


def build_wheel(wheel_directory: str, config_settings: Any = None, metadata_directory: str | None = None) -> str:
    """A wheel, made from nothing: what setuptools keeps in build/ would come along, and may be for another machine."""
    shutil.rmtree("build", ignore_errors=True)
    try:
        name: str = build_meta.build_wheel(wheel_directory, config_settings, metadata_directory)
    finally:
        shutil.rmtree("build", ignore_errors=True)
    return name


def get_requires_for_build_wheel(config_settings: Any = None) -> list[str]:
    """What has to be installed before a wheel is built."""
    return [*build_meta.get_requires_for_build_wheel(config_settings), *_compiler()]


def get_requires_for_build_editable(config_settings: Any = None) -> list[str]:
    """What has to be installed before this folder is installed as it lies."""
    return [*build_meta.get_requires_for_build_editable(config_settings), *_compiler()]


def _compiler() -> list[str]:
    target = os.environ.get("BSSL_TF_TARGET") or host()
    if target is None:
        return []
    try:
        find_compiler(target, os.environ.get("BSSL_TF_COMPILER") or None)
    except BuildError:
        # Also when what is wanted is wrong: `setup.py` says so.
        return ["ziglang>=0.16"]
    return []
