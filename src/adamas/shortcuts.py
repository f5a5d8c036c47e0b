"""Parameter-free shortcuts made visible: a frozen convolution that picks channels can lose channels, a lambda cannot."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from adamas.graph import modes_kept


def explicit_shortcuts(model: nn.Module, example: Tensor) -> list[str]:
    """Replace modules that only pick pixels and pad or drop channels by frozen 1x1 convolutions, in place.

    `example` is a batch of images (N, C, H, W) on the model's device. The logits do not change, and the names of the
    replaced modules are returned. Channels can then be removed through the parameter-free shortcuts ("option A") of
    residual networks. The state dict gains one frozen weight per shortcut, so a network that is saved after this has to be
    built with this; load pretrained weights before.
    Source: He et al. 2016, section 3.3, option A.
    """
    seen: dict[str, tuple[Tensor, Tensor]] = {}

    def note(name: str) -> Any:
        return lambda _, inputs, output: seen.update({name: (inputs[0], output)})

    blank = {name: layer for name, layer in model.named_modules() if not layer.state_dict() and not list(layer.children())}
    hooks = [layer.register_forward_hook(note(name)) for name, layer in blank.items()]
    with modes_kept(model), torch.no_grad():
        model.eval()(example)
        for hook in hooks:
            hook.remove()
        twins = {name: _selection(blank[name], *pair) for name, pair in seen.items() if _changes_channels(*pair)}
        found = {name: twin for name, twin in twins.items() if torch.equal(twin(seen[name][0]), seen[name][1])}
    for name, twin in found.items():
        model.set_submodule(name, twin)
    return list(found)


def _changes_channels(x: Tensor, y: Tensor) -> bool:
    return x.dim() == y.dim() == 4 and x.shape[1] != y.shape[1]


def _selection(layer: nn.Module, x: Tensor, y: Tensor) -> nn.Conv2d:
    """The convolution that agrees with `layer` on images with one channel of ones and the others of zeros."""
    channels, height, width = x.shape[1:]
    ones = torch.eye(channels).to(x)[:, :, None, None].expand(-1, -1, height, width)
    stride = (-(-height // y.shape[2]), -(-width // y.shape[3]))
    twin = nn.Conv2d(channels, y.shape[1], 1, stride, bias=False).to(x)
    twin.weight = nn.Parameter(layer(ones)[:, :, :1, :1].transpose(0, 1).contiguous(), requires_grad=False)
    return twin
