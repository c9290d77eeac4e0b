"""Rule: what stands between a tensor and its sign becomes a comparison with one number for each channel.

Batch norms, biases, scales, ReLUs, PReLUs and max pools never fall as their input grows, or never rise, with all their
rounding. So a sign behind any chain of them says no more than whether the chain's input x has reached some number t, or
has not. t is found by bisection, for each channel, and what is asked is TensorFlow itself: its own operators, one after
the other, as Keras runs them. Writing their float32 arithmetic down again would not do, as the reciprocal root in its
batch norm is an approximation that depends on the machine: numpy gives other last bits for 1 in 5 numbers. Exact
arithmetic would be simpler, and would differ from Keras where rounding decides.

Then the chain becomes sign(x + c), or sign(c - x) where it falls:

- x a sum of +1 and -1, times its kernel's scale: c is put halfway between two such sums, and no sum is ever a tie. With
  or without padding with 0, multiplied and added with one rounding or two, all say what Keras says. The
  sum of a kernel with a scale is taken as rounded once; in Keras each of its terms is, in an order that is not known.
- any other x: c = -t. The sign of a rounded sum is that of the exact one, so that for the same x this is what Keras
  says. x itself is subject to rounding on its way. Behind a float convolution the scale is kept, where it is free.

sign(c - x) costs nothing behind a convolution. Elsewhere it would cost a product, and where only kernels read the sign,
it is -sign(x - c), and the kernel takes the minus: its weights change sign for that input channel. A tie, x = c, stays
+1 in this as c moves up to the next number. Not where the sign is padded with +1, which is not to change.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np

from bssl_tf.backend import tf
from bssl_tf_converters.lce.folding.channels import channel_ends, has_kernel, is_binary, keeps_channels, scaled_kernel
from bssl_tf_converters.lce.folding.constants import plain_run
from bssl_tf_converters.lce.folding.graph import CONST, PRELU, SIGN, Graph, Node
from bssl_tf_converters.lce.folding.kernel_scales import scale_of_signs
from bssl_tf_converters.lce.folding.patterns import affine_of, per_channel
from bssl_tf_converters.lce.folding.writing import graph_def

# Thresholds are looked for up to here, and what is smaller than its inverse is 0: no network has such numbers.
_LARGEST = 2.0**100
_BITS = {np.dtype(np.float32): np.int32, np.dtype(np.float64): np.int64}


@dataclass(frozen=True, eq=False)
class Chain:
    """What a sign reads.

    Attributes:
        sign: the `SIGN`.
        root: where the chain begins; its numbers are x.
        steps: the operators between the two, the first one first.
        unit: float64 [C]: x is a multiple of it, by a whole number; NaN where it may be any number.
        most: int64 [C]: that number is from -most to most; 0 where it may be any number.
    """

    sign: Node
    root: Node
    steps: list[Node]
    unit: np.ndarray
    most: np.ndarray


def decide_signs(graph: Graph) -> bool:
    """sign(f(x)) -> sign(x + c), for all signs at once."""
    chains = [found for node in graph.ordered() if node.op == SIGN and (found := _chain(graph, node)) is not None]
    falling = [np.prod([_step(graph, node)[1] for node in chain.steps], axis=0) < 0 for chain in chains]
    for chain, turned, first in zip(chains, falling, _bisect(graph, chains, falling), strict=True):
        _rewrite(graph, chain, _shift(chain, turned, first))
    graph.sweep()
    return bool(chains)


def _chain(graph: Graph, sign: Node) -> Chain | None:
    steps: list[Node] = []
    tensor = sign.inputs[0]
    while (node := graph[tensor]).name == tensor and _step(graph, node)[0] and _only_signs(graph, node):
        steps.insert(0, node)
        tensor = _step(graph, node)[0]
    if node.name != tensor or not node.shape or node.shape[-1] is None or node.dtype not in _BITS:
        return None
    # A bare sign is a comparison with 0 already; but sums with a scale may miss that.
    if not steps and not (is_binary(graph, node) and _only_signs(graph, node)):
        return None
    unit, most = _whole(graph, node)
    return Chain(sign, node, steps, unit, most)


def _step(graph: Graph, node: Node) -> tuple[str, np.ndarray]:
    """What an operator reads that treats each number by itself, and +1 or -1 for each channel: does its result rise
    or fall with it? For all others no tensor."""
    channels = node.shape[-1:] if node.shape else ()
    if node.op in ("Relu", "Relu6") or (node.op == "MaxPool" and keeps_channels(graph, node)):
        return node.inputs[0], np.ones(channels)
    if node.op == PRELU:
        slopes = per_channel(node.value, node)
        rises = slopes is not None and not np.any(slopes < 0)
        return (node.inputs[0] if rises else ""), np.ones(channels)
    found = affine_of(graph, node)
    if found is None:
        return "", np.ones(channels)
    return found[0], np.broadcast_to(np.where(found[1] < 0, -1.0, 1.0), channels)


def _only_signs(graph: Graph, node: Node) -> bool:
    """Do all who read the node make signs of it, perhaps after further steps?"""
    users = [user for user, _ in graph.uses(node)]
    return bool(users) and all(
        user.op == SIGN or (_step(graph, user)[0] == node.name and _only_signs(graph, user)) for user in users
    )


def _whole(graph: Graph, node: Node) -> tuple[np.ndarray, np.ndarray]:
    """`Chain.unit` and `Chain.most` of the node's numbers."""
    assert node.shape
    if is_binary(graph, node):
        kernel = graph.constant(node.inputs[1])
        unit = None if kernel is None else scale_of_signs(kernel)
        if kernel is not None and unit is not None:
            return np.asarray(unit, np.float64), np.full(node.shape[-1], np.prod(kernel.shape[:3]), np.int64)
    elif node.op == "Relu" or (node.op == "MaxPool" and keeps_channels(graph, node)):
        return _whole(graph, graph[node.inputs[0]])
    elif channel_ends(graph, node) is not None:
        parts = [_whole(graph, graph[tensor]) for tensor in node.inputs[:-1]]
        return np.concatenate([part[0] for part in parts]), np.concatenate([part[1] for part in parts])
    return np.full(node.shape[-1], np.nan), np.zeros(node.shape[-1], np.int64)


