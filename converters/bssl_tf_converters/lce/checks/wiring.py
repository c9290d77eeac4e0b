"""Which layers of a Keras model feed which, through models that are called as layers, to any depth."""

from __future__ import annotations

import weakref
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from bssl_tf.backend import keras, tf


@dataclass(frozen=True, eq=False)
class Wiring:
    """How the layers of a model are connected, as if nested models were written out.

    A model written as a class shows no connections: itself it counts as a layer here, and what is inside has no
    sources.

    Attributes:
        sources: id of a layer -> the layers whose outputs it takes, over all of its calls, each once.
        calls: id of a layer -> how often it runs for one image; a shared one more than once.
    """

    sources: dict[int, list[Any]] = field(default_factory=dict)
    calls: Counter[int] = field(default_factory=Counter)


# By model; Keras's own lists are slow to go through, and every check asks.
_WIRINGS: weakref.WeakKeyDictionary[keras.Model, Wiring] = weakref.WeakKeyDictionary()


def wiring_of(model: keras.Model) -> Wiring:
    """The connections of `model`; made once for each."""
    if model not in _WIRINGS:
        wiring = Wiring()
        if _shows_its_layers(model):
            inputs = [[node.layer] for node in _nodes(model) if node.is_input]
            _follow(model, inputs, wiring)
        _WIRINGS[model] = wiring
    return _WIRINGS[model]


def sources(model: keras.Model, layer: Any) -> list[Any]:
    """The layers of `model` whose outputs `layer` takes; none where they are not known."""
    return wiring_of(model).sources.get(id(layer), [])


def calls(model: keras.Model, layer: Any) -> int:
    """How often `layer` runs for one image; 1 where that is not known."""
    return wiring_of(model).calls.get(id(layer), 1)


def _shows_its_layers(layer: Any) -> bool:
    return isinstance(layer, keras.Model) and bool(getattr(layer, "_nodes_by_depth", None))


def _nodes(model: keras.Model) -> Iterator[Any]:
    """Each call of a layer in `model`, in an order in which they can run."""
    for depth in sorted(model._nodes_by_depth, reverse=True):
        yield from model._nodes_by_depth[depth]


def _follow(model: keras.Model, inputs: Sequence[list[Any]], wiring: Wiring) -> list[list[Any]]:
    """Notes all connections in `model`; which layers make its outputs, given those that make its inputs."""
    makers = {id(tensor): layers for tensor, layers in zip(model.inputs, inputs, strict=True)}
    for node in _nodes(model):
        if node.is_input:
            continue
        taken = [makers[id(tensor)] for tensor in node.keras_inputs]
        outputs = tf.nest.flatten(node.outputs)
        if _shows_its_layers(node.layer):
            made = _follow(node.layer, taken, wiring)
        else:
            known = wiring.sources.setdefault(id(node.layer), [])
            for source in (one for layers in taken for one in layers):
                if all(source is not other for other in known):
                    known.append(source)
            wiring.calls[id(node.layer)] += 1
            made = [[node.layer]] * len(outputs)
        makers |= {id(tensor): layers for tensor, layers in zip(outputs, made, strict=True)}
    return [makers[id(tensor)] for tensor in model.outputs]
