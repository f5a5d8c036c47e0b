"""What every registered model must keep, and the parameter counts that papers print."""

from __future__ import annotations

from dataclasses import fields

import pytest
import torch
from torch import nn

from adamas.models.cnn8 import CNN8
from adamas.models.resnet import ResNet18
from adamas.registry import registered
from tests.helpers import made

MODELS = registered("model")
SHAPE = (3, 32, 32)


@pytest.fixture(params=MODELS)
def cls(request) -> type:
    return MODELS[request.param]


def narrow(cls: type, seed: int = 0) -> nn.Module:
    """A random network with the default settings but a width of 8, where there is one."""
    torch.manual_seed(seed)
    width = {"width": 8} if any(field.name == "width" and type(field.default) is int for field in fields(cls)) else {}
    return made(cls, **width).build(SHAPE, 7)


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


@pytest.mark.parametrize(
    ("architecture", "image_shape", "params"),
    [(CNN8(), (1, 28, 28), 549_994), (ResNet18(), (3, 32, 32), 11_173_962)],
)
def test_published_parameter_counts(architecture, image_shape, params):
    assert sum(parameter.numel() for parameter in architecture.build(image_shape, 10).parameters()) == params
