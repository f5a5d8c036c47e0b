"""Channels that nobody reads: cut out, without changing a single logit."""

from __future__ import annotations

import logging

import torch
from torch import Tensor, nn

from adamas.compress.example import example
from adamas.registry import register
from adamas.roles import Batches, Compressor, Threat
from adamas.surgery import ChannelGroup, Plan, channel_groups, rehearse, shrink
from adamas.weights import read_channels

log = logging.getLogger("adamas")


@register("compressor", "zero_channels")
class ZeroChannels(Compressor):
    """Removes the channels whose every reader gives them weights of zero, as quantization and pruning leave them behind.

    One channel of a group stays in any case. What a residual addition feeds goes only where all that read the sum ignore it.
    The plan is logged: how many of every group stay, and what is held back and why. Quantize after, not before.
    Source: Li, Wang, Xin 2021, section 3.3. Deviation: coupled channels (residual additions) go together or stay.
    """

    def attach(self, model: nn.Module) -> None:
        """Nothing: the widths are in the shapes of the saved weights."""

    def calibrate(self, model: nn.Module, batches: Batches, threat: Threat) -> None:
        """Find the channels, try the smaller network on a copy, and cut them out."""
        x, _ = example(batches, "zero_channels: expected a batch of images to try the smaller network on")
        groups = channel_groups(model, x)
        plan = rehearse(model, Plan(tuple(groups), tuple(_kept(model, group) for group in groups)), x)
        gone = sum(before - after for before, after in plan.widths.values())
        log.info("zero_channels: %d of %d channels go\n%s", gone, sum(group.width for group in groups), plan)
        if plan.removes:
            shrink(model, plan)


def _kept(model: nn.Module, group: ChannelGroup) -> tuple[int, ...]:
    """The channels of a group that any layer reads; the first where none is."""
    read = torch.zeros(group.width, dtype=torch.bool)
    for axis, at in group.axes.items():
        if not axis.produces:
            weight: Tensor = model.get_submodule(axis.layer).weight.detach().cpu()  # type: ignore[operator]
            read |= read_channels(weight, axis.blocks)[at].any(1)
    if group.blocked:
        return tuple(range(group.width))
    return tuple(read.nonzero().flatten().tolist()) or (0,)
