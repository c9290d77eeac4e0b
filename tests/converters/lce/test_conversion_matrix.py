"""Every quantiser of larq on every layer of larq, with every padding, stride and grouping: converted binary and equal,
or refused with the right code. Many cells make one Keras model, so that one conversion covers them all.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from bssl_tf.backend import keras, lq
from bssl_tf_converters.lce import converter as lce
from bssl_tf_converters.lce.checks import BEFORE, Conversion, find_after, find_before

_q = lq.quantizers
QUANTIZERS: dict[str, Callable[[], Any]] = {
    "ste_sign": _q.SteSign,
    "approx_sign": _q.ApproxSign,
    "swish_sign": _q.SwishSign,
    "magnitude_aware_sign": _q.MagnitudeAwareSign,
    "ste_tern": _q.SteTern,
    "ste_tern of TWN": lambda: _q.SteTern(ternary_weight_networks=True),
    "ste_heaviside": _q.SteHeaviside,
    "dorefa, 1 bit": lambda: _q.DoReFa(1),
    "dorefa, 2 bits": lambda: _q.DoReFa(2),
    "dorefa, 1 bit, of weights": lambda: _q.DoReFa(1, mode="weights"),
    "no_op": lambda: _q.NoOp(precision=1),
    "none": lambda: None,
}
# What is expected, cause by cause, written down from LCE's behaviour (tried below) and not from the checks.
CODES_OF_INPUT = {
    "magnitude_aware_sign": {"batch-dependent"},
    "ste_tern": {"ternary-input"},
    "ste_tern of TWN": {"ternary-input", "batch-dependent"},
    "ste_heaviside": {"input-quantizer"},
    "dorefa, 1 bit": {"input-quantizer"},
    "dorefa, 2 bits": {"input-quantizer"},
    "dorefa, 1 bit, of weights": {"input-quantizer"},
    "no_op": {"input-quantizer"},
}
FLOAT_KERNELS = {"ste_tern", "ste_tern of TWN", "ste_heaviside", "dorefa, 1 bit", "dorefa, 2 bits", "no_op"}
KINDS = (
    "QuantConv2D",
    "QuantDense",
    "QuantConv1D",
    "QuantDepthwiseConv2D",
    "QuantSeparableConv2D",
    "QuantConv2DTranspose",
)
CHANNELS, SIZE, FILTERS = 64, 6, 4
WARNINGS = {check.code for check in BEFORE if check.severity == "warning"}


@dataclass(frozen=True)
class Cell:
    """One layer of the matrix; `padding` is valid, same-zero or same-one."""

    kind: str
    input_quantizer: str
    kernel_quantizer: str
    padding: str = "valid"
    stride: int = 1
    groups: int = 1

    def layer(self, number: int) -> Any:
        """The layer `cell{number}`, with weights of its own."""
        settings: dict[str, Any] = {
            "input_quantizer": QUANTIZERS[self.input_quantizer](),
            "use_bias": False,
            "name": f"cell{number}",
        }
        random = keras.initializers.RandomNormal(0, 0.5, seed=number)
        parts = {"QuantDepthwiseConv2D": ["depthwise"], "QuantSeparableConv2D": ["depthwise", "pointwise"]}
        for part in parts.get(self.kind, ["kernel"]):
            settings[f"{part}_quantizer"] = QUANTIZERS[self.kernel_quantizer]()
            settings[f"{part}_initializer"] = random
        if self.kind == "QuantDense":
            return lq.layers.QuantDense(FILTERS, **settings)
        settings |= {"kernel_size": 3, "strides": self.stride, "padding": self.padding.partition("-")[0]}
        if self.kind != "QuantDepthwiseConv2D":
            settings["filters"] = FILTERS
        if self.kind != "QuantConv2DTranspose":
            settings["pad_values"] = 1.0 if self.padding == "same-one" else 0.0
        if self.groups > 1:
            settings["groups"] = self.groups
        return getattr(lq.layers, self.kind)(**settings)

    def expected(self) -> set[str]:
        """The codes of its errors."""
        codes = set(CODES_OF_INPUT.get(self.input_quantizer, ()))
        if "none" in (self.input_quantizer, self.kernel_quantizer):
            # Only half of it is quantised; then it does not matter how.
            return {"half-quantized"} | (codes & {"ternary-input", "batch-dependent"})
        if self.kind != "QuantConv2D":
            return codes | {"layer-kind"}
        return codes | ({"kernel-quantizer"} if self.kernel_quantizer in FLOAT_KERNELS else set())


def matrix() -> list[Cell]:
    """Every cell that larq can build: each quantiser on either side, with a sign on the other."""
    pairs = dict.fromkeys([(name, "ste_sign") for name in QUANTIZERS] + [("ste_sign", name) for name in QUANTIZERS])
    cells = []
    for kind, (of_input, of_kernel) in itertools.product(KINDS, pairs):
        paddings = ["valid"] if kind == "QuantDense" else ["valid", "same-zero", "same-one"]
        if kind == "QuantConv2DTranspose":
            paddings.remove("same-one")
        strides = [1] if kind == "QuantDense" else [1, 2]
        groups = [1, 2] if kind in ("QuantConv2D", "QuantConv1D") else [1]
        for padding, stride, group in itertools.product(paddings, strides, groups):
            cells.append(Cell(kind, of_input, of_kernel, padding, stride, group))
    return cells


def packed(cells: Sequence[Cell]) -> keras.Model:
    """A branch for each cell, called `cell0` and so on; all results behind one another in one output."""
    image = keras.Input((SIZE, SIZE, CHANNELS))
    row = keras.layers.Reshape((SIZE * SIZE, CHANNELS))(image)
    flat = keras.layers.Flatten()(image)
    sources = {"QuantConv1D": row, "QuantDense": flat}
    branches = [cell.layer(n)(sources.get(cell.kind, image)) for n, cell in enumerate(cells)]
    outputs = [keras.layers.Flatten()(branch) for branch in branches]
    return keras.Model(image, keras.layers.Concatenate()(outputs), name="matrix")


def images() -> np.ndarray:
    """Float32 [4, S, S, C]; some within the dead zone of ternary quantisers, some zero, where signs must agree too."""
    drawn = np.random.default_rng(0).normal(0, 1, (4, SIZE, SIZE, CHANNELS)).astype(np.float32)
    drawn[0] *= 0.02
    drawn[1, ::2] = 0
    return drawn


@dataclass(frozen=True)
class Tried:
    """A packed model through LCE with no check in the way; `differences` are relative, one for each cell."""

    conversion: Conversion
    differences: list[float]

    def binary(self) -> set[str]:
        """Names of the layers that became an LceBconv2d."""
        return {layer.name for layer in self.conversion.layers.values()}


def tried(cells: Sequence[Cell], *, fold: bool) -> Tried:
    model = packed(cells)
    converted = lce.convert(model, "arm64", fold=fold)
    # One image at a time, as on the device.
    expected = np.concatenate([model(image[np.newaxis], training=False).numpy() for image in images()])
    got = lce.LceInterpreter(converted).predict(images())
    widths = [int(np.prod(model.get_layer(f"cell{n}").output_shape[1:])) for n in range(len(cells))]
    ends = np.cumsum(widths)[:-1]
    differences = [
        float(np.abs(a - b).max() / np.abs(a).max())
        for a, b in zip(np.split(expected, ends, axis=1), np.split(got, ends, axis=1), strict=True)
    ]
    return Tried(find_after(model, converted)[0], differences)


@functools.cache
def codes() -> dict[Cell, set[str]]:
    """What the checks before conversion find in each cell of the matrix."""
    found = {cell: set[str]() for cell in matrix()}
    # Keras takes more than twice as long to build a model of twice as many layers.
    for start in range(0, len(found), 64):
        cells = matrix()[start : start + 64]
        for finding in find_before(packed(cells)):
            found[cells[int(finding.layer.removeprefix("cell"))]].add(finding.code)
    return found


def test_every_cell_is_accepted_or_refused_with_the_right_code() -> None:
    found = codes()
    assert len(found) > 850
    wrong = {cell: codes for cell, codes in found.items() if codes - WARNINGS != cell.expected()}
    assert not wrong
    # Warnings are for what runs at a price.
    assert all(("groups" in codes) == (cell.groups == 2) for cell, codes in found.items() if not codes - WARNINGS)


def test_every_accepted_cell_is_converted_binary_and_says_what_keras_says() -> None:
    accepted = [cell for cell, codes in codes().items() if not codes - WARNINGS]
    assert len(accepted) == 12 * len({(cell.input_quantizer, cell.kernel_quantizer) for cell in accepted}) == 12 * 7
    result = tried(accepted, fold=True)
    assert result.binary() == {f"cell{n}" for n in range(len(accepted))}
    assert not result.conversion.lost
    # Whole numbers, scaled at the end: exact but for the rounding of the scale.
    assert max(result.differences) < 1e-5


def test_what_is_refused_is_float_or_wrong_in_lce() -> None:
    """One cell for each quantiser and side, and for each kind of layer: the refusals tell the truth."""
    refused = [
        cell
        for cell, codes in codes().items()
        if codes - WARNINGS
        and (cell.padding, cell.stride, cell.groups) == ("valid", 1, 1)
        and (cell.kind == "QuantConv2D" or (cell.input_quantizer, cell.kernel_quantizer) == ("ste_sign", "ste_sign"))
    ]
    assert {code for cell in refused for code in cell.expected()} == {
        "half-quantized", "ternary-input", "batch-dependent", "input-quantizer", "kernel-quantizer", "layer-kind"
    }  # fmt: skip
    result = tried(refused, fold=False)
    for n, cell in enumerate(refused):
        if "ternary-input" in cell.expected():
            assert result.differences[n] > 0.1, cell
        else:
            assert f"cell{n}" not in result.binary(), cell
            assert result.differences[n] < 1e-5, cell


def test_what_depends_on_the_batch_gives_other_numbers_for_one_image() -> None:
    cells = [cell for cell in matrix() if "batch-dependent" in cell.expected() and cell.kind == "QuantDense"]
    model = packed(cells)
    batch = images()
    together, alone = model(batch).numpy(), np.concatenate([model(image[np.newaxis]).numpy() for image in batch])
    width = together.shape[1] // len(cells)
    for n in range(len(cells)):
        part = slice(n * width, (n + 1) * width)
        assert np.abs(together[:, part] - alone[:, part]).max() > 1e-3 * np.abs(alone[:, part]).max(), cells[n]
