"""Runs models with the runtime's library in a stock interpreter and writes down what they answer. Runs on the device.

    python run_models.py WORK OUT

Needs numpy and one of ai-edge-litert and tflite-runtime. WORK/plan.json says what to run:

    {"library": PATH, "options": [{...}, ...], "cases": [{"model": FILE, "images": FILE}, ...]}

Every case runs with every set of options of the delegate, one after another in this one process (under emulation, its
start takes longer than a small model). Files are in WORK. OUT gets SET-CASE.npy for each answer, and at last
report.json: versions, the library's kernels, and the message of each case that failed.
"""

from __future__ import annotations

import ctypes
import importlib
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np


def find_interpreter() -> Any:
    """The module of the interpreter that is installed."""
    for name in ("ai_edge_litert.interpreter", "tflite_runtime.interpreter"):
        try:
            return importlib.import_module(name)
        except ImportError:
            continue
    sys.exit("error: there is no interpreter here. Install ai-edge-litert or tflite-runtime.")


def run(module: Any, library: str, options: dict[str, str], model: Path, images: np.ndarray) -> np.ndarray:
    """One model, one batch: the model is resized to it."""
    delegate = module.load_delegate(library, options)
    interpreter = module.Interpreter(model_path=str(model), experimental_delegates=[delegate])
    [given] = interpreter.get_input_details()
    [wanted] = interpreter.get_output_details()
    interpreter.resize_tensor_input(given["index"], images.shape)
    interpreter.allocate_tensors()
    interpreter.set_tensor(given["index"], images)
    interpreter.invoke()
    return np.array(interpreter.get_tensor(wanted["index"]))


def main() -> None:
    """The command line."""
    work, out = Path(sys.argv[1]), Path(sys.argv[2])
    plan = json.loads((work / "plan.json").read_text(encoding="utf-8"))
    module = find_interpreter()
    library = ctypes.CDLL(plan["library"])
    library.bssl_runtime_kernels.restype = library.bssl_runtime_version.restype = ctypes.c_char_p
    failed = {}
    for number, options in enumerate(plan["options"]):
        for index, case in enumerate(plan["cases"]):
            try:
                answer = run(module, plan["library"], options, work / case["model"], np.load(work / case["images"]))
            except (RuntimeError, ValueError) as error:
                failed[f"{number}-{index}"] = str(error)
            else:
                np.save(out / f"{number}-{index}.npy", answer)
    report = {
        "interpreter": module.__name__,
        "kernels": library.bssl_runtime_kernels().decode(),
        "version": library.bssl_runtime_version().decode(),
        "failed": failed,
    }
    (out / "report.json").write_text(json.dumps(report, indent=1), encoding="utf-8")


if __name__ == "__main__":
    main()
