"""A bundle on disk: one folder with all that a device needs to run a network on images.

    model.tflite    the network, batches of one
    golden.npz      inputs as the network takes them, and its outputs at export (`golden`)
    examples/*.png  the golden inputs as pictures, to try it on
    lib/TARGET/     libbssl_tf_runtime.so, which brings the operators that stock interpreters lack
    README.md       how to run it
    manifest.json   what all of it means, and the hash of each file (`manifest.Manifest`)
    heads/          what was learned since (`heads`), which the manifest does not list

Nothing in it depends on the time or the place, so that the same weights give the same bytes.
"""

from __future__ import annotations

import contextlib
import glob
import hashlib
import json
import os
import re
import shutil
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import numpy as np

from bssl_tf_deploy.errors import BundleError
from bssl_tf_deploy.files import new_folder, read_regular, storage_errors, with_checksum, without_checksum
from bssl_tf_deploy.golden import GOLDEN, Tensors, decode_golden, encode_golden
from bssl_tf_deploy.library import bundled_name
from bssl_tf_deploy.manifest import EXAMPLES, FileEntry, Manifest
from bssl_tf_deploy.preprocess import encode_png, normalised, whole_pixels
from bssl_tf_deploy.readme import readme
from bssl_tf_deploy.system_errors import next_step

MANIFEST = "manifest.json"
MODEL = "model.tflite"
README = "README.md"
HEADS = "heads"
_MAX_MANIFEST_BYTES = 2**23
_STALE_S = 3600
_AGAIN = "Export it again or copy it again"


@dataclass(frozen=True, eq=False)
class Bundle:
    """A bundle whose hashes were checked.

    Attributes:
        path: its folder.
        manifest: what it says.
        model: the flatbuffer.
        golden_inputs: for each input of the manifest [G, ...], of its type.
        golden_outputs: for each output of the manifest float32 [G, ...], from LCE's interpreter at export.
    """

    path: Path
    manifest: Manifest
    model: bytes
    golden_inputs: Tensors
    golden_outputs: Tensors

    @property
    def golden_images(self) -> int:
        """G: how many golden inputs there are."""
        return len(self.golden_inputs[0])

    @property
    def first_inputs(self) -> Tensors:
        """The first golden image as a batch of one, for each input: what is timed."""
        return tuple(array[:1] for array in self.golden_inputs)


def read_bundle(path: Path) -> Bundle:
    """Reads a bundle and checks every file against its hash.

    Raises:
        BundleError: it is missing, incomplete, changed since it was written, or of an unknown format.
    """
    if not path.is_dir():
        state = "is not a folder" if path.exists() else "does not exist"
        raise BundleError(f"{path} {state}", "Give the folder that `bssl-tf export` wrote")
    try:
        manifest = Manifest.from_dict(without_checksum(_read_json(path / MANIFEST)))
    except ValueError as error:
        raise BundleError(f"{path / MANIFEST} is damaged: {error}", _AGAIN) from error
    contents = {name: _read_checked(path / name, entry) for name, entry in manifest.files.items()}
    for name in (MODEL, GOLDEN):
        if name not in contents:
            raise BundleError(f"{path / MANIFEST} does not list {name}", _AGAIN)
    inputs, outputs = decode_golden(path / GOLDEN, contents[GOLDEN], manifest)
    return Bundle(path, manifest, contents[MODEL], inputs, outputs)


def checked_file(bundle: Bundle, name: str) -> Path:
    """The path of a file of a bundle that was read before, after another look at its hash.

    Raises:
        BundleError: it was changed since.
    """
    path = bundle.path / name
    _read_checked(path, bundle.manifest.files[name])
    return path


def write_bundle(
    path: Path,
    manifest: Manifest,
    model: bytes,
    golden_inputs: Sequence[np.ndarray],
    golden_outputs: Sequence[np.ndarray],
    example_words: Sequence[str],
    *,
    library: bytes | None = None,
    overwrite: bool = False,
) -> Manifest:
    """Writes a bundle, whole or not at all: into a folder beside `path`, synced, then renamed.

    A process that is killed leaves `path` as it was, or, in the moment between the two renames of an overwrite,
    absent; its hidden folder `.NAME.*.tmp` is removed by a later write to the same place.

    Args:
        path: the bundle's folder; what is missing above it is made.
        manifest: everything but `files`, which is filled in.
        model: the flatbuffer.
        golden_inputs: for each input of the manifest [G, ...], of its type.
        golden_outputs: for each output of the manifest float32 [G, ...].
        example_words: a word for each golden image, such as its true label, for the examples' file names.
        library: the runtime library for the manifest's target.
        overwrite: replace a bundle at `path`. Anything that is not wholly a bundle is never replaced.

    Returns:
        The manifest as written.

    Raises:
        BundleError: `path` is taken, or the golden outputs are of no use (see `golden.decode_golden`).
        StorageError: it cannot be written.
    """
    check_free(path, overwrite=overwrite)
    golden = encode_golden(manifest, golden_inputs, golden_outputs)
    contents = {MODEL: model, GOLDEN: golden, README: readme(manifest, library=library is not None).encode()}
    p = manifest.preprocessing
    pictures = whole_pixels(normalised(golden_inputs[0], manifest), p.mean, p.std)
    for number, (pixels, words) in enumerate(zip(pictures, example_words, strict=True)):
        word = re.sub(r"[^a-z0-9]+", "-", words.lower()).strip("-")[:40] or "image"
        contents[f"{EXAMPLES}/{number}-{word}.png"] = encode_png(pixels)
    if library is not None:
        contents[bundled_name(manifest.target)] = library
    entries = {name: FileEntry(hashlib.sha256(content).hexdigest(), len(content)) for name, content in contents.items()}
    # Through the reader, so that nothing is written that cannot be read.
    manifest = Manifest.from_dict(manifest.to_dict() | {"files": {name: vars(e) for name, e in entries.items()}})
    about = with_checksum(manifest.to_dict())
    contents[MANIFEST] = (json.dumps(about, indent=2, sort_keys=True) + "\n").encode()
    with storage_errors(path), _folder_beside(path) as temporary:
        for name, content in contents.items():
            (temporary / name).parent.mkdir(parents=True, exist_ok=True)
            _write_synced(temporary / name, content)
        for folder in _folders(contents):
            _sync_folder(temporary / folder)
        _swap(temporary, path)
        _sync_folder(path.parent)
    return manifest


