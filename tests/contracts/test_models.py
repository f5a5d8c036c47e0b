"""What every registered model must keep, and the parameter counts that papers print."""

from __future__ import annotations

from dataclasses import fields

import pytest
import torch
from torch import nn

from adamas.channels import weight_layers
from adamas.compress.filters import Filters
from adamas.deploy.export import export_onnx
from adamas.deploy.runtime import OnnxModel
from adamas.graph import calls, trace
from adamas.models.cnn8 import CNN8
from adamas.models.googlenet import GoogLeNet
from adamas.models.lenet import CNN4, LeNet
from adamas.models.mobilenet import MobileNetV2
from adamas.models.resnet import ResNet18, ResNet20, ResNet50
from adamas.models.vgg import VGG16
from adamas.models.wide_resnet import WideResNet
from adamas.noise import without_noise
from adamas.registry import registered
from adamas.surgery import remove_channels
from adamas.threat import Linf
from tests.helpers import made

MODELS = registered("model")
SHAPE = (3, 32, 32)


@pytest.fixture(params=MODELS)
def cls(request) -> type:
    return MODELS[request.param]


def narrow(cls: type, seed: int = 0) -> nn.Module:
    """A random network with the default settings but a width of 8, where there is one, and without noise."""
    torch.manual_seed(seed)
    width = {"width": 8} if any(field.name == "width" and type(field.default) is int for field in fields(cls)) else {}
    return without_noise(made(cls, **width).build(SHAPE, 7))


def test_images_become_logits_and_the_gradient_reaches_every_parameter(cls):
    model = narrow(cls)
    logits = model(torch.rand(4, *SHAPE))
    assert logits.shape == (4, 7) and logits.dtype == torch.float32
    logits.square().sum().backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None and parameter.grad.isfinite().all(), name
        assert parameter.dim() == 1 or parameter.grad.abs().sum() > 0, name


def test_a_single_image_is_classified_as_it_is_in_a_batch(cls):
    model, x = narrow(cls).eval(), torch.rand(3, *SHAPE)
    with torch.no_grad():
        torch.testing.assert_close(model(x[:1]), model(x)[:1], rtol=1e-4, atol=1e-5)


def test_equal_seeds_draw_equal_weights(cls):
    first, second, third = (list(narrow(cls, seed).parameters()) for seed in (1, 1, 2))
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))
    assert not all(torch.equal(a, b) for a, b in zip(first, third, strict=True))


def test_every_module_is_called_once_and_the_exported_file_gives_the_same_logits(cls, tmp_path):
    model, x = narrow(cls).eval(), torch.rand(3, *SHAPE)
    assert set(calls(trace(model)).values()) == {1}
    with torch.no_grad():
        torch.testing.assert_close(
            OnnxModel(export_onnx(model, tmp_path / "m.onnx", SHAPE), 1)(x), model(x), rtol=1e-4, atol=1e-5
        )


def test_half_of_the_filters_of_every_group_can_be_removed(cls):
    model, x = narrow(cls).eval(), torch.rand(2, *SHAPE)
    filters = Filters(keep=0.5, round_to=1)
    plan = remove_channels(model, filters.plan(model, [(x, torch.zeros(2))], Linf()), x)
    assert plan.widths and all(after == -(-before // 2) for before, after in plan.widths.values()) and not plan.held_back
    assert model(x).shape == (2, 7)


def built(architecture, image_shape: tuple[int, int, int], classes: int = 10) -> nn.Module:
    """Only the shapes."""
    with torch.device("meta"):
        return architecture.build(image_shape, classes)


@pytest.mark.parametrize(
    ("architecture", "image_shape", "params"),
    [
        (CNN8(), (1, 28, 28), 549_994),
        (GoogLeNet(), SHAPE, 6_166_250),
        (LeNet(), (1, 28, 28), 431_080),
        (MobileNetV2(), SHAPE, 2_296_922),
        (ResNet18(), SHAPE, 11_173_962),
        (ResNet20(), SHAPE, 269_722),
        (ResNet20(shortcut="B"), SHAPE, 272_474),
        (ResNet20(depth=110), SHAPE, 1_727_962),
        (VGG16(), SHAPE, 15_311_818),
        (WideResNet(), SHAPE, 5_849_050),
        (WideResNet(widen=10), SHAPE, 36_479_194),
    ],
)
def test_published_parameter_counts(architecture, image_shape, params):
    assert sum(parameter.numel() for parameter in built(architecture, image_shape).parameters()) == params


def test_resnet50_has_the_published_parameter_count_at_a_thousand_classes():
    assert sum(parameter.numel() for parameter in built(ResNet50(), (3, 224, 224), 1000).parameters()) == 25_557_032


@pytest.mark.parametrize(
    ("architecture", "image_shape", "layers", "weights"),
    [
        (CNN4(), (1, 28, 28), 4, 166_248),
        (ResNet18(), SHAPE, 21, 11_164_352),
        (VGG16(), SHAPE, 16, 15_302_848),
        (WideResNet(), SHAPE, 29, 5_841_840),
    ],
)
def test_the_weights_that_pruning_papers_count(architecture, image_shape, layers, weights):
    sizes = [layer.weight.numel() for layer in weight_layers(built(architecture, image_shape)).values()]
    assert (len(sizes), sum(sizes)) == (layers, weights)
