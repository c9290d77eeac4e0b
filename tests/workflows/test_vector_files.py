"""Files of vectors of either kind, and what `similar` opens of the images that they name. None loads TensorFlow."""

from __future__ import annotations

import dataclasses
import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from bssl_tf.errors import StorageError
from bssl_tf.workflows import similar as finding
from bssl_tf.workflows.feature_networks import prepared_by
from bssl_tf.workflows.vector_files import SUFFIXES, read_vector_file, write_vector_file
from bssl_tf_deploy.embedding import FeatureNetwork
from bssl_tf_deploy.manifest import Preprocessing
from bssl_tf_deploy.pictures import open_picture
from bssl_tf_deploy.vectors import FORMAT, About, Vectors
from tests.conftest import require_or_skip

PIXELS = Preprocessing(4, 4, 3, (0.0,) * 3, (1.0,) * 3)
NETWORK = FeatureNetwork("pixels", "", PIXELS, prepared_by(PIXELS), lambda batch: batch.reshape(len(batch), -1))
WIDTH = 48


def made(*names: str, folder: str = "photos") -> Vectors:
    values = np.random.default_rng(0).normal(1, 1, (len(names), WIDTH)).astype(np.float32)
    return Vectors(About(FORMAT, "pixels", "", PIXELS, WIDTH, folder, 0), names, values)


@pytest.fixture
def parquet() -> Any:
    try:
        import pyarrow.parquet as found
    except ImportError:
        found = None
    require_or_skip(found is not None, "pyarrow is not installed")
    return found


def same(one: Vectors, other: Vectors) -> bool:
    fields = [(getattr(one, name), getattr(other, name)) for name in ("values", "thresholds")]
    return (one.about, one.images) == (other.about, other.images) and all(np.array_equal(a, b) for a, b in fields)


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("count", [0, 1, 5000])
def test_what_was_written_is_read(count: int, packed: bool, parquet: Any, tmp_path: Path) -> None:
    vectors = made(*(f"ü{place}.png" for place in range(count)))
    if packed:
        vectors = made("a").packed() if not count else vectors.packed()
    for suffix in SUFFIXES:
        write_vector_file(tmp_path / f"v{suffix}", vectors)
        assert same(read_vector_file(tmp_path / f"v{suffix}"), vectors)


LIES = (
    "no metadata",
    "not JSON",
    "another format",
    "another width",
    "huge width",
    "thresholds of text",
    "bits for vectors",
    "no image",
    "one more column",
    "doubles",
    "missing name",
    "missing number",
    "missing row",
    "long name",
    "not finite",
)


@pytest.mark.parametrize("lie", LIES)
def test_other_parquet_files_are_refused_in_one_line(lie: str, parquet: Any, tmp_path: Path) -> None:
    import pyarrow

    path = tmp_path / "v.parquet"
    write_vector_file(path, made("a", "b"))
    table = parquet.read_table(path)
    about: dict[str, Any] = json.loads(table.schema.metadata[b"bssl_tf"])
    lies: dict[str, dict[str, Any]] = {
        "another format": {"format": 2},
        "another width": {"dimensions": WIDTH + 1},
        "huge width": {"dimensions": 1 << 60, "thresholds": []},
        "thresholds of text": {"thresholds": ["a"]},
        "bits for vectors": {"thresholds": [0.0] * WIDTH},
    }
    about |= lies.get(lie, {})
    rows = [[float(number) for number in row] for row in table["vector"].to_pylist()]
    if lie == "missing number":
        rows[0][3] = None  # type: ignore[call-overload]
    if lie == "not finite":
        rows[1][0] = float("nan")
    kind = pyarrow.list_(pyarrow.float64() if lie == "doubles" else pyarrow.float32(), WIDTH)
    cells = [None if lie == "missing row" else rows[0], rows[1]]
    names = ["a" * 5000 if lie == "long name" else "a", None if lie == "missing name" else "b"]
    columns = {"image": pyarrow.array(names, pyarrow.string()), "vector": pyarrow.array(cells, kind)}
    columns |= {"more": columns["image"]} if lie == "one more column" else {}
    columns = {name: column for name, column in columns.items() if (name, lie) != ("image", "no image")}
    metadata = {} if lie == "no metadata" else {"bssl_tf": "{" if lie == "not JSON" else json.dumps(about)}
    parquet.write_table(pyarrow.table(columns).replace_schema_metadata(metadata), path)
    with pytest.raises(StorageError, match=r"v\.parquet does not hold vectors of images") as caught:
        read_vector_file(path)
    assert "\n" not in str(caught.value)


