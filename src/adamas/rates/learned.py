"""Rates that are trained, held to the budget by a hardware loss."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from adamas.rates import AnyRates, Rates
from adamas.rates.uniform import Uniform
from adamas.registry import Number, Share, register


@register("rate", "learned")
class Learned(Rates):
    """One trained rate per layer, starting from the rule `start` at a keep of `start_keep` (or the stage's, if that is more).

    The hardware loss max(0, cost / budget - 1) has a weight that grows by `gamma` with every optimisation step for as long as
    the budget is exceeded, so that robustness comes first; no layer falls below `floor` of the stage's keep.
    Source: HARP, its rate, hardware loss and step-wise growth. Deviation: the weight grows by the step, where theirs grows by
    the epoch, .01 in 391 steps on CIFAR-10; it goes on growing if the budget is exceeded again.
    """

    start: AnyRates = Uniform()
    start_keep: Share = 0.1
    gamma: Number = 0.01 / 391
    floor: Share = 0.1

    def __call__(self, weights: Sequence[Tensor], scores: Sequence[Tensor], keep: float) -> list[float]:
        return self.start(weights, scores, max(self.start_keep, keep))
