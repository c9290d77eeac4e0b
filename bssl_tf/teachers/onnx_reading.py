"""What an ONNX model says of itself, or lets be seen: which input is the image, its layout, its pixels; which output.

| what | where it is found, in this order |
|---|---|
| layout | sizes of 1 or 3 in the input's shape; the first convolution or transposition after the input |
| pixels | type uint8; metadata (`Image.NominalPixelRange`; `image_mean`, `mean` and `std`); arithmetic |
| output | the only one; the only one with a vector for each image; a usual name |
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from bssl_tf.errors import NetworkError
from bssl_tf.teachers.inputs import PIXELS, Constants
from bssl_tf.teachers.onnx_file import OnnxFile

Layout = Literal["nchw", "nhwc"]
# Of onnx.TensorProto: type -> numpy's.
_TYPES: dict[int, type[np.generic]] = {1: np.float32, 2: np.uint8, 10: np.float16, 11: np.float64}
_RANGES = {"nominalrange_0_255": "0..255", "normalized_0_1": "0..1", "normalized_1_1": "-1..1"}
# As exporters call what belongs to the whole image, the likeliest first.
_USUAL_OUTPUTS = ("image_embeds", "pooler_output", "embeddings", "embedding", "features", "last_hidden_state")
# Registers of a vision transformer besides the class token: DINOv2 has none or four.
_EXTRA_TOKENS = (1, 5)


@dataclass(frozen=True)
class ImageInput:
    """The input that takes images.

    Attributes:
        name: its name.
        dtype: of its numbers.
        batch: images that it takes at once; 0 for any number.
        image_size: pixels a side; 0 for any.
        channels: 1 or 3; 0 where that is not known.
        layout: `nchw` or `nhwc`.
        bgr: whether blue comes first.
    """

    name: str
    dtype: type[np.generic]
    batch: int
    image_size: int
    channels: int
    layout: Layout
    bgr: bool


def find_input(file: OnnxFile, layout: str) -> ImageInput:
    """The input of `file` that takes images.

    Args:
        file: the model.
        layout: `auto`, or what the user said.

    Raises:
        NetworkError: it does not take square images alone, or its layout is not clear.
    """
    graph, path = file.model.graph, file.path
    weights = {tensor.name for tensor in graph.initializer}
    inputs = [one for one in graph.input if one.name not in weights]
    kinds = [one.type.tensor_type for one in inputs]
    shapes = [[_size(dim) for dim in kind.shape.dim] for kind in kinds]
    if len(inputs) != 1 or len(shapes[0]) != 4 or kinds[0].elem_type not in _TYPES:
        taken = ", ".join(f"{one.name} {_shown(shape)}" for one, shape in zip(inputs, shapes, strict=True))
        raise NetworkError(
            f"{path} takes {taken or 'nothing'}, not images alone",
            "Export the part that takes images, with one input [N, 3, S, S] or [N, S, S, 3]",
        )
    [one], [kind], [shape] = inputs, kinds, shapes
    found = _layout(file, one.name, shape) if layout == "auto" else layout
    if found not in ("nchw", "nhwc"):
        raise NetworkError(
            f"{path} takes images {_shown(shape)}, and which axis holds the channels is unclear",
            "Add --teacher-layout nchw (as from PyTorch) or --teacher-layout nhwc (as from TensorFlow)",
        )
    height, width, channels = (shape[2], shape[3], shape[1]) if found == "nchw" else shape[1:]
    sides = {side for side in (height, width) if side}
    if len(sides) > 1 or channels not in (0, 1, 3):
        raise NetworkError(
            f"{path} takes {_shown(shape)} ({found}), not square images of 1 or 3 channels",
            "Export it for square images, or add --teacher-layout if it is the other one",
        )
    bgr = _metadata(file).get("image.bitmappixelformat", "").lower().startswith("bgr")
    return ImageInput(
        one.name,
        _TYPES[kind.elem_type],
        shape[0],
        next(iter(sides), 0),
        channels,
        "nchw" if found == "nchw" else "nhwc",
        bgr,
    )


def find_pixels(file: OnnxFile, image: ImageInput) -> Constants:
    """Mean and std of pixel / 255 that the images are to be normalised by.

    Raises:
        NetworkError: neither the metadata nor the graph shows it.
    """
    if image.dtype is np.uint8:
        return PIXELS["0..255"]
    metadata = _metadata(file)
    named = _RANGES.get(metadata.get("image.nominalpixelrange", "").lower())
    if named is not None:
        return PIXELS[named]
    for prefix in ("image_", ""):
        mean, std = (_numbers(metadata.get(prefix + key, "")) for key in ("mean", "std"))
        if len(mean) == len(std) and len(mean) in (1, 3) and min(std) > 0:
            # Some write them for pixels from 0 to 255.
            unit = 255 if max(*mean, *std) > 2 else 1
            return tuple(one / unit for one in mean), tuple(one / unit for one in std)
    scale = _scale_at_the_head(file, image)
    # What is normalised has numbers of about one: then pixels of 0 to 255 are divided by 255 * 0.1 to 255 * 1.
    if scale is not None and 0.9 / 255 <= scale <= 10 / 255:
        return PIXELS["0..255"]
    if scale is not None and 1.5 <= scale <= 10:
        return PIXELS["0..1"]
    raise NetworkError(
        f"{file.path} does not show how its pixels are scaled",
        "Add --teacher-pixels imagenet (as most of timm, torchvision and DINOv2 want), clip (CLIP), 0..1, -1..1, "
        "0..255, or MEAN/STD as in its training",
    )


def find_output(file: OnnxFile, found: Mapping[str, np.ndarray], said: str) -> str:
    """The name of the output with the features.

    Args:
        file: the model.
        found: what the model gave for a few images, by name.
        said: what the user said; "" to choose.

    Raises:
        NetworkError: there are several, and none is the likely one.
    """
    if said:
        return said
    usable = {name: values for name, values in found.items() if values.ndim in (2, 3, 4) and values.dtype.kind == "f"}
    vectors = [name for name, values in usable.items() if values.ndim == 2]
    usual = [name for name in _USUAL_OUTPUTS if name in usable]
    for choice in (list(usable), vectors, usual[:1]):
        if len(choice) == 1:
            return choice[0]
    given = ", ".join(f"{name} {list(values.shape)}" for name, values in found.items())
    raise NetworkError(
        f"{file.path} gives {given}, and which of them holds the features is unclear",
        f"Name one: --teacher-output {next(iter(usable), 'NAME')}",
    )


def vectors_of(values: np.ndarray, layout: Layout) -> tuple[np.ndarray, str]:
    """One vector for each image, and in a few words how it is made of an output.

    Args:
        values: [N, D], [N, T, D] of T tokens, or a map [N, D, H, W] or [N, H, W, D].
        layout: of the images; a map that could be either has the same.

    Returns:
        float32 [N, D].

    Raises:
        ValueError: it has another shape.
    """
    if values.ndim == 2:
        made, how = values, ""
    elif values.ndim == 3:
        patches = {extra: values.shape[1] - extra for extra in _EXTRA_TOKENS}
        if any(count > 0 and math.isqrt(count) ** 2 == count for count in patches.values()):
            made, how = values[:, 0], f"the first of {values.shape[1]} tokens"
        else:
            made, how = values.mean(1), f"the mean of {values.shape[1]} tokens"
    elif values.ndim == 4:
        first, last = values.shape[2] == values.shape[3], values.shape[1] == values.shape[2]
        axes = (2, 3) if first and (not last or layout == "nchw") else (1, 2)
        made, how = values.mean(axes), f"the mean of a map of {values.shape[axes[0]]} x {values.shape[axes[1]]}"
    else:
        raise ValueError(f"an output of shape {list(values.shape)}")
    return np.ascontiguousarray(made, np.float32), how


def _size(dim: Any) -> int:
    """A static size; 0 for one that is not fixed."""
    return int(dim.dim_value) if dim.WhichOneof("value") == "dim_value" and dim.dim_value > 0 else 0


def _shown(shape: list[int]) -> str:
    return f"[{', '.join(str(size) if size else '?' for size in shape)}]"


def _metadata(file: OnnxFile) -> dict[str, str]:
    return {entry.key.lower(): entry.value for entry in file.model.metadata_props}


def _numbers(text: str) -> tuple[float, ...]:
    return tuple(float(number) for number in re.findall(r"[0-9]*\.?[0-9]+(?:[eE][+-]?[0-9]+)?", text[:200]))


def _layout(file: OnnxFile, name: str, shape: list[int]) -> Layout | None:
    first, last = shape[1] in (1, 3), shape[3] in (1, 3)
    if first != last:
        return "nchw" if first else "nhwc"
    return _Head(file, name).layout


def _scale_at_the_head(file: OnnxFile, image: ImageInput) -> float | None:
    """By what the image is multiplied before anything else happens to it, the mean over channels; None for nothing."""
    return _Head(file, image.name).scale


class _Head:
    """What happens to the image first: arithmetic with constants, casts, transpositions; up to anything else.

    Attributes:
        layout: that a convolution or a transposition shows.
        scale: factor on the image; None without arithmetic.
    """

    def __init__(self, file: OnnxFile, name: str) -> None:
        self.layout: Layout | None = None
        self.scale: float | None = None
        self._constants = _Constants(file)
        # Each step goes to a node further on; a cycle is refused by the runtime, not here.
        for _ in range(len(file.model.graph.node)):
            nodes = file.nodes_of(name)
            if len(nodes) != 1 or not self._step(nodes[0], name) or not len(nodes[0].output):
                return
            name = nodes[0].output[0]

    def _step(self, node: Any, name: str) -> bool:
        """Takes one node into account; whether the next one is to be looked at."""
        kind = node.op_type
        if kind in ("Cast", "Identity"):
            return True
        if kind == "Transpose":
            order = next((list(one.ints) for one in node.attribute if one.name == "perm"), [])
            if self.layout is None:
                self.layout = {(0, 3, 1, 2): "nhwc", (0, 2, 3, 1): "nchw"}.get(tuple(order))  # type: ignore[assignment]
            return True
        if kind in ("Conv", "BatchNormalization", "InstanceNormalization", "QLinearConv", "ConvInteger"):
            self.layout = self.layout or "nchw"
            return False
        if kind not in ("Sub", "Add", "Mul", "Div") or len(node.input) != 2:
            return False
        other = self._constants.value(node.input[1] if node.input[0] == name else node.input[0])
        if other is None or (kind == "Div" and node.input[0] != name) or not np.all(np.isfinite(other)):
            return False
        size = float(np.mean(np.abs(other)))
        factor = {"Mul": size, "Div": 1 / size if size else 1.0}.get(kind, 1.0)
        self.scale = (1.0 if self.scale is None else self.scale) * factor
        return True


class _Constants:
    """Small constants of a graph by name."""

    def __init__(self, file: OnnxFile) -> None:
        graph = file.model.graph
        self._tensors = {tensor.name: tensor for tensor in graph.initializer}
        for node in graph.node:
            for attribute in node.attribute:
                if node.op_type == "Constant" and attribute.name == "value" and len(node.output):
                    self._tensors[node.output[0]] = attribute.t

    def value(self, name: str) -> np.ndarray | None:
        """Of at most three numbers, one for each channel; None where there is none."""
        from onnx import numpy_helper

        tensor = self._tensors.get(name)
        if tensor is None or len(tensor.external_data) or math.prod(tensor.dims) not in (1, 3):
            return None
        try:
            return np.asarray(numpy_helper.to_array(tensor), np.float64)
        except (ValueError, TypeError):
            return None
