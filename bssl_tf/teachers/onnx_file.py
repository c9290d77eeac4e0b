"""Opens an ONNX file as a stranger may have made it: bounded, with no code but ONNX Runtime's own, and its own numbers.

A small file may unpack to more than any memory holds, name other files (external data), call operators that only a
library of somebody else has, or loop for ever. All of that is found here, before ONNX Runtime sees the model.
"""

from __future__ import annotations

import hashlib
import importlib
import math
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bssl_tf.errors import NetworkError
from bssl_tf.files import open_regular, read_regular
from bssl_tf_deploy.files import HEAD_BYTES, standing_in
from bssl_tf_deploy.text import printable

# The most that protobuf takes.
_MAX_FILE_BYTES = (1 << 31) - 1
_MAX_EXTERNAL_BYTES = 1 << 33
# Of all that is not numbers of tensors: a parsed message may take fifty times its bytes.
_MAX_STRUCTURE_BYTES = 20_000_000
# Of which millions would take long to look at.
_FIELD_BYTES = 16
_MAX_NODES = 500_000
_DOMAINS = ("", "ai.onnx", "ai.onnx.ml", "com.microsoft")
# Loops need not end; the last one opens a file of its own.
_REFUSED = {"Loop": "a loop", "Scan": "a loop", "EPContext": "another program's file"}
_LOCATION = re.compile(r"[\w. +-]+(/[\w. +-]+)*")
_AGAIN = "Export it again, such as with torch.onnx.export(model, image, 'model.onnx')"
_TRAINED = "Export the model for inference, with ONNX's own operators only"


@dataclass(frozen=True)
class OnnxFile:
    """A model that was found harmless.

    Attributes:
        path: the file.
        model: `onnx.ModelProto`, without the numbers that lie in other files.
        sha256: of the file and of those that its numbers lie in, in hex.
    """

    path: Path
    model: Any
    sha256: str

    def nodes_of(self, name: str) -> list[Any]:
        """The nodes that take the tensor `name`."""
        return [node for node in self.model.graph.node if name in node.input]


def require_packages() -> None:
    """Raises `NetworkError` where the extra `onnx` is not installed."""
    try:
        for package in ("onnx", "onnxruntime"):
            importlib.import_module(package)
    except ImportError as error:
        raise NetworkError(
            f"an ONNX teacher needs the packages onnx and onnxruntime ({error})",
            "Install them with `pip install 'bssl-tf[onnx]'`",
        ) from error


def read_onnx(path: Path) -> OnnxFile:
    """Reads a model and looks at everything in it.

    Raises:
        NetworkError: the file cannot be read, is not ONNX, is damaged, or is not harmless.
    """
    require_packages()
    import onnx

    try:
        content = read_regular(path, _MAX_FILE_BYTES)
    except OSError as error:
        raise NetworkError(f"{path} cannot be read ({error.strerror})", "Check the file and its permissions") from error
    instead = standing_in(content[:HEAD_BYTES])
    if instead is not None:
        raise NetworkError(f"{path} is {instead}", "Get the file itself, then run the same command again")
    try:
        structure = _structure_bytes(memoryview(content))
        if structure > _MAX_STRUCTURE_BYTES:
            raise NetworkError(f"{path} has more than {_MAX_STRUCTURE_BYTES:,} bytes besides its weights", _TRAINED)
        model = onnx.load_model_from_string(content)
    except NetworkError:
        raise
    # protobuf raises errors of its own, which differ by version.
    except Exception as error:
        raise NetworkError(f"{path} is not an ONNX model, or is damaged", _AGAIN) from error
    if not model.ir_version or not model.graph.node or not model.graph.output:
        raise NetworkError(f"{path} is not an ONNX model, or is damaged", _AGAIN)
    try:
        outside = _Look(path, model).external_files()
    except RecursionError as error:
        raise NetworkError(f"{path} nests graphs too deeply", _TRAINED) from error
    digest = hashlib.sha256(content)
    for file in outside:
        digest.update(file.name.encode())
        with open_regular(file, _MAX_EXTERNAL_BYTES) as opened:
            while chunk := opened.read(1 << 20):
                digest.update(chunk)
    return OnnxFile(path, model, digest.hexdigest())


