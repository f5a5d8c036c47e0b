"""The attack of Carlini and Wagner: the smallest Euclidean change that misclassifies, by Adam and a search for a constant."""

from __future__ import annotations

import math
from typing import Annotated

import torch
from annotated_types import Ge, Gt
from torch import Tensor, nn

from adamas.attacks.crafting import Victim, crafting
from adamas.attacks.fmn import closest
from adamas.attacks.losses import margin
from adamas.attacks.search import Search
from adamas.errors import AdamasError
from adamas.registry import Count, Number, label, register
from adamas.roles import Attack, Threat, per_image

LOOK = 10
"""Steps between two looks at which images are done: each look waits for the device."""
EDGE = 0.999999
"""Share of [-1, 1] that tanh is inverted on, so that black and white pixels stay finite."""


@register("attack", "carlini_wagner")
class CarliniWagner(Attack):
    """Adam on |change|^2 + constant * hinge of the margin, in the variables w of (tanh(w) + 1) / 2, which no box bounds.

    `searches`: values of the constant that are tried for every image, ten times the last one until one succeeds, halving the
    interval after. `confidence`: by how much the wrong logit must win. The nearest successful iterate is kept. L2 alone. As an
    attack inside a threat only what lies within eps counts, and an image is left once it is there; `nearest` ignores eps.
    With `early_abort` an image is left for this constant once its loss falls by less than a ten-thousandth in a tenth of the
    steps: a fifth to two fifths of the time saved, median distances less than 1 % longer.
    Source: Carlini, Wagner 2017, section V and VI (f6). Deviation: 1000 steps instead of 10,000; the early abort looks at
    every image's own loss, not at the batch's.
    """

    family = "minimum-norm gradient"
    steps: Count = 1000
    lr: Annotated[Number, Gt(0)] = 0.01
    confidence: Annotated[Number, Ge(0)] = 0.0
    searches: Count = 9
    initial_constant: Annotated[Number, Gt(0)] = 0.001
    early_abort: bool = True

    @property
    def cost(self) -> float:
        return 1 + 3 * self.steps * self.searches

    def __call__(self, model: nn.Module, x: Tensor, y: Tensor, threat: Threat) -> Tensor:
        self.check(threat)
        with crafting(model) as victim:
            search = victim.search(x, y)
            search.narrow(x, victim.logits(x))
            search.settle()
            best = self._refine(victim, search.x, search.y, threat, search)
            if len(search):
                search.keep(threat.project(best, search.x))
            return search.found

    def nearest(self, model: nn.Module, x: Tensor, y: Tensor, threat: Threat) -> Tensor:
        """The nearest misclassified image found for each `x`, at any L2 distance; `x` where none was."""
        self.check(threat)
        with crafting(model) as victim:
            found, right = x.clone(), (~victim.wrong(x, y)).nonzero().squeeze(1)
            found[right] = self._refine(victim, x[right], y[right], threat)
            return found

    def _refine(self, victim: Victim, x: Tensor, y: Tensor, threat: Threat, search: Search | None = None) -> Tensor:
        """Search for every image's constant; its nearest misclassified image, `x` where there was none."""
        low = torch.zeros(len(x), device=x.device)
        best, distance, high, constant = x, low + torch.inf, low + torch.inf, low + self.initial_constant
        for _ in range(self.searches if len(x) else 0):
            x_adv, length = self._descend(victim, x, y, threat, constant, 0.0 if search is None else threat.eps)
            hit = length.isfinite()
            best, distance = closest(x_adv, hit, x, threat, best, distance)
            low, high = low.where(hit, constant), constant.where(hit, high)
            constant = torch.where(high.isinf(), 10 * constant, (low + high) / 2)
            if search is not None:
                _, *states = search.take(x_adv, length <= threat.eps, best, distance, low, high, constant)
                best, distance, low, high, constant = search.settle(*states)
                x, y = search.x, search.y
            if not len(x):
                break
        return best

    def _descend(
        self, victim: Victim, x: Tensor, y: Tensor, threat: Threat, constant: Tensor, enough: float
    ) -> tuple[Tensor, Tensor]:
        """The nearest misclassified image for these constants and its distance, infinite where there was none.

        An image is left once it is as near as `enough`, or its loss stalls.
        """
        found, length = x.clone(), torch.full((len(x),), torch.inf, device=x.device)
        rows, before = torch.arange(len(x), device=x.device), length
        w = torch.atanh((2 * x - 1) * EDGE)
        mean = square = torch.zeros_like(x)
        tenth = LOOK * math.ceil(self.steps / 10 / LOOK)
        for step in range(self.steps):
            x_adv = (w.tanh() + 1) / 2
            logits, margins, grad = victim.differentiate(x_adv, y, margin)
            hit = (logits.argmax(1) != y) & (margins >= self.confidence)
            found[rows], length[rows] = closest(x_adv, hit, x, threat, found[rows], length[rows])
            pull = constant * (margins < self.confidence)
            slope = (2 * (x_adv - x) - per_image(pull, x) * grad) * 2 * x_adv * (1 - x_adv)
            move, mean, square = adam(slope, mean, square, step + 1)
            w = w - self.lr * move
            if step % LOOK == 0:
                going = length[rows] > enough
                if self.early_abort and step % tenth == 0:
                    loss = threat.distance(x_adv, x) ** 2 + constant * (self.confidence - margins).clamp_min(0)
                    stalls = loss >= 0.9999 * before
                    going, before = going & ~stalls, loss
                stay = going.nonzero().squeeze(1)
                if not len(stay):
                    break
                if len(stay) < len(rows):
                    rows, x, y, constant, before, w, mean, square = (
                        state[stay] for state in (rows, x, y, constant, before, w, mean, square)
                    )
        return found, length

    def check(self, threat: Threat) -> None:
        if threat.name != "l2":
            raise AdamasError(
                f"attack {label(self)}: expected the threat l2, whose norm it minimises, got {threat}; fmn works in every norm"
            )


def adam(grad: Tensor, mean: Tensor, square: Tensor, step: int) -> tuple[Tensor, Tensor, Tensor]:
    """Adam's move per unit of learning rate at `step` (from 1), and the two moments after it.

    Source: Kingma, Ba 2015, algorithm 1 with its default decay rates.
    """
    mean, square = 0.9 * mean + 0.1 * grad, 0.999 * square + 0.001 * grad.square()
    return mean / (1 - 0.9**step) / ((square / (1 - 0.999**step)).sqrt() + 1e-8), mean, square
