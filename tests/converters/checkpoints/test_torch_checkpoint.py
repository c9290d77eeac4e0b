"""The checkpoint reader: right on PyTorch's own files, one clear line on all others, and no code of theirs is run.

Hostile and odd files are put together here opcode by opcode; what PyTorch writes comes from `torch_reference.py`.
"""

from __future__ import annotations

import itertools
import math
import re
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bssl_tf.errors import NetworkError
from bssl_tf_converters.checkpoints import torch_checkpoint, torch_pickle
from bssl_tf_converters.checkpoints.torch_checkpoint import read_torch_checkpoint
from tests.converters.checkpoints.torch_files import (
    NUMBERS,
    SOUND,
    mapping,
    named,
    pickled,
    run_torch,
    several,
    storage,
    tensor,
    text,
    write_legacy,
    write_zip,
)

Write = Callable[..., Path]


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("small")
    run_torch("small", folder)
    return folder


both_formats = pytest.mark.parametrize("write", [write_zip, write_legacy], ids=["zip", "legacy"])


def refusal(path: Path) -> str:
    with pytest.raises(NetworkError) as error:
        read_torch_checkpoint(path)
    assert "\n" not in str(error.value)
    assert str(path) in str(error.value)
    return str(error.value)


# --- What is sound is read.


@pytest.mark.parametrize("name", ["small.zip.pth", "small.legacy.pth", "small.protocol4.pth"])
def test_every_tensor_that_pytorch_saved_is_read_with_its_dtype_and_shape(small: Path, name: str) -> None:
    read = read_torch_checkpoint(small / name)
    with np.load(small / "small.npz") as expected:
        assert set(read) == set(expected.files)
        for key in expected.files:
            assert (read[key].dtype, read[key].shape) == (expected[key].dtype, expected[key].shape), key
            np.testing.assert_array_equal(read[key], expected[key], err_msg=key)


@both_formats
def test_a_checkpoint_by_hand_is_read(write: Write, tmp_path: Path) -> None:
    read = read_torch_checkpoint(write(tmp_path / "c.pth", SOUND))
    np.testing.assert_array_equal(read["a"], NUMBERS.reshape(2, 3))
    np.testing.assert_array_equal(read["b"], NUMBERS[[1, 3, 5]])
    assert not read["a"].flags.writeable


@settings(max_examples=150, deadline=2000, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    axes=st.lists(st.tuples(st.integers(0, 4), st.integers(-1, 4)), max_size=3),
    offset=st.integers(-1, 7),
)
def test_a_view_holds_the_numbers_at_its_strides_or_is_refused(
    tmp_path: Path, axes: list[tuple[int, int]], offset: int
) -> None:
    shape, strides = tuple(n for n, _ in axes), tuple(stride for _, stride in axes)
    path = write_zip(tmp_path / "view.pth", tensor(*shape, strides=strides, offset=offset))
    places = [
        offset + sum(map(math.prod, zip(at, strides, strict=True))) for at in itertools.product(*map(range, shape))
    ]
    sound = offset >= 0 and all(stride >= 0 for stride in strides)
    if sound and len(places) <= 6 and all(place < 6 for place in places):
        view = read_torch_checkpoint(path)["tensor"]
        assert view.shape == shape
        assert view.ravel().tolist() == [NUMBERS[place] for place in places]
    else:
        refusal(path)


# --- What is hostile does nothing.


@both_formats
def test_no_global_is_called(write: Write, tmp_path: Path) -> None:
    marker = tmp_path / "marker"
    call = named("os", "system") + several(text(f"touch {marker}")) + b"R"
    new = named("pathlib", "Path") + several(text("x")) + b"\x81"
    assert "holds no tensors, only objects such as 'os system'" in refusal(write(tmp_path / "a.pth", call))
    # Beside sound tensors, as arguments of a tensor's hooks, or with state and items set on it, it stays a token.
    built = call + b"}b(" + text("key") + call + b"u"
    beside = mapping(text("a"), tensor(2, 3), text("args"), built, text("new"), new, text("os"), named("os", "system"))
    assert list(read_torch_checkpoint(write(tmp_path / "b.pth", beside))) == ["a"]
    assert not marker.exists()


