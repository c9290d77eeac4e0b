from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from bssl_tf.checkpoints import match_tensors, read_tensors, write_tensors
from bssl_tf.errors import RunFolderError, StorageError
from bssl_tf_deploy.files import CHECKSUM

arrays = hnp.arrays(
    st.sampled_from([np.float32, np.int64, np.int32, np.uint8]), hnp.array_shapes(min_dims=0, max_dims=3, min_side=0)
)


@given(st.dictionaries(st.text(st.characters(codec="utf-8"), max_size=20), arrays, max_size=4))
def test_tensors_come_back_as_they_were(
    tmp_path_factory: pytest.TempPathFactory, tensors: dict[str, np.ndarray]
) -> None:
    tensors.pop("__metadata__", None)  # the format's own key
    path = tmp_path_factory.mktemp("tensors") / "file.safetensors"
    write_tensors(path, tensors, {"step": "3"})
    again, metadata = read_tensors(path)
    assert metadata == {"step": "3"}
    match_tensors(path, again, tensors)
    for name, tensor in tensors.items():
        np.testing.assert_array_equal(again[name], tensor)


def test_a_transposed_tensor_comes_back_as_it_was(tmp_path: Path) -> None:
    tensor = np.arange(6, dtype=np.float32).reshape(2, 3).T
    write_tensors(tmp_path / "file", {"a": tensor}, {})
    np.testing.assert_array_equal(read_tensors(tmp_path / "file")[0]["a"], tensor)


@given(st.binary(max_size=200))
def test_no_bytes_crash_the_reader(tmp_path_factory: pytest.TempPathFactory, content: bytes) -> None:
    path = tmp_path_factory.mktemp("bytes") / "file.safetensors"
    path.write_bytes(content)
    try:
        read_tensors(path)
    except RunFolderError as error:
        assert "is not a complete safetensors file" in str(error)


def test_a_header_of_terabytes_is_refused_at_once(tmp_path: Path) -> None:
    header = b'{"a":{"dtype":"F32","shape":[1000000,1000000],"data_offsets":[0,4000000000000]}}'
    (tmp_path / "file").write_bytes(len(header).to_bytes(8, "little") + header)
    with pytest.raises(RunFolderError, match="is not a complete safetensors file"):
        read_tensors(tmp_path / "file")


def test_a_failed_write_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "file"
    write_tensors(path, {"a": np.zeros(2)}, {})
    before = path.read_bytes()

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(StorageError, match="No space left on device"):
        write_tensors(path, {"a": np.ones(2)}, {})
    assert path.read_bytes() == before
    assert [item.name for item in tmp_path.iterdir()] == ["file"]


def test_a_header_that_would_take_all_memory_is_refused(tmp_path: Path) -> None:
    """The library, which is Rust, ends the process where it cannot have the memory: no exception, no message."""
    header = b'{"a":[' + b"1," * (1 << 23) + b"1]}"
    (tmp_path / "file").write_bytes(len(header).to_bytes(8, "little") + header)
    with pytest.raises(RunFolderError, match="its header has"):
        read_tensors(tmp_path / "file")


@pytest.mark.parametrize("name", ["content_sha257", "conte\ud7ff_sha256", "../../x_sha256", "sha256", "x"])
def test_a_file_that_has_lost_its_checksum_is_damaged(tmp_path: Path, name: str) -> None:
    """Other damage to such a file would be taken for what was written."""
    from safetensors import safe_open
    from safetensors.numpy import save_file

    path = tmp_path / "file"
    write_tensors(path, {"a": np.zeros(2)}, {"step": "3"})
    with safe_open(path, framework="numpy") as file:
        metadata = {name if key == CHECKSUM else key: value for key, value in file.metadata().items()}
    save_file({"a": np.ones(2)}, path, metadata)
    with pytest.raises(RunFolderError, match="is damaged"):
        read_tensors(path)


@pytest.mark.parametrize("kind", ["F8_E5M2", "F8_E4M3", "F8_E8M0", "F4"])
def test_types_that_numpy_lacks_are_refused(tmp_path: Path, kind: str) -> None:
    header = f'{{"a":{{"dtype":"{kind}","shape":[2],"data_offsets":[0,2]}}}}'.encode()
    (tmp_path / "file").write_bytes(len(header).to_bytes(8, "little") + header + bytes(2))
    with pytest.raises(RunFolderError, match="is not a complete safetensors file"):
        read_tensors(tmp_path / "file")
