"""The runtime against LCE's own interpreter, bit for bit, on this processor.

Padding with 0 is the one place where LCE's kernels differ from each other. Its fastest one pads with 1 and afterwards
subtracts, in floats, what the padding added: sums of scaled weights, rounded at every step. So it is off by some units
in the last place; and by far more where the image is smaller than the kernel, where it subtracts too much (Keras sides
with the reference kernel). LCE's reference kernel counts, and so do we: what a tap outside of the image would add to a
sum of integers is not in that sum. The sum s is exact; as |s| < 2^24, float(s) is exact too; and float(s) * multiplier
+ bias is two operations that round once each, the same two there and here. So equal bits are the right demand there,
and a tolerance where only the fastest kernel can answer (`lce_models.expected`).
"""

from __future__ import annotations

import collections
import threading
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import ai_edge_litert.interpreter
import numpy as np
import pytest
import tflite
from flatbuffers import flexbuffers

from bssl_tf.backend import tf
from bssl_tf_converters.tflite.model import read_model
from tests.lce_models import SEED, Case, cases, expected, lce_outputs, random_network, small_models
from tests.native import built_library, described, difference, interpreter, runnable_isas, runnable_kernels

INTERPRETERS: dict[str, Any] = {
    "ai_edge_litert": ai_edge_litert.interpreter,
    "tf.lite": SimpleNamespace(
        Interpreter=tf.lite.Interpreter, load_delegate=tf.lite.experimental.load_delegate, __name__="tf.lite"
    ),
}


@pytest.fixture(scope="session")
def library() -> Path:
    """The library for x86-64."""
    return built_library("x86_64")


def answers_of(module: Any, library: Path, case: Case, options: dict[str, str], threads: int = 1) -> np.ndarray:
    return interpreter(module, library, case.original, options, threads)(case.images)


def faults(module: Any, library: Path, tried: tuple[Case, ...], options: dict[str, str], threads: int) -> list[str]:
    found = []
    for case in tried:
        wanted, tolerance = expected(case)
        try:
            got = answers_of(module, library, case, options, threads)
        except (RuntimeError, ValueError) as error:
            found.append(f"{described(case)}: {error}")
            continue
        fault = difference(got, wanted)
        if tolerance and got.shape == wanted.shape and np.abs(got - wanted).max() <= tolerance:
            fault = ""
        if fault:
            found.append(f"{described(case)}: {fault}")
    return found


def test_the_models_cover_every_option_of_the_operators() -> None:
    """Otherwise a change in LCE's converter would empty the tests below without a word."""
    seen: dict[str, set[Any]] = collections.defaultdict(set)
    for case in small_models():
        model = tflite.Model.GetRootAsModel(case.content, 0)
        graph = model.Subgraphs(0)
        for operator in (graph.Operators(i) for i in range(graph.OperatorsLength())):
            code = model.OperatorCodes(operator.OpcodeIndex())
            name = code.CustomCode().decode() if code.CustomCode() else str(code.BuiltinCode())
            output = graph.Tensors(operator.Outputs(0))
            seen[name].add(("output", output.Type()))
            seen[name].add(("input", graph.Tensors(operator.Inputs(0)).Type()))
            if code.CustomCode() and operator.CustomOptionsLength():
                options = flexbuffers.Loads(bytearray(operator.CustomOptionsAsNumpy()))
                seen[name] |= set(options.items())
                if name == "LceBconv2d":
                    seen[name].add(("padding and value", (options["padding"], options["pad_values"])))
    float32, int32, int8 = tflite.TensorType.FLOAT32, tflite.TensorType.INT32, tflite.TensorType.INT8
    same, valid = tflite.Padding.SAME, tflite.Padding.VALID
    relu, none = tflite.ActivationFunctionType.RELU, tflite.ActivationFunctionType.NONE
    relu6, relu_n1 = tflite.ActivationFunctionType.RELU6, tflite.ActivationFunctionType.RELU_N1_TO_1
    assert {("output", t) for t in (float32, int32, int8)} <= seen["LceBconv2d"]
    assert {("padding and value", p) for p in ((same, 0), (same, 1), (valid, 0))} <= seen["LceBconv2d"]
    assert {("fused_activation_function", a) for a in (none, relu, relu6, relu_n1)} <= seen["LceBconv2d"]
    assert {("stride_height", s) for s in (1, 2, 3)} <= seen["LceBconv2d"]
    assert {("dilation_width_factor", d) for d in (1, 2, 3)} <= seen["LceBconv2d"]
    assert {("channels_in", c) for c in (3, 33, 64, 70, 160)} <= seen["LceBconv2d"]
    assert {("input", t) for t in (float32, int8)} <= seen["LceQuantize"]
    assert {("output", t) for t in (float32, int8)} <= seen["LceDequantize"]
    assert {("filter_height", f) for f in (2, 3)} <= seen["LceBMaxPool2d"]


def test_lce_agrees_with_itself_but_for_padding_with_zero() -> None:
    for case in small_models():
        if not case.network.zero_padded:
            fault = difference(lce_outputs(case, reference=False), lce_outputs(case, reference=True))
            assert not fault, f"{described(case)}: {fault}"