@both_formats
@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"}", "holds no tensors"),
        (b"i" + b"os\nsystem\n", "has the opcode INST, which torch.save does not write"),
        (b"\x82\x01", "opcode EXT1"),
        (b"]" * 100_000 + b"a" * 99_999, "nested too deeply"),
        (b"]q\x00h\x00a", "nested too deeply, or holds itself"),
        (
            b"]"
            + b"".join(
                b"q" + bytes([i]) + b"](" + b"h" + bytes([i]) + (b"h" + bytes([i])) * 9 + b"e" for i in range(20)
            ),
            "nested too deeply",
        ),
        (tensor(7), "larger than its storage"),
        (tensor(2, offset=5), "larger than its storage"),
        (tensor(2**40, 2**40, strides=(0, 0)), "larger than its storage"),
        (tensor(-1), "not a whole number"),
        (tensor(2, offset=-4), "not a whole number"),
        (tensor(2, strides=(-1,)), "not a whole number"),
        (tensor(2**70), "not a whole number"),
        (tensor(2, strides=()), "1 sizes and 0 strides"),
        (tensor(*[1] * 33), "33 sizes"),
        (tensor(1, data=storage(2**60)), "of the wrong size"),
        (tensor(1, data=storage(5)), "of the wrong size"),
        (tensor(1, data=storage(-1)), "not a whole number"),
        (tensor(1, data=storage(kind="QInt8Storage")), "storages of type 'torch QInt8Storage' are unknown"),
        (tensor(1, data=storage(tag="module")), "not described as torch.save does"),
        (tensor(1, data=text("x")), "not described as torch.save does"),
        (tensor(1, data=storage(kind="IntStorage")) + tensor(1) + b"\x86", "described in two ways"),
        (mapping(text("a/b"), tensor(1), text("a"), mapping(text("b"), tensor(1))), "two tensors are called 'a/b'"),
        (b"}(" + text("a") + b"u", "last key has no value"),
        (tensor(1) + b"N" + b"a", "appends to what is not a list"),
        (text("a") + b"N" + b"Ns", "sets items of what is not a dict"),
        (named("torch._utils", "_rebuild_tensor_v2") + b"NR", "it is garbled"),
        (b"h\x05", "cannot be read as a PyTorch checkpoint"),
        (b"t", "cannot be read as a PyTorch checkpoint"),
        (b"", "cannot be read as a PyTorch checkpoint"),
        (b"X\xff\xff\xff\x7fshort", "cannot be read as a PyTorch checkpoint"),
    ],
    ids=itertools.count(),
)
def test_a_pickle_that_makes_no_sense_is_one_clear_line(
    write: Write, content: bytes, message: str, tmp_path: Path
) -> None:
    assert re.search(message, refusal(write(tmp_path / "c.pth", content)))


@both_formats
def test_a_key_that_would_exhaust_the_stack_when_hashed_is_left_out(write: Write, tmp_path: Path) -> None:
    deep = b")" + b"\x85" * 200_000
    content = mapping(deep, tensor(1), text("a"), tensor(2, 3))
    assert list(read_torch_checkpoint(write(tmp_path / "c.pth", content))) == ["a"]


@both_formats
def test_limits_hold(write: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path / "c.pth", SOUND)
    monkeypatch.setattr(torch_pickle, "_MAX_OPCODES", 50)
    assert "more than 50 opcodes" in refusal(path)
    monkeypatch.undo()
    monkeypatch.setattr(torch_checkpoint, "_MAX_PICKLE_BYTES", 100)
    refusal(path)


@both_formats
def test_big_endian_numbers_are_refused(write: Write, tmp_path: Path) -> None:
    assert "not little-endian" in refusal(write(tmp_path / "c.pth", SOUND, order=b"big"))


