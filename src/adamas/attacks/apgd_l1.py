"""Auto-PGD under L1: steps along as many pixels as the best change so far needs, in balls that shrink to the real one."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, NamedTuple

import torch
from torch import Tensor

from adamas.attacks.crafting import Victim
from adamas.attacks.losses import Loss
from adamas.attacks.search import Search
from adamas.roles import Threat, per_image

STAGES = ((3, 0.3), (2, 0.3), (1, 0.4))
"""Radius of the ball, in eps, and share of the steps in it."""
PERIOD, SPARSER, SLOWER, SLOWEST = 0.04, 0.95, 1.5, 10
"""Steps between checkpoints (share); the best change got sparser if it has fewer than .95 of the pixels that it had; what
step and sparsity are divided by at a checkpoint; what the step is divided by at most."""


def sparse_climb(
    victim: Victim, search: Search, y: Tensor, threat: Threat, *, start: Tensor, steps: int, loss: Loss
) -> tuple[Tensor, Tensor]:
    """As `auto_climb`, for L1; candidates of the two wider balls are starting points only.

    The random start is blown up before it is projected onto the first ball, which then leaves few of its pixels: from a dense
    one it takes too many checkpoints to become sparse.
    Source: Croce, Hein 2021, algorithm 1 and section 3.4 (decreasing radius).
    """
    blown_up = search.x + (start - search.x) * (start[0].numel() / max(threat.eps, 1e-9))
    run, done = _Run.begin(blown_up, y), 0
    for factor, share in STAGES:
        last = factor == 1
        count = steps - done if last else int(share * steps)
        ball: Any = replace(threat, eps=factor * threat.eps)  # type: ignore[type-var]
        run = run.entered(ball, search.x)
        period = max(1, int(PERIOD * count))
        for k in range(count):
            logits, value, grad = victim.differentiate(run.at, run.y, loss)
            run = run.looked(search if last else None, logits, value, grad)
            if not len(search):
                break
            if k and k % period == 0:
                run = run.checked(search.x, ball.eps)
            run = run.moved(search.x, ball)
        done += count
    if len(search):
        logits = victim.logits(run.at)
        run = run.looked(search, logits, loss(logits, run.y), run.grad)
    run = _Run(*search.settle(*run))
    return run.best, run.best_loss


class _Run(NamedTuple):
    """Where the run of every standing image is; one row per image in every field.

    `pixels`: how many of them a step moves; `used`: how many the best change had at the last checkpoint.
    """

    at: Tensor
    y: Tensor
    grad: Tensor
    best: Tensor
    best_loss: Tensor
    best_grad: Tensor
    step: Tensor
    pixels: Tensor
    used: Tensor

    @classmethod
    def begin(cls, start: Tensor, y: Tensor) -> _Run:
        none = start.new_zeros(len(start))
        return cls(start, y, start, start, none, start, none, none.long(), none.long())

    def entered(self, ball: Threat, x: Tensor) -> _Run:
        """Go on from the best point, pulled into the next ball."""
        at = ball.project(self.best, x)
        step, lowest, used = torch.full_like(self.step, ball.eps), torch.full_like(self.step, -torch.inf), _used(at, x)
        return self._replace(at=at, best=at, best_loss=lowest, step=step, pixels=_fewer(used), used=used)

    def looked(self, search: Search | None, logits: Tensor, loss: Tensor, grad: Tensor) -> _Run:
        """Take in one pass at `at`: broken images leave where there is a search, the best point is kept."""
        run = self
        if search is not None:
            at, loss, grad, *rest = search.narrow(self.at, logits, loss, grad, *self[1:])
            run = _Run(at, *rest)
        better = loss > run.best_loss
        rows = per_image(better, run.at)
        return run._replace(
            grad=grad, best_loss=loss.where(better, run.best_loss), best=run.at.where(rows, run.best),
            best_grad=grad.where(rows, run.best_grad),
        )  # fmt: skip

    def checked(self, x: Tensor, step: float) -> _Run:
        """Where the best change got sparser: the whole step again, from the best point; elsewhere a smaller one."""
        used = _used(self.best, x)
        sparser = used < SPARSER * self.used
        rows = per_image(sparser, self.at)
        smaller = (self.step / SLOWER).clamp_min(step / SLOWEST)
        return self._replace(
            at=self.best.where(rows, self.at), grad=self.best_grad.where(rows, self.grad),
            step=torch.full_like(smaller, step).where(sparser, smaller), pixels=_fewer(used), used=used,
        )  # fmt: skip

    def moved(self, x: Tensor, ball: Threat) -> _Run:
        """One step along the steepest pixels, all by the same amount."""
        flat = self.grad.flatten(1)
        few = self.pixels.clamp(1, flat.shape[1])[:, None]
        edge = flat.abs().sort(1, descending=True).values.gather(1, few - 1)
        steep = (flat.sign() * (flat.abs() >= edge)).view_as(x)
        count = steep.flatten(1).abs().sum(1).clamp_min(1)
        return self._replace(at=ball.project(self.at + per_image(self.step / count, x) * steep, x))


def _used(x_adv: Tensor, x: Tensor) -> Tensor:
    """How many pixels differ, (N,)."""
    return (x_adv != x).flatten(1).sum(1)


def _fewer(used: Tensor) -> Tensor:
    """1.5 times fewer, rounded up, but at least one fewer."""
    return torch.minimum((used / SLOWER).ceil().long(), used - 1)