@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize("isa", ["auto", "portable", "avx2", "avx512"])
@pytest.mark.parametrize("module", INTERPRETERS)
def test_same_bits_as_lce(library: Path, module: str, isa: str, threads: int) -> None:
    if isa not in runnable_isas(library):
        pytest.skip(f"this processor has no {isa}")
    options = {"num_threads": str(threads)} if isa == "auto" else {"num_threads": str(threads), "isa": isa}
    found = faults(INTERPRETERS[module], library, small_models(), options, threads)
    assert not found, "\n".join(found[:20])


@pytest.mark.slow
@pytest.mark.parametrize("chunk", range(10))
def test_same_bits_as_lce_on_many_more(library: Path, chunk: int) -> None:
    first = SEED + 1000 + 40 * chunk
    tried = tuple(cases([random_network(seed) for seed in range(first, first + 40)]))
    for isa in runnable_isas(library):
        found = faults(ai_edge_litert.interpreter, library, tried, {"isa": isa, "num_threads": "2"}, 1)
        assert not found, f"isa {isa}\n" + "\n".join(found)


def test_zero_padding_is_near_lces_fastest_kernel(library: Path) -> None:
    """One convolution of floats, no sign behind it that could flip, an image that is not smaller than the kernel."""
    tried = [
        case
        for case in small_models()
        if case.network.zero_padded
        and len(case.network.blocks) == 1
        and not case.network.int8
        and min(case.images.shape[1:3]) > 3
    ]
    assert len(tried) >= 5
    for case in tried:
        got = answers_of(ai_edge_litert.interpreter, library, case, {})
        assert np.abs(got - lce_outputs(case, reference=False)).max() <= 1e-3, described(case)


def test_the_processors_best_kernels_are_in_use(library: Path) -> None:
    flags = Path("/proc/cpuinfo").read_text(encoding="utf-8").split()
    best = "avx512" if "avx512_vpopcntdq" in flags else "avx2" if "avx2" in flags else "portable"
    assert runnable_kernels(library)[0].startswith(best)


@pytest.mark.parametrize("module", INTERPRETERS)
def test_sizes_may_change_again_and_again(library: Path, module: str) -> None:
    sizes: dict[bytes, list[Case]] = collections.defaultdict(list)
    for case in small_models():
        sizes[case.original].append(case)
    resizable = [group for group in sizes.values() if len(group) > 1]
    assert len(resizable) >= 5
    for group in resizable:
        run = interpreter(INTERPRETERS[module], library, group[0].original, {"num_threads": "2"})
        for case in [*group, *group[::-1]]:
            wanted, tolerance = expected(case)
            assert not tolerance
            for count in (1, len(case.images), 1):
                fault = difference(run(case.images[:count]), wanted[:count])
                assert not fault, f"{case.name}, batch of {count}: {fault}"


def test_two_interpreters_at_once(library: Path) -> None:
    """Each with a delegate of its own, in two threads of one process."""
    tried = [case for case in small_models() if case.name in ("tall", "chain wide", "int8 chain", "residual")]
    assert len(tried) == 4
    found: list[str] = []

    def work(order: list[Case], threads: str) -> None:
        try:
            for case in order:
                wanted, _ = expected(case)
                run = interpreter(ai_edge_litert.interpreter, library, case.original, {"num_threads": threads})
                for _ in range(20):
                    if fault := difference(run(case.images), wanted):
                        found.append(f"{case.name}: {fault}")
        except Exception as error:  # a thread's exception would be lost
            found.append(repr(error))

    for case in tried:
        expected(case)
    workers = [threading.Thread(target=work, args=(tried, "2")), threading.Thread(target=work, args=(tried[::-1], "3"))]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(timeout=120)
        assert not worker.is_alive()
    assert not found, "\n".join(found[:20])


@pytest.mark.parametrize("module", INTERPRETERS)
@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_threads": "0"}, "num_threads must be a number from 1 to 64"),
        ({"num_threads": "65"}, "num_threads must be a number from 1 to 64"),
        ({"num_threads": "two"}, "num_threads must be a number from 1 to 64"),
        ({"num_threads": ""}, "num_threads must be a number from 1 to 64"),
        ({"isa": "sse9"}, "isa must be"),
        ({"isa": "neon"}, "this processor does not have the instructions that isa names"),
        ({"colour": "blue"}, "the options are num_threads, isa and profile"),
    ],
)
def test_wrong_options_are_told(library: Path, module: str, options: dict[str, str], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        INTERPRETERS[module].load_delegate(str(library), options)


def test_what_follows_a_convolution_is_done_with_it(library: Path) -> None:
    """ReActNet's block, three times: a node for the first LceQuantize, and one for each convolution with its ADDs, its
    PRELU and the next LceQuantize."""
    [case] = [case for case in small_models() if case.name == "shift and residual"]
    assert len(read_model(case.content).operators) == 12
    module = ai_edge_litert.interpreter
    made = module.Interpreter(
        model_content=case.original, experimental_delegates=[module.load_delegate(str(library), {})]
    )
    made.allocate_tensors()
    nodes = [operator for operator in made._get_ops_details() if operator["op_name"] == "DELEGATE"]
    assert len(nodes) == 4
