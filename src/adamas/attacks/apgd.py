"""Auto-PGD: projected gradient ascent that chooses its step sizes by itself."""

from __future__ import annotations

from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn

from adamas.attacks.apgd_l1 import sparse_climb
from adamas.attacks.crafting import Victim, crafting
from adamas.attacks.losses import LOSSES, Loss
from adamas.attacks.search import Search
from adamas.dice import Dice
from adamas.registry import Count, Share, register
from adamas.roles import Attack, Family, Threat, per_image


@register("attack", "apgd")
class APGD(Attack):
    """Auto-PGD: ascent from a random start whose step, 2 * eps at first, is halved per image wherever progress stalls.

    `rho`: share of the steps between two checkpoints that must raise the loss; `alpha`: weight of a step, 1 - alpha that of
    the last move. Under L1 neither is used (`apgd_l1`). An image is left at its first wrong prediction; for one that is never
    broken the highest loss found is returned.
    Source: Croce, Hein 2020, algorithm 1; L1: Croce, Hein 2021. Deviation: an image goes back to its best point as soon as the
    loss at the checkpoint is known, not one step later (so does the authors' code).
    """

    loss: Literal["cross_entropy", "dlr", "margin"] = "cross_entropy"
    steps: Count = 100
    restarts: Count = 1
    rho: Share = 0.75
    alpha: Share = 0.75

    @property
    def cost(self) -> float:
        return self.restarts * (3 * self.steps + 1)

    @property
    def family(self) -> Family:  # type: ignore[override]
        return "cross-entropy gradient" if self.loss == "cross_entropy" else "margin-loss gradient"

    def __call__(self, model: nn.Module, x: Tensor, y: Tensor, threat: Threat) -> Tensor:
        dice, highest = Dice(x), x.new_full((len(x),), -torch.inf)
        with crafting(model) as victim:
            search = victim.search(x, y)
            for _ in range(self.restarts):
                if not len(search):
                    break
                start = threat.sample(search.x, dice[search.rows])
                keep_highest(search, highest, *auto_climb(
                    victim, search, search.y, threat, start=start, steps=self.steps, loss=LOSSES[self.loss],
                    rho=self.rho, alpha=self.alpha,
                ))  # fmt: skip
            return search.found


def auto_climb(
    victim: Victim,
    search: Search,
    y: Tensor,
    threat: Threat,
    *,
    start: Tensor,
    steps: int,
    loss: Loss,
    rho: float = 0.75,
    alpha: float = 0.75,
) -> tuple[Tensor, Tensor]:
    """One run from `start` on the standing images; the highest loss of those that stand after it: images and losses (N,).

    `y`: what the loss compares with, labels (N,) or pairs (N, 2).
    """
    if threat.name == "l1":
        return sparse_climb(victim, search, y, threat, start=start, steps=steps, loss=loss)
    run, last = _Run.begin(start, y, 2 * threat.eps), 0
    marks = checkpoints(steps)
    for k in range(steps):
        logits, value, grad = victim.differentiate(run.at, run.y, loss)
        run = run.looked(search, logits, value, grad)
        if not len(search):
            break
        if k in marks:
            run, last = run.checked(rho * (k - last)), k
        run = run.moved(search.x, threat, alpha if k else 1.0)
    else:
        logits = victim.logits(run.at)
        run = run.looked(search, logits, loss(logits, run.y), run.grad)
    run = _Run(*search.settle(*run))
    return run.best, run.best_loss


def checkpoints(steps: int) -> list[int]:
    """Steps at which progress is checked, 0 (where nothing can have stalled) first.

    Source: Croce, Hein 2020, section 3.2: w_j = ceil(p_j * steps), p_1 = .22, p_j+1 = p_j + max(p_j - p_j-1 - .03, .06).
    """
    percent, period, marks = 0, 22, [0]
    while (percent := percent + period) <= 100:
        marks.append(-(-percent * steps // 100))
        period = max(period - 3, 6)
    return sorted(set(marks))


class _Run(NamedTuple):
    """Where the run of every standing image is; one row per image in every field.

    `rises`: steps since the last checkpoint that raised the loss; `mark`: the best loss at that checkpoint; `halved`: whether
    the step was halved there.
    """

    at: Tensor
    before: Tensor
    y: Tensor
    loss: Tensor
    grad: Tensor
    best: Tensor
    best_loss: Tensor
    best_grad: Tensor
    step: Tensor
    rises: Tensor
    mark: Tensor
    halved: Tensor

    @classmethod
    def begin(cls, start: Tensor, y: Tensor, step: float) -> _Run:
        steps = start.new_full((len(start),), step)
        top = torch.full_like(steps, torch.inf)
        none = torch.zeros_like(steps)
        return cls(start, start, y, top, start, start, -top, start, steps, none, -top, none.bool())

    def looked(self, search: Search, logits: Tensor, loss: Tensor, grad: Tensor) -> _Run:
        """Take in one pass at `at`: broken images leave, the best point is kept."""
        at, loss, grad, *rest = search.narrow(self.at, logits, loss, grad, *self[1:])
        run = _Run(at, *rest)
        better = loss > run.best_loss
        rows = per_image(better, at)
        return run._replace(
            loss=loss, grad=grad, rises=run.rises + (loss > run.loss), best_loss=loss.where(better, run.best_loss),
            best=at.where(rows, run.best), best_grad=grad.where(rows, run.best_grad),
        )  # fmt: skip

    def checked(self, enough: float) -> _Run:
        """Halve the step and go back to the best point where fewer than `enough` steps rose, or nothing better was found."""
        stalled = (self.rises < enough) | (~self.halved & (self.best_loss == self.mark))
        rows = per_image(stalled, self.at)
        return self._replace(
            at=self.best.where(rows, self.at), grad=self.best_grad.where(rows, self.grad),
            step=(self.step / 2).where(stalled, self.step), rises=torch.zeros_like(self.rises), mark=self.best_loss,
            halved=stalled,
        )  # fmt: skip

    def moved(self, x: Tensor, threat: Threat, alpha: float) -> _Run:
        """One step with momentum."""
        to = threat.project(threat.ascend(self.at, self.grad, per_image(self.step, self.at)), x)
        if alpha < 1:
            to = threat.project(self.at + alpha * (to - self.at) + (1 - alpha) * (self.at - self.before), x)
        return self._replace(at=to, before=self.at)


def keep_highest(search: Search, highest: Tensor, x_adv: Tensor, value: Tensor) -> None:
    """Keep for the standing images what has a higher `value` (N,) than `highest` (one per image of the call), which rises."""
    before = highest[search.rows]
    search.keep(x_adv.where(per_image(value > before, x_adv), search.found[search.rows]))
    highest[search.rows] = torch.maximum(value, before)
