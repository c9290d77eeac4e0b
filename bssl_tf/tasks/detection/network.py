"""A detector of a binary backbone: a neck that joins its maps, and a head on each of them.

    map of stride s --binary 3x3-->(+)--binary 3x3-->   --binary 3x3--> 1x1: logits of classes
                                    ^ upsampled         --binary 3x3--> 1x1: distances to the sides
                                    from stride 2 s

The way down the maps is that of feature pyramids (Lin et al., CVPR 2017, arXiv 1612.03144), the single stage without
anchors and its two branches that of FCOS (Tian et al., ICCV 2019, arXiv 1904.01355). All convolutions are binary but
the last ones, 1x1; those whose inputs are as wide as their outputs have a real shortcut, as in Bi-Real Net (Liu et al.,
ECCV 2018). Levels do not share weights: batch norm could not be shared, and on a device weights of 1 bit cost little.
"""

from __future__ import annotations

import math

from bssl_tf.backend import keras, tf
from bssl_tf.errors import ConfigError, NetworkError
from bssl_tf.models.feature_maps import feature_maps
from bssl_tf.models.layers import batch_norm, binary_conv

layers = keras.layers

STRIDES = (8, 16, 32)
WIDTH = 128
# Input sides are multiples of it, so that maps of all strides fit.
SIDE_MULTIPLE = 32
# Of any class at the beginning (Lin et al., Focal Loss, ICCV 2017, section 4.1).
_PRIOR = 0.01
# At the beginning a box is four strides across.
_FIRST_LOG_DISTANCE = math.log(2.0)


def detector(backbone: keras.Model, classes: int, *, height: int, width: int, neck_width: int = WIDTH) -> keras.Model:
    """Neck and head, fresh, on the maps of strides 8, 16 and 32 that `backbone` has.

    Args:
        backbone: a network from [B, S, S, C]; its layers are shared, not copied, and those after the maps are not used.
        classes: K.
        height, width: of the detector's input, pixels, multiples of 32; S does not matter.
        neck_width: channels of neck and head, a multiple of 32.

    Returns:
        A model from [B, height, width, C] to a list of `scores_s`, [B, height / s, width / s, K] logits, and `boxes_s`,
        [B, height / s, width / s, 4] (see `bssl_tf_deploy.boxes`), for each stride s, finest first; all float32.

    Raises:
        ConfigError: a size is out of range.
        NetworkError: it has no map of these strides, or one that is smaller than the image over its stride.
    """
    for name, side in (("height", height), ("width", width)):
        if side < SIDE_MULTIPLE or side % SIDE_MULTIPLE:
            raise ConfigError(f"the {name} of a detector's input is {side}", f"Give a multiple of {SIDE_MULTIPLE}")
    if neck_width < 32 or neck_width % 32:
        raise ConfigError(f"the neck of a detector is {neck_width} wide", "Give a multiple of 32")
    if classes < 1:
        raise ConfigError(f"a detector is to find {classes} classes", "Give labelled boxes of at least one class")
    found = feature_maps(backbone)
    strides = [stride for stride in STRIDES if stride in found]
    if not strides:
        raise NetworkError(
            f"{backbone.name} has maps of strides {', '.join(map(str, found))}, and a detector needs 8, 16 or 32",
            "Choose a network with such maps, or larger images",
        )
    image = layers.Input((height, width, backbone.input_shape[-1]), name="image")
    trunk = keras.Model(backbone.input, [found[stride] for stride in strides])
    maps = dict(zip(strides, _on(image, trunk), strict=True))
    for stride, x in maps.items():
        if tuple(x.shape[1:3]) != (height // stride, width // stride):
            raise NetworkError(
                f"the map of stride {stride} of {backbone.name} is {x.shape[1]} x {x.shape[2]} for images of "
                f"{height} x {width}, so that its cells have no known place",
                "Choose a network whose convolutions and pools all pad",
            )
    necks: dict[int, tf.Tensor] = {}
    coarser: int | None = None
    for stride in reversed(strides):
        name = f"neck{stride}"
        x = _binary(maps[stride], neck_width, f"{name}_in")
        if coarser is not None:
            above = layers.UpSampling2D(coarser // stride, interpolation="nearest", name=f"{name}_up")(necks[coarser])
            x = layers.Add(name=f"{name}_join")([x, above])
        necks[stride], coarser = _binary(x, neck_width, f"{name}_out"), stride
    outputs = []
    for stride in strides:
        for part, units, bias in (
            ("scores", classes, -math.log((1 - _PRIOR) / _PRIOR)),
            ("boxes", 4, _FIRST_LOG_DISTANCE),
        ):
            x = _binary(necks[stride], neck_width, f"{part}_{stride}_branch")
            last = layers.Conv2D(
                units,
                1,
                kernel_initializer=keras.initializers.RandomNormal(stddev=0.01),
                bias_initializer=keras.initializers.Constant(bias),
                dtype="float32",
                name=f"{part}_{stride}",
            )
            outputs.append(last(x))
    return keras.Model(image, outputs, name="detector")


def output_names(model: keras.Model) -> tuple[str, ...]:
    """`scores_s` and `boxes_s` of a model of `detector`, in its order."""
    return tuple(model.output_names)


def _on(image: tf.Tensor, trunk: keras.Model) -> list[tf.Tensor]:
    """The outputs of `trunk` on an input of another size, by the same layers."""

    def same(layer: keras.layers.Layer) -> keras.layers.Layer:
        return layer

    copy = keras.models.clone_model(trunk, input_tensors=image, clone_function=same)
    return list(copy.outputs)


def _binary(x: tf.Tensor, filters: int, name: str) -> tf.Tensor:
    y = batch_norm(f"{name}_norm")(binary_conv(filters, 3, f"{name}_conv")(x))
    return layers.Add(name=f"{name}_add")([y, x]) if x.shape[-1] == filters else y
