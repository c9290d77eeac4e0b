"""What the checks need to know of Keras layers: what their quantisers make of numbers, and what feeds them."""

from __future__ import annotations

import functools
import json
import weakref
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from bssl_tf.backend import keras, lq, tf
from bssl_tf_converters.lce.checks.wiring import sources

_LAYERS = keras.layers
# They are gone from a converted network.
TRAINING_ONLY = (
    _LAYERS.Dropout,
    _LAYERS.SpatialDropout1D,
    _LAYERS.SpatialDropout2D,
    _LAYERS.GaussianNoise,
    _LAYERS.GaussianDropout,
    _LAYERS.ActivityRegularization,
)
# Ops that LCE's converter takes away before it looks for signs.
_IDENTITIES = ("Identity", "IdentityN", "StopGradient", "Snapshot", "CheckNumerics")
# LCE takes an element for the scale or its negative when it is within this share of it (IsBinaryFilter in LCE's
# mlir/transforms/prepare_tf.cc), and the first element of each output channel for the scale.
_SCALE_TOLERANCE = 0.005

SignKind = Literal["sign", "unknown sign", "ternary", "other"]


@dataclass(frozen=True)
class Sign:
    """What a function of activations is to LCE.

    Attributes:
        kind: `sign`: LCE makes bits of it. `unknown sign`: it gives only +1 and -1, in a form that LCE does not know.
            `ternary`: LCE makes bits of it, and it gives other numbers too. `other`: float, also for LCE.
        depends_on_batch: whether an image's numbers depend on the other images of its batch.
    """

    kind: SignKind
    depends_on_batch: bool


# Keras looks through every attribute of every layer, a second for a large network, and every check asks.
_LEAVES: weakref.WeakKeyDictionary[keras.Model, list[Any]] = weakref.WeakKeyDictionary()


def leaves(model: keras.Model) -> list[Any]:
    """Every layer of `model`, those of nested models too; quantisers inside layers are layers as well."""
    if model not in _LEAVES:
        _LEAVES[model] = [layer for layer in model.submodules if isinstance(layer, keras.layers.Layer)]
    return _LEAVES[model]


def quantizers(layer: Any) -> dict[str, Any]:
    """The quantisers that are set: attribute name -> quantiser."""
    names = ("input_quantizer", "kernel_quantizer", "depthwise_quantizer", "pointwise_quantizer")
    return {name: value for name in names if (value := getattr(layer, name, None)) is not None}


def quantizer_name(quantizer: Any) -> str:
    """What a user would call it."""
    if isinstance(quantizer, keras.layers.Layer):
        return type(quantizer).__name__
    return getattr(quantizer, "__name__", type(quantizer).__name__)


def quantized_kernel(layer: Any) -> np.ndarray | None:
    """The kernel of a convolution as it convolves, float [KH, KW, I, O]; None where there is no such kernel."""
    variable = getattr(layer, "kernel", None)
    if variable is None or len(variable.shape) != 4:
        return None
    latent = getattr(variable, "latent_variable", variable)
    quantizer = getattr(layer, "kernel_quantizer", None)
    kernel = tf.convert_to_tensor(latent) if quantizer is None else quantizer(tf.convert_to_tensor(latent))
    numbers: np.ndarray = kernel.numpy()
    return numbers


def is_binary_kernel(kernel: np.ndarray) -> bool:
    """Whether LCE takes `kernel`, float [KH, KW, I, O], for signs with one scale for each output channel."""
    scale = kernel[0, 0, 0]
    if np.any(np.abs(scale) <= np.finfo(np.float32).eps):
        return False
    return bool(np.all(np.abs(np.abs(kernel / scale) - 1) <= _SCALE_TOLERANCE))


def sign_of(function: Any, shape: tuple[int | None, ...]) -> Sign | None:
    """What LCE makes of `function`, traced and tried on numbers of all magnitudes; None where that fails.

    Args:
        function: a callable from a float32 tensor to one of the same shape.
        shape: [B, ..., C]; only the rank and C count.
    """
    channels = shape[-1] if len(shape) > 1 else None
    if channels is None:
        return None
    if type(function).__module__ == lq.quantizers.__name__:
        # Each layer has one of its own, and all of one kind do the same.
        config = {key: value for key, value in function.get_config().items() if key != "name"}
        kind: Any = type(function)
        function = _one_like(kind, json.dumps(config, sort_keys=True))
    return _tried(function, (4, *(4 for _ in shape[1:-1]), channels))


