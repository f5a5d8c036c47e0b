from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from adamas.channels import channel_groups
from adamas.compress.filters import Filters
from adamas.compress.ptq import PTQ
from adamas.data import Images
from adamas.deploy.files import check_parity, export_files
from adamas.errors import AdamasError
from adamas.graph import trace
from adamas.models.enresnet import EnResNet, Ensemble
from adamas.models.wide_resnet import PreActivationBlock
from adamas.noise import Noise, draws_noise, without_noise
from adamas.registry import parse
from adamas.surgery import remove_channels
from adamas.threat import Linf

SMALL = (3, 9, 7)
IMAGES = torch.rand(64, *SMALL, generator=torch.Generator().manual_seed(1))


def small(members: int = 1, **settings) -> nn.Module:
    return EnResNet(depth=8, width=4, members=members, **settings).build(SMALL, 10)


@pytest.mark.parametrize(
    ("depth", "params", "in_3x3", "inputs"),
    [
        (20, 272_282, 267_696, 627),
        (32, 466_714, 461_232, None),
        (44, 661_146, 654_768, None),
        (56, 855_578, 848_304, 1971),
        (110, 1_730_522, 1_719_216, 3987),
    ],
)
def test_published_parameter_counts(depth, params, in_3x3, inputs):
    with torch.device("meta"):
        model = EnResNet(depth=depth).build((3, 32, 32), 10)
    layers = [layer for layer in model.modules() if isinstance(layer, nn.Conv2d) and layer.kernel_size == (3, 3)]
    assert sum(parameter.numel() for parameter in model.parameters()) == params
    assert sum(layer.weight.numel() for layer in layers) == in_3x3 and len(layers) == depth - 1
    assert inputs in (None, sum(layer.in_channels for layer in layers))


@pytest.mark.parametrize("members", [1, 2, 5])
def test_the_logits_of_independent_members_are_averaged(members):
    model = without_noise(small(members).eval())
    nets = list(model.members) if isinstance(model, Ensemble) else [model]
    assert len(nets) == members and len({net[0].weight[0, 0, 0, 0].item() for net in nets}) == members
    torch.testing.assert_close(model(IMAGES), sum(net(IMAGES) for net in nets) / members)
    assert sum(p.numel() for p in model.parameters()) == members * sum(p.numel() for p in nets[0].parameters())


@pytest.mark.parametrize("shape", [(1, 8, 8), (3, 33, 20), (1, 28, 28), (1, 1, 1)])
def test_any_image_size_works(shape):
    model = EnResNet(depth=8, width=2, members=2).build(shape, 3)
    model(torch.rand(4, *shape)).sum().backward()
    assert all(parameter.grad is not None and parameter.grad.isfinite().all() for parameter in model.parameters())


def test_weights_are_normal_with_the_variance_that_the_outputs_set():
    model = EnResNet().build((3, 32, 32), 10)
    for layer in (layer for layer in model.modules() if isinstance(layer, nn.Conv2d) and layer.weight.numel() > 2000):
        expected = math.sqrt(2 / (layer.kernel_size[0] ** 2 * layer.out_channels))
        assert abs(layer.weight.std() / expected - 1) < 0.1 and abs(layer.weight.mean()) < 0.1 * expected


def test_every_block_is_followed_by_noise_with_the_models_settings():
    layers = list(small(noise=0.3, noise_scale="batch", noise_eval=False))
    blocks = [i for i, layer in enumerate(layers) if isinstance(layer, PreActivationBlock)]
    after = [layers[i + 1] for i in blocks]
    assert len(blocks) == 3 == sum(isinstance(layer, Noise) for layer in layers)
    assert {(layer.amount, layer.per, layer.in_eval) for layer in after} == {(0.3, "batch", False)}
    default = small()[2]
    assert (default.amount, default.per, default.in_eval) == (0.1, "sample", True)


@pytest.mark.parametrize("on", [True, False])
def test_noise_eval_decides_whether_two_passes_differ(on):
    model = small(noise_eval=on).eval()
    assert torch.equal(model(IMAGES), model(IMAGES)) != on and draws_noise(model) == on
    assert not torch.equal(model.train()(IMAGES), model(IMAGES))


@pytest.mark.parametrize("members", [1, 2])
def test_tracing_finds_the_same_channels_with_the_noise_on_and_those_inside_blocks_can_go(members):
    model = small(members).eval()
    groups = [(group.name, group.width, group.blocked) for group in channel_groups(model, IMAGES[:2])]
    assert groups == [(group.name, group.width, group.blocked) for group in channel_groups(without_noise(model), IMAGES[:2])]
    inside = [name for name, _, blocked in groups if name.endswith(".conv1") and not blocked]
    assert len(inside) == 3 * members and "conv1" in str(trace(model))
    plan = Filters(keep=0.5, round_to=1).plan(model, [(IMAGES[:8], torch.zeros(8))], Linf())
    assert remove_channels(model, plan, IMAGES[:2]).held_back == {} and model(IMAGES).shape == (64, 10)
    assert draws_noise(model) and model.get_submodule(inside[0]).out_channels == 2


@pytest.mark.parametrize("members", [1, 2])
def test_the_quantized_network_ships_as_integers_and_without_its_noise(members, tmp_path):
    model = small(members)
    for _ in range(10):
        model(IMAGES)  # statistics of the batch norms, of which those after an addition cannot be folded
    method = PTQ()
    method.attach(model)
    method.calibrate(model, [(IMAGES, torch.zeros(64))], Linf())
    files = export_files(model.eval(), tmp_path, SMALL)
    found = check_parity(model, files, Images(IMAGES, torch.zeros(64, dtype=torch.int64)))
    assert list(found) == ["model.fp32.onnx", "model.int8.onnx"] and draws_noise(model)
    assert found["model.fp32.onnx"]["largest_logit_difference"] < 1e-4
    assert found["model.int8.onnx"]["agreement"] >= 0.98


def test_impossible_settings_are_refused():
    with pytest.raises(AdamasError, match=r"depth: expected 6n\+2 \(20, 32, 44, 56, 110\), got 34; the nearest are 32 and 38"):
        EnResNet(depth=34)
    with pytest.raises(AdamasError, match=r"noise_scale: got 'image'.*Valid: batch, sample"):
        parse(EnResNet, {"noise_scale": "image"})
    with pytest.raises(AdamasError, match="noise: input should be greater than or equal to 0, got -0.1"):
        EnResNet(noise=-0.1)
