"""Unstructured pruning: any scores, any rates, an exact budget, and masks that a stage may learn."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated, Any, Literal

import torch
from annotated_types import Ge, Le
from torch import Tensor, nn

from adamas.compress.budget import exact
from adamas.compress.example import example
from adamas.compress.hardware import check_met, hardware_loss, press
from adamas.compress.masks import (
    LearnedMask,
    LearnedRate,
    Mask,
    Ranked,
    attach_masks,
    fix,
    highest,
    hold_still,
    kept,
    mask_of,
    masked_layers,
    swap,
)
from adamas.compress.ramp import Ramp, follow, shrink
from adamas.cost import uses
from adamas.rates import AnyRates
from adamas.rates.lamp import LAMP
from adamas.rates.learned import Learned as LearnedRates
from adamas.registry import Number, Share, register
from adamas.roles import Batches, Compressor, Threat
from adamas.scores import AnyScores
from adamas.scores.magnitude import Magnitude


@register("compressor", "prune")
class Prune(Compressor):
    """Sets the weights of lowest score in convolutions and linear layers to zero and keeps them there.

    `keep`: the share of the budget that stays, counted in weights or in multiply-accumulates, met exactly (to one weight).
    `scores` rank the weights of a layer, `rates` divide the budget among layers. By magnitude, in a stage that has a fit, the
    share kept falls over the first `ramp` of it and weights are ranked anew as they train; a ramp of 0 prunes before. Other
    scores are taken once, before the fit. Where scores or rates are learned the stage needs a fit: it trains them and the
    norms while the weights stand still. A fixed mask is left in the end. `exclude` names layers left dense, as names or
    patterns. Biases and norms are not pruned. `faithful`: weight decay acts on learned scores and rates too.

    HYDRA is learned scores at uniform rates, HARP learned scores at learned rates, LWM magnitudes at uniform rates at once.
    Source: Zhu and Gupta 2017; Lee et al. 2021; Sehwag et al. 2020; HARP; Blalock et al. 2020. Deviation: the budget is exact,
    and a stage whose learned rates exceed it fails instead of shipping more.
    """

    keep: Share = 0.1
    scores: AnyScores = Magnitude()
    rates: AnyRates = LAMP()
    ramp: Annotated[Number, Ge(0), Le(1)] = 0.4
    budget: Literal["weights", "macs"] = "weights"
    exclude: tuple[str, ...] = ()
    faithful: bool = False

    @property
    def needs_fit(self) -> bool:
        return self.scores.learned or isinstance(self.rates, LearnedRates)

    @property
    def gradual(self) -> bool:
        """Whether weights go step by step where the stage has a fit."""
        return self.ramp > 0 and isinstance(self.scores, Magnitude) and not self.needs_fit

    @property
    def unsettled(self) -> float:
        return 1.0 if isinstance(self.rates, LearnedRates) else self.ramp if self.gradual else 0.0

    def attach(self, model: nn.Module) -> None:
        attach_masks(model, self.exclude, "prune")

    def calibrate(self, model: nn.Module, batches: Batches, threat: Threat) -> None:
        """Score the weights as they are now, divide the budget, set the masks or what they are learned from."""
        layers = masked_layers(model, self.exclude)
        weights = [layer.weight.detach() for layer in layers.values()]
        prices = [1] * len(layers)
        if self.budget == "macs":
            x, batches = example(batches, "prune: expected a batch of images to count multiply-accumulates on", 1)
            prices = uses(model, layers, x)
        found = self.scores(model, layers, batches, threat)
        shares = self.rates(weights, found, self.keep)
        learned = self.rates if isinstance(self.rates, LearnedRates) else None
        if learned is None:
            counts = exact(shares, [weight.numel() for weight in weights], prices, self.keep)
        else:
            counts = [kept(share, weight.numel()) for share, weight in zip(shares, weights, strict=True)]
        for layer, score, share, count, price in zip(layers.values(), found, shares, counts, prices, strict=True):
            if self.needs_fit:
                rate = LearnedRate(share, learned.floor * self.keep) if learned else None
                swap(layer, LearnedMask(Ranked(score, self.scores.learned, count, rate), price, hold_still([layer])))
            elif self.gradual:
                swap(layer, Ramp(score, price))
            else:
                mask_of(layer).mask.copy_(highest(score, count))

    def penalty(self, model: nn.Module, progress: float) -> Tensor | float:
        """The hardware loss of learned rates."""
        masks = self._rated(model)
        return hardware_loss([mask.ranked.rate for mask in masks], self._excess(masks)) if masks else 0.0

    def after_step(self, model: nn.Module, progress: float) -> None:
        if ramps := self._masked(model, Ramp):
            follow(list(ramps), self.rates, self.keep, progress / self.ramp)
        masks = self._rated(model)
        if masks and isinstance(self.rates, LearnedRates):
            press([mask.ranked.rate for mask in masks], self._excess(masks), self.rates.gamma)

    def undecayed(self, model: nn.Module) -> Iterable[nn.Parameter]:
        return [] if self.faithful else [p for mask in self._masked(model, LearnedMask).values() for p in mask.parameters()]

    @torch.no_grad()
    def finish(self, model: nn.Module) -> None:
        """Fix the masks at exactly the budget, and let weights that stood still train again."""
        ramps, learned = self._masked(model, Ramp), self._masked(model, LearnedMask)
        if ramps:
            shrink(list(ramps), self.rates, self.keep)
        for layer, mask in ramps.items():
            fix(layer, mask.mask)
        counts = [mask.ranked.count for mask in learned.values()]
        if rated := self._rated(model):
            check_met(float(self._excess(rated)), self.keep)
            rates = [float(mask.ranked.rate()) for mask in rated]
            counts = exact(rates, [mask.mask.numel() for mask in rated], [mask.price for mask in rated], self.keep)
        for (layer, mask), count in zip(learned.items(), counts, strict=True):
            fix(layer, highest(mask.ranked.ranking, count))
            for parameter in mask.still:
                parameter.requires_grad_(True)

    def _masked(self, model: nn.Module, kind: type[Mask]) -> dict[Any, Any]:
        """The layers whose mask is of this kind, and their masks."""
        masks = {layer: mask_of(layer) for layer in masked_layers(model, self.exclude).values()}
        return {layer: mask for layer, mask in masks.items() if isinstance(mask, kind)}

    def _rated(self, model: nn.Module) -> list[Any]:
        """The masks of learned rates: all or none."""
        return [mask for mask in self._masked(model, LearnedMask).values() if mask.ranked.rate is not None]

    def _excess(self, masks: list[Any]) -> Tensor:
        """Cost over budget, less one."""
        spent = torch.stack([mask.ranked.rate() * (mask.mask.numel() * mask.price) for mask in masks]).sum()
        return spent / (self.keep * sum(mask.mask.numel() * mask.price for mask in masks)) - 1
