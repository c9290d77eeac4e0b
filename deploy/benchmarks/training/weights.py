"""Weights and gradients by the names and in the layout that they have in Keras, to and from PyTorch's."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np
import torch
from torch import Tensor, nn

from benchmarks.training.networks import Shift

_NORM = {"weight": "gamma", "bias": "beta", "running_mean": "moving_mean", "running_var": "moving_variance"}


def _named(model: nn.Module) -> Iterator[tuple[str, nn.Module, str, Tensor]]:
    """Keras' name, the module, its own name for the tensor, and the tensor."""
    for path, module in model.named_modules():
        layer = path.replace(".", "_")
        for leaf, tensor in [*module.named_parameters(recurse=False), *module.named_buffers(recurse=False)]:
            if leaf == "num_batches_tracked":
                continue
            if isinstance(module, nn.BatchNorm2d):
                name = _NORM[leaf]
            elif isinstance(module, nn.PReLU):
                name = "alpha"
            elif isinstance(module, nn.Conv2d):
                name = "kernel" if module.groups == 1 else "depthwise_kernel"
            else:
                name = "kernel" if leaf == "weight" else leaf
            yield f"{layer}/{name}", module, leaf, tensor


def _to_keras(module: nn.Module, leaf: str, array: np.ndarray) -> np.ndarray:
    if isinstance(module, nn.Conv2d):
        return array.transpose(2, 3, 1, 0) if module.groups == 1 else array.transpose(2, 3, 0, 1)
    if isinstance(module, nn.Linear) and leaf == "weight":
        return array.T
    if isinstance(module, nn.PReLU):
        return array[None, None]
    return array[:, 0, 0] if isinstance(module, Shift) else array


def _from_keras(module: nn.Module, leaf: str, array: np.ndarray) -> np.ndarray:
    if isinstance(module, nn.Conv2d):
        return array.transpose(3, 2, 0, 1) if module.groups == 1 else array.transpose(2, 3, 0, 1)
    if isinstance(module, nn.Linear) and leaf == "weight":
        return array.T
    if isinstance(module, nn.PReLU):
        return array[0, 0]
    return array[:, None, None] if isinstance(module, Shift) else array


def load(model: nn.Module, arrays: Mapping[str, np.ndarray], part: str) -> None:
    """Gives `model` the weights of a part, all of them.

    Args:
        model: of `networks`.
        arrays: of both frameworks' models, by `PART/LAYER/WEIGHT`.
        part: the first part of the names.

    Raises:
        ValueError: a weight is missing on either side, or has another shape.
    """
    wanted = {name.partition("/")[2] for name in arrays if name.startswith(f"{part}/")}
    for name, module, leaf, tensor in _named(model):
        wanted.discard(name)
        found = _from_keras(module, leaf, arrays[f"{part}/{name}"])
        if found.shape != tuple(tensor.shape):
            raise ValueError(f"{part}/{name} is {found.shape}, not {tuple(tensor.shape)}")
        with torch.no_grad():
            tensor.copy_(torch.from_numpy(np.ascontiguousarray(found)))
    if wanted:
        raise ValueError(f"{part} here lacks {', '.join(sorted(wanted))}")


def gradients(model: nn.Module, part: str) -> dict[str, np.ndarray]:
    """The gradients of `model` by Keras' names, in its layout."""
    return {
        f"{part}/{name}": _to_keras(module, leaf, tensor.grad.detach().numpy())
        for name, module, leaf, tensor in _named(model)
        if tensor.grad is not None
    }
