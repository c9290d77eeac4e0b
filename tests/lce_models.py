"""Small networks that LCE has converted, over all that its operators can be told, and what LCE answers for them.

The same ones try the runtime on every processor. Between the binary operators stand only stock ones whose result does
not depend on the order of additions (ADD, MUL, PRELU, MAX_POOL_2D), so that answers can be compared bit for bit, also
between processors.
"""

from __future__ import annotations

import functools
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np

from bssl_tf.backend import keras, lq, tf
from bssl_tf_converters.lce import converter as lce
from bssl_tf_deploy.quiet import captured_output

layers = keras.layers

# Seed of the random networks of the normal tests; any other one gives others.
SEED = 20211015

Padding = Literal["one", "zero", "valid"]
Tail = Literal["", "norm", "relu-norm", "relu6-norm", "relu-n1-norm", "relu", "norm-prelu", "prelu-norm", "zero-norm"]
After = Literal["", "add", "add-relu6", "twin", "mul", "scale", "gate", "shift", "sub", "concat", "pool", "sign"]


@dataclass(frozen=True)
class Block:
    """One binary convolution and what follows it.

    Attributes:
        channels: that it makes.
        kernel: height and width.
        padding: same padding with 1 or 0, or none.
        tail: activation and batch norm that follow. `zero-norm` has some scales of 0.
        after: what follows these: an addition of the block's input (`add`, where the shapes agree), a sum of two
            convolutions of the same bits (`twin`), a product with a constant for each channel (`mul`) or for all
            (`scale`), with the largest value of each image and channel (`gate`), PReLU between two shifts (`shift`),
            differences with a constant on either side (`sub`), the block's input beside it (`concat`), a max-pool of
            2 with stride 2 (`pool`), or a sign whose result is also used as floats (`sign`).
    """

    channels: int
    kernel: tuple[int, int] = (3, 3)
    stride: int = 1
    dilation: int = 1
    padding: Padding = "one"
    groups: int = 1
    tail: Tail = "norm"
    after: After = ""


@dataclass(frozen=True)
class Network:
    """A network of blocks, one after another.

    Attributes:
        name: unique; that of a random one holds its seed.
        image: height, width and channels of the input.
        batch: images to try.
        int8: quantised throughout, input and output too.
        other_sizes: heights and widths that the converted network is to be resized to.
        pool_first: sign and max-pool before the first block, which LCE does on bits that it turns back into floats.
        reference: whether LCE's reference kernel takes it; it refuses padding with 0 of odd numbers of channels.
    """

    name: str
    blocks: tuple[Block, ...]
    image: tuple[int, int, int] = (6, 7, 40)
    batch: int = 2
    int8: bool = False
    other_sizes: tuple[tuple[int, int], ...] = ()
    pool_first: bool = False
    reference: bool = True

    @property
    def seed(self) -> int:
        """Of its weights and images; it depends on the name only."""
        return zlib.crc32(self.name.encode())

    @property
    def zero_padded(self) -> bool:
        """Whether some convolution may pad with 0."""
        return any(block.padding == "zero" for block in self.blocks)


@dataclass(frozen=True, eq=False)
class Case:
    """A converted network and images for it.

    Attributes:
        name: of the network, and the image size where it is not the network's own.
        network: what was converted.
        content: TFLite flatbuffer for batches of one, of the image size `images.shape[1:3]`.
        original: the flatbuffer to run and to resize: `content` itself unless the size is another one.
        images: float32 or int8 [B, H, W, C].
    """

    name: str
    network: Network
    content: bytes
    original: bytes
    images: np.ndarray

    @property
    def resized(self) -> bool:
        """Whether `original` is for another image size."""
        return self.content is not self.original


