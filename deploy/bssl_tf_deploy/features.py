"""The features of a classifier: the same model, but with what its last dense operator reads as its only output.

A bundle's output are logits. A second output in every bundle would change their format, golden outputs and parity, and
cost time on devices that only classify; and a tensor in the middle of a model cannot be read after a run, because
delegates keep it for themselves or reuse its memory. So the graph's list of outputs is replaced in memory: bundles that
were exported before have features too, every runtime runs the result, and the bundle stays as it is.

Flatbuffers as in https://flatbuffers.dev/internals and TensorFlow Lite's schema.fbs. Devices need not have the package.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

from bssl_tf_deploy.errors import BundleError

_FULLY_CONNECTED = 9
# What may stand between the last dense operator and the output.
_AFTERWARDS = {6: "DEQUANTIZE", 14: "LOGISTIC", 22: "RESHAPE", 25: "SOFTMAX", 114: "QUANTIZE"}
# Numbers of fields in the schema's tables.
_MODEL_CODES, _MODEL_SUBGRAPHS = 1, 2
_GRAPH_OUTPUTS, _GRAPH_OPERATORS = 2, 3
_OPERATOR_CODE, _OPERATOR_INPUTS, _OPERATOR_OUTPUTS = 0, 1, 2
_CODE_OLD, _CODE = 0, 3


def features_model(model: bytes) -> bytes:
    """A TFLite model whose one output are the features of `model`, a classifier: one row of D numbers for each image.

    Args:
        model: a flatbuffer of one output.

    Raises:
        BundleError: its output does not come from a dense operator, or it is damaged.
    """
    try:
        graph = _Table(model, _offset(model, 0)).tables(_MODEL_SUBGRAPHS)[0]
        tensor = _features(_Table(model, _offset(model, 0)).tables(_MODEL_CODES), graph)
        field = graph.place(_GRAPH_OUTPUTS)
    except (struct.error, IndexError) as error:
        raise BundleError(
            f"the model is not a valid TFLite file ({error})", "Export it again or copy it again"
        ) from error
    changed = bytearray(model)
    changed += bytes(-len(changed) % 4)
    # A list of its own at the end, because the old one may be shared with an operator.
    struct.pack_into("<I", changed, field, len(changed) - field)
    return bytes(changed + struct.pack("<Ii", 1, tensor))


def _features(codes: list[_Table], graph: _Table) -> int:
    """The tensor that the last dense operator before the output reads."""
    operators = graph.tables(_GRAPH_OPERATORS)
    makers = {tensor: one for one in operators for tensor in one.integers(_OPERATOR_OUTPUTS)}
    outputs = graph.integers(_GRAPH_OUTPUTS)
    wanted = outputs[0] if len(outputs) == 1 else -1
    for _ in operators:
        if wanted not in makers:
            break
        maker = makers[wanted]
        code = codes[maker.number(_OPERATOR_CODE, "I")]
        # The old field has one byte, and holds 127 for what does not fit.
        kind = max(code.number(_CODE_OLD, "b"), code.number(_CODE, "i"))
        wanted = maker.integers(_OPERATOR_INPUTS)[0]
        if kind == _FULLY_CONNECTED:
            return wanted
        if kind not in _AFTERWARDS:
            break
    raise BundleError(
        "the network has no features of an image as a whole: its output does not come from a dense layer",
        "Give a bundle of a classifier, or the run that it was exported from",
    )


@dataclass(frozen=True)
class _Table:
    """A table of a flatbuffer, at `start`."""

    content: bytes
    start: int

    def place(self, field: int) -> int:
        """Where a field lies. Raises `IndexError` if it is not there."""
        [back] = struct.unpack_from("<i", self.content, self.start)
        vtable = self.start - back
        [size] = struct.unpack_from("<H", self.content, vtable)
        entry = 4 + 2 * field
        [offset] = struct.unpack_from("<H", self.content, vtable + entry) if entry < size else (0,)
        if not offset:
            raise IndexError(f"field {field} is missing")
        return self.start + offset

    def number(self, field: int, kind: str) -> int:
        """A number of `struct`'s type `kind`; 0, the schema's default, if it is not there."""
        try:
            place = self.place(field)
        except IndexError:
            return 0
        return int(struct.unpack_from(f"<{kind}", self.content, place)[0])

    def integers(self, field: int) -> tuple[int, ...]:
        """A list of int32."""
        start, count = self._list(field)
        return struct.unpack_from(f"<{count}i", self.content, start)

    def tables(self, field: int) -> list[_Table]:
        """A list of tables."""
        start, count = self._list(field)
        places = range(start, start + 4 * count, 4)
        return [_Table(self.content, _offset(self.content, place)) for place in places]

    def _list(self, field: int) -> tuple[int, int]:
        start = _offset(self.content, self.place(field))
        [count] = struct.unpack_from("<I", self.content, start)
        if count > len(self.content) // 4:
            raise IndexError(f"a list of {count}")
        return start + 4, count


def _offset(content: bytes, place: int) -> int:
    """What the offset at `place` points to."""
    if place < 0:
        raise IndexError("a negative offset")
    return place + int(struct.unpack_from("<I", content, place)[0])
