"""The signs that enter the binary layers of a Keras model, and images for which they are hard to tell.

What a layer takes is noted while the model runs, whatever it is nested in and however often it is called.
"""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from bssl_tf.backend import keras, tf
from bssl_tf_converters.lce.checks.layers import TRAINING_ONLY, activation_function, binary_layers, leaves, sign_of
from bssl_tf_converters.lce.checks.wiring import calls

# Float32 has 24 bits.
_HALVINGS = 24
_PAIRS = 2
# Takes a layer, and input and output of one call of it.
Note = Callable[[Any, Any, Any], None]


@dataclass(frozen=True, eq=False)
class PreActivation:
    """What a binary layer takes the signs of, in one of its calls.

    Attributes:
        layer: the binary layer.
        name: of the layer; of a shared one with the number of the call.
        quantizer: makes signs of it.
        source: the layer whose input it is: `layer` itself, or the sign in front of it.
        call: which call of `source` it is, from 0.
    """

    layer: Any
    name: str
    quantizer: Callable[[Any], Any]
    source: Any
    call: int

    def bits(self, values: np.ndarray) -> np.ndarray:
        """The signs of float `values`, bool, True for +1."""
        signs: np.ndarray = self.quantizer(tf.convert_to_tensor(values)).numpy()
        return signs >= 0


def pre_activations(model: keras.Model) -> list[PreActivation]:
    """Those of the binary layers of `model`, in the order in which they run.

    A layer whose signs are made in front of it has one only where a layer of its own makes them.
    """
    binary = {id(layer): layer for layer in binary_layers(model)}
    looked_at = [layer for layer in leaves(model) if id(layer) in binary or _passes(layer)]
    counts: Counter[int] = Counter()
    # By the id of an output: the sign that made it, and which call of it. `held` keeps ids from being used again.
    signs: dict[int, tuple[Any, int]] = {}
    held: list[Any] = []
    found: list[PreActivation] = []

    def note(layer: Any, taken: Any, given: Any) -> None:
        call = counts[id(layer)]
        counts[id(layer)] += 1
        held.append(given)
        if id(layer) in binary:
            name = layer.name if calls(model, layer) == 1 else f"{layer.name} (call {call + 1})"
            quantizer = getattr(layer, "input_quantizer", None)
            source, number = (layer, call) if quantizer is not None else signs.get(id(taken), (None, 0))
            if source is not None:
                function = activation_function(source) if quantizer is None else quantizer
                assert function is not None
                found.append(PreActivation(layer, name, function, source, number))
        elif isinstance(layer, TRAINING_ONLY):
            if id(taken) in signs:
                signs[id(given)] = signs[id(taken)]
        elif (made := sign_of(activation_function(layer), given.shape)) is not None and made.kind == "sign":
            signs[id(given)] = (layer, call)

    with _noted(looked_at, note):
        model(np.zeros((1, *model.input.shape[1:]), np.float32), training=False)
    return found


def run(
    model: keras.Model, signs: Sequence[PreActivation], images: np.ndarray
) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """What enters at `signs`, float32 [N, H, W, C] each, and the model's outputs, for images [N, S, S, C]."""
    values: dict[tuple[int, int], np.ndarray] = {}
    with _noted(_sources(signs), _keep(signs, values)):
        outputs = tf.nest.flatten(model(images, training=False))
    return [values[id(sign.source), sign.call] for sign in signs], [output.numpy() for output in outputs]


def values_at(model: keras.Model, sign: PreActivation, images: np.ndarray) -> np.ndarray:
    """What enters at `sign`, float32 [N, H, W, C]; the model does not run beyond it."""
    values: dict[tuple[int, int], np.ndarray] = {}
    keep = _keep([sign], values)

    def note(layer: Any, taken: Any, given: Any) -> None:
        keep(layer, taken, given)
        if values:
            raise _Reached

    with contextlib.suppress(_Reached), _noted([sign.source], note):
        model(images, training=False)
    return values[id(sign.source), sign.call]


class _Reached(BaseException):
    """The rest of a network need not run. No `Exception`, because Keras wraps those."""


def _passes(layer: Any) -> bool:
    return activation_function(layer) is not None or isinstance(layer, TRAINING_ONLY)


def _sources(signs: Iterable[PreActivation]) -> list[Any]:
    return list({id(sign.source): sign.source for sign in signs}.values())


