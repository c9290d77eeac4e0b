"""Rule: each tensor is stored with that constant added which most of its readers want.

A reader may want x + d instead of x: a sign behind a learned threshold, a PReLU behind a learned shift. Giving x + c in
place of x costs nothing where a convolution makes x, or one term of the sum that is x: its batch norm takes c in.
Reading it with d - c in excess costs nothing where another constant follows, where the next operator is linear without
padding, or in a sum whose other term comes from a convolution, which takes the excess out again. All others need one
addition for each d other than c. Readers that make up for any excess do so at once and ask for nothing further up, so
the choices do not depend on each other, and the d that most of the others want is best for each tensor.
"""

from __future__ import annotations

import numpy as np

from bssl_tf_converters.lce.folding.channels import (
    channel_ends,
    fuses_affine,
    has_kernel,
    is_free,
    is_shift,
    keeps_channels,
    through_kernel,
)
from bssl_tf_converters.lce.folding.graph import AFFINE, CONST, Graph, Node

_SUMS = ("Add", "AddV2")
# More is not stored: it would take digits from what all others read. Signs of dead channels want that.
_MOST_STORED = 2.0**10


def store_shifts(graph: Graph) -> bool:
    """x -> x + c for each tensor, from the inputs on, so that few readers need an addition."""
    changed = False
    for node in graph.ordered():
        if node in graph and node.op != CONST and node.shape and not is_shift(graph, node):
            changed |= _store(graph, node)
    return changed


def _store(graph: Graph, node: Node) -> bool:
    readers, shifts = _readers(graph, node)
    # Two readers of this very tensor cannot lean on each other.
    own = set(map(id, shifts))
    takers = [_takers(graph, user, index, own) for user, index, _ in readers]
    fixed = [wanted for (_, _, wanted), found in zip(readers, takers, strict=True) if found is None]
    givers = _givers(graph, node, own)
    stored_free = [c for c in fixed if givers and np.all(np.abs(c) <= _MOST_STORED)]
    candidates = [np.zeros(node.shape[-1:] if node.shape else ()), *stored_free]
    additions, stored = min(((_additions(fixed, c), c) for c in candidates), key=lambda pair: pair[0])
    if additions >= len(shifts):
        return False
    base = _give(graph, givers, stored, node) if np.any(stored != 0) else node
    made: dict[bytes, Node] = {}
    for (user, index, wanted), found in zip(readers, takers, strict=True):
        excess = wanted - stored
        source = base
        if found is not None:
            _take(graph, found, excess)
        elif np.any(excess != 0):
            source = made.setdefault(excess.tobytes(), made.get(excess.tobytes()) or graph.add_affine(base, 1, excess))
        user.inputs[index] = source.name
    for shift in shifts:
        del graph.nodes[shift.name]
    return True


def _readers(graph: Graph, node: Node) -> tuple[list[tuple[Node, int, np.ndarray]], list[Node]]:
    """Who reads the node, perhaps through shifts, as which input and with what added; and these shifts."""
    readers: list[tuple[Node, int, np.ndarray]] = []
    shifts: list[Node] = []
    waiting = [(node, np.zeros(node.shape[-1:] if node.shape else ()))]
    while waiting:
        source, so_far = waiting.pop()
        for user, index in graph.uses(source):
            if is_shift(graph, user):
                shifts.append(user)
                waiting.append((user, so_far + user.shift))
            else:
                readers.append((user, index, so_far))
    return readers, shifts


def _additions(fixed: list[np.ndarray], stored: np.ndarray) -> int:
    """How many additions readers with these wishes need, of x + stored."""
    return len({wanted.tobytes() for wanted in fixed if np.any(wanted != stored)})


def _takers(graph: Graph, user: Node, index: int, own: set[int]) -> list[tuple[Node, int]] | None:
    """Which operators make up for a constant on this input, without a further operator; None if it cannot be had."""
    source = graph[user.inputs[index]]
    if user.op == AFFINE:
        return [(user, index)] if is_free(graph, user) or np.any(user.shift != 0) else None
    if index == 0 and has_kernel(graph, user):
        assert source.shape is not None
        return [(user, index)] if through_kernel(graph, user, np.zeros(source.shape[-1])) is not None else None
    adds = user.op in _SUMS and source.shape == user.shape
    if adds:
        other = graph[user.inputs[1 - index]]
        if other.shape == user.shape and graph.only_user(other) is user and _givers(graph, other, own):
            return [(user, index)]
    if adds or (index == 0 and keeps_channels(graph, user)):
        further = [_takers(graph, reader, place, own) for reader, place in graph.uses(user)]
        if further and all(found is not None for found in further):
            return [taker for found in further for taker in found or ()]
    return None


def _take(graph: Graph, takers: list[tuple[Node, int]], excess: np.ndarray) -> None:
    """Lets f(x + excess) stand for what it was when f reads x from now on."""
    for user, index in takers if np.any(excess != 0) else ():
        if user.op == AFFINE:
            user.shift = user.shift + user.scale * excess
        elif user.op in _SUMS:
            other = graph[user.inputs[1 - index]]
            _give(graph, _givers(graph, other, set()), excess, other)
        else:
            total = through_kernel(graph, user, excess)
            assert total is not None
            graph.insert_affine(user, 1, total)


def _givers(graph: Graph, node: Node, own: set[int]) -> list[tuple[Node, slice]]:
    """Which nodes have to add their part of a constant for `node` to add all of it; none if it costs an operator."""
    everything = slice(0, node.shape[-1] if node.shape else 0)
    if id(node) in own:
        return []
    if fuses_affine(graph, node) or (node.op == AFFINE and (is_free(graph, node) or np.any(node.shift != 0))):
        return [(node, everything)]
    if node.op in _SUMS:
        ways = [[tensor] for tensor in node.inputs if graph[tensor].shape == node.shape]
    elif keeps_channels(graph, node):
        ways = [node.inputs[:1]]
    else:
        ends = channel_ends(graph, node)
        ways = [node.inputs[:-1]] if ends is not None else []
    for way in ways:
        parts = [graph[tensor] for tensor in way]
        if not all(graph.only_user(part) is node for part in parts):
            continue
        found, start = [], 0
        for part in parts:
            assert part.shape is not None
            givers = _givers(graph, part, own)
            found.append([(giver, slice(start + at.start, start + at.stop)) for giver, at in givers])
            start += part.shape[-1]
        if all(found):
            return [giver for givers in found for giver in givers]
    return []


def _give(graph: Graph, givers: list[tuple[Node, slice]], c: np.ndarray, node: Node) -> Node:
    """Lets `node` give x + c; returns whom all who read it read from now on."""
    assert givers
    base = node
    for giver, part in givers:
        if giver.op == AFFINE:
            giver.shift = giver.shift + c[part]
        else:
            affine = graph.insert_affine(giver, 1, c[part])
            base = affine if giver is node else base
    return base
