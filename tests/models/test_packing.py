from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from bssl_tf.backend import keras
from bssl_tf.errors import RunFolderError
from bssl_tf.models.packing import pack, unpack
from bssl_tf.models.saved import Network, load_weights, save_network
from bssl_tf.preprocessing import Preprocessing

kernels = hnp.arrays(
    np.float32, hnp.array_shapes(min_dims=1, max_dims=4, max_side=5), elements=st.floats(-1, 1, width=32)
)


@given(kernels)
def test_unpacked_is_sign_times_mean_magnitude(kernel: np.ndarray) -> None:
    back = unpack(pack({"a/kernel": kernel, "b": np.zeros(3)}, ["a/kernel"]))
    assert set(back) == {"a/kernel", "b"}
    rows = kernel.reshape(-1, kernel.shape[-1])
    for column in range(rows.shape[1]):
        scale = sum(abs(float(v)) for v in rows[:, column]) / len(rows)
        for value, found in zip(rows[:, column], back["a/kernel"].reshape(rows.shape)[:, column], strict=True):
            assert float(found) == pytest.approx(scale if value >= 0 else -scale, rel=1e-6)


@given(kernels)
def test_packing_twice_changes_nothing_more(kernel: np.ndarray) -> None:
    once = unpack(pack({"k": kernel}, ["k"]))
    np.testing.assert_allclose(unpack(pack(once, ["k"]))["k"], once["k"], rtol=1e-6)


def test_a_packed_student_is_the_same_network_in_a_tenth_of_the_bytes(tmp_path: Path) -> None:
    keras.utils.set_random_seed(3)
    network = Network("binary_resnet", Preprocessing(28, 1, (0.3,), (0.4,)), {"depth": 2})
    student = network.build()
    save_network(tmp_path / "plain", network, {"student": student})
    save_network(tmp_path / "packed", network, {"student": student}, packed=True)
    sizes = [(tmp_path / name / "weights.safetensors").stat().st_size for name in ("plain", "packed")]
    assert sizes[1] < sizes[0] / 10
    again = network.build()
    load_weights(tmp_path / "packed", {"student": again})
    x = np.random.default_rng(0).standard_normal((4, 28, 28, 1)).astype(np.float32)
    # Scales are means of float32 magnitudes, summed in another order.
    np.testing.assert_allclose(again(x), student(x), rtol=1e-4, atol=1e-4)


@settings(deadline=None)
@given(
    st.sampled_from(["k/signs", "k/scales", "k/shape"]),
    hnp.arrays(st.sampled_from([np.uint8, np.float32, np.int32]), hnp.array_shapes(max_dims=2, max_side=6)),
)
def test_a_damaged_pack_is_refused_or_whole(part: str, content: np.ndarray) -> None:
    packed = pack({"k": np.ones((3, 3, 2, 4), np.float32)}, ["k"]) | {part: content}
    try:
        assert unpack(packed)["k"].ndim >= 1
    except RunFolderError as error:
        assert "packed kernel 'k' is damaged" in str(error)


def test_a_shape_of_petabytes_is_refused_before_memory_is_asked_for() -> None:
    packed = pack({"k": np.ones((2, 4), np.float32)}, ["k"]) | {"k/shape": np.array([2**30, 2**30, 4], np.int32)}
    with pytest.raises(RunFolderError, match="damaged"):
        unpack(packed)
