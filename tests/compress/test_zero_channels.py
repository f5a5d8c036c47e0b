"""Channels that nobody reads go, without a change of the logits; what is read stays."""

from __future__ import annotations

import logging

import pytest
import torch
from torch import nn

from adamas.compress.binary_relax import BinaryRelax
from adamas.compress.zero_channels import ZeroChannels
from adamas.cost import cost
from adamas.models.enresnet import EnResNet
from adamas.models.resnet import ResNet20
from adamas.noise import without_noise
from adamas.threat import Linf
from tests.helpers import SmallNet

THREAT = Linf(eps=0.1)


def batches(x: torch.Tensor) -> list[tuple[torch.Tensor, torch.Tensor]]:
    return [(x, torch.zeros(len(x), dtype=torch.long))]


def cut(model: nn.Module, x: torch.Tensor) -> nn.Module:
    compressor = ZeroChannels()
    compressor.attach(model)
    compressor.calibrate(model, batches(x), THREAT)
    compressor.finish(model)
    return model


def test_unread_channels_go_and_the_logits_stay(caplog):
    torch.manual_seed(0)
    model, x = SmallNet().eval(), torch.rand(3, 1, 8, 8)
    with torch.no_grad():
        model[3].weight[:, [1, 4, 5]] = 0  # of the first convolution's eight channels
        model[9].weight.view(16, 16, 4)[:, 7] = 0  # one of the second's sixteen, four pixels wide
        model[9].weight.view(16, 16, 4)[:, 8, :3] = 0  # one that a single pixel still reads
        before = model(x)
    with caplog.at_level(logging.INFO, "adamas"):
        cut(model, x)
    assert (len(model[0].weight), len(model[3].weight)) == (5, 15)
    torch.testing.assert_close(model(x).detach(), before)
    assert "zero_channels: 4 of 40 channels go" in caplog.text


def test_one_channel_stays_where_none_is_read_and_nothing_goes_where_all_are():
    model, x = SmallNet().eval(), torch.rand(3, 1, 8, 8)
    sizes = [len(p) for p in model.parameters()]
    assert [len(p) for p in cut(model, x).parameters()] == sizes
    with torch.no_grad():
        model[3].weight.zero_()
        before = model(x)
    assert len(cut(model, x)[0].weight) == 1
    torch.testing.assert_close(model(x).detach(), before)


@pytest.mark.parametrize("architecture", [ResNet20(depth=8, width=4), EnResNet(depth=8, width=4)], ids=["resnet", "enresnet"])
def test_a_residual_sum_keeps_what_any_of_its_readers_needs(architecture):
    torch.manual_seed(0)
    model, x = architecture.build((3, 16, 16), 10).eval(), torch.rand(2, 3, 16, 16)
    block = next(module for module in model if hasattr(module, "conv2"))
    with torch.no_grad():
        block.conv2.weight[:, 2] = 0  # inside the block: free to go
        block.conv1.weight[:, 1] = 0  # on the sum, which the addition reads too
        before = without_noise(model)(x)
    widths = {name: len(layer.weight) for name, layer in model.named_modules() if isinstance(layer, nn.Conv2d)}
    cut(model, x)
    after = {name: len(layer.weight) for name, layer in model.named_modules() if isinstance(layer, nn.Conv2d)}
    changed = {name: (widths[name], after[name]) for name in after if after[name] != widths[name]}
    assert list(changed.values()) == [(4, 3)] and next(iter(changed)).endswith("conv1")
    torch.testing.assert_close(without_noise(model)(x).detach(), before)


def test_ternary_weights_lose_channels_and_stay_ternary():
    torch.manual_seed(0)
    model, x = SmallNet(), torch.rand(3, 1, 8, 8)
    with torch.no_grad():
        model[3].weight[:, 2] *= 1e-3
    compressor = BinaryRelax(levels="ternary")
    compressor.attach(model)
    compressor.calibrate(model, [], THREAT)
    compressor.finish(model)
    with torch.no_grad():
        before = model.eval()(x)
    counted = cost(model, (1, 8, 8))
    assert (counted.input_channels, counted.unread_channels) == (9, 1)
    cut(model, x)
    assert len(model[0].weight) == 7 and cost(model, (1, 8, 8)).unread_channels == 0
    assert len(model[3].weight.unique()) == 3
    torch.testing.assert_close(model(x).detach(), before)


@pytest.mark.parametrize(("depth", "channels"), [(20, 627), (32, 1075), (56, 1971), (110, 3987)])
def test_input_channels_are_counted_as_in_the_paper(depth, channels):
    assert cost(EnResNet(depth=depth).build((3, 32, 32), 10), (3, 32, 32)).input_channels == channels
