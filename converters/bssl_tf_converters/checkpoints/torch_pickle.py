"""Walks the pickle inside a PyTorch checkpoint opcode by opcode, without running the code that a pickle can hold.

No object is made and nothing is imported. A global is only a name: the few that stand for tensors are known, and all
others become a token that does nothing, so that whatever a hostile file wants called is not called.
"""

from __future__ import annotations

import pickletools
from dataclasses import dataclass
from typing import Any, BinaryIO

import numpy as np

# Far above what any checkpoint needs (ResNet-50 with its optimiser: 60,000 opcodes), far below what takes long.
_MAX_OPCODES = 2_000_000
_MAX_RANK = 32

BFLOAT16 = "bfloat16"
_STORAGES = {
    "torch DoubleStorage": "<f8",
    "torch FloatStorage": "<f4",
    "torch HalfStorage": "<f2",
    "torch BFloat16Storage": BFLOAT16,
    "torch LongStorage": "<i8",
    "torch IntStorage": "<i4",
    "torch ShortStorage": "<i2",
    "torch CharStorage": "|i1",
    "torch ByteStorage": "|u1",
    "torch BoolStorage": "|b1",
    "torch ComplexFloatStorage": "<c8",
    "torch ComplexDoubleStorage": "<c16",
}
_DICT = "collections OrderedDict"
_TENSOR = "torch._utils _rebuild_tensor_v2"
_PARAMETER = "torch._utils _rebuild_parameter"
_KNOWN = {*_STORAGES, _DICT, _TENSOR, _PARAMETER}


@dataclass(frozen=True)
class _Global:
    """A name of the pickle, `module name`; never looked up."""

    name: str


class _Opaque:
    """Whatever the pickle makes that is neither a tensor nor a plain container; does nothing."""


_OPAQUE = _Opaque()


@dataclass(frozen=True)
class Storage:
    """A run of `count` numbers of `dtype` (`BFLOAT16`, or numpy's name), called `key` in the file."""

    key: str
    dtype: str
    count: int

    @property
    def byte_count(self) -> int:
        """Its size in the file."""
        return self.count * (2 if self.dtype == BFLOAT16 else np.dtype(self.dtype).itemsize)


@dataclass(frozen=True)
class Tensor:
    """Where a tensor's numbers lie; offset and strides count numbers, not bytes."""

    storage: Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]


