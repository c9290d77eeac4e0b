"""What an interpreter runs, in order: our nodes, and between them operators of its own, by type and Keras layer.

An interpreter tells of its nodes, not of their order. Each time that a delegate takes nodes, TensorFlow Lite's
`PartitionGraphIntoIndependentNodeSubsets` orders them anew, which is done here again; whoever measures our nodes can
see whether it came out right.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

DELEGATE = "DELEGATE"
_BINARY = "LceBconv2d"
_WITH_KERNEL = ("CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED", "TRANSPOSE_CONV")
_PRODUCT = re.compile("conv|depthwise|matmul", re.IGNORECASE)


@dataclass(frozen=True)
class Node:
    """An operator of the model, or what a delegate made of some.

    Attributes:
        index: in the interpreter; those of the model come first.
        type: the operator's name; `DELEGATE` for what a delegate made.
        inputs: tensors that are read.
        outputs: tensors that are made.
    """

    index: int
    type: str
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]


@dataclass(frozen=True)
class Stretch:
    """Operators that run one after another without a node of ours between them, or as one node of ours.

    Attributes:
        ours: whether they are a node of ours.
        operators: their types, joined by "+".
        layer: the Keras layers that they come from, joined by ", ".
        output: the name of the last tensor that they make.
        first: index of the first operator in the model.
    """

    ours: bool
    operators: str
    layer: str
    output: str
    first: int


def read_nodes(native: Any) -> tuple[list[Node], dict[int, str]]:
    """Nodes, and the names of tensors, of a stock interpreter whose tensors are allocated.

    Raises:
        AttributeError: this version of the interpreter does not tell.
    """
    nodes = [
        Node(int(one["index"]), str(one["op_name"]), tuple(map(int, one["inputs"])), tuple(map(int, one["outputs"])))
        for one in native._get_ops_details()
    ]
    return nodes, {int(one["index"]): str(one["name"]) for one in native.get_tensor_details()}


def stretches(nodes: Sequence[Node], names: Mapping[int, str], ours: Collection[int]) -> list[Stretch]:
    """What runs, in order.

    Args:
        nodes: see `read_nodes`.
        names: of tensors.
        ours: the first operator of each node of ours.
    """
    model = [node for node in nodes if node.type != DELEGATE]
    members = {node.index: _members(node, model) for node in nodes if node.type == DELEGATE}
    mine = {index: inside for index, inside in members.items() if any(node.index in ours for node in inside)}
    order: list[Node] = list(model)
    for index, inside in mine.items():
        taken = {node.index for node in inside}
        [delegate] = (node for node in nodes if node.index == index)
        order = [
            one
            for chosen, part in _partition(order, taken)
            for one in ((delegate,) if chosen and part else tuple(part))
        ]
    taken = {node.index for index, inside in members.items() if index not in mine for node in inside}
    order = [node for _, part in _partition(order, taken) for node in part]
    found, rest = [], list[Node]()
    prefix = _model_name(model, names)
    readers = Counter(tensor for node in model for tensor in set(node.inputs))
    for node in (*order, None):
        if node is not None and node.index not in mine:
            rest.append(node)
            continue
        for part in (rest, mine[node.index] if node is not None else []):
            if part:
                layers = [_layer(one, names, prefix, readers) for one in part]
                # A node of ours is known by its convolution.
                main = [layer for one, layer in zip(part, layers, strict=True) if one.type == _BINARY]
                found.append(
                    Stretch(
                        part is not rest,
                        "+".join(one.type for one in part),
                        ", ".join(dict.fromkeys(filter(None, main or layers))),
                        names.get(part[-1].outputs[-1], "") if part[-1].outputs else "",
                        min(one.index for one in part),
                    )
                )
        rest = []
    return found


def _members(delegate: Node, model: Iterable[Node]) -> list[Node]:
    """The operators that a delegate's node stands for: those between its outputs and its inputs."""
    makers = {tensor: node for node in model for tensor in node.outputs}
    found: dict[int, Node] = {}
    wanted = list(delegate.outputs)
    while wanted:
        node = makers.get(wanted.pop())
        if node is not None and node.index not in found:
            found[node.index] = node
            wanted += [tensor for tensor in node.inputs if tensor not in delegate.inputs]
    return [found[index] for index in sorted(found)]


def _partition(order: Sequence[Node], taken: Collection[int]) -> list[tuple[bool, list[Node]]]:
    """The nodes in parts, alternately those that are taken and others: each as long as what is ready allows."""
    left, parts = list(order), list[tuple[bool, list[Node]]]()
    missing = {tensor for node in order for tensor in node.outputs}
    while left:
        part, later = list[Node](), list[Node]()
        for node in left:
            alike = not part or (node.index in taken) == (part[0].index in taken)
            if alike and missing.isdisjoint(node.inputs):
                part.append(node)
                missing.difference_update(node.outputs)
            else:
                later.append(node)
        if not part:  # a model that nothing could run
            part, later = later, []
        parts.append((part[0].index in taken, part))
        left = later
    return parts


def _layer(node: Node, names: Mapping[int, str], prefix: str, readers: Mapping[int, int]) -> str:
    """The Keras layer that an operator comes from.

    Converters join the names of all that they fused, each `model/layer/operation`, the last first, and LCE cuts them
    after 50 characters. So what an operator reads may say more than what it makes: a binary convolution the bits that
    its layer's quantizer made, another its kernel.
    """
    made = _pieces(names.get(node.outputs[0], "") if node.outputs else "", prefix)
    read = [_pieces(names.get(tensor, ""), prefix) for tensor in node.inputs[:2]]
    if node.type == _BINARY and read and readers[node.inputs[0]] == 1:
        made = [*(piece for piece in read[0] if len(piece) > 1), *made]
    elif node.type in _WITH_KERNEL:
        pieces = [*(read[1] if len(read) > 1 else []), *made]
        made = [*(piece for piece in pieces if len(piece) > 1 and _PRODUCT.search(piece[-1])), *made]
    return made[0][0] if made else ""


def _pieces(name: str, prefix: str) -> list[list[str]]:
    """The parts of each of the joined names, without the model's."""
    paths = [piece.split("/") for piece in re.sub(r":\d+$", "", name).split(";") if piece]
    return [path[1:] if path[0] == prefix and len(path) > 1 else path for path in paths]


def _model_name(model: Sequence[Node], names: Mapping[int, str]) -> str:
    """The first part of most names, where these have three or more."""
    paths = [names.get(node.outputs[0], "").split("/") for node in model if node.outputs]
    commonest = Counter(path[0] for path in paths if len(path) > 2).most_common(1)
    return commonest[0][0] if commonest and 2 * commonest[0][1] > len(paths) else ""
