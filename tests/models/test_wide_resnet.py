from __future__ import annotations

import pytest
import torch
from torch import nn

from adamas.errors import AdamasError
from adamas.models.wide_resnet import PreActivationBlock, WideResNet


def test_an_unchanged_shape_is_added_as_it_came_and_a_changed_one_is_projected_after_its_activation():
    x = torch.randn(2, 4, 6, 6)
    same, wider = PreActivationBlock(4, 4, 1).eval(), PreActivationBlock(4, 8, 2).eval()
    for block in (same, wider):
        nn.init.zeros_(block.conv2.weight)
    assert torch.equal(same(x), x)
    nn.init.ones_(wider.shortcut.weight)
    expected = wider.bn1(x).relu()[:, :, ::2, ::2].sum(1, keepdim=True).expand(-1, 8, -1, -1)
    torch.testing.assert_close(wider(x), expected)


def test_an_impossible_depth_is_refused_with_its_neighbours():
    with pytest.raises(AdamasError, match=r"depth: expected 6n\+4 \(16, 28, 34\), got 30; the nearest are 28 and 34"):
        WideResNet(depth=30)