def _numbers(chain: Chain, index: np.ndarray) -> np.ndarray:
    """Candidates for x [C], in order: sums by their number, all others by their bits, 0 for 0."""
    dtype = chain.root.dtype
    assert dtype is not None
    bits = np.abs(index).astype(_BITS[dtype]).view(dtype)
    return np.where(
        np.isnan(chain.unit),
        np.where(index < 0, -bits, bits),
        chain.unit.astype(dtype) * index.astype(dtype),
    )


def _bisect(graph: Graph, chains: list[Chain], falling: list[np.ndarray]) -> list[np.ndarray]:
    """For each chain the index [C] of the first number at which its sign turns; one too many if it never does."""
    if not chains:
        return []
    last = []
    for chain in chains:
        assert chain.root.dtype is not None
        most = int(np.array(_LARGEST, chain.root.dtype).view(_BITS[chain.root.dtype]))
        last.append(np.where(np.isnan(chain.unit), most, chain.most))
    low, high = [-most for most in last], [most + 1 for most in last]
    with tf.Graph().as_default() as program:
        tf.import_graph_def(graph_def(Graph(list(_trials(graph, chains)), ())), name="")
        with tf.compat.v1.Session(graph=program, config=plain_run()) as session:
            while any(np.any(first < end) for first, end in zip(low, high, strict=True)):
                # Their sum may be too large.
                middle = [(first >> 1) + (end >> 1) + (first & end & 1) for first, end in zip(low, high, strict=True)]
                feed = {
                    f"{place}/x:0": _numbers(chain, index).reshape(_single(chain))
                    for place, (chain, index) in enumerate(zip(chains, middle, strict=True))
                }
                signs = session.run([f"{place}/sign:0" for place in range(len(chains))], feed)
                for place, sign in enumerate(signs):
                    turned = (sign.reshape(-1) > 0) != falling[place]
                    open_ = low[place] < high[place]
                    high[place] = np.where(open_ & turned, middle[place], high[place])
                    low[place] = np.where(open_ & ~turned, middle[place] + 1, low[place])
    return low


def _single(chain: Chain) -> tuple[int, ...]:
    """The shape of one pixel of the root."""
    assert chain.root.shape
    return (*[1] * (len(chain.root.shape) - 1), chain.root.shape[-1])