def written_networks() -> list[Network]:
    """The networks that are written down: each option at least once, and what goes wrong easily."""
    b = Block
    return [
        Network("plain", (b(32, tail=""),), (5, 5, 32), other_sizes=((1, 1), (9, 4))),
        Network("odd channels", (b(70),), (6, 7, 33), batch=3),
        Network("few channels", (b(5),), (6, 7, 3)),
        Network("many channels", (b(129),), (4, 5, 160)),
        Network("valid", (b(33, padding="valid"),), (6, 7, 70), other_sizes=((3, 3), (8, 5))),
        Network("zero", (b(33, padding="zero"),), (6, 7, 70), other_sizes=((2, 9),)),
        Network("zero odd channels", (b(40, padding="zero"),), (6, 7, 33), reference=False),
        Network("zero unscaled", (b(16, padding="zero", tail=""),), (5, 6, 64)),
        Network("1x1", (b(17, (1, 1)),), (5, 6, 160)),
        Network("1x1 stride 2", (b(40, (1, 1), stride=2),), (7, 6, 64)),
        Network("5x5", (b(64, (5, 5)),), (8, 7, 40)),
        Network("5x5 larger than the image", (b(24, (5, 5)), b(24, (5, 5), padding="zero")), (3, 2, 33)),
        Network("1x3 and 3x1", (b(48, (1, 3)), b(33, (3, 1), tail="relu-norm")), (6, 7, 32)),
        Network("stride 2", (b(40, stride=2),), (7, 8, 40), other_sizes=((8, 9),)),
        Network("stride 2 valid", (b(40, stride=2, padding="valid"),), (7, 8, 40)),
        Network("stride 2 zero", (b(40, stride=2, padding="zero"),), (8, 7, 40)),
        Network("stride 3", (b(40, stride=3),), (10, 11, 32)),
        Network("dilation", (b(40, dilation=2),), (8, 9, 33)),
        Network("dilation valid", (b(40, dilation=2, padding="valid"),), (8, 9, 33)),
        Network("dilation zero", (b(40, dilation=3, padding="zero"),), (8, 9, 34)),
        Network("groups", (b(32, groups=2),), (6, 5, 64)),
        Network("groups of 3", (b(33, groups=3, tail="relu-norm"),), (6, 5, 96)),
        Network("groups zero", (b(64, groups=4, padding="zero"),), (6, 5, 128)),
        Network("relu", (b(40, tail="relu"),), (6, 7, 64)),
        Network("relu norm", (b(40, tail="relu-norm"),), (6, 7, 64)),
        Network("relu6 norm", (b(40, tail="relu6-norm"),), (6, 7, 64)),
        Network("relu n1 norm", (b(40, tail="relu-n1-norm"),), (6, 7, 64)),
        Network("zero relu norm", (b(40, padding="zero", tail="relu-norm"),), (6, 7, 64)),
        Network("norm prelu", (b(40, tail="norm-prelu"),), (6, 7, 40)),
        Network("prelu norm add", (b(40, tail="prelu-norm", after="add"),), (6, 7, 40)),
        Network("residual", (b(64, after="add"), b(64, tail="relu-norm", after="add")), (14, 15, 64), batch=3),
        Network("residual of odd channels", (b(70, after="add"), b(70, (5, 5), after="add")), (6, 5, 70)),
        Network("residual zero", (b(70, padding="zero", after="add"), b(70, (5, 5), after="add-relu6")), (6, 5, 70)),
        Network("add relu6", (b(40, after="add-relu6"), b(40, after="add-relu6")), (6, 7, 40), other_sizes=((5, 9),)),
        Network("twin", (b(40, after="twin"), b(70, after="twin")), (6, 7, 40)),
        Network("product", (b(33, after="mul"), b(16)), (6, 5, 40)),
        Network("scale after prelu", (b(33, tail="norm-prelu", after="scale"), b(16)), (6, 5, 40)),
        Network("gate", (b(33, after="gate"), b(33, after="gate")), (6, 5, 40), batch=3),
        Network("shift", (b(40, after="shift"), b(40, after="shift")), (6, 7, 40)),
        Network("shift and residual", (b(64, after="add"), b(64, after="shift"), b(64, after="add")), (9, 7, 64)),
        Network("sub", (b(40, after="sub"), b(33, after="sub")), (6, 7, 40)),
        Network("concat", (b(33, after="concat"), b(32, after="concat"), b(16)), (6, 7, 31)),
        Network("chain", (b(33), b(70), b(16, tail="")), (6, 7, 40), batch=3, other_sizes=((4, 9),)),
        Network("chain wide", (b(64), b(64, tail="relu-norm"), b(128), b(64)), (6, 7, 64)),
        Network("chain valid", (b(33, padding="valid"), b(70, (1, 1)), b(16, padding="valid")), (7, 8, 40)),
        Network("chain zero", (b(34, padding="zero"), b(70, padding="zero"), b(16)), (6, 7, 40)),
        Network("chain stride", (b(40, stride=2), b(64, dilation=2), b(16)), (9, 10, 40)),
        Network("chain groups", (b(64, groups=2), b(64, groups=2), b(16)), (5, 6, 64)),
        Network("chain of no scale", (b(40, tail="zero-norm"), b(16)), (6, 7, 40)),
        Network("max-pool", (b(33, after="pool"), b(70, after="pool"), b(16)), (12, 13, 40), other_sizes=((10, 9),)),
        Network("max-pool of bits", (b(33),), (7, 8, 40), pool_first=True),
        Network("sign", (b(70, after="sign"), b(16)), (6, 7, 40)),
        Network("int8", (b(33),), (6, 7, 40), int8=True),
        Network("int8 relu", (b(33, tail="relu-norm"),), (6, 7, 64), int8=True),
        Network("int8 zero", (b(33, padding="zero"),), (6, 7, 40), int8=True),
        Network("int8 chain", (b(70), b(33, stride=2), b(16)), (6, 7, 40), int8=True),
        Network("int8 max-pool", (b(70, after="pool"), b(16)), (6, 7, 40), int8=True),
        Network("int8 sign", (b(70, after="sign"), b(16)), (6, 7, 40), int8=True),
        Network("int8 1x1", (b(129, (1, 1)), b(40, (1, 1), tail="relu-norm")), (5, 4, 32), batch=3, int8=True),
        # Enough rows for several threads and tiles, and a rest.
        Network("tall", (b(64), b(40, after="shift")), (37, 23, 64), batch=1),
    ]


