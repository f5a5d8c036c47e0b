"""Pruning by ADMM: weights are drawn towards their own pruned version until cutting them costs little."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Annotated, Any

import torch
from annotated_types import Ge, Gt
from torch import Tensor, nn

from adamas.compress.budget import exact
from adamas.compress.masks import Mask, attach_masks, fix, highest, mask_of, masked_layers, swap
from adamas.rates import AnyRates
from adamas.rates.uniform import Uniform
from adamas.registry import Count, Number, Share, register
from adamas.roles import Batches, Compressor, Threat

log = logging.getLogger("adamas")


@register("compressor", "admm")
class ADMM(Compressor):
    """Trains the weights under rho / 2 * |w - z + u|^2, z being the largest `keep` of w + u, then cuts them to that number.

    z and the dual u are renewed `cycles` times over the stage, after each of which rho grows by `growth`; u starts at zero. The
    relative residual |w - z|^2 / |w|^2 is logged at every renewal: where it does not fall, cutting destroys what was learned.
    `rates` divide the budget among layers, by magnitudes; `exclude` names layers left dense.
    Source: Ye et al. 2019 (R-ADMM), equations 4 to 8; Boyd et al. 2011, section 3.4.1. Deviation: when rho grows, u shrinks by
    as much, as a scaled dual must; without that the residual rises for as long as it falls here. rho starts at .05 and grows
    by 1.6, not .001 and 1.3, so that a short stage constrains at all; the number kept is exact.
    """

    keep: Share = 0.1
    rates: AnyRates = Uniform()
    rho: Annotated[Number, Gt(0)] = 0.05
    growth: Annotated[Number, Ge(1)] = 1.6
    cycles: Count = 10
    exclude: tuple[str, ...] = ()

    @property
    def needs_fit(self) -> bool:
        return True

    @property
    def unsettled(self) -> float:
        return 1.0

    def attach(self, model: nn.Module) -> None:
        attach_masks(model, self.exclude, "admm")

    @torch.no_grad()
    def calibrate(self, model: nn.Module, batches: Batches, threat: Threat) -> None:
        """Divide the budget and project the weights as they are now; no data is read."""
        layers = masked_layers(model, self.exclude)
        weights = [layer.weight.detach() for layer in layers.values()]
        shares = self.rates(weights, [weight.abs() for weight in weights], self.keep)
        counts = exact(shares, [weight.numel() for weight in weights], [1] * len(weights), self.keep)
        for layer, weight, count in zip(layers.values(), weights, counts, strict=True):
            swap(layer, Split(weight, weight * highest(weight.abs(), count), count))

    def penalty(self, model: nn.Module, progress: float) -> Tensor | float:
        return augmented(self._pairs(model), self.rho, self.growth)

    @torch.no_grad()
    def after_step(self, model: nn.Module, progress: float) -> None:
        """Renew z and u where a cycle ends."""
        pairs = self._pairs(model)
        if not due(pairs, progress, self.cycles):
            return
        for weight, split in pairs:
            both = weight + split.u
            split.renew(both, both * highest(both.abs(), split.kept), self.growth)
        log.info("admm: relative residual %.3g after cycle %d", residual(pairs), int(pairs[0][1].cycle))

    @torch.no_grad()
    def finish(self, model: nn.Module) -> None:
        """Keep the largest weights, exactly as many as the budget allows."""
        for layer in masked_layers(model, self.exclude).values():
            fix(layer, highest(layer.weight.abs(), mask_of(layer).kept))

    @torch.no_grad()
    def residual(self, model: nn.Module) -> float:
        """|w - z|^2 / |w|^2 over all layers."""
        return residual(self._pairs(model))

    def _pairs(self, model: nn.Module) -> list[tuple[Tensor, Split]]:
        return [(layer.weight, mask_of(layer)) for layer in masked_layers(model, self.exclude).values()]


class Split(Mask):
    """A tensor that nothing is cut from yet, beside its projection z, the dual u, the number of renewals and what is `kept`."""

    z: Tensor
    u: Tensor
    cycle: Tensor

    def __init__(self, weight: Tensor, z: Tensor, kept: Any):
        super().__init__(weight)
        self.kept = kept
        self.register_buffer("z", z.clone())
        self.register_buffer("u", torch.zeros_like(weight))
        self.register_buffer("cycle", torch.tensor(0))

    def renew(self, both: Tensor, z: Tensor, growth: float) -> None:
        """Take over z, the projection of w + u, and keep in u what it lacks, scaled to the new rho."""
        self.z.copy_(z)
        self.u.copy_((both - z) / growth)
        self.cycle += 1


Pairs = Sequence[tuple[Tensor, Split]]
"""Weights and their splits, all renewed equally often."""


def augmented(pairs: Pairs, rho: float, growth: float) -> Tensor:
    """rho / 2 * |w - z + u|^2 over all pairs, `rho` having grown with every renewal."""
    pulls = [(weight - split.z + split.u).square().sum() for weight, split in pairs]
    return rho * growth ** pairs[0][1].cycle / 2 * torch.stack(pulls).sum()


def due(pairs: Pairs, progress: float, cycles: int) -> bool:
    """Whether a cycle ends here."""
    return int(progress * cycles + 1e-6) > int(pairs[0][1].cycle)


def residual(pairs: Pairs) -> float:
    """|w - z|^2 / |w|^2 over all pairs."""
    away = sum(float((weight - split.z).square().sum()) for weight, split in pairs)
    return away / sum(float(weight.square().sum()) for weight, _ in pairs)
