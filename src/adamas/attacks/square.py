"""The Square attack: random squares, kept where the loss rises; it asks the model for logits alone."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

from adamas.attacks.crafting import Victim, crafting
from adamas.attacks.losses import LOSSES
from adamas.attacks.search import Search
from adamas.attacks.squares import SQUARES
from adamas.dice import Dice
from adamas.errors import AdamasError
from adamas.registry import Count, Share, register
from adamas.roles import Attack, Threat, per_image

HALVINGS = (10, 50, 200, 500, 1000, 2000, 4000, 6000, 8000)
"""Queries of 10,000 after which the share of the image that a square covers is halved."""


@register("attack", "square")
class Square(Attack):
    """Random search with shrinking squares: one look at the image, then `queries` per restart, never a gradient.

    `p_init`: share of the image that the first squares cover. Any model that gives logits can be attacked, an exported
    integer file included. Errors: a threat other than linf and l2.
    Source: Andriushchenko et al. 2020, algorithms 1 to 3; the schedule stretched to the budget as in Croce, Hein 2020.
    Deviation: every image has squares of its own, so that its result does not depend on the others of the batch; a square
    may touch every border; the first perturbation counts as a query.
    """

    family = "black-box"
    queries: Count = 5000
    p_init: Share = 0.8
    restarts: Count = 1
    loss: Literal["margin", "cross_entropy"] = "margin"

    @property
    def cost(self) -> float:
        return 1 + self.restarts * self.queries

    def check(self, threat: Threat) -> None:
        if threat.name not in SQUARES:
            raise AdamasError(f"attack square: expected the threat linf or l2, got {threat}; use a gradient attack for it")

    def __call__(self, model: nn.Module, x: Tensor, y: Tensor, threat: Threat) -> Tensor:
        self.check(threat)
        dice = Dice(x)
        with crafting(model) as victim:
            search, logits = victim.search(x, y), victim.logits(x)
            search.narrow(x, logits)
            highest = LOSSES[self.loss](logits, y)
            for _ in range(self.restarts):
                best, loss = self._walk(victim, search, threat, dice)
                risen = per_image(loss > highest[search.rows], x)
                search.keep(best.where(risen, search.found[search.rows]))
                highest[search.rows] = loss.maximum(highest[search.rows])
        return search.found

    def _walk(self, victim: Victim, search: Search, threat: Threat, dice: Dice) -> tuple[Tensor, ...]:
        """One random search: the image of the highest loss and that loss, for every image that still stands."""
        squares = SQUARES[threat.name]
        best, highest = search.x, search.x.new_full((len(search),), -torch.inf)
        for query in range(self.queries):
            if not len(search):
                break
            x, throws = search.x, dice[search.rows]
            if query == 0:
                x_adv = threat.project(threat.ascend(x, squares.start(x, throws), threat.eps), x)
            else:
                side = min(squares.side(self._share(query) * x[0, 0].numel()), *x.shape[2:])
                x_adv = squares.step(best, x, side, threat, throws)
            logits = victim.logits(x_adv)
            loss = LOSSES[self.loss](logits, search.y)
            best, highest = x_adv.where(per_image(loss > highest, x), best), loss.maximum(highest)
            _, best, highest = search.narrow(x_adv, logits, best, highest)
        return search.settle(best, highest)

    def _share(self, query: int) -> float:
        """The share of the image that the square of a query covers."""
        at = int(query / self.queries * 10_000)
        return self.p_init / 2 ** sum(at > halving for halving in HALVINGS)
