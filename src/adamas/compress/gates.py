"""Learned masks on channels: every weight that reads a channel of a group is masked by the same entry."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from adamas.channels import ChannelGroup
from adamas.compress.channel_cost import ChannelCost
from adamas.compress.masks import Ranked
from adamas.weights import drop


class GroupMask(nn.Module):
    """The mask of one group of channels, with what its removal takes.

    `cost` counts what all gated groups together cost, at most `budget`; `still`: parameters that do not train meanwhile.
    """

    def __init__(self, ranked: Ranked, group: ChannelGroup, cost: ChannelCost, budget: float, still: list[nn.Parameter]):
        super().__init__()
        self.ranked, self.group, self.cost, self.budget, self.still = ranked, group, cost, budget, tuple(still)


class Gate(nn.Module):
    """Hides from the weight of one layer the inputs that a group's mask hides; a hidden channel is as good as removed.

    `at` (width, positions) says where the group's channels are among the `length` inputs of the layer, `blocks` in how many
    groups a convolution reads them.
    """

    where: Tensor

    def __init__(self, mask: GroupMask, at: Tensor, length: int, blocks: int):
        super().__init__()
        self.mask, self.blocks = mask, blocks
        where = torch.full((length,), len(at))  # one past the last channel: not of this group, always read
        where[at] = torch.arange(len(at))[:, None].expand_as(at)
        self.register_buffer("where", where)

    def forward(self, weight: Tensor) -> Tensor:
        mask = self.mask.ranked()
        read = torch.cat([mask, mask.new_ones(1)])[self.where].view(self.blocks, -1)
        rows = read.repeat_interleave(len(weight) // self.blocks, 0) if self.blocks > 1 else read
        return weight * rows.view(*rows.shape, *[1] * (weight.dim() - 2))

    def right_inverse(self, weight: Tensor) -> Tensor:
        return weight


def attach_gate(model: nn.Module, mask: GroupMask) -> None:
    """Gate every layer that reads the channels of the mask's group."""
    for axis, at in mask.group.axes.items():
        if not axis.produces:
            layer: Any = model.get_submodule(axis.layer)
            length = layer.weight.shape[axis.dim] * axis.blocks
            gate = Gate(mask, at, length, axis.blocks).to(layer.weight.device)
            parametrize.register_parametrization(layer, "weight", gate)


def group_masks(model: nn.Module) -> list[GroupMask]:
    """The masks of all gates, each once, in the order of the groups."""
    masks = {module.mask for module in model.modules() if isinstance(module, Gate)}
    return sorted(masks, key=lambda mask: mask.cost.groups.index(mask.group))


def remove_gates(model: nn.Module) -> None:
    """Take all gates off again; the weights are what they were without."""
    for layer in list(model.modules()):
        drop(layer, Gate)
