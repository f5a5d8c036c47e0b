"""What every gradient attack shares: a model held still, the gradient with respect to the input, and the climb."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from adamas.roles import Threat
from adamas.weights import effective_weights

Craft = Literal["eval", "train"]
"""Mode of the model while images are crafted: running statistics, or those of the batch (which then do not move)."""

Loss = Callable[[Tensor, Tensor], Tensor]
"""Logits (N, K) and labels (N,) to one loss per image, (N,)."""


def cross_entropy(logits: Tensor, y: Tensor) -> Tensor:
    """Cross-entropy per image, shape (N,)."""
    return F.cross_entropy(logits, y, reduction="none")


@contextmanager
def crafting(model: nn.Module, craft: Craft = "eval") -> Iterator[None]:
    """Hold a model still: frozen parameters, effective weights computed once; mode, buffers and gradients as found after.

    Inside a training step the step's own effective weights are reused.
    """
    modes = [(module, module.training) for module in model.modules()]
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    buffers = [(buffer, buffer.clone()) for buffer in model.buffers()] if craft == "train" else []
    try:
        with effective_weights(model):
            for parameter in trained:
                parameter.requires_grad_(False)
            model.train(craft == "train")
            yield
    finally:
        for parameter in trained:
            parameter.requires_grad_(True)
        for module, mode in modes:
            module.training = mode
        with torch.no_grad():
            for buffer, value in buffers:
                buffer.copy_(value)


def input_gradient(model: nn.Module, x: Tensor, y: Tensor, loss: Loss = cross_entropy) -> Tensor:
    """Gradient of the summed loss with respect to the images only, shape of `x`; no parameter's gradient is touched."""
    x = x.detach().requires_grad_()
    with torch.enable_grad():
        return torch.autograd.grad(loss(model(x), y).sum(), x)[0]


def climb(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    threat: Threat,
    *,
    start: Tensor,
    steps: int,
    step_size: float | None,
    loss: Loss = cross_entropy,
) -> Tensor:
    """`steps` projected ascent steps from `start`; call it inside `crafting`.

    Without a `step_size` it is 2.5 * eps / steps, so that every point of the ball can be reached.
    """
    step_size = 2.5 * threat.eps / steps if step_size is None else step_size
    x_adv = start
    for _ in range(steps):
        grad = input_gradient(model, x_adv, y, loss)
        x_adv = threat.project(threat.ascend(x_adv.detach(), grad, step_size), x)
    return x_adv
