"""Multiply-accumulates of a network as a function of the shares of channels that its groups keep."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from adamas.channels import ChannelGroup, weight_layers
from adamas.cost import uses
from adamas.surgery import Plan, plan_widths


class ChannelCost:
    """Cost of the layers that touch these groups: in proportion to the share of filters and to the share of inputs they keep.

    `example`: images (N, C, H, W) to count on. A dimension that several groups share loses what each of them loses.
    """

    def __init__(self, model: nn.Module, groups: Sequence[ChannelGroup], example: Tensor):
        self.groups, self.example = tuple(groups), example
        touched = {axis.layer for group in groups for axis in group.axes}
        layers = {name: layer for name, layer in weight_layers(model).items() if name in touched}
        times = uses(model, layers, example[:1])
        self.whole = torch.tensor([n * layer.weight.numel() for n, layer in zip(times, layers.values(), strict=True)])
        self.parts = torch.zeros(2, len(layers), len(groups))  # of each layer's filters and inputs, the share of each group
        rows = {f"{name}.weight".lstrip("."): row for row, name in enumerate(layers)}
        for column, group in enumerate(groups):
            for axis, at in group.axes.items():
                if axis.tensor in rows:
                    length = axis.length({axis.tensor: layers[axis.layer].weight})
                    self.parts[axis.dim, rows[axis.tensor], column] = at.numel() / length

    def __call__(self, shares: Tensor) -> Tensor:
        """The share of multiply-accumulates left where group i keeps `shares[i]` of its channels; differentiable."""
        whole, parts = self.whole.to(shares), self.parts.to(shares)
        return (whole * (1 - parts @ (1 - shares)).prod(0)).sum() / whole.sum()

    def of(self, plan: Plan) -> float:
        """What a plan for exactly these groups costs."""
        return float(self(torch.tensor([after / before for before, after in plan.widths.values()])))


def affordable(cost: ChannelCost, scores: Sequence[Tensor], shares: Sequence[float], budget: float, round_to: int) -> Plan:
    """The plan near the largest multiple of these shares, none above 1, that costs at most the budget.

    What rounding leaves of the budget goes to the groups that it cost the most, one multiple of `round_to` at a time.
    """

    def at(shares: Sequence[float]) -> Plan:
        return plan_widths(cost.groups, scores, [min(1.0, max(1e-6, share)) for share in shares], round_to)

    def within(plan: Plan) -> bool:
        return cost.of(plan) <= budget * (1 + 1e-6)

    low, high = 0.0, 1 / max(1e-4, min(shares))
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if within(at([middle * share for share in shares])) else (low, middle)
    plan = at([low * share for share in shares])
    while True:
        kept = [after / before for before, after in plan.widths.values()]
        grown = [at([*kept[:i], kept[i] + 1 / group.width, *kept[i + 1 :]]) for i, group in enumerate(cost.groups)]
        fits = [i for i, more in enumerate(grown) if kept[i] < 1 and within(more)]
        if not fits:
            return plan
        plan = grown[max(fits, key=lambda i: (low * shares[i] - kept[i]) * cost.groups[i].width)]
