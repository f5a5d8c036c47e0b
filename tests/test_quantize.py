"""Where quantizers are placed, what attaching leaves alone, and the float twin."""

from __future__ import annotations

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils import parametrize

from adamas.compress.ptq import PTQ
from adamas.compress.quantizers import QuantizedBias, QuantizedWeight, activation_quantizers
from adamas.errors import AdamasError
from adamas.graph import trace
from adamas.models import normalized
from adamas.models.resnet import BasicBlock, ResNet18
from adamas.quantize import float_twin, quantized_nodes
from adamas.threat import Linf
from adamas.weights import bake

IMAGES = torch.rand(16, 3, 8, 8)


def places(model: nn.Module) -> list[str]:
    return [node.name for node in quantized_nodes(model, trace(model))]


def quantized(model: nn.Module, **settings) -> nn.Module:
    method = PTQ(**settings)
    method.attach(model)
    method.calibrate(model, [(IMAGES, torch.zeros(16))], Linf(eps=0.1))
    return model.eval()


class Functional(nn.Module):
    """Everything that networks write as functions and methods."""

    def __init__(self):
        super().__init__()
        self.first, self.second, self.third = nn.Conv2d(3, 4, 1), nn.Conv2d(4, 4, 1), nn.Conv2d(8, 4, 1)
        self.last = nn.Linear(16, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = F.max_pool2d(F.relu(self.first(x)), 2)
        y = self.second(x)
        y += x
        z = torch.cat([y, x.relu()], 1)
        z = F.adaptive_avg_pool2d(self.third(z * 2), 2)
        return F.log_softmax(self.last(z.view(z.size(0), -1)), 1)


def test_in_a_residual_network_everything_but_the_logits_is_quantized_once():
    model = nn.Sequential(BasicBlock(3, 4, 2), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 10))
    quantized(model)
    assert [name.rpartition(".")[2] for name in activation_quantizers(model)] == [
        "after_input_1",  # the network's input
        "after__0_relu",  # conv1 + bn1 + relu
        "after__0_conv2",  # conv2 + bn2, an input of the addition
        "after__0_shortcut_0",  # the other
        "after__0_relu_1",  # the addition and its relu
        "after__1",  # the pooling
    ]


def test_the_first_quantizer_is_behind_the_normalisation():
    model = normalized(nn.Sequential(nn.Conv2d(3, 4, 1), nn.ReLU(), nn.Conv2d(4, 2, 1)), [0.5] * 3, [0.2] * 3)
    assert places(model) == ["normalize", "net_1"]


def test_functions_and_methods_are_placed_like_modules():
    assert places(Functional()) == [
        "x",
        "relu",  # the first convolution's, seen through max pooling
        "second",  # an input of the in-place addition
        "add",
        "relu_1",  # the other input of the concatenation
        "cat",
        "mul",  # a float operation whose result enters a convolution
        "third",
        "adaptive_avg_pool2d",
    ]


def test_scalars_and_scaled_additions_are_no_joins():
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(8, 8)

        def forward(self, x: Tensor) -> Tensor:
            y = self.layer(x)
            return torch.add(y, x, alpha=2) + 1

    assert places(Net()) == ["x"]


def test_logits_that_come_out_of_a_pooling_stay_float():
    model = nn.Sequential(nn.Conv2d(3, 10, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    assert places(model) == ["input_1", "_0"]


def test_a_layer_called_twice_has_one_weight_and_a_float_bias():
    class Twice(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv, self.last = nn.Conv2d(3, 3, 1), nn.Linear(192, 10)

        def forward(self, x: Tensor) -> Tensor:
            return self.last(self.conv(self.conv(x)).flatten(1))

    model = quantized(Twice())
    assert not parametrize.is_parametrized(model.conv, "bias") and parametrize.is_parametrized(model.last, "bias")
    assert len(activation_quantizers(model)) == 3


def test_only_narrow_networks_round_their_biases():
    assert any(isinstance(m, QuantizedBias) for m in quantized(Functional()).modules())
    assert not any(isinstance(m, QuantizedBias) for m in quantized(Functional(), weight_bits=12).modules())


def test_subclasses_with_their_own_forward_are_left_alone():
    class Standardised(nn.Conv2d):
        def forward(self, input: Tensor) -> Tensor:
            return F.conv2d(input, self.weight - self.weight.mean(), self.bias)

    model = nn.Sequential(Standardised(3, 4, 1), nn.Conv2d(4, 4, 1), nn.Flatten())
    quantized(model)
    assert [n for n, m in model.named_modules() if isinstance(m, QuantizedWeight)] == ["1.parametrizations.weight.0"]


def test_names_children_copies_and_modes_survive():
    model = normalized(ResNet18(width=4).build((3, 8, 8), 10), [0.5] * 3, [0.2] * 3)
    parameters = {name for name, _ in model.named_parameters() if "bn" not in name}
    quantized(model)
    kept = {name.replace("parametrizations.", "").replace(".original", "") for name in model.state_dict()}
    assert {name for name in parameters if "shortcut.1" not in name and not name.startswith("net.1.")} <= kept
    assert list(dict(model.named_children())) == ["normalize", "net", "activation_quantizers"]
    assert isinstance(model.net[3], BasicBlock) and all(not m.training for m in model.modules())
    assert torch.equal(copy.deepcopy(model)(IMAGES), model(IMAGES))


def test_attaching_twice_and_to_nothing_is_refused():
    model = quantized(Functional())
    with pytest.raises(AdamasError, match="expected a float model, got one that is quantized already; quantize in one stage"):
        PTQ().attach(model)
    with pytest.raises(AdamasError, match=r"expected a model that calls nn.Conv2d or nn.Linear layers, got none to quantize"):
        PTQ().attach(nn.Sequential(nn.Flatten(), nn.ReLU()))


def test_attaching_to_a_copy_leaves_a_parametrized_original_alone():
    class Same(nn.Module):
        def forward(self, weight: Tensor) -> Tensor:
            return weight * 1

    model = nn.Sequential(nn.Conv2d(3, 4, 1), nn.Flatten(), nn.Linear(256, 10))
    parametrize.register_parametrization(model[0], "weight", Same())
    before = model(IMAGES)
    bake(quantized(copy.deepcopy(model)))
    assert torch.equal(model(IMAGES), before) and list(model[0].parametrizations) == ["weight"]


def test_the_float_twin_is_the_network_before_rounding():
    model = normalized(ResNet18(width=4).build((3, 8, 8), 10), [0.5] * 3, [0.2] * 3).eval()
    before = model(IMAGES)
    quantized(model, weight_bits=4, activation_bits=4)
    after = model(IMAGES)
    assert not torch.allclose(after, before, atol=1e-3)
    assert torch.allclose(float_twin(model)(IMAGES), before, atol=1e-5)
    assert torch.equal(model(IMAGES), after) and activation_quantizers(float_twin(model)) == {}


def test_the_float_twin_of_a_float_model_is_a_copy():
    model = Functional().eval()
    assert torch.equal(float_twin(model)(IMAGES[..., :4, :4]), model(IMAGES[..., :4, :4]))


def test_calibration_leaves_modes_statistics_and_gradients_alone():
    model = nn.Sequential(nn.Conv2d(3, 4, 1), nn.ReLU(), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(256, 10)).train()
    method = PTQ()
    method.attach(model)
    method.calibrate(model, [(IMAGES, torch.zeros(16))], Linf(eps=0.1))
    assert all(module.training for module in model.modules())
    assert model[2].num_batches_tracked == 0 and all(p.grad is None for p in model.parameters())