def test_archives_that_torch_does_not_write_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "c.pth"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/data.pkl", pickled(tensor(1, data=storage(2**26))))
        archive.writestr("archive/data/0", bytes(2**28))
    assert path.stat().st_size < 2**20  # a bomb
    assert "compressed, which torch.save does not do" in refusal(path)
    for names, message in (
        (("a/data.pkl", "b/data.pkl"), "holds 2 files data.pkl"),
        (("x",), "holds 0 files data.pkl"),
    ):
        with zipfile.ZipFile(path, "w") as archive:
            for name in names:
                archive.writestr(name, pickled(SOUND))
        assert message in refusal(path)
    # Entries that overlap: one more in the directory that lies where `data/0` does.
    whole = write_zip(path, SOUND, data=bytes(10_000)).read_bytes()
    last, end = whole.rindex(b"PK\x01\x02"), whole.rindex(b"PK\x05\x06")
    twin = whole[last:end].replace(b"data/0", b"data/1")
    tail = bytearray(whole[end:])
    count, _, size = struct.unpack_from("<HHI", tail, 8)
    struct.pack_into("<HHI", tail, 8, count + 1, count + 1, size + len(twin))
    path.write_bytes(whole[:end] + twin + tail)
    assert "larger than the file" in refusal(path)


@pytest.mark.parametrize(
    "content", [b"", b"\n", b"PK\x03\x04", b"\x80\x02", b"\x80\x02}.", b"\x89HDF\r\n", b"x" * 5000]
)
def test_what_is_no_checkpoint_is_one_clear_line(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "c.pth"
    path.write_bytes(content)
    assert "cannot be read as a PyTorch checkpoint" in refusal(path)
    assert "Is a directory" in refusal(tmp_path)
    assert "No such file" in refusal(tmp_path / "none")


# --- What is garbled is refused, or read; never anything else.


def read_or_refused(path: Path) -> dict[str, np.ndarray] | None:
    try:
        return read_torch_checkpoint(path)
    except NetworkError as error:
        assert "\n" not in str(error)
        return None


def files(small: Path) -> list[bytes]:
    by_hand = [write(small / "hand.pth", SOUND).read_bytes() for write in (write_zip, write_legacy)]
    return [*by_hand, (small / "small.zip.pth").read_bytes(), (small / "small.legacy.pth").read_bytes()]


def test_a_cut_is_noticed_even_where_no_tensor_lies(tmp_path: Path) -> None:
    path = write_legacy(tmp_path / "c.pth", tensor(2))
    path.write_bytes(path.read_bytes()[:-4])
    assert "it is truncated: 4 bytes are missing" in refusal(path)


@pytest.mark.parametrize("which", range(4), ids=["zip by hand", "legacy by hand", "zip", "legacy"])
def test_every_cut_is_refused(small: Path, which: int, tmp_path: Path) -> None:
    whole, path = files(small)[which], tmp_path / "cut.pth"
    for length in range(0, len(whole), max(len(whole) // 300, 1)):
        path.write_bytes(whole[:length])
        refusal(path)


@pytest.mark.parametrize("which", range(4), ids=["zip by hand", "legacy by hand", "zip", "legacy"])
@settings(max_examples=300, deadline=2000, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_garbled_bytes_give_tensors_or_one_line(small: Path, which: int, tmp_path: Path, data: st.DataObject) -> None:
    """A zip archive has check sums: what is read in spite of a change is what was saved."""
    whole, path = files(small)[which], tmp_path / "garbled.pth"
    garbled = bytearray(whole)
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(garbled) - 1))
        kind = data.draw(st.sampled_from(["replace", "insert", "delete"]))
        value = data.draw(st.integers(0, 255) | st.sampled_from([*b"\x00\xff.(tuRQhq]}cX\x8a"]))
        if kind == "replace":
            garbled[at] = value
        elif kind == "insert":
            garbled.insert(at, value)
        else:
            del garbled[at]
    path.write_bytes(garbled)
    read = read_or_refused(path)
    if read is None:
        return
    assert read and all(isinstance(array, np.ndarray) for array in read.values())
    assert sum(array.nbytes for array in read.values()) < 100 * len(whole)
    if which in (0, 2):
        path.write_bytes(whole)
        expected = read_torch_checkpoint(path)
        assert read.keys() == expected.keys()
        for key, array in expected.items():
            np.testing.assert_array_equal(read[key], array)