def _keep(signs: Iterable[PreActivation], values: dict[tuple[int, int], np.ndarray]) -> Note:
    wanted = {(id(sign.source), sign.call) for sign in signs}
    counts: Counter[int] = Counter()

    def note(layer: Any, taken: Any, given: Any) -> None:
        place = (id(layer), counts[id(layer)])
        counts[id(layer)] += 1
        if place in wanted:
            values[place] = taken.numpy()

    return note


@contextlib.contextmanager
def _noted(layers: Iterable[Any], note: Note) -> Iterator[None]:
    """Lets `note` see each call of `layers` in the block."""
    before = [(layer, vars(layer).get("call")) for layer in layers]
    try:
        for layer, _ in before:
            # Past Keras's own way, which looks for variables in whatever is set.
            object.__setattr__(layer, "call", _noting(layer, layer.call, note))
        yield
    finally:
        for layer, own in before:
            if own is None:
                vars(layer).pop("call", None)
            else:
                object.__setattr__(layer, "call", own)


def _noting(layer: Any, call: Callable[..., Any], note: Note) -> Callable[..., Any]:
    def noting(inputs: Any, *arguments: Any, **options: Any) -> Any:
        outputs = call(inputs, *arguments, **options)
        note(layer, inputs, outputs)
        return outputs

    return noting


@dataclass(frozen=True, eq=False)
class HardImages:
    """Images for which signs are hard to tell: what rounding can do to a network, it does here.

    Attributes:
        even: float32 [4, S, S, C], the darkest, the brightest and the mean colour of real images, and zero, each even
            all over: all places of a map are equal, and zero makes all pre-activations of a network without biases
            exactly 0.
        at_thresholds: float32 [0 to 12, S, S, C]; for the first, the middle and the last binary layer, up to two pairs
            of images on both sides of a threshold: on the line between two real images the last before, and the first
            after, the place where a sign of that layer changes. They differ in the last bit of some pixels. In a later
            layer the cause may be a sign in front of it, which is at its threshold then.
    """

    even: np.ndarray
    at_thresholds: np.ndarray

    @property
    def images(self) -> np.ndarray:
        """Both, one after the other."""
        return np.concatenate([self.even, self.at_thresholds])


def hard_images(model: keras.Model, images: np.ndarray, seed: int = 0) -> HardImages:
    """Makes them of real ones.

    Args:
        model: with one input [B, S, S, C].
        images: float32 [N, S, S, C], real ones, N at least 1.
        seed: which pairs and which signs.
    """
    rng, real = np.random.default_rng(seed), np.asarray(images, np.float32)
    axes = (0, 1, 2)
    colours = (real.min(axes), real.max(axes), real.mean(axes), np.zeros(real.shape[-1]))
    even = np.stack([np.broadcast_to(colour, real.shape[1:]) for colour in colours]).astype(np.float32)
    signs = pre_activations(model)
    chosen = {0, len(signs) // 2, len(signs) - 1} if signs else set()
    between = [_around_threshold(model, signs[place], real, rng) for place in sorted(chosen)]
    return HardImages(even, np.concatenate([real[:0], *between]))


def _around_threshold(
    model: keras.Model, sign: PreActivation, images: np.ndarray, rng: np.random.Generator
) -> np.ndarray:
    """float32 [0 to 4, S, S, C]: images around the place where a sign changes between two of `images`."""

    def bits(batch: np.ndarray) -> np.ndarray:
        return sign.bits(values_at(model, sign, batch)).reshape(len(batch), -1)

    first, second = images[rng.integers(0, len(images), (2, _PAIRS))]
    low_bits, high_bits = bits(first), bits(second)
    differing = [np.flatnonzero(pair) for pair in low_bits != high_bits]
    usable = [place for place in range(_PAIRS) if len(differing[place])]
    if not usable:
        return images[:0]
    units = np.array([rng.choice(differing[place]) for place in usable])
    first, second, rows = first[usable], second[usable], np.arange(len(usable))
    start = low_bits[usable][rows, units]
    low, high = np.zeros(len(usable), np.float32), np.ones(len(usable), np.float32)

    def image(share: np.ndarray) -> np.ndarray:
        return first + (second - first) * share[:, np.newaxis, np.newaxis, np.newaxis]

    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        same = bits(image(middle))[rows, units] == start
        low, high = np.where(same, middle, low), np.where(same, high, middle)
    return np.concatenate([image(low), image(high)])
