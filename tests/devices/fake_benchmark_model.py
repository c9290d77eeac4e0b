"""Stands in for TensorFlow Lite's `benchmark_model` on the stand-in of a phone: real inference, its output's format.

Its flags are `benchmark_model`'s (tensorflow/lite/tools/benchmark/benchmark_tflite_model.cc). The delegate that it is
given is for Android; it loads this machine's own instead.
"""

from __future__ import annotations

import os
import statistics
import sys
import time
from pathlib import Path

import numpy as np

from bssl_tf_deploy.library import own_library
from bssl_tf_deploy.litert import LiteRtInterpreter

flags = dict(word.removeprefix("--").split("=", 1) for word in sys.argv[1:])
delegate = flags.get("external_delegate_path")
if delegate and Path(delegate).read_bytes()[:4] != b"\x7fELF":
    sys.exit("ERROR: Failed to load the delegate library")
began = time.perf_counter_ns()
model = Path(flags["graph"]).read_bytes()
interpreter = LiteRtInterpreter(model, int(flags["num_threads"]), own_library() if delegate else None)
loaded = time.perf_counter_ns()
shape = interpreter.native.get_input_details()[0]["shape"]
if "input_layer_value_files" in flags:
    file = flags["input_layer_value_files"].partition(":")[2]
    image = np.fromfile(file, np.float32).reshape([int(size) for size in flags["input_layer_shape"].split(",")])
else:
    image = np.random.default_rng(0).uniform(0, 1, shape).astype(np.float32)


def call() -> float:
    start = time.perf_counter_ns()
    interpreter.predict(image)
    return (time.perf_counter_ns() - start) / 1000


first = call()
times = [call() for _ in range(int(flags.get("num_runs", "50")))]
ordered = sorted(times)
newer = f" p5={ordered[0]:g} median={statistics.median(times):g} p95={ordered[-1]:g}"
print("INFO: STARTING!", file=sys.stderr)
print(f"INFO: count=1 curr={first:g} p5={first:g} median={first:g} p95={first:g}\n")
print(
    f"INFO: count={len(times)} first={times[0]:g} curr={times[-1]:g} min={ordered[0]:g} max={ordered[-1]:g} "
    f"avg={statistics.mean(times):g} std=1{'' if os.environ.get('OLDER') else newer}\n"
)
print(
    f"INFO: Inference timings in us: Init: {(loaded - began) / 1000:g}, First inference: {first:g}, "
    f"Warmup (avg): {first:g}, Inference (avg): {statistics.mean(times):g}"
)
print("INFO: Memory footprint delta from the start of the tool (MB): init=1.5 overall=4.25")
if "output_filepath" in flags and not os.environ.get("NO_OUTPUT"):
    interpreter.predict(image).tofile(flags["output_filepath"])
if flags.get("enable_op_profiling") == "true":
    Path(flags["op_profiling_output_file"]).write_text(
        "Profiling Info for Benchmark Initialization:\n"
        "============================== Run Order ==============================\n"
        "Operator-wise Profiling Info for Regular Benchmark Runs:\n"
        "============================== Run Order ==============================\n"
        "node type, first, avg_ms, %, cdf%, mem KB, times called, name\n"
        "BsslDelegate, 0.2, 0.125, 62.5%, 62.5%, 0, 1, [stage_0/conv/Conv2D]:3\n"
        "FULLY_CONNECTED, 0.1, 0.075, 37.5%, 100%, 0, 1, [logits/MatMul\tlogits/BiasAdd]:9\n\n"
        "============================== Top by Computation Time ==============================\n"
        "node type, first, avg_ms, %, cdf%, mem KB, times called, name\n"
        "BsslDelegate, 0.2, 0.125, 62.5%, 62.5%, 0, 1, [stage_0/conv/Conv2D]:3\n"
    )
