"""How large a network is and how much it computes; `python -m bssl_tf.models.counts` prints all that are registered.

A MAC is one product and one sum of a convolution or dense layer, counted at every output position, those at the border
too, as the papers do. It is binary where both inputs and kernel are 1-bit; batch norms, additions, pools and scales
are not counted.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from bssl_tf.backend import keras, lq
from bssl_tf.errors import NetworkError
from bssl_tf.models.binarization import binary_layers
from bssl_tf.models.layers import LearnedShift
from bssl_tf.models.registry import BACKBONES, build_backbone

_l = keras.layers
_CONVOLUTIONS = (_l.Conv2D, _l.DepthwiseConv2D, lq.layers.QuantConv2D)
_NOT_COUNTED = (
    *(_l.InputLayer, _l.BatchNormalization, LearnedShift, _l.PReLU, _l.ReLU, _l.Add, _l.Concatenate),
    *(_l.ZeroPadding2D, _l.MaxPooling2D, _l.AveragePooling2D, _l.GlobalAveragePooling2D, _l.Flatten),
)


@dataclass(frozen=True)
class Counts:
    """The size of a network.

    Attributes:
        parameters: all numbers that are stored, moving averages of batch norms and 1-bit weights among them.
        binary_parameters: those of 1 bit.
        binary_macs: multiply-accumulates of 1-bit numbers, for one image.
        float_macs: all other multiply-accumulates, for one image.
    """

    parameters: int
    binary_parameters: int
    binary_macs: int
    float_macs: int


def count(model: keras.Model) -> Counts:
    """Counts a functional model of the layers that the networks here are made of.

    Args:
        model: images of known size, each layer used once.

    Raises:
        NetworkError: a layer of another kind.
    """
    binary = {id(layer) for layer in binary_layers(model)}
    binary_parameters = 0
    macs = {True: 0, False: 0}
    for layer in model.layers:
        if type(layer) in _CONVOLUTIONS:
            positions = math.prod(layer.output_shape[1:3])
        elif type(layer) is _l.Dense:
            positions = math.prod(layer.output_shape[1:-1])
        elif type(layer) in _NOT_COUNTED:
            continue
        else:
            raise NetworkError(
                f"the work of layer {layer.name} ({type(layer).__name__}) is not known",
                "State its cost in bssl_tf/models/counts.py",
            )
        # Channels of a depthwise kernel do not mix, so that its MACs are its size times the positions too.
        kernel = layer.depthwise_kernel if isinstance(layer, _l.DepthwiseConv2D) else layer.kernel
        size = math.prod(kernel.shape)
        macs[id(layer) in binary] += positions * size
        binary_parameters += size if id(layer) in binary else 0
    return Counts(model.count_params(), binary_parameters, macs[True], macs[False])


def table() -> str:
    """All registered networks for colour images, without classifier, as Markdown."""
    lines = [
        "| network | features | parameters (1-bit) | 32 px: binary / float MACs | 224 px: binary / float MACs |",
        "|---|---|---|---|---|",
    ]
    for name in BACKBONES:
        sizes = []
        for image_size in (32, 224):
            keras.backend.clear_session()
            model = build_backbone(name, image_size, 3, {})
            sizes.append((int(model.output_shape[-1]), count(model)))
        parameters = [f"{_short(c.parameters)} ({_short(c.binary_parameters)})" for _, c in sizes]
        features = [str(width) for width, _ in sizes]
        macs = [f"{_short(c.binary_macs)} / {_short(c.float_macs)}" for _, c in sizes]
        cells = [f"`{name}`", *(", ".join(dict.fromkeys(both)) for both in (features, parameters)), *macs]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def _short(number: int) -> str:
    for unit, size in (("G", 10**9), ("M", 10**6), ("k", 10**3)):
        if number >= size:
            return f"{number / size:.3g} {unit}"
    return str(number)


if __name__ == "__main__":
    print(table())