def test_the_same_table_without_a_lie_is_read(parquet: Any, tmp_path: Path) -> None:
    """So that those above are refused for what they are meant to be."""
    path = tmp_path / "v.parquet"
    write_vector_file(path, made("a", "b"))
    parquet.write_table(parquet.read_table(path), path)
    assert same(read_vector_file(path), made("a", "b"))


@given(st.binary(max_size=200), st.integers(0, 3000))
def test_damaged_parquet_is_refused(content: bytes, place: int) -> None:
    import tempfile

    pytest.importorskip("pyarrow")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "v.parquet"
        path.write_bytes(content)
        with pytest.raises(StorageError):
            read_vector_file(path)
        write_vector_file(path, made("a", "b"))
        whole = path.read_bytes()
        path.write_bytes(whole[:place])
        if place < len(whole):
            with pytest.raises(StorageError):
                read_vector_file(path)
    with pytest.raises(StorageError, match="cannot be read"):
        read_vector_file(path)


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The images that are opened for a page, by their real paths."""
    paths = list[str]()

    def noted(path: Path, *rest: Any, **options: Any) -> Any:
        paths.append(os.path.realpath(path))
        return open_picture(path, *rest, **options)

    monkeypatch.setattr("bssl_tf.reports.contact_sheet.open_picture", noted)
    monkeypatch.setattr(finding, "feature_network", lambda *rest, **options: NETWORK)
    return paths


@pytest.fixture
def photos(tmp_path: Path, rng: np.random.Generator) -> Path:
    for name in ("photos/wanted.png", "photos/in.png", "photos/sub/in.png", "outside/secret.png"):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (8, 8, 3), np.uint8)).save(path)
    folder = tmp_path / "photos"
    (folder / "link.png").symlink_to("../outside/secret.png")
    (folder / "linked").symlink_to("../outside")
    (folder / "alias.png").symlink_to("in.png")
    return folder


def test_only_images_below_the_named_folder_are_opened(
    photos: Path, opened: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    secret = tmp_path / "outside/secret.png"
    inside = ["in.png", "sub/in.png", str(photos / "sub/in.png"), "alias.png"]
    outside = [
        *("../outside/secret.png", str(secret), "link.png", "linked/secret.png", "sub/../../outside/secret.png"),
        *(f"../{photos.name}/in.png", f"{photos}/../outside/secret.png", str(photos) + "x.png", "/", "a\0b"),
    ]
    path, page = tmp_path / "v.npz", tmp_path / "page.html"
    # The file's own word for the folder counts for nothing.
    write_vector_file(path, made("wanted.png", *inside, *outside, folder=str(tmp_path / "outside")))
    (tmp_path / "other").symlink_to(photos)
    for folder in (photos, tmp_path / "other"):
        opened.clear()
        wanted = photos / "wanted.png"
        found = finding.similar("network", wanted, images=path, count=100, folder=folder, out=page)
        assert sorted(set(opened)) == sorted(str(photos / name) for name in ("wanted.png", "in.png", "sub/in.png"))
        assert found.unopened == len(outside) == len(found.matches) - len(inside)
        assert "secret.png" in page.read_text()
    monkeypatch.chdir(photos.parent)
    for named in ("photos", "photos/sub/.."):
        opened.clear()
        finding.similar("network", wanted, images=path, count=100, folder=named, out=page)
        assert len(opened) == 1 + len(inside)


def test_without_a_named_folder_no_image_of_the_file_is_opened(photos: Path, opened: list[str], tmp_path: Path) -> None:
    path, page = tmp_path / "v.npz", tmp_path / "page.html"
    write_vector_file(path, made("wanted.png", "in.png", str(tmp_path / "outside/secret.png"), folder=str(photos)))
    found = finding.similar("network", photos / "wanted.png", images=path, out=page)
    assert opened == [str(photos / "wanted.png")]
    assert {match.image for match in found.matches} == {str(photos / "in.png"), str(tmp_path / "outside/secret.png")}
    assert found.unopened == 2 and all(match.image in page.read_text() for match in found.matches)


def test_vectors_in_parquet_are_searched(photos: Path, opened: list[str], parquet: Any, tmp_path: Path) -> None:
    answers = []
    for suffix in SUFFIXES:
        path = tmp_path / f"v{suffix}"
        write_vector_file(path, made("wanted.png", "in.png", "sub/in.png"))
        found = finding.similar("network", photos / "wanted.png", images=path, folder=photos, out=tmp_path / "p.html")
        answers.append(dataclasses.astuple(found))
    assert answers[0] == answers[1] and len(answers[0][0]) == 2
