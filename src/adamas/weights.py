"""Effective weights: computed once per optimiser step, and baked into plain tensors when a model ships."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from copy import deepcopy
from typing import Any

import torch
from torch import nn
from torch.nn.utils import parametrize


@contextmanager
def effective_weights(model: nn.Module) -> Iterator[None]:
    """Compute every parametrized tensor now, with gradients to its originals, and reuse it until the block ends.

    Nested blocks share the outer one's tensors, so an attack inside a training step recomputes nothing.
    """
    with parametrize.cached():
        for module in model.modules():
            if parametrize.is_parametrized(module):
                for name in module.parametrizations:  # type: ignore[union-attr]
                    getattr(module, name)
        yield


def own_classes(model: nn.Module) -> None:
    """Give every parametrized module a class of its own, in place.

    torch keeps a parametrized tensor as a property of the module's class, which deep copies share: without this, adding or
    removing a parametrization on a copy breaks the original.
    """
    module: Any
    for module in model.modules():
        if parametrize.is_parametrized(module):
            shared = type(module)
            module.__class__ = type(shared.__name__, shared.__bases__, dict(vars(shared)))


def private_copy(model: nn.Module) -> Any:
    """A deep copy whose parametrizations can be changed without touching the original."""
    copy = deepcopy(model)
    own_classes(copy)
    return copy


def bake(model: nn.Module) -> nn.Module:
    """Replace every parametrized tensor by its present value, in place; the model's outputs do not change."""
    own_classes(model)
    for module in list(model.modules()):
        if parametrize.is_parametrized(module):
            for name in list(module.parametrizations):  # type: ignore[arg-type]
                parametrize.remove_parametrizations(module, name, leave_parametrized=True)
    return model


def original(module: Any, name: str = "weight") -> nn.Parameter:
    """The tensor that training moves where the one of this name is parametrized, else that one itself."""
    return module.parametrizations[name].original if parametrize.is_parametrized(module, name) else getattr(module, name)


def swap_last(module: Any, name: str, step: nn.Module) -> None:
    """Put another parametrization in the place of the last one of a tensor."""
    steps = module.parametrizations[name]
    steps[len(steps) - 1] = step.to(steps.original.device)


def read_channels(weight: torch.Tensor, blocks: int) -> torch.Tensor:
    """For every input channel of a layer that reads them in so many blocks, whether any of its weights is not zero."""
    return (weight != 0).reshape(blocks, -1, weight.shape[1], weight[0, 0].numel()).any(-1).any(1).flatten()


def drop(layer: Any, kind: type[nn.Module]) -> None:
    """Take the parametrizations of one kind off a layer's weight; those before and after stay."""
    steps = layer.parametrizations.weight if parametrize.is_parametrized(layer, "weight") else []
    found = [i for i, step in enumerate(steps) if isinstance(step, kind)]
    for i in reversed(found):
        del steps[i]
    if found and not len(steps):
        parametrize.remove_parametrizations(layer, "weight", leave_parametrized=False)


def stored(module: Any, name: str) -> list[tuple[torch.Tensor, int]]:
    """What is stored of a tensor, and the bits of one value: its factors where it is made of some, else the tensor itself.

    The bits are the least that any of its parametrizations states as `bits`, else 32.
    """
    steps = module.parametrizations[name] if parametrize.is_parametrized(module, name) else [None]
    factors = getattr(steps[-1], "factors", None)
    if factors is not None:
        return [pair for owner, leaf in factors() for pair in stored(owner, leaf)]
    return [(getattr(module, name), min(getattr(step, "bits", 32) for step in steps))]


def model_fingerprint(model: nn.Module) -> str:
    """Content id of a model's structure and values."""
    digest = hashlib.blake2b(repr(model).encode(), digest_size=16)
    for name, tensor in model.state_dict().items():
        digest.update(name.encode())
        digest.update(
            tensor.detach().cpu().clone(memory_format=torch.contiguous_format).view(torch.uint8).numpy().tobytes()
            if tensor.dim()
            else repr(tensor.item()).encode()
        )
    return digest.hexdigest()
