"""Signs that a robustness figure is not what it seems; each is printed beside the figure it touches."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from adamas.attacks.crafting import crafting, input_gradient


def gradient_flags(model: nn.Module, x: Tensor, y: Tensor) -> list[str]:
    """Flags of one batch: images without a gradient to follow, and outputs that change from call to call."""
    with crafting(model):
        with torch.no_grad():
            first, second = model(x), model(x)
        grad = input_gradient(model, x, y)
    flags = []
    if not torch.equal(first, second):
        flags.append("randomised output: two passes over the same images differ; attack the expectation over the noise")
    right = first.argmax(1) == y
    without = float((grad[right].flatten(1).abs().amax(1) == 0).float().mean()) if right.any() else 0.0
    if without > 0.05:
        flags.append(
            f"zero gradients: {without:.0%} of the images give gradient attacks nothing to follow; add a black-box attack"
        )
    return flags