@functools.cache
def _one_like(kind: Any, config: str) -> Any:
    return kind(**json.loads(config))


@functools.lru_cache(maxsize=256)
def _tried(function: Callable[[Any], Any], size: tuple[int, ...]) -> Sign | None:
    rng = np.random.default_rng(0)
    numbers = (rng.choice([-1, 1], size) * 10.0 ** rng.uniform(-7, 2, size)).astype(np.float32)
    numbers[0, ..., ::2] = 0
    try:
        traced = tf.function(function).get_concrete_function(tf.TensorSpec(size, tf.float32))
        together = np.broadcast_to(traced(tf.constant(numbers)).numpy(), size)
        alone = function(tf.constant(numbers[:1])).numpy()
    # Anybody's code, made for who knows which tensors; what LCE makes of it is looked at after conversion.
    except Exception:
        return None
    known = _is_known_form(traced.graph.outputs[0])
    binary = bool(np.all(np.abs(together) == 1))
    kind: SignKind = "sign" if known else "unknown sign"
    if not binary:
        kind = "ternary" if known else "other"
    # Rounding may differ with the batch's size.
    return Sign(kind, not np.allclose(np.broadcast_to(alone, (1, *size[1:])), together[:1], rtol=1e-4, atol=1e-6))


def _is_known_form(tensor: Any) -> bool:
    """LCE's own pattern (mlir/transforms/prepare_patterns_common.td): a choice of 1 and -1, or sign(sign(x) + c)."""
    operation = _origin(tensor)
    if operation.type in ("Select", "SelectV2"):
        values = [tf.get_static_value(_origin(value).outputs[0], partial=True) for value in operation.inputs[1:]]
        # `where(..., ones_like(x), -ones_like(x))` is not a constant here, but is one after folding.
        return all(value is None or np.all(np.abs(value) == 1) for value in values)
    if operation.type == "Sign":
        inner = _origin(operation.inputs[0])
        return inner.type == "AddV2" and any(_origin(term).type == "Sign" for term in inner.inputs)
    return False


def _origin(tensor: Any) -> Any:
    while tensor.op.type in _IDENTITIES:
        tensor = tensor.op.inputs[tensor.value_index if tensor.op.type == "IdentityN" else 0]
    return tensor.op


def input_shape(layer: Any) -> tuple[int | None, ...] | None:
    """[B, ..., C] of a layer with one input, as far as it is known."""
    try:
        shape = layer.input_shape
    # Layers of subclassed models, layers called on several shapes.
    except (AttributeError, RuntimeError):
        spec = getattr(layer, "input_spec", None)
        channels = getattr(spec, "axes", {}).get(-1) if spec is not None else None
        return None if channels is None else (None, 4, 4, channels)
    return tuple(shape) if isinstance(shape, tuple) else None


def activation_function(layer: Any) -> Callable[[Any], Any] | None:
    """What a layer without weights does to each number, where that may be a sign; else None."""
    if isinstance(layer, keras.layers.Activation):
        function: Callable[[Any], Any] = layer.activation
        return function
    if isinstance(layer, lq.quantizers.Quantizer):
        return layer
    return None


def way_from_sign(model: keras.Model, layer: Any) -> list[Any] | None:
    """The layers of `model` between an explicit sign and `layer`, nearest last; None where not only signs feed it."""
    return _way_from_sign(model, layer, ())


def _way_from_sign(model: keras.Model, layer: Any, after: tuple[Any, ...]) -> list[Any] | None:
    ways: list[list[Any]] = []
    for source in sources(model, layer):
        # A shared layer may come round to itself.
        if any(source is one for one in after):
            continue
        function, shape = activation_function(source), input_shape(source)
        made = None if function is None or shape is None else sign_of(function, shape)
        if made is not None and made.kind == "sign":
            ways.append([])
            continue
        if getattr(source, "kernel", None) is not None or isinstance(source, (keras.layers.InputLayer, keras.Model)):
            return None
        way = _way_from_sign(model, source, (*after, layer))
        if way is None:
            return None
        ways.append(way if isinstance(source, TRAINING_ONLY) else [*way, source])
    return max(ways, key=len) if ways else None


def binary_layers(model: keras.Model) -> list[Any]:
    """The layers of `model` meant to be 1-bit: a kernel quantiser, and an input quantiser or a sign in front."""
    return [
        layer
        for layer in leaves(model)
        if (present := set(quantizers(layer))) - {"input_quantizer"}
        and ("input_quantizer" in present or way_from_sign(model, layer) is not None)
    ]
