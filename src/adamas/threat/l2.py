"""The Euclidean length of the change."""

from __future__ import annotations

import torch
from torch import Tensor

from adamas.dice import Dice
from adamas.registry import Pixels, register
from adamas.roles import Threat, per_image
from adamas.threat.plane import FAR, time_to


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

    def sample(self, x: Tensor, dice: Dice) -> Tensor:
        direction = dice.normal(x.shape[1:]).to(x.dtype)
        radius = self.eps * dice.uniform((1,)).to(x.dtype) ** (1 / x[0].numel())
        return self.project(x + direction / _lengths(direction) * per_image(radius, x), x)

    def ascend(self, x: Tensor, grad: Tensor, step: float | Tensor) -> Tensor:
        return x + step * grad / _lengths(grad)

    def distance(self, x_adv: Tensor, x: Tensor) -> Tensor:
        return (x_adv - x).flatten(1).norm(dim=1)

    def shrink(self, delta: Tensor, radius: Tensor) -> Tensor:
        return delta * (per_image(radius, delta) / _lengths(delta)).clamp(max=1)

    def dual(self, grad: Tensor) -> Tensor:
        return grad.flatten(1).norm(dim=1)

    def to_plane(self, x: Tensor, w: Tensor, b: Tensor) -> Tensor:
        flat, w = x.flatten(1), w.flatten(1)
        missing = -(torch.linalg.vecdot(w, flat) + b)[:, None]
        steepest = w.abs().amax(1, keepdim=True).clamp_min(1e-30)  # the unit of `way`, lest its squares vanish
        way = w * (missing.sign() / steepest)
        reach = (way > 0).to(x.dtype).sub_(flat).div_(way).nan_to_num_(0.0, posinf=FAR, neginf=0.0)
        t = time_to(reach, way.square(), missing.abs() / steepest)
        return way.mul_(t).add_(flat).clamp_(0, 1).view_as(x)


def _lengths(x: Tensor) -> Tensor:
    return per_image(x.flatten(1).norm(dim=1).clamp_min(1e-12), x)
