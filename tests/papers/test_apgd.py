"""Auto-PGD (Croce, Hein 2020, algorithm 1) against the equations, one image at a time in double precision."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from adamas.attacks.apgd import auto_climb, checkpoints
from adamas.attacks.crafting import crafting
from adamas.attacks.losses import margin
from adamas.threat import L2, Linf


class Hills(nn.Module):
    """Two classes; the wrong one's logit is -1 - sum(a * (x - c)^2), with a hill of its own for every image of the batch."""

    def __init__(self, steep: Tensor, top: Tensor):
        super().__init__()
        self.steep, self.top = steep, top
        self.seen: list[Tensor] = []

    def forward(self, x: Tensor) -> Tensor:
        self.seen.append(x.detach().flatten(1).clone())
        wrong = -1 - (self.steep * (x.flatten(1) - self.top) ** 2).sum(1)
        return torch.stack([torch.zeros_like(wrong), wrong], 1)


def weights(steps: int) -> list[int]:
    """w_j = ceil(p_j * steps) with p_0 = 0, p_1 = 0.22, p_j+1 = p_j + max(p_j - p_j-1 - 0.03, 0.06), as printed."""
    p = [0.0, 0.22]
    while p[-1] <= 1:
        p.append(p[-1] + max(p[-1] - p[-2] - 0.03, 0.06))
    return [math.ceil(round(p_j * steps, 9)) for p_j in p if p_j <= 1]


@dataclass
class Followed:
    """The points at which one image's loss was asked for, the step sizes chosen at the checkpoints, the best point."""

    asked: list[np.ndarray]
    sizes: list[float]
    best: np.ndarray


def follow(loss, grad, inside, direction, start: np.ndarray, eps: float, steps: int, rho: float, alpha: float) -> Followed:
    def ascent(at: np.ndarray, size: float) -> np.ndarray:
        return inside(at + size * direction(grad(at)))

    asked, sizes, best = [start], [2 * eps], start
    halved, marks, checked = [], [loss(start)], [0]
    before, at = start, ascent(start, 2 * eps)
    for k in range(1, steps + 1):
        asked.append(at)
        best = at if loss(at) > loss(best) else best
        if k in weights(steps):
            rises = sum(loss(asked[i + 1]) > loss(asked[i]) for i in range(checked[-1], k))
            first = rises < rho * (k - checked[-1])
            second = sizes[-1] == (sizes[-2] if halved else sizes[-1]) and loss(best) == marks[-1]
            halved.append(first or second)
            if halved[-1]:
                at = best
            sizes.append(sizes[-1] / 2 if halved[-1] else sizes[-1])
            marks.append(loss(best))
            checked.append(k)
        to = inside(at + alpha * (ascent(at, sizes[-1]) - at) + (1 - alpha) * (at - before))
        before, at = at, to
    return Followed(asked, sizes, best)


GEOMETRY = {
    "linf": (lambda delta, eps: np.clip(delta, -eps, eps), np.sign),
    "l2": (lambda delta, eps: delta * min(1, eps / max(np.linalg.norm(delta), 1e-12)), lambda g: g / np.linalg.norm(g)),
}


@pytest.mark.parametrize("threat", [Linf(eps=0.2), L2(eps=0.5)])
@pytest.mark.parametrize(("rho", "alpha"), [(0.75, 0.75), (0.4, 1.0)])
def test_every_point_follows_the_algorithm(threat, rho, alpha):
    n, d, steps = 8, 6, 60
    shrink, direction = GEOMETRY[threat.name]
    steep, top, x, noise = torch.rand(4, n, d, dtype=torch.float64).unbind()
    model, images = Hills(steep**4, top), x.view(n, 1, 2, 3)
    start = threat.project(images + noise.view_as(images) - 0.5, images)
    with crafting(model) as victim:
        search = victim.search(images, torch.zeros(n, dtype=torch.long))
        best, value = auto_climb(
            victim, search, search.y, threat, start=start, steps=steps, loss=margin, rho=rho, alpha=alpha
        )  # fmt: skip
    seen, choices = torch.stack(model.seen, 1).numpy(), set()
    for i in range(n):
        a, c, origin = (part[i].numpy() for part in (steep**4, top, x))
        run = follow(
            lambda at, a=a, c=c: -1 - (a * (at - c) ** 2).sum(), lambda at, a=a, c=c: -2 * a * (at - c),
            lambda at, origin=origin: np.clip(origin + shrink(at - origin, threat.eps), 0, 1),
            direction, start.flatten(1)[i].numpy(), threat.eps, steps, rho, alpha,
        )  # fmt: skip
        np.testing.assert_allclose(seen[i], np.stack(run.asked), atol=1e-9)
        np.testing.assert_allclose(best.flatten(1)[i].numpy(), run.best, atol=1e-9)
        assert float(value[i]) == pytest.approx(-1 - (a * (run.best - c) ** 2).sum())
        choices.add(tuple(run.sizes))
    assert len(choices) > 1  # images of one batch chose different step sizes


@pytest.mark.parametrize("steps", [1, 5, 10, 33, 100, 1000])
def test_the_checkpoints_are_those_of_the_paper(steps):
    assert checkpoints(steps) == sorted(set(weights(steps)))
