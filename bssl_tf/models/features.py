"""What every network here must be: one image in, one vector of features out."""

from __future__ import annotations

from typing import Any

from bssl_tf.backend import functional_model, keras
from bssl_tf.errors import NetworkError

_KERAS_2 = "Build it with Keras 2: `from bssl_tf.backend import keras`, or tf.keras with TF_USE_LEGACY_KERAS=1"
_SOFTMAX = ("Softmax", "softmax")


def require_features(made: Any, name: str, shape: tuple[int, int, int] | None = None) -> keras.Model:
    """`made`, if it is a network.

    Args:
        made: what is said to be one.
        name: for messages.
        shape: of the images that it was to be built for; None where it decides itself.

    Raises:
        NetworkError: it is not a functional Keras 2 model from images [B, S, S, C] float32 to features [B, D] float32;
            what it is instead, and what to change.
    """
    if not isinstance(made, keras.Model):
        kind = type(made)
        raise NetworkError(f"{name} is a {kind.__module__}.{kind.__name__}, not a Keras 2 model", _KERAS_2)
    # Sequential is one too, once it knows its input.
    if not isinstance(made, functional_model()) or not made.inputs:
        raise NetworkError(
            f"{name} is a {type(made).__name__}, whose layers cannot be listed before it is called",
            "Build it as keras.Model(image, features), or as keras.Sequential that begins with keras.Input",
        )
    if len(made.inputs) != 1 or len(made.outputs) != 1:
        raise NetworkError(
            f"{name} has {len(made.inputs)} inputs and {len(made.outputs)} outputs",
            "Build it as keras.Model(image, features), of one image and one vector",
        )
    taken, given = tuple(made.inputs[0].shape[1:]), tuple(made.outputs[0].shape[1:])
    if len(taken) != 3 or taken[0] != taken[1] or taken[2] not in (1, 3):
        raise NetworkError(
            f"{name} takes {_shown(taken)}, not square images of 1 or 3 channels",
            "Begin it with keras.Input((image_size, image_size, channels))",
        )
    if shape is not None and taken != shape:
        raise NetworkError(
            f"{name} takes {_shown(taken)}, and was to be built for {_shown(shape)}",
            "Begin it with keras.Input((image_size, image_size, channels))",
        )
    if len(given) != 1 or given[0] is None:
        raise NetworkError(
            f"{name} gives {_shown(given)}, not one vector of features for each image",
            "End it with keras.layers.GlobalAveragePooling2D(), or with Flatten() where the map is small",
        )
    types = {made.inputs[0].dtype.name, made.outputs[0].dtype.name}
    if types != {"float32"}:
        raise NetworkError(
            f"{name} computes in {', '.join(sorted(types - {'float32'}))}",
            "Build it in float32; --set training.precision=bfloat16 computes faster all the same",
        )
    return made


def ends_in_classes(model: keras.Model) -> bool:
    """Whether the output looks like probabilities of classes, which say less of an image than the features before."""
    last = model.layers[-1]
    activation = getattr(getattr(last, "activation", None), "__name__", "")
    return type(last).__name__ in _SOFTMAX or activation in _SOFTMAX


def _shown(shape: tuple[Any, ...]) -> str:
    """Such as [28, 28, 3], with `any` for what is not fixed."""
    return f"[{', '.join('any' if side is None else str(side) for side in shape)}]"