def _trials(graph: Graph, chains: list[Chain]) -> Iterator[Node]:
    """All chains for one pixel each, from a constant `0/x` that can be fed, to the sign `0/sign`.

    Pools are left out: a sign of the largest number is the largest sign.
    """
    constants: dict[str, Node] = {}
    for place, chain in enumerate(chains):
        shape = _single(chain)
        last = Node(f"{place}/x", CONST, [], chain.root.dtype, shape, value=np.zeros(shape, chain.root.dtype))
        yield last
        for node in [one for one in chain.steps if one.op != "MaxPool"] + [chain.sign]:
            reads = node.inputs[0] if node is chain.sign else _step(graph, node)[0]
            name = f"{place}/sign" if node is chain.sign else f"{place}/{node.name}"
            inputs = [last.name if tensor == reads else tensor for tensor in node.inputs]
            constants |= {tensor: graph[tensor] for tensor in node.inputs if tensor != reads}
            last = replace(node, name=name, inputs=inputs, shape=shape)
            yield last
    yield from constants.values()


def _shift(chain: Chain, falling: np.ndarray, first: np.ndarray) -> np.ndarray:
    """c, float64 [C]: sign(x + c), and sign(c - x) where the chain is falling, is what the chain says."""
    halfway = np.where(falling, 1, -1) * chain.unit * (first - 0.5)
    reached = np.where(falling, _numbers(chain, first - 1), -_numbers(chain, first)).astype(np.float64)
    reached = np.where((reached >= 0) & (reached < 1 / _LARGEST), 0, reached)
    return np.where(np.isnan(chain.unit), reached, halfway)


def _rewrite(graph: Graph, chain: Chain, shift: np.ndarray) -> None:
    """Puts the comparison in the chain's place; pools stay where they are between turns of the sign."""
    source = chain.root
    free = behind_kernel = has_kernel(graph, source) and graph.only_user(source) is not None
    turn = np.ones_like(shift)
    for node in chain.steps:
        turn = turn * _step(graph, node)[1]
        if node.op == "MaxPool":
            if np.any(turn < 0):
                source = graph.add_affine(source, turn, 0, f"{chain.sign.name}/turned")
            pool = node if node.inputs[0] == source.name else graph.add(replace(node, inputs=[source.name]))
            source, turn, free = pool, np.ones_like(shift), False
    readers = None if free else _kernel_readers(graph, chain.sign, turn)
    if np.any(turn < 0) and readers:
        dtype = chain.root.dtype
        assert dtype is not None
        above = np.maximum(
            np.nextafter(shift.astype(dtype), dtype.type(np.inf)), np.where(shift < 0, -np.inf, 1 / _LARGEST)
        )
        shift = np.where(turn < 0, -np.where(np.isnan(chain.unit), above, shift), shift)
        for reader in readers:
            kernel = scaled_kernel(graph, reader, turn)
            assert kernel is not None
            reader.inputs[1] = graph.add_constant(f"{reader.name}/turned", kernel).name
        turn = np.ones_like(turn)
    scale = turn
    if behind_kernel and np.all(np.isnan(chain.unit)):
        size = _size(graph, chain)
        never = np.abs(shift) >= _LARGEST
        scale, shift = np.where(never, 0, turn * size), np.where(never, np.sign(shift), shift * size)
    if np.any(scale != 1) or np.any(shift != 0):
        source = graph.add_affine(source, scale, shift, f"{chain.sign.name}/threshold")
    chain.sign.inputs = [source.name]


def _size(graph: Graph, chain: Chain) -> np.ndarray:
    """By how much the chain multiplies, [C]. That makes a float convolution's channels of one size, as int8 needs."""
    found = [affine_of(graph, node) for node in chain.steps]
    size: np.ndarray = np.prod([np.abs(one[1]) for one in found if one is not None], axis=0)
    return np.broadcast_to(size, chain.unit.shape)


def _kernel_readers(graph: Graph, node: Node, turn: np.ndarray) -> list[Node] | None:
    """The kernels that read the node, perhaps padded with 0; None if anything else reads it."""
    found: list[Node] = []
    for user, index in graph.uses(node):
        if index == 0 and scaled_kernel(graph, user, turn) is not None:
            found.append(user)
        elif index == 0 and _pads_with_zero(graph, user) and (readers := _kernel_readers(graph, user, turn)):
            found += readers
        else:
            return None
    return found


def _pads_with_zero(graph: Graph, node: Node) -> bool:
    if node.op == "PadV2":
        value = graph.constant(node.inputs[2])
        return value is not None and not np.any(value)
    return node.op == "Pad"
