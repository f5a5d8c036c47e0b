"""The sum of all changes of pixel values."""

from __future__ import annotations

import torch
from torch import Tensor

from adamas.dice import Dice
from adamas.registry import Pixels, register
from adamas.roles import Threat, per_image

STEEPEST = 0.05
"""Share of the pixels that one ascent step moves; a step along the single steepest one would leave [0, 1] at once."""


@register("threat", "l1")
class L1(Threat):
    """The absolute changes of all pixel values add up to at most `eps`.

    Source: Croce, Hein 2021, proposition 2.1 (projection onto ball and [0, 1] at once); Tramer, Boneh 2019, appendix
    (ascent along the steepest few pixels, here 5 %).
    """

    eps: Pixels = 12.0

    def project(self, x_adv: Tensor, x: Tensor) -> Tensor:
        delta = x_adv - x
        room = torch.where(delta > 0, 1 - x, x)
        radius = torch.full((len(x),), self.eps, dtype=x.dtype, device=x.device)
        return (x + _shrunk(delta, radius, room)).clamp(0, 1)

    def sample(self, x: Tensor, dice: Dice) -> Tensor:
        u = dice.uniform(x.shape[1:]).to(x.dtype).sub_(0.5)
        direction = -u.sign() * torch.log1p(-2 * u.abs().clamp(max=0.499999))  # Laplace, so uniform on the sphere
        radius = self.eps * dice.uniform((1,)).to(x.dtype) ** (1 / x[0].numel())
        return self.project(x + direction / per_image(direction.flatten(1).abs().sum(1), x) * per_image(radius, x), x)

    def ascend(self, x: Tensor, grad: Tensor, step: float | Tensor) -> Tensor:
        flat = grad.flatten(1)
        few = max(1, round(STEEPEST * flat.shape[1]))
        edge = flat.abs().topk(few, dim=1).values[:, -1:]
        steep = flat.sign() * (flat.abs() >= edge)
        return x + step * (steep / steep.abs().sum(1, keepdim=True).clamp_min(1)).view_as(x)

    def distance(self, x_adv: Tensor, x: Tensor) -> Tensor:
        return (x_adv - x).flatten(1).abs().sum(1)

    def shrink(self, delta: Tensor, radius: Tensor) -> Tensor:
        return _shrunk(delta, radius.flatten(), delta.abs())

    def dual(self, grad: Tensor) -> Tensor:
        return grad.flatten(1).abs().amax(1)

    def to_plane(self, x: Tensor, w: Tensor, b: Tensor) -> Tensor:
        flat, w = x.flatten(1), w.flatten(1)
        missing = -(torch.linalg.vecdot(w, flat) + b)[:, None]
        way = w * missing.sign()
        steep, order = way.abs().sort(1, descending=True)
        room = ((way > 0).to(x.dtype) - flat).abs().gather(1, order)
        gains = steep * room
        still = (missing.abs() - (gains.cumsum(1) - gains)).clamp_min(0)  # when all steeper pixels have gone all the way
        moved = torch.where(steep > 0, torch.minimum(still / steep, room), torch.zeros_like(room))
        return (flat + way.sign() * torch.zeros_like(flat).scatter_(1, order, moved)).clamp_(0, 1).view_as(x)


def _shrunk(delta: Tensor, radius: Tensor, room: Tensor) -> Tensor:
    """The nearest change with |change| <= `room` in every pixel and a sum of at most `radius` (N,) in every image.

    Every pixel gives up the same amount t, kept between 0 and its room; the sum is linear in t between sorted breakpoints.
    """
    size, room = delta.flatten(1).abs(), room.flatten(1)
    ends = torch.cat([size, (size - room).clamp_min(0)], 1).sort(1, descending=True)
    slope = torch.cat([torch.ones_like(size), -torch.ones_like(size)], 1).gather(1, ends.indices).cumsum(1)
    fall = ends.values - torch.cat([ends.values[:, 1:], torch.zeros_like(ends.values[:, :1])], 1)
    reached = (slope * fall).cumsum(1)  # the sum when t has fallen to the next breakpoint
    first = (reached < radius[:, None]).sum(1, keepdim=True).clamp(max=reached.shape[1] - 1)
    missing = reached.gather(1, first) - radius[:, None]
    below = torch.cat([ends.values[:, 1:], torch.zeros_like(ends.values[:, :1])], 1).gather(1, first)
    t = (below + missing / slope.gather(1, first).clamp_min(1)).clamp_min(0)
    t = torch.where(torch.minimum(size, room).sum(1, keepdim=True) <= radius[:, None], torch.zeros_like(t), t)
    return (delta.flatten(1).sign() * torch.minimum((size - t).clamp_min(0), room)).view_as(delta)
