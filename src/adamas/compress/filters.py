"""L1 filter pruning: whole channels are removed, the same share of every group of coupled channels."""

from __future__ import annotations

import logging
from typing import Any

import torch
from torch import Tensor, nn

from adamas.channels import Axis
from adamas.errors import AdamasError
from adamas.registry import Count, Share, register
from adamas.roles import Batches, Compressor, Threat
from adamas.surgery import ChannelGroup, Plan, channel_groups, plan_widths, remove_channels, weight_layers

log = logging.getLogger("adamas")


@register("compressor", "filters")
class Filters(Compressor):
    """Removes the convolution filters of smallest L1 norm and leaves a smaller ordinary network.

    `keep` is the share of channels that remains in every group, `round_to` rounds widths up to a multiple (1: exactly as
    the paper), `exclude` names layers whose channels stay, as names or patterns. Groups without a convolution stay too,
    but linear layers lose the inputs that are gone.
    Source: Li et al. 2017, section 3; Thorsteinsson et al. 2024, section 3.2. Deviation: coupled layers (residual
    additions) are ranked together, by the sum of their norms, so that the requested share really goes; widths are rounded
    up to a multiple of 8, which runs faster.
    """

    keep: Share = 0.5
    round_to: Count = 8
    exclude: tuple[str, ...] = ()

    def attach(self, model: nn.Module) -> None:
        """Nothing: the widths are in the shapes of the saved weights, and `resize_to` reads them from there."""

    def calibrate(self, model: nn.Module, batches: Batches, threat: Threat) -> None:
        """Remove the channels now; of the data only the shape of the first batch matters. The plan is logged."""
        for x, _ in batches:
            log.info("%s", remove_channels(model, self.plan(model, x[:4]), x[:4]))
            return
        raise AdamasError("filters: expected a batch of images to try the smaller network on, got none")

    def plan(self, model: nn.Module, example: Tensor) -> Plan:
        """What would be removed, not yet rehearsed; `example` is a batch of images (N, C, H, W)."""
        chosen = weight_layers(model, self.exclude)
        groups = [
            group
            for group in channel_groups(model, example)
            if chosen.keys() >= set(group.layers) and any(not isinstance(chosen[name], nn.Linear) for name in group.layers)
        ]
        return plan_widths(groups, [l1_scores(model, group) for group in groups], self.keep, self.round_to)


def l1_scores(model: nn.Module, group: ChannelGroup) -> Tensor:
    """Sum over the group's layers of the L1 norm of the filters that make each channel, shape (width,).

    Frozen filters (fixed selections, such as a shortcut that only picks channels) do not count, unless all are frozen.
    """
    made_by: dict[Axis, Any] = {axis: model.get_submodule(axis.layer).weight for axis in group.axes if _is_filter(axis, group)}
    trained = {axis: weight for axis, weight in made_by.items() if weight.requires_grad} or made_by
    scores = torch.zeros(group.width)
    for axis, weight in trained.items():
        norms = weight.detach().float().abs().flatten(1).sum(1).cpu()
        scores += norms[group.axes[axis]].sum(1)
    return scores


def _is_filter(axis: Axis, group: ChannelGroup) -> bool:
    return axis.produces and axis.layer in group.layers and axis.tensor.endswith("weight")
