"""What several networks share: layers, one choice of quantisers, and how a stem depends on the image size."""

from __future__ import annotations

from collections.abc import Callable
from contextvars import ContextVar
from typing import Any

from bssl_tf.backend import functional_model, keras, lq, tf
from bssl_tf.errors import ConfigError
from bssl_tf.models.binarization import copy_of
from bssl_tf.quantizers import activation_quantizer, kernel_quantizer
from bssl_tf.replicas import gather

SMALLEST_IMAGE = 16
# Whether networks that are made now will normalise by the batch of all devices in training, or each by its part of it.
synchronized_batch_norm: ContextVar[bool] = ContextVar("synchronized_batch_norm", default=True)


def batch_norm(name: str, *, momentum: float = 0.9, epsilon: float = 1e-5) -> keras.layers.Layer:
    """Batch norm with moving averages that settle within a few hundred steps (momentum 0.9, as in PyTorch).

    Within the scope of a `tf.distribute` strategy of several devices it is one for them, `ReplicaBatchNorm`.
    """
    alone = tf.distribute.get_strategy().num_replicas_in_sync == 1
    kind = keras.layers.BatchNormalization if alone else ReplicaBatchNorm
    return kind(momentum=momentum, epsilon=epsilon, name=name)


class ReplicaBatchNorm(keras.layers.BatchNormalization):
    """Batch norm on one of several devices: in training it normalises by the batch of all of them.

    Weights have the names and shapes of Keras' own, and without training nothing is different. Keras' own
    `synchronized=True` is not used: it is lost when a layer is cloned, its moving variance lacks the correction
    n / (n - 1) of batch norm on one device, and its variance, a difference of two means, loses digits.

    Args:
        synchronized: whether the statistics are those of the whole batch, rather than each device's part of it; by
            default as `synchronized_batch_norm` says where the layer is made.
    """

    def __init__(self, *, synchronized: bool | None = None, **options: Any) -> None:
        super().__init__(**options)
        self._whole_batch = synchronized_batch_norm.get() if synchronized is None else synchronized

    def get_config(self) -> dict[str, Any]:
        """Of Keras' own, and `synchronized`."""
        return super().get_config() | {"synchronized": self._whole_batch}

    def add_weight(self, *args: Any, **options: Any) -> Any:
        """Keeps moving averages of the first device; Keras' own has one for each device, to be averaged when read."""
        if options.get("synchronization") == tf.VariableSynchronization.ON_READ:
            options |= {
                "synchronization": tf.VariableSynchronization.AUTO,
                "aggregation": tf.VariableAggregation.ONLY_FIRST_REPLICA,
            }
        return super().add_weight(*args, **options)

    def call(self, inputs: tf.Tensor, training: Any = None, mask: Any = None) -> tf.Tensor:
        """[B / R, ..., C] to the same shape, normalised per channel."""
        if not training or not self.trainable or not self._whole_batch or tf.distribute.in_cross_replica_context():
            return super().call(inputs, training=training)
        axes = list(range(inputs.shape.rank - 1))
        means, variances = tf.nn.moments(tf.cast(inputs, tf.float32), axes)
        replicas = gather(tf.stack([means, variances])[tf.newaxis])
        batch_mean = tf.reduce_mean(replicas[:, 0], axis=0)
        # The parts are equally large, so this is the law of total variance.
        batch_variance = tf.reduce_mean(replicas[:, 1] + tf.square(replicas[:, 0] - batch_mean), axis=0)
        correction = 1.0
        if inputs.shape.rank == 4:  # Keras' own corrects the variance of maps, not that of vectors
            count = tf.cast(tf.reduce_prod(tf.shape(inputs)[:-1]) * tf.shape(replicas)[0], tf.float32)
            correction = count / tf.maximum(count - 1.0, 1.0)
        for moving, value in ((self.moving_mean, batch_mean), (self.moving_variance, batch_variance * correction)):
            moving.assign(moving - (moving - tf.stop_gradient(value)) * (1.0 - self.momentum))
        return tf.nn.batch_normalization(inputs, batch_mean, batch_variance, self.beta, self.gamma, self.epsilon)


def with_replica_batch_norm(model: keras.Model) -> keras.Model:
    """`model` itself on one device, else a copy whose batch norm is one for all devices, as `batch_norm` makes it.

    Networks of users and of other packages have Keras' own. Of these, batch norm of vectors and of maps with channels
    last is replaced.

    Args:
        model: a functional model; models may be among its layers.
    """
    if tf.distribute.get_strategy().num_replicas_in_sync == 1:
        return model

    def clone(layer: keras.layers.Layer) -> keras.layers.Layer:
        if isinstance(layer, functional_model()):
            return keras.models.clone_model(layer, clone_function=clone)
        # Not a subclass, which may do something else.
        if type(layer) is keras.layers.BatchNormalization and _over_channels(layer):
            return ReplicaBatchNorm.from_config(layer.get_config())
        return type(layer).from_config(layer.get_config())

    return copy_of(model, clone)


