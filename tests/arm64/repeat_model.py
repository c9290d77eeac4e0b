"""Invokes a model some times, with one thread, and prints the library's kernels. Runs on the device.

    python repeat_model.py MODEL COUNT [LIBRARY]

With a LIBRARY, our delegate runs the binary ops; without one, the stock interpreter runs the model as it is.
"""

from __future__ import annotations

import ctypes
import sys

import numpy as np
from ai_edge_litert.interpreter import Interpreter, load_delegate


def main() -> None:
    """The command line."""
    model, count, *library = sys.argv[1:]
    delegates = [load_delegate(library[0], {"num_threads": "1"})] if library else []
    interpreter = Interpreter(model_path=model, num_threads=1, experimental_delegates=delegates)
    interpreter.allocate_tensors()
    [given] = interpreter.get_input_details()
    image = np.random.default_rng(0).normal(0, 1, given["shape"])
    interpreter.set_tensor(given["index"], image.astype(given["dtype"]))
    for _ in range(int(count)):
        interpreter.invoke()
    if library:
        names = ctypes.CDLL(library[0]).bssl_runtime_kernels
        names.restype = ctypes.c_char_p
        print("kernels", names().decode())


if __name__ == "__main__":
    main()