def random_network(seed: int) -> Network:
    """A network drawn with `seed`; its name says so."""
    rng = np.random.default_rng(seed)

    def pick(*choices: Any) -> Any:
        return choices[rng.integers(len(choices))]

    int8 = bool(rng.random() < 0.25)
    channels = inputs = int(pick(*range(32, 161), 32, 64, 96, 128, 160, 33, 70, 7))
    height, width = int(rng.integers(1, 13)), int(rng.integers(1, 13))
    image = (height, width, inputs)
    blocks = []
    for _ in range(int(rng.integers(1, 4))):
        kernel = (int(pick(1, 3, 3, 3, 5, 2)), int(pick(1, 3, 3, 3, 5, 4)))
        stride, dilation = pick((1, 1), (1, 1), (1, 1), (2, 1), (1, 2), (3, 1))
        # LCE's reference kernel, which is exact, pads odd numbers of channels with 1 or -1 only.
        padding = pick("one", "one", "valid", "one" if channels % 2 else "zero")
        spans = [(size - 1) * dilation + 1 for size in kernel]
        if padding == "valid" and (spans[0] > height or spans[1] > width):
            padding = "one"
        groups = int(pick(1, 1, 1, 2, 3)) if channels % 32 == 0 else 1
        if channels % (32 * groups) != 0:
            groups = 1
        made = int(pick(channels, rng.integers(1, 140), 32, 64))
        made = -(-made // groups) * groups
        if padding == "valid":
            height, width = height - spans[0] + 1, width - spans[1] + 1
        height, width = -(-height // stride), -(-width // stride)
        tails: list[Tail] = ["", "norm", "norm", "norm", "relu", "relu-norm", "zero-norm"]
        # Stock int8 operators between the binary ones round, and each version its own way.
        if not int8:
            tails += ["relu6-norm", "relu-n1-norm", "norm-prelu", "prelu-norm"]
        afters: tuple[After, ...] = ("", "", "", "pool") if int8 else ("", "", "add", *get_args(After))
        after = pick(*afters)
        if after == "pool":
            height, width = -(-height // 2), -(-width // 2)
        blocks.append(Block(made, kernel, stride, dilation, padding, groups, pick(*tails), after))
        channels = made + channels if after == "concat" and stride == 1 and padding != "valid" else made
    return Network(f"random {seed}", tuple(blocks), image, int(rng.integers(1, 4)), int8)


def cases(networks: list[Network]) -> Iterator[Case]:
    """Converts `networks`: half a second to a second each, and again for each of the other sizes."""
    for network in networks:
        content = _convert(network, network.image[:2])
        yield Case(network.name, network, content, content, _images(network, network.image[:2]))
        for height, width in network.other_sizes:
            other = _convert(network, (height, width))
            name = f"{network.name} resized to {height}x{width}"
            yield Case(name, network, other, content, _images(network, (height, width)))


@functools.cache
def small_models(random: int = 14) -> tuple[Case, ...]:
    """The networks of the normal tests: those that are written down, and `random` random ones."""
    return tuple(cases(written_networks() + [random_network(SEED + i) for i in range(random)]))


def lce_outputs(case: Case, *, reference: bool, threads: int = 1) -> np.ndarray:
    """What LCE's own interpreter answers, image by image, without XNNPACK.

    Args:
        case: network and images.
        reference: its reference kernel, which counts in integers; else its fastest, indirect_bgemm.
        threads: of the interpreter.

    Returns:
        float32 or int8 [B, ...].
    """
    interpreter = lce._interpreter_wrapper().LiteInterpreter(case.content, threads, reference, not reference, False)
    return np.concatenate([interpreter.predict([image[np.newaxis]])[0] for image in case.images])


@functools.cache
def expected(case: Case) -> tuple[np.ndarray, float]:
    """The right answer, and how far another one may be from it: 0.0 where every bit has to agree.

    LCE's reference kernel is exact (tests/deploy/native/test_parity.py gives the reason); where it refuses the network,
    the fastest kernel answers, whose correction for padding with 0 is rounded.
    """
    reference = case.network.reference
    return lce_outputs(case, reference=reference), 0.0 if reference else 1e-3


def _images(network: Network, size: tuple[int, int]) -> np.ndarray:
    shape = (network.batch, *size, network.image[2])
    rng = np.random.default_rng(network.seed)
    if network.int8:
        # Every value, the zero point and its neighbours among them.
        return rng.integers(-128, 128, shape).astype(np.int8)
    images = rng.normal(0, 1, shape).astype(np.float32)
    # sign(0) = sign(-0.0) = +1. No subnormal numbers: LCE's interpreter takes them for zeros, stock ones do not.
    special = np.array([0.0, -0.0, 1e-37, -1e-37, 1e-7, -1e-7], np.float32)
    places = rng.random(shape) < 0.2
    images[places] = rng.choice(special, int(places.sum()))
    return images


class _Frozen:
    """What `lce.convert` needs of a Keras model, with constants for variables.

    Saving a Keras model with its layers takes five times as long as the conversion, and LCE sees none of them.
    """

    def __init__(self, model: Any) -> None:
        from tensorflow.python.framework.convert_to_constants import convert_variables_to_constants_v2

        self.name, self.inputs, self.outputs, self.weights = model.name, model.inputs, model.outputs, ()
        image = tf.TensorSpec((1, *model.inputs[0].shape[1:]), tf.float32)
        function = tf.function(lambda image: model(image, training=False), input_signature=[image])
        with captured_output():
            self._frozen = convert_variables_to_constants_v2(function.get_concrete_function())

    def __call__(self, image: Any, training: bool = False) -> Any:
        return self._frozen(image)[0]


def _convert(network: Network, size: tuple[int, int]) -> bytes:
    keras.backend.clear_session()
    rng = np.random.default_rng(network.seed)
    image = keras.Input((*size, network.image[2]))
    x = _quantised(image, -2.5, 3.5) if network.int8 else image
    if network.pool_first:
        x = layers.MaxPool2D(2)(layers.Activation(lq.math.sign)(x))
    for block in network.blocks:
        x = _block(x, block, network.int8, rng)
    content = lce.convert(_Frozen(keras.Model(image, x, name="network")), "arm64", fold=False)
    if network.int8:
        from larq_compute_engine.mlir.python.util import modify_integer_quantized_model_io_type

        content = modify_integer_quantized_model_io_type(
            content, inference_input_type=tf.int8, inference_output_type=tf.int8
        )
    return content


def _block(x: Any, block: Block, int8: bool, rng: np.random.Generator) -> Any:
    before = x
    fan_in = int(np.prod(block.kernel)) * int(x.shape[-1]) // block.groups
    x = _convolution(before, block, rng)
    for part in block.tail.replace("relu-n1", "relu_n1").replace("zero-norm", "zero_norm").split("-"):
        x = _tail(x, part, fan_in, rng)
    if int8:
        x = _quantised(x, -4.0, 5.0) if "norm" in block.tail else _quantised(x, -fan_in, 1.1 * fan_in)
    return _after(x, before, block, int8, rng)


def _convolution(x: Any, block: Block, rng: np.random.Generator) -> Any:
    convolution = lq.layers.QuantConv2D(
        block.channels,
        block.kernel,
        strides=block.stride,
        dilation_rate=block.dilation,
        padding="valid" if block.padding == "valid" else "same",
        pad_values=1.0 if block.padding == "one" else 0.0,
        groups=block.groups,
        use_bias=False,
        # ste_sign without its gradient, which cannot be frozen.
        input_quantizer=lq.math.sign,
        kernel_quantizer=lq.math.sign,
        kernel_constraint="weight_clip",
    )
    x = convolution(x)
    convolution.set_weights([rng.choice([-1.0, 1.0], convolution.get_weights()[0].shape)])
    return x


def _after(x: Any, before: Any, block: Block, int8: bool, rng: np.random.Generator) -> Any:
    def per_channel() -> Any:
        return tf.constant(rng.uniform(-1.5, 1.5, int(x.shape[-1])).astype(np.float32))

    if block.after in ("add", "add-relu6") and x.shape == before.shape:
        x = layers.Add()([x, before])
        return tf.nn.relu6(x) if block.after == "add-relu6" else x
    if block.after == "twin":
        return layers.Add()([x, _tail(_convolution(before, block, rng), "norm", 100, rng)])
    if block.after == "mul":
        return x * per_channel()
    if block.after == "scale":
        return x * 0.7
    if block.after == "gate":
        return x * tf.reduce_max(x, axis=(1, 2), keepdims=True)
    if block.after == "shift":
        return _tail(layers.Add()([x, before]) if x.shape == before.shape else x, "shift", 0, rng)
    if block.after == "sub":
        return per_channel() - tf.nn.relu(x - per_channel())
    if block.after == "concat" and x.shape[1:3] == before.shape[1:3]:
        return layers.Concatenate()([x, before])
    if block.after == "pool":
        return layers.MaxPool2D(2, padding="same")(x)
    if block.after == "sign":
        # A pool of the signs as floats makes LCE turn its bits back.
        signs = layers.Activation(lq.math.sign)(x)
        return layers.MaxPool2D(3, 1, padding="same")(_quantised(signs, -1.0, 1.0) if int8 else signs)
    return x


def _tail(x: Any, part: str, fan_in: int, rng: np.random.Generator) -> Any:
    width = int(x.shape[-1])
    if part == "relu":
        return tf.nn.relu(x)
    if part == "relu6":
        return tf.nn.relu6(x)
    if part == "relu_n1":
        return tf.minimum(tf.maximum(x, -1.0), 1.0)
    if part == "prelu":
        prelu = layers.PReLU(shared_axes=[1, 2])
        x = prelu(x)
        prelu.set_weights([rng.uniform(-0.5, 1.0, (1, 1, width))])
        return x
    if part == "shift":
        low, high = rng.normal(0, 1, (2, width)).astype(np.float32)
        return _tail(x + tf.constant(low), "prelu", fan_in, rng) + tf.constant(high)
    if part in ("norm", "zero_norm"):
        norm = layers.BatchNormalization()
        x = norm(x)
        gamma = rng.uniform(0.5, 1.5, width) * rng.choice([1, 1, -1], width)
        if part == "zero_norm":
            gamma[::3] = 0.0
        # Means that sums of +-1 hit exactly, with no shift on half of the channels: the next sign sees exact zeros.
        mean = 2.0 * np.round(rng.normal(0, np.sqrt(fan_in) / 2, width) / 2) + fan_in % 2
        beta = rng.normal(0, 0.5, width) * rng.integers(0, 2, width)
        norm.set_weights([gamma, beta, mean, fan_in * rng.uniform(0.5, 2.0, width)])
        return x
    assert part == ""
    return x


def _quantised(x: Any, low: float, high: float) -> Any:
    return tf.quantization.fake_quant_with_min_max_vars(x, low, high)
