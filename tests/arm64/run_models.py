"""Runs models with the runtime's library in a stock interpreter and writes down what they answer. Runs on the device.

    python run_models.py WORK OUT

Needs numpy and one of ai-edge-litert, tflite-runtime and TensorFlow. WORK/plan.json says what to run:

    {"library": PATH, "options": [{...}, ...], "cases": [{"model": FILE, "images": FILE}, ...]}

Every case runs with every set of options of the delegate, one after another in this one process (under emulation, its
start takes longer than a small model). Files are in WORK; that of images is .npz, with an array for each of the model's
inputs, in their order. OUT gets SET-CASE.npz for each answer, with an array for each output, and at last report.json:
versions, the library's kernels, and the message of each case that failed.
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
    for name in ("ai_edge_litert", "tflite_runtime", "tensorflow.lite.python"):
        try:
            return importlib.import_module(f"{name}.interpreter")
        except ImportError:
            continue
    sys.exit("error: there is no interpreter here. Install ai-edge-litert or tflite-runtime.")


def run(module: Any, library: str, options: dict[str, str], model: Path, given: list[np.ndarray]) -> list[np.ndarray]:
    """One model, an array for each input: the model is resized to them. Returns one for each output."""
    delegate = module.load_delegate(library, options)
    interpreter = module.Interpreter(model_path=str(model), experimental_delegates=[delegate])
    inputs = [details["index"] for details in interpreter.get_input_details()]
    for index, array in zip(inputs, given):  # noqa: B905 - Python 3.9 has no `strict`
        interpreter.resize_tensor_input(index, array.shape)
    interpreter.allocate_tensors()
    for index, array in zip(inputs, given):  # noqa: B905
        interpreter.set_tensor(index, array)
    interpreter.invoke()
    return [np.array(interpreter.get_tensor(details["index"])) for details in interpreter.get_output_details()]


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
                given = list(np.load(work / case["images"]).values())
                answers = run(module, plan["library"], options, work / case["model"], given)
            except (RuntimeError, ValueError) as error:
                failed[f"{number}-{index}"] = str(error)
            else:
                np.savez(out / f"{number}-{index}.npz", *answers)
    report = {
        "interpreter": module.__name__,
        "kernels": library.bssl_runtime_kernels().decode(),
        "version": library.bssl_runtime_version().decode(),
        "failed": failed,
    }
    (out / "report.json").write_text(json.dumps(report, indent=1), encoding="utf-8")


if __name__ == "__main__":
    main()
