"""Filter pruning: whole channels are removed from groups of coupled layers, by any scores and at any rates."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from adamas.compress.channel_cost import ChannelCost, affordable
from adamas.compress.example import example
from adamas.compress.gates import GroupMask, attach_gate, group_masks, remove_gates
from adamas.compress.hardware import check_met, hardware_loss, press
from adamas.compress.masks import LearnedRate, Ranked, hold_still, kept
from adamas.rates import AnyRates
from adamas.rates.learned import Learned as LearnedRates
from adamas.rates.uniform import Uniform
from adamas.registry import Count, Share, register
from adamas.roles import Batches, Compressor, Threat
from adamas.scores import AnyScores
from adamas.scores.learned import scaled
from adamas.scores.magnitude import Magnitude
from adamas.surgery import ChannelGroup, Plan, channel_groups, plan_widths, rehearse, remove_channels, weight_layers
from adamas.weights import original

log = logging.getLogger("adamas")


@register("compressor", "filters")
class Filters(Compressor):
    """Removes the convolution filters of lowest score and leaves a smaller ordinary network.

    `keep` is the share of channels that remains in every group; rates other than uniform divide them otherwise, at no more
    multiply-accumulates than uniform ones. A channel's score is the sum of the `scores` of the weights that make it. Where
    scores or rates are learned, the stage needs a fit: it trains them and the norms while channels are hidden from whatever
    reads them and the weights stand still, and removes them at its end. `round_to` rounds widths up to a multiple (1: exactly
    as the paper), `exclude` names layers whose channels stay, as names or patterns. Groups without a convolution stay too,
    but linear layers lose the inputs that are gone.
    Source: Li et al. 2017, section 3; Thorsteinsson et al. 2024, section 3.2; HARP, channel pruning. Deviation: coupled layers
    (residual additions) share one mask and are ranked together, so that the requested share really goes; widths are rounded
    up to a multiple of 8, which runs faster.
    """

    keep: Share = 0.5
    scores: AnyScores = Magnitude()
    rates: AnyRates = Uniform()
    round_to: Count = 8
    exclude: tuple[str, ...] = ()

    @property
    def needs_fit(self) -> bool:
        return self.scores.learned or isinstance(self.rates, LearnedRates)

    @property
    def unsettled(self) -> float:
        return 1.0 if isinstance(self.rates, LearnedRates) else 0.0

    def attach(self, model: nn.Module) -> None:
        """Nothing: the widths are in the shapes of the saved weights, and `resize_to` reads them from there."""

    def calibrate(self, model: nn.Module, batches: Batches, threat: Threat) -> None:
        """Remove channels now and log the plan; where something is learned, hide them instead, to begin with."""
        x, groups, scores = self._scored(model, batches, threat)
        if self.needs_fit:
            self._gate(model, groups, scores, x)
        else:
            log.info("%s", remove_channels(model, self._plan(model, groups, scores, x), x))

    def plan(self, model: nn.Module, batches: Batches, threat: Threat) -> Plan:
        """What would be removed if nothing were learned, not yet rehearsed."""
        x, groups, scores = self._scored(model, batches, threat)
        return self._plan(model, groups, scores, x)

    def penalty(self, model: nn.Module, progress: float) -> Tensor | float:
        """The hardware loss of learned rates, on multiply-accumulates."""
        rates, excess = _pressed(group_masks(model))
        return hardware_loss(rates, excess) if rates else 0.0

    def after_step(self, model: nn.Module, progress: float) -> None:
        rates, excess = _pressed(group_masks(model))
        if rates and isinstance(self.rates, LearnedRates):
            press(rates, excess, self.rates.gamma)

    @torch.no_grad()
    def finish(self, model: nn.Module) -> None:
        """Remove the channels that learned masks hide, at exactly the budget, and let the weights train again."""
        masks = group_masks(model)
        if not masks:
            return
        cost, budget = masks[0].cost, masks[0].budget
        ranking = [mask.ranked.ranking.detach() for mask in masks]
        rates, excess = _pressed(masks)
        if rates:
            check_met(float(excess), self.keep)
            plan = affordable(cost, ranking, [float(rate()) for rate in rates], budget, self.round_to)
        else:
            shares = [mask.ranked.count / mask.group.width for mask in masks]
            plan = plan_widths(cost.groups, ranking, shares, self.round_to)
        remove_gates(model)
        for parameter in masks[0].still:
            parameter.requires_grad_(True)
        log.info("%s", remove_channels(model, plan, cost.example))

    def _scored(self, model: nn.Module, batches: Batches, threat: Threat) -> tuple[Tensor, list[ChannelGroup], list[Tensor]]:
        """Images to try networks on, the groups, and one score per channel of each."""
        x, batches = example(batches, "filters: expected a batch of images to try the smaller network on")
        groups = convolution_groups(model, x, self.exclude)
        return x, groups, self._scores(model, groups, batches, threat)

    def _scores(self, model: nn.Module, groups: Sequence[ChannelGroup], batches: Batches, threat: Threat) -> list[Tensor]:
        """One score per channel of every group."""
        rule = Magnitude() if self.scores.learned else self.scores
        layers = {name: model.get_submodule(name) for group in groups for name in group.layers}
        by_layer = dict(zip(layers, rule(model, layers, batches, threat), strict=True))
        found = [channel_scores(model, group, by_layer) for group in groups]
        return [scaled(score) for score in found] if self.scores.learned else found

    def _plan(self, model: nn.Module, groups: Sequence[ChannelGroup], scores: Sequence[Tensor], x: Tensor) -> Plan:
        """The plan at the rates of a rule, as costly as that at uniform ones."""
        uniform = plan_widths(groups, scores, self.keep, self.round_to)
        if isinstance(self.rates, Uniform) or not groups:
            return uniform
        cost = ChannelCost(model, groups, x)
        return affordable(cost, scores, self.rates(scores, scores, self.keep), cost.of(uniform), self.round_to)

    def _gate(self, model: nn.Module, groups: Sequence[ChannelGroup], scores: Sequence[Tensor], x: Tensor) -> None:
        """Hide channels from their readers, in all groups that can lose some."""
        uniform = rehearse(model, plan_widths(groups, scores, self.keep, self.round_to), x)
        uniform.check()
        free = [i for i, group in enumerate(groups) if group.name not in uniform.held_back]
        groups, scores = [groups[i] for i in free], [scores[i] for i in free]
        cost = ChannelCost(model, groups, x)
        budget = cost.of(plan_widths(groups, scores, self.keep, self.round_to))
        still = hold_still(weight_layers(model).values())
        if isinstance(self.rates, LearnedRates):
            shares = self.rates(scores, scores, self.keep)
            rates = [LearnedRate(share, self.rates.floor * self.keep) for share in shares]
            counts = [kept(share, group.width) for share, group in zip(shares, groups, strict=True)]
        else:
            rates = [None] * len(groups)
            counts = [len(channels) for channels in self._plan(model, groups, scores, x).kept]
        for group, score, rate, count in zip(groups, scores, rates, counts, strict=True):
            ranked = Ranked(score, self.scores.learned, count, rate, group.blocks)
            attach_gate(model, GroupMask(ranked, group, cost, budget, still))


def _pressed(masks: Sequence[GroupMask]) -> tuple[list[LearnedRate], Tensor]:
    """The learned rates, if there are any, and cost / budget - 1."""
    rates = [mask.ranked.rate for mask in masks if mask.ranked.rate is not None]
    if not rates:
        return [], torch.tensor(0.0)
    return rates, masks[0].cost(torch.stack([rate() for rate in rates])) / masks[0].budget - 1


def convolution_groups(model: nn.Module, x: Tensor, exclude: Sequence[str]) -> list[ChannelGroup]:
    """The groups that a convolution makes and no pattern excludes; `x`: images to trace the model with."""
    chosen = weight_layers(model, exclude)
    return [
        group
        for group in channel_groups(model, x)
        if chosen.keys() >= set(group.layers) and any(not isinstance(chosen[name], nn.Linear) for name in group.layers)
    ]


def channel_scores(model: nn.Module, group: ChannelGroup, scores: Mapping[str, Tensor]) -> Tensor:
    """Sum of the scores of the weights that make each channel of a group, by layer name in `scores`; shape (width,).

    Frozen filters (fixed selections, such as a shortcut that only picks channels) do not count, unless all are frozen.
    """
    made_by = [axis for axis in group.axes if axis.produces and axis.layer in group.layers and axis.tensor.endswith("weight")]
    trained = [axis for axis in made_by if original(model.get_submodule(axis.layer)).requires_grad] or made_by
    total = torch.zeros(group.width)
    for axis in trained:
        by_filter = scores[axis.layer].detach().float().flatten(1).sum(1).cpu()
        total += by_filter[group.axes[axis]].sum(1)
    return total
