"""The largest change of any pixel value."""

from __future__ import annotations

from typing import Annotated

import torch
from pydantic import AfterValidator
from torch import Tensor

from adamas.dice import Dice
from adamas.registry import Pixels, register
from adamas.roles import Threat, per_image
from adamas.threat.plane import time_to


def _of_a_pixel(eps: float) -> float:
    if eps > 1:
        hint = f"; did you mean {eps:g}/255?" if eps <= 255 else ""
        raise ValueError(f"expected at most 1, the whole range of a pixel of a [0, 1] image, got {eps}{hint}")
    return eps


@register("threat", "linf")
class Linf(Threat):
    """Every pixel value may change by at most `eps`.

    Source: Madry et al. 2018, section 2.1.
    """

    eps: Annotated[Pixels, AfterValidator(_of_a_pixel)] = 8 / 255

    def project(self, x_adv: Tensor, x: Tensor) -> Tensor:
        return torch.clamp(x_adv, (x - self.eps).clamp_(min=0), (x + self.eps).clamp_(max=1))

    def sample(self, x: Tensor, dice: Dice) -> Tensor:
        return self.project(x + dice.uniform(x.shape[1:]).to(x.dtype).mul_(2 * self.eps).sub_(self.eps), x)

    def ascend(self, x: Tensor, grad: Tensor, step: float | Tensor) -> Tensor:
        return x + step * grad.sign()

    def distance(self, x_adv: Tensor, x: Tensor) -> Tensor:
        return (x_adv - x).abs().flatten(1).amax(1)

    def shrink(self, delta: Tensor, radius: Tensor) -> Tensor:
        bound = per_image(radius, delta)
        return delta.clamp(-bound, bound)

    def dual(self, grad: Tensor) -> Tensor:
        return grad.flatten(1).abs().sum(1)

    def to_plane(self, x: Tensor, w: Tensor, b: Tensor) -> Tensor:
        flat, w = x.flatten(1), w.flatten(1)
        missing = -(torch.linalg.vecdot(w, flat) + b)[:, None]
        way = w * missing.sign()
        room = (way > 0).to(x.dtype).sub_(flat).abs_()
        t = time_to(room, way.abs(), missing.abs())
        return way.sign_().mul_(t).add_(flat).clamp_(0, 1).view_as(x)
