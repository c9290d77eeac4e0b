"""int8 for what stays float: the first convolution, the classifier, every float convolution and dense operator.

LCE has no quantisation after training: where int8 is wanted, it hands a float model back with no message. It does make
int8 of operators between `FakeQuantWithMinMaxVars`. So these go into the folded graph, with ranges from calibration
images, and the check `int8-left-float` looks in the flatbuffer whether every such operator has become int8.

- Kernels: symmetric, a scale for each output channel of a Conv2D, one for the whole kernel of a depthwise or dense
  operator, which older interpreters compute too.
- Activations: in front of such an operator, and behind it with its bias and ReLU; one scale and zero point for each.
- Everything between stays float: binary convolutions with their shortcuts, which our runtime computes in one go, pools
  and averages. In int8 the sums of a residual stream would lose to rounding what a sign hangs on.

A flipped sign moves logits by far more than int8 rounds (see `parity`). What int8 costs is therefore told as accuracy
on test images; parity is asked for against this graph, which rounds in the same way, in TensorFlow.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from bssl_tf.backend import tf
from bssl_tf.errors import ConversionError
from bssl_tf_converters.lce.folding.channels import KERNELS, has_kernel, is_binary
from bssl_tf_converters.lce.folding.constants import plain_run
from bssl_tf_converters.lce.folding.graph import AFFINE, OUTPUT, Graph, Node
from bssl_tf_converters.lce.folding.writing import graph_def

# Of an image's values left out on each side of a range: a few outliers would coarsen all others.
_LEFT_OUT_PERCENT = 0.1
_ACTIVATIONS = ("Relu", "Relu6")
# Their output has the scale of their input in TFLite.
_SAME_SCALE = ("MaxPool", "Reshape", "Squeeze")
_FAKE = "FakeQuantWithMinMaxVars"
_BITS = 8
_SMALLEST = 1e-6


def quantize(graph: Graph, images: np.ndarray, *, ends: bool = False) -> None:
    """Puts fake quantisation around every float operator with a constant kernel; changes `graph`.

    Args:
        graph: folded, for batches of one.
        images: [N, H, W, C] as the graph takes them, N at least 1, of the training data: to be calibrated on.
        ends: round the graph's input and outputs too, whatever reads and makes them.

    Raises:
        ConversionError: there is nothing to quantise, no image, or a range that is not finite.
    """
    operators = [node for node in graph.ordered() if has_kernel(graph, node) and not is_binary(graph, node)]
    if not operators:
        raise ConversionError("there is no float operator to make int8 of", "Export without int8")
    if not len(images):
        raise ConversionError("there are no images to calibrate int8 on", "Give at least one")
    behind = [_end(graph, node) for node in operators]
    sources = [node.inputs[0] for node in operators]
    if ends:
        sources += graph.inputs
        behind += [graph[node.inputs[0]] for node in graph.nodes.values() if node.op == OUTPUT]
    wanted = dict.fromkeys(sources + [node.name for node in behind])
    ranges = dict(zip(wanted, _ranges(graph, list(wanted), images), strict=True))
    for node in dict.fromkeys(behind):
        if _range_of(graph, node.name) is None:
            _round_for(graph, graph.uses(node), node.name, ranges[node.name])
    if ends:
        for name in graph.inputs:
            _round_for(graph, graph.uses(graph[name]), name, ranges[name])
    for tensor in dict.fromkeys(node.inputs[0] for node in operators):
        if _range_of(graph, tensor) is None:
            _round_for(graph, [(node, 0) for node in operators if node.inputs[0] == tensor], tensor, ranges[tensor])
    for node in operators:
        _round_constants(graph, node)


def simulate(graph: Graph, output: str, images: np.ndarray) -> np.ndarray:
    """What TensorFlow makes of images [N, H, W, C] with the same rounding as int8: `output` of the graph, [N, ...]."""
    return np.concatenate([values[0] for values in _each(graph, [output], images)])


def _each(graph: Graph, tensors: Sequence[str], images: np.ndarray) -> Iterator[list[np.ndarray]]:
    """What TensorFlow makes of `tensors` for one image after another."""
    [source] = graph.inputs
    with tf.Graph().as_default() as program:
        tf.import_graph_def(graph_def(graph), name="")
        fetches = [tensor if ":" in tensor else f"{tensor}:0" for tensor in tensors]
        with tf.compat.v1.Session(graph=program, config=plain_run()) as session:
            for index in range(len(images)):
                yield session.run(fetches, {f"{source}:0": images[index : index + 1]})


def _end(graph: Graph, node: Node) -> Node:
    """The last of an operator, its bias and its ReLU, which TFLite fuses; a scale behind it goes into its kernel."""
    end = node
    user = graph.only_user(node)
    if user is not None and user.op == AFFINE:
        kernel = np.asarray(graph.constant(node.inputs[1]), np.float64)
        # A depthwise kernel is [KH, KW, C, M] for outputs C * M.
        scale = user.scale.reshape(kernel.shape[2:]) if node.op == "DepthwiseConv2dNative" else user.scale
        node.inputs[1] = graph.add_constant(f"{node.name}/scaled", (kernel * scale).astype(np.float32)).name
        user.scale = np.ones_like(user.scale)
        end, user = user, graph.only_user(user)
    if user is not None and user.op in _ACTIVATIONS:
        end = user
    return end


def _ranges(graph: Graph, tensors: list[str], images: np.ndarray) -> list[tuple[float, float]]:
    """For each tensor the lowest and the highest value of all images, but for each image's outliers; 0 is within."""
    share = (_LEFT_OUT_PERCENT, 100 - _LEFT_OUT_PERCENT)
    low, high = np.zeros(len(tensors)), np.zeros(len(tensors))
    for values in _each(graph, tensors, images):
        found = np.array([np.percentile(value, share) for value in values])
        low, high = np.minimum(low, found[:, 0]), np.maximum(high, found[:, 1])
    if not np.all(np.isfinite([low, high])):
        raise ConversionError("a calibration image gives numbers that are not finite", "Look at the network's weights")
    return [(float(least), float(max(most, least + _SMALLEST))) for least, most in zip(low, high, strict=True)]