def check_free(path: Path, *, overwrite: bool) -> None:
    """Raises `BundleError` unless a bundle may be written to `path`; see `write_bundle`."""
    if not path.is_symlink() and not path.exists():
        return
    if path.is_dir() and not path.is_symlink():
        with storage_errors(path):
            names = {item.relative_to(path).as_posix() for item in path.rglob("*")}
        if not names:
            return
        if _is_bundle(path, names):
            if overwrite:
                return
            raise BundleError(f"{path} already holds a bundle", "Add --overwrite, or choose another --out")
        if _is_bundle(path, {name for name in names if not name.startswith(f"{HEADS}/")}):
            raise BundleError(
                f"{path} holds a bundle with heads that were learned there, and was left unchanged",
                f"Choose another --out, or move {path / HEADS} elsewhere",
            )
    raise BundleError(
        f"{path} exists and is not a bundle (or holds more than one), and was left unchanged", "Choose another --out"
    )


def _is_bundle(path: Path, names: set[str]) -> bool:
    """Whether `path` holds the files of its manifest and nothing else; their content may be damaged."""
    try:
        content = _read_json(path / MANIFEST)
    except BundleError:
        return False
    listed = content.get("files") if isinstance(content, dict) else None
    return isinstance(listed, dict) and names <= {MANIFEST, EXAMPLES, HEADS, *listed, *_folders(listed)}


def _folders(names: Iterable[str]) -> set[str]:
    """All folders that files of these names lie in."""
    return {folder.as_posix() for name in names for folder in PurePosixPath(name).parents}


def _read_json(path: Path) -> object:
    try:
        return json.loads(read_regular(path, _MAX_MANIFEST_BYTES).decode("utf-8"))
    except FileNotFoundError as error:
        raise BundleError(
            f"{path.parent} is not a bundle (it has no {path.name})", "Give the folder that `bssl-tf export` wrote"
        ) from error
    except OSError as error:
        raise BundleError(f"{path} cannot be read ({error.strerror})", next_step(error)) from error
    except (ValueError, RecursionError) as error:
        raise BundleError(f"{path} is not valid JSON ({error})", _AGAIN) from error


def _read_checked(path: Path, entry: FileEntry) -> bytes:
    try:
        # Looked at first, so that a wrong file of many gigabytes is not read.
        size = path.stat().st_size
        if size != entry.bytes:
            raise BundleError(f"{path} has {size} bytes instead of {entry.bytes}", _AGAIN)
        content = read_regular(path, entry.bytes)
    except FileNotFoundError as error:
        raise BundleError(f"{path} cannot be read ({error.strerror})", _AGAIN) from error
    except OSError as error:
        raise BundleError(f"{path} cannot be read ({error.strerror})", next_step(error)) from error
    if hashlib.sha256(content).hexdigest() != entry.sha256:
        raise BundleError(f"{path} was changed since the bundle was written (its SHA-256 differs)", _AGAIN)
    return content


@contextlib.contextmanager
def _folder_beside(path: Path) -> Iterator[Path]:
    """A fresh folder on the same file system as `path`; removed at the end if it still stands."""
    path.parent.mkdir(parents=True, exist_ok=True)
    prefix, suffix = f".{path.name}.", ".tmp"
    for left in path.parent.glob(f"{glob.escape(prefix)}*{suffix}"):
        # Of a process that was killed; younger ones may belong to one that still writes.
        with contextlib.suppress(OSError):
            if time.time() - left.stat().st_mtime > _STALE_S:
                shutil.rmtree(left, ignore_errors=True)
    temporary = new_folder(path.parent, prefix, suffix)
    try:
        yield temporary
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _swap(temporary: Path, path: Path) -> None:
    """Renames `temporary` to `path`; what stood there is put back if that fails, and removed if it does not."""
    if not path.exists():
        temporary.rename(path)
        return
    with _folder_beside(path) as aside:
        old = aside / "old"
        path.rename(old)
        try:
            temporary.rename(path)
        except BaseException:
            old.rename(path)
            raise


def _write_synced(path: Path, content: bytes) -> None:
    with path.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def _sync_folder(path: Path) -> None:
    # Makes the names last; where folders cannot be synced (Windows) there is nothing to do.
    with contextlib.suppress(OSError):
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
