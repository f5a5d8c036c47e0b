from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from adamas.compress.filters import Filters
from adamas.errors import AdamasError
from adamas.models.resnet import BasicBlock, Bottleneck, ResNet20, ResNet50, selection
from adamas.surgery import remove_channels
from adamas.threat import Linf


def test_a_selection_picks_every_second_pixel_and_pads_channels_of_zeros():
    x = torch.rand(2, 4, 5, 6)
    layer = selection(4, 8, 2)
    assert torch.equal(layer(x), F.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, 2, 2)))
    assert not list(layer.parameters()) and list(layer.state_dict()) == ["weight"]


def test_a_selection_survives_the_state_dict_and_the_surgery_as_a_selection():
    model = ResNet20(depth=8, width=4).build((3, 8, 8), 10).eval()
    x = torch.rand(2, 3, 8, 8)
    remove_channels(model, Filters(keep=0.5, round_to=1).plan(model, [(x, torch.zeros(2))], Linf()), x)
    weights = [block.shortcut.weight for block in model if isinstance(block, BasicBlock) and hasattr(block.shortcut, "weight")]
    assert [tuple(weight.shape) for weight in weights] == [(4, 2, 1, 1), (8, 4, 1, 1)]
    assert all(set(weight.unique().tolist()) <= {0.0, 1.0} and not weight.requires_grad for weight in weights)


@pytest.mark.parametrize("depth", [20, 32, 44, 56, 110])
def test_depth_counts_the_layers_with_weights_on_the_longest_path(depth):
    model = ResNet20(depth=depth, width=1).build((3, 32, 32), 10)
    layers = [layer for layer in model.modules() if isinstance(layer, nn.Linear) or getattr(layer, "kernel_size", 0) == (3, 3)]
    assert len(layers) == depth


def test_an_impossible_depth_is_refused_with_its_neighbours():
    with pytest.raises(AdamasError, match=r"depth: expected 6n\+2 \(20, 32, 44, 56, 110\), got 49; the nearest are 44 and 50"):
        ResNet20(depth=49)


def test_the_stride_of_a_bottleneck_is_in_its_3x3_convolution_and_large_images_shrink_by_32():
    block = Bottleneck(8, 16, 2)
    assert (block.conv1.stride, block.conv2.stride, block.conv3.stride) == ((1, 1), (2, 2), (1, 1))
    model = ResNet50(width=4).build((3, 96, 64), 10)
    assert nn.Sequential(*model[:-3])(torch.rand(2, 3, 96, 64)).shape == (2, 128, 3, 2)
