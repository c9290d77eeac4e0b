"""The same network with quantisers on or off, for multi-stage training."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from bssl_tf.backend import functional_model, keras, lq, tf
from bssl_tf.errors import NetworkError, first_line
from bssl_tf.quantizers import Rectifier

# What quantises weights in a larq layer, and what clips the latent weights that it sees.
_OF_WEIGHTS = ("kernel", "depthwise", "pointwise")
# Their values are sign(w) times one number for each output channel.
_SIGNS = (
    lq.quantizers.ApproxSign,
    lq.quantizers.MagnitudeAwareSign,
    lq.quantizers.SteSign,
    lq.quantizers.SwishSign,
)
_CLIPS = ("WeightClip", "weight_clip")


def binary_layers(model: keras.Model) -> list[keras.layers.Layer]:
    """The layers of `model` meant to be 1-bit: those with both an input and a kernel quantiser."""
    return [
        layer
        for layer in model.submodules
        if getattr(layer, "input_quantizer", None) is not None and getattr(layer, "kernel_quantizer", None) is not None
    ]


def quantizes_weights(model: keras.Model) -> bool:
    """Whether any layer of `model`, at any depth, has a quantiser of weights, of whatever kind."""
    return any(
        getattr(layer, f"{part}_quantizer", None) is not None for layer in model.submodules for part in _OF_WEIGHTS
    )


def sign_kernels(model: keras.Model) -> list[tf.Variable]:
    """The kernels of 1-bit layers that are used as signs and one scale for each output channel, and nothing else."""
    return [layer.kernel for layer in binary_layers(model) if isinstance(layer.kernel_quantizer, _SIGNS)]


def binarize(model: keras.Model, *, weights: bool) -> keras.Model:
    """A copy of a binary network with its weights still binary, or back in float (activations stay 1-bit).

    This is the step of multi-stage training (S2-BNN, section 3.1, "progressive binarisation"): stage 1 binarises
    activations only, stage 2 starts from its weights and binarises them too. Weights are copied. Quantisers of other
    kinds go off and on alike, and those of activations stay.

    Args:
        model: a functional model of larq layers with all quantisers in place; models may be among its layers.
        weights: False takes the weights' quantisers (and the clipping that belongs to them) away.
    """

    def clone(layer: keras.layers.Layer) -> keras.layers.Layer:
        if isinstance(layer, functional_model()):
            return keras.models.clone_model(layer, clone_function=clone)
        config = layer.get_config()
        return type(layer).from_config(config if weights else _everywhere(config, _without_quantizers))

    return copy_of(model, clone)


def float_twin(model: keras.Model) -> keras.Model:
    """A copy of a binary network in which nothing is quantised, to see what binarisation costs. Weights are copied.

    The layers are the same. A ReLU takes the place of each sign of activations: without it a network of convolutions
    and batch norms would hardly be more than linear. Where signs were padded with ones, these are padded with zeros.

    Args:
        model: see `binarize`.
    """

    def clone(layer: keras.layers.Layer) -> keras.layers.Layer:
        if isinstance(layer, functional_model()):
            return keras.models.clone_model(layer, clone_function=clone)
        if isinstance(layer, lq.quantizers.Quantizer):
            return keras.layers.ReLU(name=layer.name)
        return type(layer).from_config(_everywhere(layer.get_config(), _in_float))

    return copy_of(model, clone)


def copy_of(model: keras.Model, clone: Callable[[keras.layers.Layer], keras.layers.Layer] | None = None) -> keras.Model:
    """A second network with the weights of `model` in variables of its own; `clone` makes each layer's counterpart.

    Raises:
        NetworkError: it has layers that Keras cannot copy.
    """
    try:
        copy = keras.models.clone_model(model, clone_function=clone)
    # Classes of somebody else, and what Keras makes of settings that it does not understand, raise what they like.
    except Exception as error:
        raise NetworkError(
            f"the layers of {model.name} cannot be copied ({type(error).__name__}: {first_line(error)})",
            "Give its own layers and quantisers get_config, and register their classes with "
            "keras.utils.register_keras_serializable",
        ) from error
    take_weights(copy, model)
    return copy


def take_weights(model: keras.Model, source: keras.Model) -> None:
    """Gives `model` the weights of `source`, a network of the same layers.

    Where only one of them has all its quantisers, those may have weights of their own, such as a learned scale: what
    `source` lacks stays as it is.
    """
    theirs = source.get_weights()
    if [weight.shape for weight in theirs] == [tuple(weight.shape) for weight in model.weights]:
        model.set_weights(theirs)
        return
    named = named_weights(source)
    for name, weight in named_weights(model).items():
        if name in named:
            weight.assign(named[name])


def named_weights(model: keras.Model) -> dict[str, tf.Variable]:
    """The variables of `model` by unique name, in a fixed order.

    A name is that of the layer, after those of the models in the model that it is in, and the weight's own. Keras's
    name for a weight is not enough: it lacks those models, and in some of them the layer.
    """
    paths = dict(_paths(model, ""))
    named: dict[str, tf.Variable] = {}
    for weight in model.weights:
        name = base = paths.get(id(weight), weight.name.removesuffix(":0"))
        number = 1
        # A layer of layers may have two that are called alike.
        while name in named:
            number += 1
            name = f"{base}#{number}"
        named[name] = weight
    return named


def _paths(model: keras.Model, prefix: str) -> Iterator[tuple[int, str]]:
    for layer in model.layers:
        if isinstance(layer, functional_model()):
            yield from _paths(layer, f"{prefix}{layer.name}/")
            continue
        for weight in layer.weights:
            # What may stand before it differs between a layer and its copy.
            yield id(weight), f"{prefix}{layer.name}/{weight.name.removesuffix(':0').rpartition('/')[2]}"


def _everywhere(config: Any, change: Callable[[dict[str, Any]], dict[str, Any]]) -> Any:
    """A layer's settings, and those of layers in it (a wrapper's), each as `change` has it, the innermost first."""
    if isinstance(config, list):
        return [_everywhere(one, change) for one in config]
    if not isinstance(config, dict):
        return config
    return change({key: _everywhere(value, change) for key, value in config.items()})


def _without_quantizers(plain: dict[str, Any]) -> dict[str, Any]:
    """Settings without what quantises weights."""
    for part in _OF_WEIGHTS:
        if plain.get(f"{part}_quantizer") is not None:
            plain[f"{part}_quantizer"] = None
            if _clips(plain.get(f"{part}_constraint")):
                plain[f"{part}_constraint"] = None
    return plain


def _in_float(plain: dict[str, Any]) -> dict[str, Any]:
    """The same, and with a ReLU in place of what quantises a layer's input."""
    plain = _without_quantizers(plain)
    if plain.get("input_quantizer") is not None:
        plain["input_quantizer"] = lq.quantizers.serialize(Rectifier())
        if "pad_values" in plain:
            plain["pad_values"] = 0.0
    return plain


def _clips(constraint: Any) -> bool:
    """Whether a serialised constraint keeps latent weights within the quantiser's reach."""
    name = constraint.get("class_name") if isinstance(constraint, dict) else constraint
    return str(name).rpartition(">")[2] in _CLIPS
