"""What a .tflite file holds and costs, operator by operator: MACs, weights, memory. Loads no TensorFlow.

Conventions, as far as papers and tools agree on them:

- MACs: see `bssl_tf_converters.tflite.macs`. They are binary in `LceBconv2d`, else float or integer, as the weights
  are. Where those of an operator are not known, totals are lower bounds.
- A tensor is alive from the operator that writes it to the last that reads it; the graph's inputs from the first
  operator on and its outputs to the last, as TFLite's planner has it (it overwrites neither), variables all the time.
  The peak is the greatest sum at one operator. What an interpreter adds (scratch such as im2col, constants, itself) or
  saves (results written over their inputs) is not in it.
- Sizes that are not known before the model runs count as 1, which for a batch means one image.
- A file with several graphs (control flow, further signatures) is counted by its first, which is what an interpreter
  runs unless told otherwise.
"""

from __future__ import annotations

import itertools
import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from bssl_tf.errors import ConversionError
from bssl_tf_converters.tflite.macs import WITH_KERNEL, count_macs
from bssl_tf_converters.tflite.model import Operator, Tensor, TfliteModel, histogram, read_first_graph
from bssl_tf_deploy.files import read_regular
from bssl_tf_deploy.system_errors import next_step

# Arithmetic of MACs, and kinds of weights.
KINDS = ("binary", "float", "integer")
_MAX_FILE_BYTES = 2**31 - 1
# Longer than names are, even those of ten fused operations; the same long one may stand at every operator.
_MAX_NAME = 500


@dataclass(frozen=True)
class TensorInfo:
    """A tensor.

    Attributes:
        name: its first 500 characters.
        shape: -1 where a size is not known before it runs.
        dtype: as the schema calls it, in lower case.
    """

    name: str
    shape: tuple[int, ...]
    dtype: str


@dataclass(frozen=True)
class OperatorInfo:
    """What one operator is and costs.

    Attributes:
        index: its place in the order in which they run.
        operator: `LceBconv2d`, `CONV_2D`.
        layer: the layer's name, out of that of the first output.
        outputs: what it writes.
        arithmetic: of its MACs, one of `KINDS`; None where there are none, or they are not known.
        macs: multiply-accumulates of one run; None where they are not known.
        weight_bytes: constants that it reads, by kind; one that several operators read is counted at each.
        alive_bytes: activations that are held while it runs, its own inputs and outputs among them.
    """

    index: int
    operator: str
    layer: str
    outputs: tuple[TensorInfo, ...]
    arithmetic: str | None
    macs: int | None
    weight_bytes: dict[str, int]
    alive_bytes: int


@dataclass(frozen=True)
class Inspection:
    """What a model is and costs; the module states what is counted.

    Attributes:
        file_bytes: size of the flatbuffer.
        graphs: how many it has; all that follows is about the first.
        inputs: of the graph.
        outputs: of the graph.
        operators: in the order in which they run.
        histogram: how many operators of each name.
        macs: of one run, by kind.
        unknown_macs: operators whose MACs are not known and not in `macs`.
        weight_bytes: all constants, each once, by kind: binary are the packed kernels of `LceBconv2d`, integer is what
            is neither these nor float.
        peak_bytes: the greatest of all `alive_bytes`.
        peak_operator: the first operator with that; None if there are no operators.
        unknown_sizes: activations of a type without a size, such as strings, not in `peak_bytes`.
        dynamic: whether some shape is not known before it runs.
    """

    file_bytes: int
    graphs: int
    inputs: tuple[TensorInfo, ...]
    outputs: tuple[TensorInfo, ...]
    operators: tuple[OperatorInfo, ...]
    histogram: dict[str, int]
    macs: dict[str, int]
    unknown_macs: int
    weight_bytes: dict[str, int]
    peak_bytes: int
    peak_operator: int | None
    unknown_sizes: int
    dynamic: bool


def read_file(path: Path) -> bytes:
    """The bytes of a file that may be a model.

    Raises:
        ConversionError: it is missing, not a regular file, too large for a flatbuffer, or cannot be read.
    """
    try:
        return read_regular(path, _MAX_FILE_BYTES)
    except FileNotFoundError as error:
        raise ConversionError(f"{path} does not exist", "Give a .tflite file or a bundle") from error
    except OSError as error:
        raise ConversionError(f"{path} cannot be read ({error.strerror})", next_step(error)) from error


