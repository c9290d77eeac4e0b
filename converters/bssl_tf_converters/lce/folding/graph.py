"""A small view of a frozen inference graph: nodes that rules can move.

TensorFlow writes a batch norm, a bias and a product in many ways, and signs and PReLU as several operators each. Here
each is one node: `AFFINE`, `SIGN`, `PRELU` (see `patterns`). All other operators keep TensorFlow's name and definition.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

# x * scale + shift for each channel, the last axis.
AFFINE = "Affine"
# +1 where x >= 0, else -1.
SIGN = "BinarySign"
# x where x >= 0, else x * slopes.
PRELU = "Prelu"
CONST = "Const"
OUTPUT = "Output"


@dataclass(eq=False)
class Node:
    """An operator.

    Attributes:
        name: unique in the graph.
        op: TensorFlow's, or one of this module's.
        inputs: tensors, as in a GraphDef: `node` for a node's first output, `node:1` for its second.
        dtype: of the first output, a numpy type; None for what numpy does not know.
        shape: of the first output; None where a dimension is unknown.
        definition: TensorFlow's NodeDef; None for this module's operators.
        value: of a `CONST`, any shape; of a `PRELU` its slopes, which broadcast to the input.
        pure: whether it has inputs, one output and no state, so that the same inputs always give the same output.
        scale: of an `AFFINE`, float64 [C].
        shift: of an `AFFINE`, float64 [C]. Constants are rounded to `dtype` once, at the end.
    """

    name: str
    op: str
    inputs: list[str]
    dtype: np.dtype | None
    shape: tuple[int, ...] | None
    definition: Any = None
    pure: bool = False
    value: np.ndarray = field(default_factory=lambda: np.empty(0))
    scale: np.ndarray = field(default_factory=lambda: np.empty(0))
    shift: np.ndarray = field(default_factory=lambda: np.empty(0))

    def attribute(self, name: str) -> Any:
        """An attribute's value, as the protocol buffer has it."""
        return self.definition.attr[name]

    def text(self, name: str) -> str:
        """A string attribute; empty where it is not set."""
        return str(self.definition.attr[name].s.decode()) if name in self.definition.attr else ""


class Graph:
    """Nodes by name, in an order in which they can run. Rules change it in place.

    Attributes:
        nodes: by name.
        inputs: names of the placeholders that are not frozen.
        library: functions that nodes call, a FunctionDefLibrary; None if there are none.
    """

    def __init__(self, nodes: Sequence[Node], inputs: Sequence[str], library: Any = None) -> None:
        self.nodes = {node.name: node for node in nodes}
        self.inputs = tuple(inputs)
        self.library = library

    def __getitem__(self, tensor: str) -> Node:
        """The node that makes `tensor`."""
        return self.nodes[tensor.partition(":")[0]]

    def __contains__(self, node: Node) -> bool:
        return self.nodes.get(node.name) is node

    def ordered(self) -> list[Node]:
        """All nodes, each behind what it reads."""
        done: dict[str, Node] = {}
        for root in self.nodes.values():
            stack = [root]
            while stack:
                node = stack[-1]
                waiting = [self[tensor] for tensor in node.inputs if self[tensor].name not in done]
                if node.name in done or not waiting:
                    done[stack.pop().name] = node
                else:
                    stack.extend(waiting)
        return list(done.values())

    def uses(self, node: Node) -> list[tuple[Node, int]]:
        """Who reads the node's first output, and as which of its inputs."""
        return [
            (user, index)
            for user in self.nodes.values()
            for index, tensor in enumerate(user.inputs)
            if tensor == node.name
        ]

    def only_user(self, node: Node) -> Node | None:
        """Who reads the node's first output, if it is one reader that reads it once."""
        uses = self.uses(node)
        return uses[0][0] if len(uses) == 1 else None

    def constant(self, tensor: str) -> np.ndarray | None:
        """The value of a constant tensor; None for what is computed."""
        node = self[tensor]
        return node.value if node.op == CONST else None

    def fresh(self, name: str) -> str:
        """`name`, with a number where it is taken."""
        number, free = 0, name
        while free in self.nodes:
            number += 1
            free = f"{name}_{number}"
        return free

    def add(self, node: Node) -> Node:
        """Takes a node in under a name that is free."""
        node.name = self.fresh(node.name)
        self.nodes[node.name] = node
        return node

    def add_constant(self, name: str, value: np.ndarray) -> Node:
        """A new constant."""
        return self.add(Node(name, CONST, [], value.dtype, value.shape, value=value))

    def add_affine(self, of: Node, scale: np.ndarray | float, shift: np.ndarray | float, name: str = "") -> Node:
        """A new `AFFINE` that reads `of`; nobody reads it yet."""
        assert of.shape is not None
        channels = of.shape[-1:]
        return self.add(
            Node(
                name or f"{of.name}/affine",
                AFFINE,
                [of.name],
                of.dtype,
                of.shape,
                scale=np.broadcast_to(np.asarray(scale, np.float64), channels),
                shift=np.broadcast_to(np.asarray(shift, np.float64), channels),
            )
        )

    def insert_affine(self, behind: Node, scale: np.ndarray | float, shift: np.ndarray | float) -> Node:
        """A new `AFFINE` between `behind` and all who read it."""
        users = self.uses(behind)
        affine = self.add_affine(behind, scale, shift)
        for user, index in users:
            user.inputs[index] = affine.name
        return affine

    def replace(self, old: Node, new: str) -> None:
        """Lets all who read the first output of `old` read the tensor `new`, and removes `old`."""
        for user, index in self.uses(old):
            user.inputs[index] = new
        del self.nodes[old.name]

    def sweep(self) -> None:
        """Removes what no output needs."""
        needed: dict[str, Node] = {}
        stack = [node for node in self.nodes.values() if node.op == OUTPUT or node.name in self.inputs]
        while stack:
            node = stack.pop()
            if node.name not in needed:
                needed[node.name] = node
                stack.extend(self[tensor] for tensor in node.inputs)
        self.nodes = {name: node for name, node in self.nodes.items() if name in needed}
