"""Counting instructions under emulation."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from bssl_tf.devices.instructions import build_plugin
from tests.arm64.count_instructions import count, inner_loop
from tests.conftest import require_or_skip
from tests.lce_models import cases, written_networks
from tests.native import built_library, require_rig

LOOP = """
f:                                      // @f
.LBB0_1:                                // =>This Inner Loop
    ldr q0, [x0], #16
    b.ne    .LBB0_1
.LBB0_2:
    mov x3, x1
.LBB0_3:
    eor v0.16b, v0.16b, v1.16b
    cnt v0.16b, v0.16b
    add v2.16b, v2.16b, v0.16b
    b.ne    .LBB0_3                     // =>inner
    cbnz    x3, .LBB0_2
    b.lt    .LBB0_9
.LBB0_9:
    ret
"""


def test_the_loop_that_counts_bits_is_found() -> None:
    assert [line.split()[0] for line in inner_loop(LOOP)] == ["eor", "cnt", "add", "b.ne"]
    assert inner_loop(LOOP.replace("cnt ", "not ")) == []


def test_every_bit_is_counted_once(tmp_path: Path) -> None:
    """Two convolutions 3x3, 64 to 64 channels, 14x15 pixels: as many CNT as there are vectors of 128 bits in them."""
    rig = require_rig()
    require_or_skip(shutil.which("cc") is not None, "no C compiler for the plugin")
    [case] = cases([network for network in written_networks() if network.name == "residual"])
    model = tmp_path / "model.tflite"
    model.write_bytes(case.original)
    found = count(rig, "cortex-a72", build_plugin(tmp_path), model, built_library("arm64"))
    assert found.cnt == 2 * (14 * 15) * 64 * (3 * 3 * 64) / 128
    # The others have noise: starting Python takes a million instructions more or less, more than so small a model.
    assert found.vector > found.cnt
    assert found.kernels is not None and found.kernels[0].startswith("neon_")


@pytest.mark.parametrize("missing", ["not there", "broken"])
def test_a_model_that_does_not_run_is_told(tmp_path: Path, missing: str) -> None:
    rig = require_rig()
    model = tmp_path / "model.tflite"
    if missing == "broken":
        model.write_bytes(b"TFL3")
    with pytest.raises(Exception, match=r"failed: .*counts need qemu 7 or 8"):
        count(rig, "cortex-a72", build_plugin(tmp_path), model, None)