def built_for_replicas(build: Callable[[], keras.Model], seed: int) -> keras.Model:
    """What `build` gives, `with_replica_batch_norm`; random numbers after it, of a head say, are those of one device.

    Args:
        build: makes a functional model, of random weights perhaps.
        seed: of Keras' random numbers.
    """
    keras.utils.set_random_seed(seed)
    model = build()
    copy = with_replica_batch_norm(model)
    if copy is not model:
        # The copy's layers have drawn weights of their own, which it then did not keep.
        keras.utils.set_random_seed(seed)
        build()
    return copy


def freeze_batch_norm(model: keras.Model) -> None:
    """Takes batch norm, at any depth, out of training: it keeps its weights, and gives what it gives in inference."""
    for layer in model.submodules:
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.trainable = False


def _over_channels(norm: keras.layers.BatchNormalization) -> bool:
    rank = len(norm.get_input_shape_at(0))
    return rank in (2, 4) and list(norm.axis) == [rank - 1]


def binary_conv(
    filters: int, size: int, name: str, *, strides: int = 1, padding: str = "same"
) -> lq.layers.QuantConv2D:
    """A convolution of 1-bit inputs with 1-bit kernels and a scale for each output channel, without bias.

    Same padding pads with ones, which LCE computes fastest: there is no third value beside +1 and -1.
    """
    return lq.layers.QuantConv2D(
        filters,
        size,
        strides=strides,
        padding=padding,
        pad_values=1.0,
        use_bias=False,
        input_quantizer=activation_quantizer(),
        kernel_quantizer=kernel_quantizer(),
        # Latent weights beyond 1 get no gradient from the clipped straight-through estimator; keep them within.
        kernel_constraint="weight_clip",
        name=name,
    )


@keras.utils.register_keras_serializable(package="bssl_tf")
class LearnedShift(keras.layers.Layer):
    """Adds one learned number to each channel, at first 0: [B, H, W, C] to the same shape.

    In front of a sign it is the threshold of RSign, around a PReLU it makes RPReLU (ReActNet, Liu et al., ECCV 2020,
    section 4.2).
    """

    def build(self, input_shape: Any) -> None:
        """Makes the weight `shift`, float32 [C]."""
        self.shift = self.add_weight(name="shift", shape=(int(input_shape[-1]),), initializer="zeros")
        super().build(input_shape)

    def call(self, inputs: tf.Tensor) -> tf.Tensor:
        """inputs + shift."""
        return inputs + self.shift


@keras.utils.register_keras_serializable(package="bssl_tf")
class BlurKernel(keras.initializers.Initializer):
    """A depthwise kernel that blurs: binomial in both directions, its sum 1 for each channel.

    Zhang, Making Convolutional Networks Shift-Invariant Again, ICML 2019, section 3.
    """

    def __call__(self, shape: Any, dtype: Any = None, **kwargs: Any) -> tf.Tensor:
        """The kernel, [K, K, C, 1], as the convolution's `shape` wants it."""
        row = [1.0]
        for _ in range(shape[0] - 1):
            row = [a + b for a, b in zip([0.0, *row], [*row, 0.0], strict=True)]
        line = tf.constant(row, dtype or tf.float32) / sum(row)
        return tf.broadcast_to(tf.tensordot(line, line, 0)[:, :, tf.newaxis, tf.newaxis], shape)


def total_stem_stride(image_size: int) -> int:
    """By how much a stem shrinks the picture: 4 as in the papers from 128 px on, 2 from 64 px on, below that 1.

    So the last map has 4 px a side at 28, 32 and 64 px, where the papers' stems would leave 1 or 2.
    """
    if image_size >= 128:
        return 4
    return 2 if image_size >= 64 else 1


def check_sizes(network: str, image_size: int, width: int, multiple: int = 32) -> None:
    """Raises `ConfigError` for images that are too small, and widths that LCE's kernels would have to fill up."""
    if image_size < SMALLEST_IMAGE:
        raise ConfigError(f"image size {image_size} is too small for {network}", f"Choose {SMALLEST_IMAGE} px or more")
    if width < multiple or width % multiple:
        raise ConfigError(
            f"width {width} is not a multiple of {multiple}", f"Choose {multiple}, {2 * multiple} or {4 * multiple}"
        )