class _Look:
    """One look at a parsed model."""

    def __init__(self, path: Path, model: Any) -> None:
        self._path, self._model = path, model
        self._functions = {(one.domain, one.name): one for one in model.functions}
        self._sizes: dict[tuple[str, str], int] = {}

    def external_files(self) -> list[Path]:
        """The files that numbers of tensors lie in. Raises `NetworkError` for what is not harmless."""
        if len(self._model.training_info):
            raise NetworkError(f"{self._path} contains a graph for training", _TRAINED)
        total = self._nodes(self._model.graph) + sum(map(self._function_size, self._functions))
        if total > _MAX_NODES:
            raise NetworkError(f"{self._path} unfolds to more than {_MAX_NODES:,} nodes", _TRAINED)
        files: dict[Path, None] = {}
        size = 0
        for tensor in _tensors([self._model.graph, *self._model.functions]):
            if tensor.data_location != tensor.EXTERNAL and not len(tensor.external_data):
                continue
            file = self._external(tensor)
            if file not in files:
                files[file] = None
                size += file.stat().st_size
        if size > _MAX_EXTERNAL_BYTES:
            raise NetworkError(f"the weights of {self._path} have more than {_MAX_EXTERNAL_BYTES:,} bytes", _TRAINED)
        return sorted(files)

    def _nodes(self, graph: Any) -> int:
        """How many nodes there are once functions are unfolded."""
        count = 0
        for node in graph.node:
            key = (node.domain, node.op_type)
            if key in self._functions:
                count += self._function_size(key)
            elif node.domain not in _DOMAINS:
                raise NetworkError(
                    f"{self._path} needs the operator {printable(node.op_type[:60])} of "
                    f"{printable(node.domain[:60])}, which is third-party code",
                    _TRAINED,
                )
            elif node.op_type in _REFUSED:
                raise NetworkError(f"{self._path} has {_REFUSED[node.op_type]} ({node.op_type})", _TRAINED)
            count += 1
            for attribute in node.attribute:
                for graph_inside in (attribute.g, *attribute.graphs):
                    count += self._nodes(graph_inside)
            # No sum is worth more once it is too large.
            if count > _MAX_NODES:
                return count
        return count

    def _function_size(self, key: tuple[str, str]) -> int:
        if key not in self._sizes:
            # A function that calls itself would be unfolded for ever.
            self._sizes[key] = _MAX_NODES + 1
            self._sizes[key] = self._nodes(self._functions[key])
        return self._sizes[key]

    def _external(self, tensor: Any) -> Path:
        """The file that the numbers of `tensor` lie in."""
        about = {entry.key: entry.value for entry in tensor.external_data}
        location = about.get("location", "")
        name = printable(location[:100])
        folder = self._path.resolve().parent
        file = folder / location
        # ONNX Runtime takes a location with asterisks for an address in memory.
        inside = _LOCATION.fullmatch(location) is not None and ".." not in location.split("/")
        if not inside or file.resolve() != file:
            raise NetworkError(
                f"{self._path} has its weights in {name!r}, which is not a file beside it",
                "Export it in one file, or with its weights in a file in the same folder",
            )
        try:
            with open_regular(file, _MAX_EXTERNAL_BYTES):
                size = file.stat().st_size
            start, length = int(about.get("offset", "0")), int(about.get("length", "0"))
        except OSError as error:
            raise NetworkError(
                f"{file}, which holds weights of {self._path.name}, cannot be read ({error.strerror})",
                "Put it in the same folder, with the name that it was exported with",
            ) from error
        except ValueError as error:
            raise NetworkError(f"{self._path} is not an ONNX model, or is damaged", _AGAIN) from error
        if start < 0 or length < 0 or (start + max(length, math.prod(tensor.dims)) > size and not _sub_byte(tensor)):
            raise NetworkError(f"{file} is shorter than {self._path.name} claims", "Copy it again, completely")
        return file


def _sub_byte(tensor: Any) -> bool:
    """Whether several of its numbers share a byte."""
    return tensor.data_type in (tensor.INT4, tensor.UINT4)


def _tensors(graphs: list[Any]) -> Iterator[Any]:
    """All tensors in graphs and functions, at any depth."""
    for graph in graphs:
        yield from getattr(graph, "initializer", ())
        for sparse in getattr(graph, "sparse_initializer", ()):
            yield from (sparse.values, sparse.indices)
        attributes = [attribute for node in graph.node for attribute in node.attribute]
        for attribute in (*attributes, *getattr(graph, "attribute_proto", ())):
            yield from (attribute.t, *attribute.tensors)
            for sparse in (attribute.sparse_tensor, *attribute.sparse_tensors):
                yield from (sparse.values, sparse.indices)
            yield from _tensors([attribute.g, *attribute.graphs])


# Of onnx.proto: kind of message -> field -> the kind of message in it; "numbers" are counted with the weights.
_FIELDS: dict[str, dict[int, str]] = {
    "model": {7: "graph", 25: "function"},
    "graph": {1: "node", 5: "tensor", 15: "sparse"},
    "function": {7: "node", 11: "attribute"},
    "node": {5: "attribute"},
    "attribute": {5: "tensor", 6: "graph", 10: "tensor", 11: "graph", 22: "sparse", 23: "sparse"},
    "sparse": {1: "tensor", 2: "tensor"},
    "tensor": {4: "numbers", 5: "numbers", 9: "numbers", 10: "numbers"},
}
_MAX_NESTED = 100


def _structure_bytes(content: memoryview) -> int:
    """How many bytes of a serialised model are not numbers of tensors, counted no further than the limit.

    A field counts for no less than `_FIELD_BYTES`. Nothing is parsed but the fields that lead to tensors. Raises
    `ValueError` for what is not protobuf.
    """
    total = 0
    waiting = [("model", 0, len(content), 0)]
    while waiting and total <= _MAX_STRUCTURE_BYTES:
        kind, at, end, depth = waiting.pop()
        if depth > _MAX_NESTED:
            raise ValueError("messages nest too deeply")
        while at < end and total <= _MAX_STRUCTURE_BYTES:
            start = at
            tag, at = _varint(content, at, end)
            if not tag >> 3:
                raise ValueError("a field has the number 0")
            if tag & 7 == 2:
                length, at = _varint(content, at, end)
                total += max(at - start, _FIELD_BYTES)
                inside = _FIELDS[kind].get(tag >> 3)
                if inside in _FIELDS:
                    waiting.append((str(inside), at, at + length, depth + 1))
                elif inside is None:
                    total += length
                at += length
            else:
                at = _varint(content, at, end)[1] if tag & 7 == 0 else at + {1: 8, 5: 4}[tag & 7]
                total += max(at - start, _FIELD_BYTES)
            if at > end:
                raise ValueError("a message is cut")
    return total


def _varint(content: memoryview, at: int, end: int) -> tuple[int, int]:
    value = shift = 0
    while at < end and shift < 70:
        byte = content[at]
        value |= (byte & 127) << shift
        at, shift = at + 1, shift + 7
        if byte < 128:
            return value, at
    raise ValueError("a number is cut")
