"""Threats: norm geometry in one place (random start, steepest ascent, projection)."""

from __future__ import annotations

import torch
from torch import Tensor

from adamas.registry import Pixels, register
from adamas.roles import Threat


@register("threat", "linf")
class Linf(Threat):
    """Every pixel value may change by at most `eps`.

    Source: Madry et al. 2018, section 2.1.
    """

    eps: Pixels = 8 / 255

    def project(self, x_adv: Tensor, x: Tensor) -> Tensor:
        return torch.clamp(x_adv, (x - self.eps).clamp_(min=0), (x + self.eps).clamp_(max=1))

    def sample(self, x: Tensor) -> Tensor:
        return self.project(x + torch.empty_like(x).uniform_(-self.eps, self.eps), x)

    def ascend(self, x: Tensor, grad: Tensor, step: float) -> Tensor:
        return x + step * grad.sign()

    def distance(self, x_adv: Tensor, x: Tensor) -> Tensor:
        return (x_adv - x).abs().flatten(1).amax(1)


@register("threat", "l2")
class L2(Threat):
    """The Euclidean length of the change is at most `eps`, summed over all pixels and channels.

    Source: Madry et al. 2018; the uniform sample in the ball is a Gaussian direction times eps * u^(1/d).
    """

    eps: Pixels = 0.5

    def project(self, x_adv: Tensor, x: Tensor) -> Tensor:
        delta = x_adv - x
        shrink = (self.eps / _lengths(delta)).clamp(max=1)
        return (x + delta * shrink).clamp(0, 1)  # clamping moves towards x, so it stays in the ball

    def sample(self, x: Tensor) -> Tensor:
        direction = torch.randn_like(x)
        radius = self.eps * torch.rand_like(x[:, :1, :1, :1]) ** (1 / x[0].numel())
        return self.project(x + direction / _lengths(direction) * radius, x)

    def ascend(self, x: Tensor, grad: Tensor, step: float) -> Tensor:
        return x + step * grad / _lengths(grad)

    def distance(self, x_adv: Tensor, x: Tensor) -> Tensor:
        return (x_adv - x).flatten(1).norm(dim=1)


def _lengths(x: Tensor) -> Tensor:
    return x.flatten(1).norm(dim=1).clamp_min(1e-12).view(-1, *[1] * (x.dim() - 1))
