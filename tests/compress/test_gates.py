from __future__ import annotations

import pytest
import torch
from torch import nn

from adamas.channels import channel_groups
from adamas.compress.channel_cost import ChannelCost
from adamas.compress.gates import GroupMask, attach_gate, group_masks, remove_gates
from adamas.compress.masks import LearnedRate, Ranked
from adamas.models.googlenet import GoogLeNet
from adamas.models.mobilenet import MobileNetV2
from adamas.models.resnet import ResNet18, ResNet20
from adamas.models.vgg import VGG16
from adamas.models.wide_resnet import WideResNet
from adamas.surgery import plan_widths, remove_channels

X = torch.rand(2, 3, 32, 32)


def gated(model: nn.Module, keep: float = 0.5) -> nn.Module:
    """Random scores on every group."""
    groups = channel_groups(model, X)
    cost = ChannelCost(model, groups, X)
    for group in groups:
        count = plan_widths([group], [torch.rand(group.width)], keep, 1).widths[group.name][1]
        attach_gate(model, GroupMask(Ranked(torch.rand(group.width), True, count, runs=group.blocks), group, cost, 1.0, []))
    return model


def grouped() -> nn.Module:
    return nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.Conv2d(8, 12, 3, groups=2), nn.ReLU(), nn.Conv2d(12, 4, 1),
                         nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(16, 3))  # fmt: skip


NETWORKS = {
    "residual": lambda: ResNet18(width=8).build((3, 32, 32), 10),
    "selections": lambda: ResNet20(depth=8, width=4).build((3, 32, 32), 10),
    "grouped": grouped,
    "depthwise": lambda: MobileNetV2().build((3, 32, 32), 10),
    "concatenated": lambda: GoogLeNet().build((3, 32, 32), 10),
    "plain": lambda: VGG16().build((3, 32, 32), 10),
    "preactivated": lambda: WideResNet(depth=10, widen=1).build((3, 32, 32), 10),
}


@pytest.mark.parametrize("network", NETWORKS)
def test_a_hidden_channel_is_as_good_as_removed(network):
    torch.manual_seed(0)
    model = gated(NETWORKS[network]()).eval()
    for norm in (module for module in model.modules() if isinstance(module, nn.BatchNorm2d)):
        nn.init.uniform_(norm.bias)  # a channel without weights is no channel of zeros
    with torch.no_grad():
        hidden = model(X)
    masks = group_masks(model)
    plan = plan_widths(masks[0].cost.groups, [mask.ranked.ranking.detach() for mask in masks],
                       [mask.ranked.count / mask.group.width for mask in masks], 1)  # fmt: skip
    remove_gates(model)
    with torch.no_grad():
        assert not torch.allclose(model(X), hidden, atol=1e-6)
        plan = remove_channels(model, plan, X)
        assert not plan.held_back and plan.macs and plan.macs[1] < 0.6 * plan.macs[0]
        assert torch.allclose(model(X), hidden, rtol=1e-4, atol=1e-5 * float(hidden.abs().max()))
    assert plan.macs[1] / plan.macs[0] == pytest.approx(masks[0].cost.of(plan), abs=0.005)  # norms and poolings are free


def test_all_readers_of_a_channel_share_one_entry_and_its_gradient():
    model = nn.Sequential(nn.Conv2d(1, 3, 1, bias=False), nn.Conv2d(3, 2, 1, bias=False), nn.Flatten(), nn.Linear(2, 2))
    x = torch.rand(1, 1, 1, 1)
    groups = channel_groups(model, x)
    ranked = Ranked(torch.tensor([0.1, -3, 2]), True, 2, LearnedRate(0.5, 0.01))
    attach_gate(model, GroupMask(ranked, groups[0], ChannelCost(model, groups, x), 1.0, []))
    second = model[1].parametrizations.weight.original
    assert torch.equal(model[1].weight, second * torch.tensor([0, 1.0, 1]).view(1, 3, 1, 1))  # kept(.5, 3) = 2
    upstream = torch.rand(2, 3, 1, 1)
    (model[1].weight * upstream).sum().backward()
    by_channel = (second * upstream).sum((0, 2, 3)).detach()
    assert torch.allclose(ranked.scores.grad, by_channel * torch.tensor([1.0, -1, 1]))
    rate = ranked.rate
    slope = (1 - rate.floor) * rate.quota.sigmoid() * (1 - rate.quota.sigmoid())
    assert torch.allclose(rate.quota.grad, by_channel.sum() * slope.detach())


def test_costs_multiply_over_the_dimensions_of_a_layer_and_are_differentiable():
    model = nn.Sequential(nn.Conv2d(1, 4, 1), nn.Conv2d(4, 2, 1), nn.Flatten(), nn.Linear(2 * 9, 5))
    x = torch.rand(1, 1, 3, 3)
    groups = channel_groups(model, x)
    cost = ChannelCost(model, groups, x)
    whole = 9 * 4 + 9 * 8 + 90
    shares = torch.tensor([0.5, 0.25], requires_grad=True)
    got = cost(shares)
    assert got.item() == pytest.approx((36 * 0.5 + 72 * 0.5 * 0.25 + 90 * 0.25) / whole)
    (grad,) = torch.autograd.grad(got, shares)
    assert grad.tolist() == pytest.approx([(36 + 72 * 0.25) / whole, (72 * 0.5 + 90) / whole])
