"""The device side needs numpy, and nothing of the host."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import bssl_tf_deploy


def test_no_module_of_the_device_side_loads_the_host_or_anything_heavy() -> None:
    folder = Path(bssl_tf_deploy.__file__).parent
    # Pillow is needed for image files only, so four modules have it and are imported where a file is opened.
    apart = ("__init__", "drawing", "image_formats", "pictures", "repair")
    names = sorted(f"bssl_tf_deploy.{file.stem}" for file in folder.glob("*.py") if file.stem not in apart)
    heavy = [
        *("bssl_tf", "bssl_tf_converters", "tensorflow", "larq", "sklearn", "tflite"),
        *("PIL", "ai_edge_litert", "starlette", "uvicorn"),
    ]
    code = (
        f"import importlib, sys\n[importlib.import_module(name) for name in {names}]\n"
        f"loaded = [name for name in {heavy} if name in sys.modules]\nassert not loaded, loaded\n"
    )
    # Only the folder that holds the package: what a device would have.
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    environment["PYTHONPATH"] = str(folder.parent)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, cwd=folder)
    assert done.returncode == 0, done.stderr
    assert len(names) > 5
