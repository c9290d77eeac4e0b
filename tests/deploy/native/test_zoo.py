"""The runtime against LCE's own interpreter on whole networks at 224 px, bit for bit.

What is compared is all of a network but the operators that add up floats (float convolutions, dense layers, average
pools): their result depends on the order of the sum, which every interpreter chooses anew. They are taken out, and what
they gave becomes an input.
"""

from __future__ import annotations

import functools
import json
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tflite

from bssl_tf_converters.lce import converter as lce
from bssl_tf_converters.tflite.model import read_model
from tests.conftest import require_or_skip
from tests.deploy.native.test_parity import INTERPRETERS
from tests.native import ROOT, built_library, difference

pytestmark = pytest.mark.slow

# As `make bench` keeps them: made once, random weights and batch norm statistics of random images.
CACHE = ROOT / "runs" / "bench-models"
NETWORKS = (
    *("QuickNetSmall", "QuickNet", "QuickNetLarge", "BiRealNet", "RealToBinaryNet", "BinaryDenseNet28", "MeliusNet22"),
    *("XNORNet", "BinaryAlexNet", "ReActNet-A"),
)
# Interpreters that are not installed here, each in a folder of its own; tf.lite comes with TensorFlow.
OTHERS = {
    "ai-edge-litert==1.0.1": "ai_edge_litert",
    "tflite-runtime==2.14.0": "tflite_runtime",
    "tensorflow==2.15.1": "tensorflow.lite",
    "tensorflow==2.21.0": "tensorflow.lite",
}
_BUILTIN = tflite.BuiltinOperator
_EXACT = {
    *(_BUILTIN.ADD, _BUILTIN.SUB, _BUILTIN.MUL, _BUILTIN.PRELU, _BUILTIN.RELU, _BUILTIN.RELU6, _BUILTIN.PAD),
    *(_BUILTIN.CONCATENATION, _BUILTIN.MAX_POOL_2D, _BUILTIN.RESHAPE, _BUILTIN.CUSTOM),
}


def exact_part(content: bytes) -> bytes:
    """A model of those operators of `content` whose result no order of sums can change; LCE's are the custom ones."""
    # Not at the top: TensorFlow is to be imported by bssl_tf.backend first.
    from tensorflow.lite.tools import flatbuffer_utils

    model = flatbuffer_utils.convert_bytearray_to_object(bytearray(content))
    [graph] = model.subgraphs
    kept = [op for op in graph.operators if model.operatorCodes[op.opcodeIndex].builtinCode in _EXACT]
    dropped = [op for op in graph.operators if not any(op is other for other in kept)]
    made = {index for op in kept for index in op.outputs}
    read = [index for op in kept for index in op.inputs if index >= 0]
    read_elsewhere = {*graph.outputs, *(index for op in dropped for index in op.inputs)}
    is_constant = [model.buffers[tensor.buffer].data is not None for tensor in graph.tensors]
    graph.inputs = sorted({index for index in read if index not in made and not is_constant[index]})
    graph.outputs = sorted(index for index in made if index in read_elsewhere or index not in read)
    graph.operators = kept
    model.signatureDefs = []
    return bytes(flatbuffer_utils.convert_object_to_bytearray(model))


@functools.cache
def binary_model(network: str) -> bytes:
    """The converted network, from the benchmark's folder or made anew (half a minute)."""
    sys.path.insert(0, str(ROOT / "deploy"))
    try:
        from benchmarks import cache, worker

        worker.call("convert", name=network, cache=str(CACHE))
        return cache.loaded(CACHE, network, "binary")
    finally:
        sys.path.remove(str(ROOT / "deploy"))


@functools.cache
def prepared(network: str) -> tuple[bytes, list[np.ndarray], list[np.ndarray]]:
    """The exact part, images for its inputs, and what LCE's reference kernels make of them."""
    model = exact_part(binary_model(network))
    summary = read_model(model)
    rng = np.random.default_rng(0)
    given = [rng.normal(0, 1, tensor.shape).astype(np.float32) for tensor in summary.inputs]
    # As in `lce_models.expected`: the reference counts where the fastest kernel corrects in floats.
    wanted = lce._interpreter_wrapper().LiteInterpreter(model, 1, True, False, False).predict(given)
    return model, given, wanted


def fault(got: list[np.ndarray], wanted: list[np.ndarray]) -> str:
    assert len(got) == len(wanted)
    return "; ".join(filter(None, (difference(a, b) for a, b in zip(got, wanted, strict=True))))


@pytest.mark.parametrize("network", NETWORKS)
def test_nothing_binary_is_left_out_and_answers_say_something(network: str) -> None:
    model, _, wanted = prepared(network)
    whole, part = (
        Counter(op.name for op in read_model(content).operators) for content in (binary_model(network), model)
    )
    assert part["LceBconv2d"] == whole["LceBconv2d"] >= 5
    assert {name for name in whole if name.startswith("Lce")} <= part.keys()
    assert all(np.isfinite(array).all() for array in wanted)
    assert max(np.unique(array).size for array in wanted) >= 1000


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("module", INTERPRETERS)
@pytest.mark.parametrize("network", NETWORKS)
def test_same_bits_as_lce(network: str, module: str, threads: int) -> None:
    model, given, wanted = prepared(network)
    interpreters: Any = INTERPRETERS[module]
    delegate = interpreters.load_delegate(str(built_library("x86_64")), {"num_threads": str(threads)})
    made = interpreters.Interpreter(model_content=model, experimental_delegates=[delegate])
    made.allocate_tensors()
    for details, array in zip(made.get_input_details(), given, strict=True):
        made.set_tensor(details["index"], array)
    made.invoke()
    assert not fault([made.get_tensor(details["index"]) for details in made.get_output_details()], wanted)


@pytest.mark.parametrize(("requirement", "module"), OTHERS.items())
def test_same_bits_as_lce_in_other_interpreters(requirement: str, module: str, tmp_path: Path) -> None:
    site, work, out = tmp_path / "site", tmp_path / "work", tmp_path / "out"
    # The second was built when there was no numpy 2.
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--target", str(site), requirement, "numpy<2"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=1200, check=False)
    require_or_skip(done.returncode == 0, f"{requirement} cannot be installed: {done.stderr[-300:]}")
    work.mkdir()
    out.mkdir()
    for network in NETWORKS:
        model, given, _ = prepared(network)
        (work / f"{network}.tflite").write_bytes(model)
        np.savez(work / f"{network}.npz", *given)
    plan = {
        "library": str(built_library("x86_64")),
        "options": [{"num_threads": "2"}],
        "cases": [{"model": f"{network}.tflite", "images": f"{network}.npz"} for network in NETWORKS],
    }
    (work / "plan.json").write_text(json.dumps(plan), encoding="utf-8")
    runner = ROOT / "tests" / "arm64" / "run_models.py"
    done = subprocess.run(
        # -S: without the packages that are installed here.
        [sys.executable, "-S", str(runner), str(work), str(out)],
        env={"PYTHONPATH": str(site)},
        capture_output=True,
        text=True,
        timeout=1200,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    report = json.loads((out / "report.json").read_text(encoding="utf-8"))
    assert not report["failed"]
    assert report["interpreter"].startswith(module), report
    found = [
        f"{network}: {wrong}"
        for index, network in enumerate(NETWORKS)
        if (wrong := fault(list(np.load(out / f"0-{index}.npz").values()), prepared(network)[2]))
    ]
    assert not found, "\n".join(found)
