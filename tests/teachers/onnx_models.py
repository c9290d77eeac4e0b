"""ONNX files for tests, put together node by node, and a float network written out from Keras's weights."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from bssl_tf.backend import keras

FLOAT, UINT8 = TensorProto.FLOAT, TensorProto.UINT8
Shape = list[int | str | None] | None


def tensor(name: str, values: Any, dtype: Any = np.float32) -> onnx.TensorProto:
    return numpy_helper.from_array(np.asarray(values, dtype), name)


def value(name: str, shape: Shape = None, kind: int = FLOAT) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, kind, shape)


def model(
    nodes: list[onnx.NodeProto],
    inputs: list[onnx.ValueInfoProto],
    outputs: list[onnx.ValueInfoProto],
    weights: list[onnx.TensorProto],
    *,
    domains: tuple[str, ...] = (),
    functions: tuple[onnx.FunctionProto, ...] = (),
    **metadata: str,
) -> onnx.ModelProto:
    graph = helper.make_graph(nodes, "made", inputs, outputs, weights)
    opsets = [helper.make_opsetid("", 17), *(helper.make_opsetid(domain, 1) for domain in domains)]
    made = helper.make_model(graph, opset_imports=opsets, functions=list(functions))
    made.ir_version = 8
    helper.set_model_props(made, {key.replace("__", "."): text for key, text in metadata.items()})
    return made


def save(path: Path, made: onnx.ModelProto) -> Path:
    path.write_bytes(made.SerializeToString())
    return path


class Linear:
    """Mean over each of four quarters of an image, then a matrix: simple enough to be computed with numpy alone."""

    def __init__(self, rng: np.random.Generator, size: int = 8, channels: int = 3, width: int = 5) -> None:
        self.size, self.channels = size, channels
        self.matrix = rng.standard_normal((4 * channels, width)).astype(np.float32)

    def features(self, images: np.ndarray) -> np.ndarray:
        """[B, S, S, C], as the network takes them, to [B, D]."""
        half, count = self.size // 2, len(images)
        quarters = images.reshape(count, 2, half, 2, half, self.channels).mean(axis=(2, 4))
        return quarters.transpose(0, 3, 1, 2).reshape(count, -1) @ self.matrix

    def nodes(self, image: str = "image", output: str = "features") -> list[onnx.NodeProto]:
        half = self.size // 2
        return [
            helper.make_node("AveragePool", [image], ["pooled"], kernel_shape=[half, half], strides=[half, half]),
            helper.make_node("Flatten", ["pooled"], ["flat"]),
            helper.make_node("MatMul", ["flat", "matrix"], [output]),
        ]

    def image(self, batch: int | str = "N", *, last: bool = False, kind: int = FLOAT) -> onnx.ValueInfoProto:
        sides: list[int | str | None] = [self.size, self.size]
        shape = [batch, *sides, self.channels] if last else [batch, self.channels, *sides]
        return value("image", shape, kind)

    def weights(self) -> list[onnx.TensorProto]:
        return [tensor("matrix", self.matrix)]

    def made(
        self, before: list[onnx.NodeProto] | None = None, more: list[onnx.TensorProto] | None = None, **about: Any
    ) -> onnx.ModelProto:
        """The model, with nodes `before` that make `ready` of `image`."""
        nodes = [*(before or []), *self.nodes("ready" if before else "image")]
        given = about.pop("image", self.image())
        return model(nodes, [given], [value("features", ["N", 5])], [*self.weights(), *(more or [])], **about)


def from_keras(network: keras.Model) -> onnx.ModelProto:
    """`float_resnet` as ONNX, in PyTorch's layout, as an exporter would write it: node by node from Keras's layers.

    Padding is Keras's `same`, which puts an odd row at the bottom (SAME_UPPER).
    """
    nodes: list[onnx.NodeProto] = []
    weights: list[onnx.TensorProto] = []
    size, channels = network.input_shape[1], network.input_shape[3]
    for layer in network.layers:
        incoming = layer.inbound_nodes[0].parent_nodes if layer.inbound_nodes else []
        before, name = [node.outbound_layer.name for node in incoming], layer.name
        values = layer.get_weights()
        if isinstance(layer, keras.layers.Conv2D):
            weights.append(tensor(f"{name}.w", values[0].transpose(3, 2, 0, 1)))
            nodes.append(
                helper.make_node(
                    "Conv", [*before, f"{name}.w"], [name], auto_pad="SAME_UPPER", strides=list(layer.strides)
                )
            )
        elif isinstance(layer, keras.layers.BatchNormalization):
            weights += [tensor(f"{name}.{part}", one) for part, one in enumerate(values)]
            parts = [f"{name}.{part}" for part in range(4)]
            nodes.append(helper.make_node("BatchNormalization", [*before, *parts], [name], epsilon=layer.epsilon))
        elif isinstance(layer, keras.layers.ReLU):
            nodes.append(helper.make_node("Relu", before, [name]))
        elif isinstance(layer, keras.layers.Add):
            nodes.append(helper.make_node("Add", before, [name]))
        elif isinstance(layer, keras.layers.MaxPool2D):
            side = list(layer.pool_size)
            nodes.append(
                helper.make_node("MaxPool", before, [name], kernel_shape=side, strides=side, auto_pad="SAME_UPPER")
            )
        elif isinstance(layer, keras.layers.GlobalAveragePooling2D):
            nodes.append(helper.make_node("GlobalAveragePool", before, [f"{name}.map"]))
            nodes.append(helper.make_node("Flatten", [f"{name}.map"], [name]))
        else:
            assert isinstance(layer, keras.layers.InputLayer), name
    last = network.layers[-1].name
    taken = value(network.layers[0].name, ["N", channels, size, size])
    return model(nodes, [taken], [value(last, ["N", network.output_shape[-1]])], weights)
