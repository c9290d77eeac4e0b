"""Invokes a model on the device with one thread; in between it asks for its parent, where `count_plugin.c` counts.

    python repeat_model.py MODEL COUNT [LIBRARY]

After two images to warm up come two times COUNT. With a LIBRARY, our delegate runs the binary ops and its kernels are
printed; without one, the stock interpreter runs the model as it is.
"""

from __future__ import annotations

import ctypes
import os
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
    for images in (2, int(count), int(count)):
        for _ in range(images):
            interpreter.invoke()
        os.getppid()
    if library:
        names = ctypes.CDLL(library[0]).bssl_runtime_kernels
        names.restype = ctypes.c_char_p
        print("kernels", names().decode())


if __name__ == "__main__":
    main()
