from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from adamas.shortcuts import explicit_shortcuts
from adamas.surgery import channel_groups, plan_widths, remove_channels

X = torch.rand(3, 3, 7, 8)


class Padded(nn.Module):
    """Every second pixel, and as many channels of zeros below and above."""

    def __init__(self, channels: int):
        super().__init__()
        self.channels = channels

    def forward(self, x: Tensor) -> Tensor:
        return F.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, self.channels, self.channels))


class Residual(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem, self.conv = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 16, 3, stride=2, padding=1)
        self.shortcut, self.pool, self.fc = Padded(4), nn.AdaptiveAvgPool2d(1), nn.Linear(16, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.stem(x))
        return self.fc(self.pool(F.relu(self.conv(x) + self.shortcut(x))).flatten(1))


def test_a_padding_shortcut_becomes_a_frozen_selection_with_the_same_logits():
    model = Residual()
    before = model(X)
    assert explicit_shortcuts(model, X) == ["shortcut"]
    assert torch.equal(model(X), before) and model.training
    weight = model.shortcut.weight
    assert not weight.requires_grad and weight.shape == (16, 8, 1, 1)
    assert torch.equal(weight[4:12, :, 0, 0], torch.eye(8)) and weight.sum() == 8


def test_channels_can_then_be_removed_through_it():
    model = Residual()
    groups = channel_groups(model, X)
    held = remove_channels(model, plan_widths(groups[1:], [torch.rand(group.width) for group in groups[1:]], 1.0), X)
    assert not held.removes
    explicit_shortcuts(model, X)
    groups = channel_groups(model, X)
    plan = remove_channels(model, plan_widths(groups, [torch.rand(group.width) for group in groups], 0.5, 1), X)
    assert plan.widths == {"stem": (8, 4), "conv, shortcut": (16, 8)} and not plan.held_back
    assert not model.shortcut.weight.requires_grad and model.conv.weight.requires_grad


def test_modules_that_compute_something_else_are_left_alone():
    model = nn.Sequential(
        nn.Conv2d(3, 4, 1), nn.PixelUnshuffle(2), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 2)
    )
    x = torch.rand(2, 3, 8, 8)
    assert explicit_shortcuts(model, x) == [] and isinstance(model[1], nn.PixelUnshuffle)