def _range_of(graph: Graph, tensor: str) -> Node | None:
    """The node that rounds a tensor, or what it was pooled or reshaped from."""
    node = graph[tensor]
    while node.op in _SAME_SCALE:
        node = graph[node.inputs[0]]
    return node if node.op.startswith(_FAKE) else None


def _round_constants(graph: Graph, node: Node) -> None:
    """Rounds a kernel to int8, and the bias behind it to int32 of the product of the two scales, as TFLite does."""
    name = node.inputs[1]
    if graph[name].op.startswith(_FAKE):
        return
    kernel = np.abs(np.asarray(graph.constant(name)))
    per_channel = node.op == KERNELS[0]
    most = np.maximum(kernel.max(axis=tuple(range(kernel.ndim - 1)) if per_channel else None), _SMALLEST)
    node.inputs[1] = _fake(graph, name, -most, most, narrow=True).name
    bias, rounded = graph.only_user(node), _range_of(graph, node.inputs[0])
    if bias is not None and bias.op == AFFINE and rounded is not None:
        low, high = (float(graph.constant(tensor)) for tensor in rounded.inputs[1:])  # type: ignore[arg-type]
        step = (high - low) / (2**_BITS - 1) * most.astype(np.float64) / (2 ** (_BITS - 1) - 1)
        bias.shift = np.rint(bias.shift / step) * step


def _round_for(graph: Graph, users: Sequence[tuple[Node, int]], tensor: str, bounds: tuple[float, float]) -> None:
    """Lets users, and the inputs by which they read `tensor`, read it rounded."""
    fake = _fake(graph, tensor, *bounds)
    for user, index in users:
        user.inputs[index] = fake.name


def _fake(
    graph: Graph, tensor: str, low: np.ndarray | float, high: np.ndarray | float, *, narrow: bool = False
) -> Node:
    """A new node that rounds `tensor` as int8 would; with arrays as range, for each of its last axis."""
    source = graph[tensor]
    # A second output's name has a colon, which a node's name must not.
    name = tensor.replace(":", "/")
    low, high = np.asarray(low, np.float32), np.asarray(high, np.float32)
    inputs = [tensor, graph.add_constant(f"{name}/low", low).name, graph.add_constant(f"{name}/high", high).name]
    op = f"{_FAKE}PerChannel" if low.ndim else _FAKE
    definition = tf.compat.v1.NodeDef(name=f"{name}/int8", op=op, input=inputs)
    definition.attr["num_bits"].i = _BITS
    definition.attr["narrow_range"].b = narrow
    return graph.add(Node(definition.name, op, inputs, source.dtype, source.shape, definition, pure=True))
