"""Filter pruning by ADMM: filters are drawn towards their own pruned version until removing channels costs little."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, NamedTuple

import torch
from annotated_types import Ge, Gt
from torch import Tensor, nn
from torch.nn.utils import parametrize

from adamas.compress.admm import Split, augmented, due, residual
from adamas.compress.example import example
from adamas.compress.filters import channel_scores, convolution_groups
from adamas.compress.masks import mask_of, masked_layers
from adamas.registry import Count, Number, Share, register
from adamas.roles import Batches, Compressor, Threat
from adamas.surgery import ChannelGroup, Plan, plan_widths, rehearse, remove_channels
from adamas.weights import drop, original

log = logging.getLogger("adamas")


@register("compressor", "admm_filters")
class ADMMFilters(Compressor):
    """Trains the weights under rho / 2 * |w - z + u|^2, z being w + u without the filters of lowest norm, then removes these.

    `keep` is the share of channels that remains in every group. z and the dual u are renewed `cycles` times over the stage,
    after each of which rho grows by `growth`; u starts at zero. The relative residual |w - z|^2 / |w|^2 is logged at every
    renewal. `round_to` rounds widths up to a multiple (1: exactly as the paper), `exclude` names layers whose channels stay, as
    names or patterns. Groups without a convolution that trains stay too, but linear layers lose the inputs that are gone.
    Source: Ye et al. 2019 (R-ADMM), equations 4 to 8, filter-wise; Boyd et al. 2011, section 3.4.1. Deviation: coupled layers
    (residual additions) are one group, ranked by the sum of squares of all weights that make a channel, so that the requested
    share really goes; widths are rounded up to a multiple of 8, which runs faster; u shrinks when rho grows, and rho starts at
    .05 and grows by 1.6, as in `admm`.
    """

    keep: Share = 0.5
    rho: Annotated[Number, Gt(0)] = 0.05
    growth: Annotated[Number, Ge(1)] = 1.6
    cycles: Count = 10
    round_to: Count = 8
    exclude: tuple[str, ...] = ()

    @property
    def needs_fit(self) -> bool:
        return True

    @property
    def unsettled(self) -> float:
        return 1.0

    def attach(self, model: nn.Module) -> None:
        """Nothing: the widths are in the shapes of the saved weights, and `resize_to` reads them from there."""

    def calibrate(self, model: nn.Module, batches: Batches, threat: Threat) -> None:
        """Project the weights as they are now; the images only tell whether the smaller network runs.

        Errors: no image, no channels that can be removed.
        """
        x, _ = example(batches, "admm_filters: expected a batch of images to try the smaller network on")
        found = convolution_groups(model, x, self.exclude)
        groups = [group for group in found if group.blocked or _filters(model, [group])]
        plan = rehearse(model, self._plan(model, groups, _filters(model, groups)), x)
        plan.check()
        groups = [group for group in groups if group.name not in plan.held_back]
        filters = _filters(model, groups)
        z = pruned(filters, self._plan(model, groups, filters))
        for name, weight in filters.items():
            split = Split(weight, z[name], Removal(groups, x))
            parametrize.register_parametrization(model.get_submodule(name), "weight", split)

    def penalty(self, model: nn.Module, progress: float) -> Tensor | float:
        return augmented(list(_splits(model).values()), self.rho, self.growth)

    @torch.no_grad()
    def after_step(self, model: nn.Module, progress: float) -> None:
        """Renew z and u where a cycle ends."""
        splits = _splits(model)
        pairs = list(splits.values())
        if not due(pairs, progress, self.cycles):
            return
        both = {name: weight + split.u for name, (weight, split) in splits.items()}
        z = pruned(both, self._plan(model, pairs[0][1].kept.groups, both))
        for name, (_, split) in splits.items():
            split.renew(both[name], z[name], self.growth)
        log.info("admm_filters: relative residual %.3g after cycle %d", residual(pairs), int(pairs[0][1].cycle))

    @torch.no_grad()
    def finish(self, model: nn.Module) -> None:
        """Remove the filters of lowest norm physically, at the widths that were drawn towards."""
        splits = _splits(model)
        if not splits:
            return
        removal: Removal = next(iter(splits.values()))[1].kept
        plan = self._plan(model, removal.groups, {name: weight for name, (weight, _) in splits.items()})
        for name in splits:
            drop(model.get_submodule(name), Split)
        log.info("%s", remove_channels(model, plan, removal.example))

    def _plan(self, model: nn.Module, groups: Sequence[ChannelGroup], filters: Mapping[str, Tensor]) -> Plan:
        """What goes where the layers have these filters, by name."""
        squares = {name: weight.square() for name, weight in filters.items()}
        scores = [channel_scores(model, group, squares) for group in groups]
        return plan_widths(groups, scores, self.keep, self.round_to)


class Removal(NamedTuple):
    """The groups that lose channels, and images to try the smaller network on."""

    groups: Sequence[ChannelGroup]
    example: Tensor


def pruned(filters: Mapping[str, Tensor], plan: Plan) -> dict[str, Tensor]:
    """The same filters, by layer name, those of removed channels zero: the nearest that a plan by their norms allows."""
    z = dict(filters)
    for group, kept in zip(plan.groups, plan.kept, strict=True):
        goes = sorted(set(range(group.width)) - set(kept))
        for axis, at in group.axes.items():
            if axis.produces and axis.tensor.endswith("weight") and axis.layer in z:
                z[axis.layer] = z[axis.layer].index_fill(0, at[goes].flatten().to(z[axis.layer].device), 0)
    return z


def _filters(model: nn.Module, groups: Sequence[ChannelGroup]) -> dict[str, Tensor]:
    """The weights that make channels of these groups and train, by layer name; the others are fixed selections."""
    layers: dict[str, Any] = {name: model.get_submodule(name) for group in groups for name in group.layers}
    return {name: layer.weight.detach() for name, layer in layers.items() if original(layer).requires_grad}


def _splits(model: nn.Module) -> dict[str, tuple[Tensor, Split]]:
    """The weights under this penalty and their splits, by layer name."""
    layers = masked_layers(model, ())
    return {name: (layer.weight, mask_of(layer)) for name, layer in layers.items() if isinstance(mask_of(layer), Split)}