class TorchPickle:
    """Runs the opcodes that torch.save writes, with protocols 2 to 5, on plain containers and tokens.

    Garbled pickles raise `ValueError`, `IndexError`, `KeyError`, `TypeError` or `AttributeError`.

    Attributes:
        foreign: names of the globals that stand for no tensor, in the order in which they came.
    """

    def __init__(self) -> None:
        self._stack: list[Any] = []
        self._marks: list[int] = []
        self._memo: dict[int, Any] = {}
        self._storages: dict[str, Storage] = {}
        self.foreign: dict[str, None] = {}

    def storage(self, key: str) -> Storage:
        """The storage that tensors call `key`. Raises `ValueError`."""
        if key not in self._storages:
            raise ValueError(f"no tensor is in storage {str(key)[:100]!r}")
        return self._storages[key]

    def run(self, stream: BinaryIO) -> Any:
        """What the pickle at the stream's position describes; the position is behind it afterwards."""
        self._stack, self._marks, self._memo = [], [], {}
        for count, (opcode, argument, _) in enumerate(pickletools.genops(stream)):
            if count > _MAX_OPCODES:
                raise ValueError(f"its pickle has more than {_MAX_OPCODES} opcodes")
            self._step(opcode.name, argument)
        return self._stack.pop()

    def _step(self, name: str, argument: Any) -> None:
        stack = self._stack
        match name:
            case "PROTO" | "FRAME" | "STOP":
                pass
            case "EMPTY_DICT":
                stack.append({})
            case "EMPTY_LIST":
                stack.append([])
            case "EMPTY_TUPLE":
                stack.append(())
            case "NONE":
                stack.append(None)
            case "NEWTRUE" | "NEWFALSE":
                stack.append(name == "NEWTRUE")
            case "BININT" | "BININT1" | "BININT2" | "LONG1" | "BINFLOAT" | "BINUNICODE" | "SHORT_BINUNICODE":
                stack.append(argument)
            case "BINBYTES" | "SHORT_BINBYTES" | "BINSTRING" | "SHORT_BINSTRING":
                stack.append(_OPAQUE)
            case "MARK":
                self._marks.append(len(stack))
            case "TUPLE":
                stack.append(tuple(self._marked()))
            case "TUPLE1" | "TUPLE2" | "TUPLE3":
                items = [stack.pop() for _ in range(int(name[-1]))]
                stack.append(tuple(reversed(items)))
            case "BINPUT" | "LONG_BINPUT":
                self._memo[argument] = stack[-1]
            case "MEMOIZE":
                self._memo[len(self._memo)] = stack[-1]
            case "BINGET" | "LONG_BINGET":
                stack.append(self._memo[argument])
            case "GLOBAL":
                stack.append(self._global(argument))
            case "STACK_GLOBAL":
                attribute, module = stack.pop(), stack.pop()
                if not isinstance(module, str) or not isinstance(attribute, str):
                    raise ValueError("a global's name is not text")
                stack.append(self._global(f"{module} {attribute}"))
            case "BINPERSID":
                stack.append(self._described(stack.pop()))
            case "REDUCE" | "NEWOBJ":
                arguments, function = stack.pop(), stack.pop()
                stack.append(_OPAQUE if name == "NEWOBJ" else _reduced(function, arguments))
            case "BUILD":  # an object's attributes, such as a state dict's `_metadata`
                stack.pop()
            case "APPEND":
                _append(stack[-2], [stack.pop()])
            case "APPENDS":
                items = self._marked()
                _append(stack[-1], items)
            case "SETITEM":
                value, key = stack.pop(), stack.pop()
                _set(stack[-1], [key, value])
            case "SETITEMS":
                items = self._marked()
                _set(stack[-1], items)
            case _:
                raise ValueError(f"its pickle has the opcode {name}, which torch.save does not write")

    def _marked(self) -> list[Any]:
        start = self._marks.pop()
        items = self._stack[start:]
        del self._stack[start:]
        return items

    def _global(self, name: str) -> _Global:
        if name not in _KNOWN:
            self.foreign[name] = None
        return _Global(name)

    def _described(self, description: Any) -> Storage:
        kind, storage_type, key, _, count, *view = description
        if kind != "storage" or not isinstance(storage_type, _Global) or not isinstance(key, str):
            raise ValueError("a storage is not described as torch.save does")
        if storage_type.name not in _STORAGES:
            raise ValueError(f"storages of type {storage_type.name[:100]!r} are unknown")
        if view and view != [None]:
            raise ValueError("a storage is part of another, as before PyTorch 0.4")
        storage = Storage(key, _STORAGES[storage_type.name], _whole(count))
        if self._storages.setdefault(key, storage) != storage:
            raise ValueError(f"storage {key[:100]!r} is described in two ways")
        return storage


def _reduced(function: Any, arguments: Any) -> Any:
    """What a call would have given, for the calls that stand for tensors and dicts."""
    name = function.name if isinstance(function, _Global) else ""
    if name == _DICT and arguments == ():
        return {}
    if name == _PARAMETER:
        return arguments[0]
    if name != _TENSOR:
        return _OPAQUE
    storage, offset, shape, strides = arguments[:4]
    if not isinstance(storage, Storage) or not isinstance(shape, tuple) or not isinstance(strides, tuple):
        raise ValueError("a tensor is not described as torch.save does")
    shape, strides = tuple(map(_whole, shape)), tuple(map(_whole, strides))
    if len(shape) != len(strides) or len(shape) > _MAX_RANK:
        raise ValueError(f"a tensor has {len(shape)} sizes and {len(strides)} strides")
    return Tensor(storage, _whole(offset), shape, strides)


def _whole(value: Any) -> int:
    if type(value) is not int or not 0 <= value < 2**62:
        raise ValueError("a size, stride or offset is not a whole number of sensible size")
    return value


def _append(container: Any, items: list[Any]) -> None:
    if isinstance(container, list):
        container.extend(items)
    elif container is not _OPAQUE:
        raise ValueError("it appends to what is not a list")


def _set(container: Any, items: list[Any]) -> None:
    if not isinstance(container, dict) and container is not _OPAQUE:
        raise ValueError("it sets items of what is not a dict")
    if len(items) % 2:
        raise ValueError("a dict's last key has no value")
    if isinstance(container, dict):
        # A key of another kind names no tensor; hashing a tuple of tuples of ... would exhaust the stack.
        pairs = zip(items[::2], items[1::2], strict=True)
        container.update((key, value) for key, value in pairs if isinstance(key, (str, int, float)))
