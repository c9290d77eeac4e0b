"""Where the time of a call goes: the library's clock in real interpreters, and networks whose slow place is known."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import ai_edge_litert.schema_py_generated as schema
import numpy as np
import pytest
from flatbuffers import flexbuffers
from hypothesis import given, settings
from hypothesis import strategies as st

from bssl_tf_converters.tflite.model import read_model
from bssl_tf_deploy.bundle import read_bundle
from bssl_tf_deploy.errors import RuntimeUnavailableError
from bssl_tf_deploy.library import host_target
from bssl_tf_deploy.nodes import Stretch
from bssl_tf_deploy.operators import COPIES, INTERPRETER, Watched, profile_operators, summary
from bssl_tf_deploy.quiet import captured_output
from bssl_tf_deploy.record import OperatorTime, Profile
from bssl_tf_deploy.show import operator_lines
from tests.converters.tflite.tflite_files import Op, T, model_file
from tests.native import built_library

BUILTIN, TYPE = schema.BuiltinOperator, schema.TensorType
WIDTH = 512
# Elements are cheap beside a product with WIDTH x WIDTH weights. XNNPACK does not know the cosine.
CHEAP = {"ADD": 2, "MUL": 2, "ABS": 1, "COS": 1}


@pytest.fixture(scope="module")
def library() -> Path:
    return built_library(host_target())


def profile(model: bytes, library: Path, inputs: Sequence[np.ndarray], seconds: float = 0.02, threads: int = 1) -> Any:
    with captured_output():
        return profile_operators(model, inputs, threads, library, seconds)


def branching_model(rng: np.random.Generator) -> bytes:
    """A graph of cheap operators and of ours, in which any may read any before it, with one slow operator."""
    tensors = [T((1, WIDTH), name="image"), T((WIDTH, WIDTH), name="kernel", data=bytes(4 * WIDTH * WIDTH))]
    made: list[Op] = []
    floats, unread = [0], {0}

    def add(code: str | int, inputs: list[int], shape: tuple[int, ...] = (1, WIDTH), dtype: int = TYPE.FLOAT32) -> int:
        tensors.append(T(shape, dtype, f"net/layer{len(made)}/op"))
        made.append(Op(code, inputs, [len(tensors) - 1]))
        unread.difference_update(inputs)
        unread.add(len(tensors) - 1)
        return len(tensors) - 1

    count = int(rng.integers(5, 16))
    slow = int(rng.integers(count))
    for place in range(count):
        kind = "FULLY_CONNECTED" if place == slow else str(rng.choice(["ours", "ours", *CHEAP]))
        # Mostly what was made last, so that there are chains too.
        read = [int(rng.choice(floats[-3:] if rng.random() < 0.7 else floats)) for _ in range(CHEAP.get(kind, 1))]
        if kind == "ours":
            bits = add("LceQuantize", read, (1, WIDTH // 32), TYPE.INT32)
            floats.append(add("LceDequantize", [bits]))
        else:
            floats.append(add(getattr(BUILTIN, kind), [*read, *([1, -1] if place == slow else [])]))
    while len(unread) > 1:
        add(BUILTIN.ADD, sorted(unread)[:2])
    return model_file(tensors, made, [0], sorted(unread))


@pytest.mark.parametrize("seed", range(16))
def test_the_slow_operator_has_the_time(library: Path, seed: int) -> None:
    """Whatever the interpreter makes of a graph, the stretch with the slow operator is the slow one."""
    rng = np.random.default_rng(seed)
    model = branching_model(rng)
    found = profile(model, library, [rng.normal(0, 1, (1, WIDTH)).astype(np.float32)])
    rows = found.rows
    slowest = max(rows, key=lambda row: row.p50_ms)
    assert "FULLY_CONNECTED" in slowest.operator.split("+"), rows
    assert not slowest.ours
    assert found.rows[-2].operator == INTERPRETER and found.rows[-1].operator == COPIES


@pytest.mark.parametrize("slow", range(3))
def test_the_slow_convolution_has_the_time(library: Path, slow: int) -> None:
    """Three binary convolutions, one of which has 81 taps and the others one."""
    rng = np.random.default_rng(slow)
    tensors = [T((1, 24, 24, 64), name="image"), T((64,), name="ones", data=np.ones(64, np.float32).tobytes())]
    made: list[Op] = []

    def add(code: str, inputs: list[int], tensor: T, options: bytes | None = None) -> int:
        tensors.append(tensor)
        made.append(Op(code, inputs, [len(tensors) - 1], options))
        return len(tensors) - 1

    options = {"channels_in": 64, "padding": 0, "pad_values": 1, "fused_activation_function": 0}
    for side in ("height", "width"):
        options |= {f"stride_{side}": 1, f"dilation_{side}_factor": 1}
    last = 0
    for place in range(3):
        bits = add("LceQuantize", [last], T((1, 24, 24, 2), TYPE.INT32, f"net/conv{place}/ste_sign/Sign"))
        taps = 9 if place == slow else 1
        tensors.append(T((64, taps, taps, 2), TYPE.INT32, "kernel", rng.bytes(64 * taps * taps * 8)))
        inputs = [bits, len(tensors) - 1, 1, 1, -1]
        shape = T((1, 24, 24, 64), name=f"net/norm{place}/FusedBatchNormV3")
        last = add("LceBconv2d", inputs, shape, bytes(flexbuffers.Dumps(options)))
    image = rng.normal(0, 1, (1, 24, 24, 64)).astype(np.float32)
    found = profile(model_file(tensors, made, [0], [last]), library, [image])
    slowest = max(found.rows, key=lambda row: row.p50_ms)
    assert slowest.ours and slowest.layer == f"conv{slow}" and slowest.share > 0.5


def test_rows_name_every_operator_once_and_sum_to_the_call(real_bundle: Path, library: Path) -> None:
    bundle = read_bundle(real_bundle)
    for threads in (1, 2):
        found = profile(bundle.model, library, bundle.first_inputs, 0.3, threads)
        rows = found.rows
        names = Counter(itertools.chain.from_iterable(row.operator.split("+") for row in rows[:-2]))
        assert names == Counter(operator.name for operator in read_model(bundle.model).operators)
        assert found.calls >= 20
        total = sum(row.p50_ms for row in rows)
        assert total + found.left_ms == pytest.approx(found.call_ms)
        # Medians add up but for their noise, which is large on a busy machine.
        noise = sum(row.spread_ms for row in rows)
        assert abs(found.left_ms) < 0.05 * found.call_ms + noise
        assert sum(row.share or 0.0 for row in rows) == pytest.approx(1)
        assert all(row.p50_ms >= 0 and row.spread_ms >= 0 for row in rows)
        layers = [row.layer for row in rows if "LceBconv2d" in row.operator]
        assert len(set(layers)) == len(layers) and all("conv" in layer for layer in layers)


def test_an_interpreter_that_does_not_tell_is_refused(
    real_bundle: Path, library: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from ai_edge_litert.interpreter import Interpreter

    bundle = read_bundle(real_bundle)
    monkeypatch.delattr(Interpreter, "_get_ops_details")
    with pytest.raises(RuntimeUnavailableError, match="times of single operators cannot be measured"):
        profile(bundle.model, library, bundle.first_inputs)


nanoseconds = st.integers(1, 10**7)


@given(st.data(), st.integers(0, 5), st.integers(1, 4))
@settings(deadline=None)
def test_each_nanosecond_has_one_row(data: st.DataObject, nodes: int, calls: int) -> None:
    """Rows of one call add up to it exactly; where the order is known, no stretch lies in another's gap."""
    parts = np.array([[data.draw(nanoseconds) for _ in range(2 * nodes + 3)] for _ in range(calls)], np.int64)
    edges = np.cumsum(np.concatenate([np.zeros((calls, 1), np.int64), parts], axis=1), axis=1)
    watched = Watched(list(range(nodes)), edges[:, ::2], edges[:, 1::2], np.ones(calls, np.int64))
    between = [data.draw(st.booleans()) for _ in range(nodes + 1)]
    found = []
    for place, busy in enumerate(between):
        found += [Stretch(False, f"gap{place}", "", "", 100 + place)] * busy
        found += [Stretch(True, f"node{place}", "", "", place)] * (place < nodes)
    made = summary(watched, found)
    spent = {row.operator: row.milliseconds * 1e6 for row in made.rows}
    columns = parts if calls == 1 else np.median(parts, axis=0, keepdims=True)
    for place in range(nodes):
        assert spent[f"node{place}"] == pytest.approx(columns[0, 2 * place + 2])
    for place, busy in enumerate(between):
        if busy:
            assert spent[f"gap{place}"] == pytest.approx(columns[0, 2 * place + 1])
    if calls == 1:
        assert sum(spent.values()) == pytest.approx(1e6 * (made.call_ms or 0)) and made.left_ms == pytest.approx(0)
        assert spent[COPIES] == pytest.approx(parts[0, 0] + parts[0, -1])
    # In another order than they ran, nobody knows what lies between them.
    if nodes > 1:
        other = summary(watched, found[::-1])
        assert {row.operator for row in other.rows} <= {
            *("other operators", INTERPRETER, COPIES), *(f"node{place}" for place in range(nodes))
        }  # fmt: skip
        assert sum(row.milliseconds for row in other.rows) == pytest.approx(sum(spent.values()) / 1e6) or calls > 1


def test_one_table_for_all_numbers_of_threads() -> None:
    def profile_of(*names: str) -> Profile:
        rows = tuple(
            OperatorTime(name, f"layer {name}", "", ours=True, p50_ms=0.5, spread_ms=0.1, share=0.5) for name in names
        )
        return Profile("runtime", rows, calls=20, call_ms=1.0, unwatched_ms=0.9, left_ms=0.0)

    lines = operator_lines({1: profile_of("a", "b"), 2: profile_of("a", "b")})
    assert len(lines) == 1 + 2 + 2 and lines[1].startswith("a ") and lines[1].endswith("layer a")
    assert "1 thread" in lines[0] and "2 threads" in lines[0]
    # Other operators, as XNNPACK may choose for another number of threads.
    assert len(operator_lines({1: profile_of("a", "b"), 2: profile_of("a")})) == (1 + 2 + 1) + (1 + 1 + 1)