def inspect_model(content: bytes) -> Inspection:
    """Reads any TFLite flatbuffer and counts.

    Raises:
        ConversionError: it is not a valid TFLite flatbuffer.
    """
    model = read_first_graph(content)
    packed = {
        operator.inputs[1].buffer
        for operator in model.operators
        if operator.name == "LceBconv2d" and len(operator.inputs) > 1 and operator.inputs[1] is not None
    }
    model_name = _model_name(model.operators)
    operators = []
    for index, (operator, alive) in enumerate(zip(model.operators, alive_bytes(model), strict=True)):
        macs = count_macs(operator)
        operators.append(
            OperatorInfo(
                index=index,
                operator=operator.name[:_MAX_NAME],
                layer=layer_name(operator, model_name),
                outputs=tuple(map(_info, operator.outputs)),
                arithmetic=_arithmetic(operator) if macs else None,
                macs=macs,
                weight_bytes=_weights(operator.inputs, packed),
                alive_bytes=alive,
            )
        )
    totals = dict.fromkeys(KINDS, 0)
    for one in operators:
        if one.arithmetic is not None and one.macs is not None:
            totals[one.arithmetic] += one.macs
    peak = max(operators, key=lambda one: one.alive_bytes, default=None)
    return Inspection(
        file_bytes=len(content),
        graphs=model.graphs,
        inputs=tuple(map(_info, model.inputs)),
        outputs=tuple(map(_info, model.outputs)),
        operators=tuple(operators),
        histogram=histogram(model),
        macs=totals,
        unknown_macs=sum(one.macs is None for one in operators),
        weight_bytes=_weights(model.tensors, packed),
        peak_bytes=peak.alive_bytes if peak else 0,
        peak_operator=peak.index if peak else None,
        unknown_sizes=sum(tensor.data is None and tensor.size_bytes is None for tensor in model.tensors),
        dynamic=any(-1 in tensor.signature for tensor in model.tensors),
    )


def alive_bytes(model: TfliteModel) -> list[int]:
    """Bytes of activations that are held while each operator runs; tensors of a type without a size are left out."""
    end = len(model.operators) - 1
    first: dict[int, int] = {}
    last: dict[int, int] = {}
    for index, operator in enumerate(model.operators):
        for tensor in (*operator.inputs, *operator.outputs):
            if tensor is not None:
                first.setdefault(tensor.index, index)
                last[tensor.index] = index
    variables = tuple(tensor for tensor in model.tensors if tensor.is_variable)
    for tensor in (*model.inputs, *variables):
        first[tensor.index], last[tensor.index] = 0, end
    for tensor in model.outputs:
        first.setdefault(tensor.index, 0)
        last[tensor.index] = end
    changes = [0] * (end + 2)
    for tensor in model.tensors:
        if tensor.index in first and tensor.data is None:
            changes[first[tensor.index]] += tensor.size_bytes or 0
            changes[last[tensor.index] + 1] -= tensor.size_bytes or 0
    return list(itertools.accumulate(changes))[:-1]


_PRODUCT = re.compile("conv|depthwise|matmul", re.IGNORECASE)


def layer_name(operator: Operator, model_name: str = "") -> str:
    """The name by which a person knows the layer, out of that of the operator's first output.

    TensorFlow's converters join the names of all that was fused, each `model/layer/operation`, the last operation
    first: `net/relu/Relu;net/norm/FusedBatchNormV3;net/conv1/Conv2D` is `conv1` for a convolution, else `relu`. LCE
    cuts names after 50 characters, so that its convolutions often have only the name of their batch norm.

    Args:
        operator: its name may be of any form.
        model_name: is left out at the front.
    """
    name = operator.outputs[0].name if operator.outputs else ""
    paths = []
    for piece in filter(None, name[:_MAX_NAME].split(";")):
        parts = piece.split("/")
        paths.append(parts[1:] if parts[0] == model_name and len(parts) > 1 else parts)
    if not paths:
        return ""
    path = paths[0]
    if operator.name in WITH_KERNEL:
        path = next((parts for parts in paths if len(parts) > 1 and _PRODUCT.search(parts[-1])), path)
    return "/".join(path[:-1] or path)


def _model_name(operators: tuple[Operator, ...]) -> str:
    """The first part of most names, where these have three or more."""
    paths = [operator.outputs[0].name[:_MAX_NAME].split("/") for operator in operators if operator.outputs]
    commonest = Counter(parts[0] for parts in paths if len(parts) > 2).most_common(1)
    return commonest[0][0] if commonest and 2 * commonest[0][1] > len(paths) else ""


def _info(tensor: Tensor) -> TensorInfo:
    return TensorInfo(tensor.name[:_MAX_NAME], tensor.signature, tensor.dtype)


def _kind(dtype: str) -> str:
    return "float" if dtype.startswith(("float", "bfloat", "complex")) else "integer"


def _arithmetic(operator: Operator) -> str:
    kernel = operator.inputs[1] if len(operator.inputs) > 1 else None
    return "binary" if operator.name == "LceBconv2d" else _kind(kernel.dtype if kernel is not None else "")


def _weights(tensors: Iterable[Tensor | None], packed: set[int]) -> dict[str, int]:
    """Bytes of the constants among `tensors`, each once, by kind; `packed` are the buffers of binary kernels."""
    sizes = dict.fromkeys(KINDS, 0)
    constants = {tensor.buffer: tensor for tensor in tensors if tensor is not None}
    for buffer, tensor in constants.items():
        if tensor.data is not None:
            sizes["binary" if buffer in packed else _kind(tensor.dtype)] += len(tensor.data)
    return sizes
