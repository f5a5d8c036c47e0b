"""A stand-in for the attacked model that gives the same logits, up to rounding, from fewer operations."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from torch import Tensor, nn

from adamas.deploy.export import export_onnx
from adamas.deploy.runtime import OnnxModel
from adamas.device import channels_last
from adamas.errors import AdamasError
from adamas.graph import become, fold_batch_norms, trace
from adamas.weights import bake, private_copy

NEAR = 1e-3
"""Share of the range of the logits by which those of a stand-in may differ."""


class Streamlined(nn.Module):
    """One network for passes with a gradient, another for those without."""

    def __init__(self, network: nn.Module, forward_only: nn.Module):
        super().__init__()
        self.network, self.forward_only = network, forward_only

    def forward(self, x: Tensor) -> Tensor:
        free = not torch.is_grad_enabled() and not torch.is_autocast_enabled(x.device.type)
        return self.forward_only(x) if free else self.network(x)


def streamlined(model: nn.Module, x: Tensor, *, runtime: bool) -> nn.Module:
    """A copy with baked weights and folded batch norms; with `runtime`, passes without a gradient run in ONNX Runtime on a CPU.

    What cannot be traced, copied or exported, or gives other logits on the images x (N, C, H, W) - a forward that draws noise,
    for one - is left out: in the end this is `model` itself. The model must be in eval mode and is left as found.
    """
    network = _near(model, _folded(model), x)
    if runtime and x.device.type == "cpu":
        forward_only = _near(model, _in_runtime(network, x), x)
        if forward_only is not model:
            return Streamlined(network, forward_only)
    return network


def _folded(model: nn.Module) -> nn.Module:
    try:
        graph = trace(model)
        copy = bake(private_copy(model)).requires_grad_(False)
        fold_batch_norms(copy, graph)
    except (AdamasError, RuntimeError, TypeError):  # the last two: what a foreign module raises when it is copied
        return model
    become(copy, graph)
    channels_last(copy)
    return copy


def _in_runtime(model: nn.Module, x: Tensor) -> nn.Module:
    try:
        with TemporaryDirectory() as folder:
            shape: Any = tuple(x.shape[1:])
            return OnnxModel(export_onnx(model, Path(folder) / "model.onnx", shape), torch.get_num_threads())
    except (AdamasError, RuntimeError, TypeError):
        return model


@torch.no_grad()
def _near(model: nn.Module, copy: nn.Module, x: Tensor) -> nn.Module:
    """The copy if its logits are those of the model, else the model."""
    if copy is model:
        return model
    expected = model(x)
    ranges = expected.amax(1) - expected.amin(1)
    return copy if bool(((copy(x) - expected).abs().amax(1) <= NEAR * ranges).all()) else model
