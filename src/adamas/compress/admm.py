"""Pruning by ADMM: weights are drawn towards their own pruned version until cutting them costs little."""

from __future__ import annotations

import logging
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
            swap(layer, Split(weight, count))

    def penalty(self, model: nn.Module, progress: float) -> Tensor | float:
        pulls = [(layer.weight - split.z + split.u).square().sum() for layer, split in self._splits(model)]
        return self._rho(model) / 2 * torch.stack(pulls).sum()

    @torch.no_grad()
    def after_step(self, model: nn.Module, progress: float) -> None:
        """Renew z and u where a cycle ends."""
        splits = self._splits(model)
        if int(progress * self.cycles + 1e-6) <= int(splits[0][1].cycle):
            return
        for layer, split in splits:
            split.renew(layer.weight, self.growth)
        log.info("admm: relative residual %.3g after cycle %d", self.residual(model), int(splits[0][1].cycle))

    @torch.no_grad()
    def finish(self, model: nn.Module) -> None:
        """Keep the largest weights, exactly as many as the budget allows."""
        for layer, split in self._splits(model):
            fix(layer, highest(layer.weight.abs(), split.count))

    @torch.no_grad()
    def residual(self, model: nn.Module) -> float:
        """|w - z|^2 / |w|^2 over all layers."""
        splits = self._splits(model)
        away = sum(float((layer.weight - split.z).square().sum()) for layer, split in splits)
        return away / sum(float(layer.weight.square().sum()) for layer, _ in splits)

    def _rho(self, model: nn.Module) -> float:
        return self.rho * self.growth ** int(self._splits(model)[0][1].cycle)

    def _splits(self, model: nn.Module) -> list[tuple[Any, Any]]:
        return [(layer, mask_of(layer)) for layer in masked_layers(model, self.exclude).values()]


class Split(Mask):
    """A weight that is not masked yet, beside its projection z, the dual u and the number of renewals."""

    z: Tensor
    u: Tensor
    cycle: Tensor

    def __init__(self, weight: Tensor, count: int):
        super().__init__(weight)
        self.count = count
        self.register_buffer("z", weight * highest(weight.abs(), count))
        self.register_buffer("u", torch.zeros_like(weight))
        self.register_buffer("cycle", torch.tensor(0))

    def renew(self, weight: Tensor, growth: float) -> None:
        """Project w + u, keep in u what that leaves, scaled to the new rho."""
        both = weight + self.u
        self.z.copy_(both * highest(both.abs(), self.count))
        self.u.copy_((both - self.z) / growth)
        self.cycle += 1
